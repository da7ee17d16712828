// SPDX-License-Identifier: GPL-2.0-only

// CE-CoLLM's cloud with a client that does not keep to the protocol, beside one that does.

#include "support/catch.h"
#include "support/cloud-run.h"
#include "support/same-bits.h"

#include "sim/frame-pool.h"

#include <functional>
#include <limits>

using namespace splitllm;
using namespace splitllm::test;
using ns3::MilliSeconds;
using ns3::Seconds;
using ns3::Time;

namespace
{

constexpr std::uint32_t kVictim = 7;
constexpr std::uint32_t kOther = 8;
constexpr std::size_t kPrompt = 19;
constexpr std::size_t kTokens = 12;
constexpr std::size_t kContext = 40;
constexpr std::uint32_t kFarthest = std::numeric_limits<std::uint32_t>::max();

/// What a client that keeps to the protocol got.
struct Served
{
    std::vector<RawClient::Reply> replies; //!< with their instants
    Answer answer;
};

/// What the other client does, when the first one has been served for a while.
using Misbehaviour = std::function<void(RawClient&, const Dialogue&)>;

/// A run with a client that asks for every token, and with another one if it is to do something.
class TwoClients
{
  public:
    TwoClients(const CloudSetup& setup, const Dialogue& dialogue, const Misbehaviour& misbehaviour)
        : run(setup)
    {
        m_victim = &run.NewClient(kVictim);
        for (std::size_t index = 0; index < kTokens; index++)
        {
            const std::size_t first = index == 0 ? 0 : dialogue.PositionOf(index);
            const std::size_t rows = dialogue.PositionOf(index) + 1 - first;
            CloudRun::At(MilliSeconds(3 + 5 * static_cast<int>(index)), [this, &dialogue, first, rows] {
                m_victim->Upload(dialogue, 4, first, rows);
                m_victim->Ask(4, first + rows - 1);
            });
        }
        CloudRun::At(MilliSeconds(100), [this] { m_victim->End(4); });
        if (misbehaviour)
        {
            other = &run.NewClient(kOther);
            CloudRun::At(MilliSeconds(31), [this, &dialogue, misbehaviour] { misbehaviour(*other, dialogue); });
        }
        CloudRun::Until(Seconds(3));
    }

    /// What the first client got.
    Served TheFirst() const
    {
        Served served;
        served.replies = m_victim->Replies();
        served.answer.tokens = m_victim->Tokens();
        for (const CloudRun::Chosen& chosen : run.chosen)
        {
            if (chosen.session == kVictim)
            {
                served.answer.logits.push_back(chosen.logits);
            }
        }
        return served;
    }

    CloudRun run;
    RawClient* other = nullptr;

  private:
    RawClient* m_victim;
};

/// A message that the upload layer's states do not make.
Payload
Bytes(std::size_t count)
{
    return Payload::Of(std::vector<std::byte>(count));
}

struct Case
{
    const char* what;
    std::uint32_t session; //!< that ends, as far as the cloud knows
    std::string reason;    //!< a part of it
    Misbehaviour misbehaviour;
};

Misbehaviour
Uploads(std::function<Message(const RawClient&)> message)
{
    return [message](RawClient& client, const Dialogue&) { RawClient::Send(*client.upload, message(client)); };
}

Misbehaviour
Asks(std::function<Message(const RawClient&)> message)
{
    return [message](RawClient& client, const Dialogue&) { RawClient::Send(*client.inference, message(client)); };
}

constexpr std::size_t kRow = 64 * sizeof(float);

std::vector<Case>
Cases()
{
    std::vector<Case> cases{
        {"rows across the end of the context",
         kOther,
         "8 positions from 33 on, where a request has 40 at most",
         Uploads([](const RawClient& c) { return c.State(0, 33, Bytes(8 * kRow)); })},
        {"a row behind the context",
         kOther,
         "1 positions from 40 on, where a request has 40 at most",
         Uploads([](const RawClient& c) { return c.State(0, kContext, Bytes(kRow)); })},
        {"a row at the farthest position",
         kOther,
         "1 positions from 4294967295 on",
         Uploads([](const RawClient& c) { return c.State(0, kFarthest, Bytes(2 * kRow)); })},
        {"a request behind the context",
         kOther,
         "1 positions from 40 on, where a request has 40 at most",
         Asks([](const RawClient& c) { return c.Header(MessageKind::Request, 0, kContext); })},
        {"a request at the farthest position",
         kOther,
         "1 positions from 4294967295 on",
         Asks([](const RawClient& c) { return c.Header(MessageKind::Request, 0, kFarthest); })},
        {"no rows", kOther, "hidden-state: ", Uploads([](const RawClient& c) { return c.State(0, 0, {}); })},
        {"a part of a row",
         kOther,
         "hidden-state: ",
         Uploads([](const RawClient& c) { return c.State(0, 0, Bytes(kRow + 12)); })},
        {"a phantom",
         kOther,
         "hidden-state: a phantom, where numbers are computed with",
         Uploads([](const RawClient& c) { return c.State(0, 0, Payload::Phantom(3 * kRow)); })},
        {"what another codec made", kOther, "hidden-state: ", Uploads([](const RawClient& c) {
             Payload coded = Bytes(3 * kRow);
             coded.coded = true;
             return c.State(0, 0, std::move(coded));
         })},
        {"a position that never comes",
         kOther,
         "a token is requested after position 18, and the state at position 3 never came",
         [](RawClient& client, const Dialogue& dialogue) {
             client.Upload(dialogue, 0, 0, 3);
             client.Upload(dialogue, 0, 4, kPrompt - 4);
             client.Ask(0, kPrompt - 1);
         }},
        {"the other client's session, over the API for uploads",
         kNoSession,
         "session 7 belongs to another client",
         [](RawClient& client, const Dialogue& dialogue) {
             Message theirs = client.State(4, 0, EncodeDense(dialogue.states.Slice(0, 40 - kTokens), DType::F32));
             theirs.session = kVictim;
             RawClient::Send(*client.upload, theirs);
         }},
        {"the other client's session, over the API for inference",
         kNoSession,
         "session 7 belongs to another client",
         Asks([](const RawClient& c) {
             Message theirs = c.Header(MessageKind::End, 4, 0);
             theirs.session = kVictim;
             return theirs;
         })},
        {"the other client's session, after its own, over the API for uploads",
         kOther,
         "session 7 on a connection of session 8",
         [](RawClient& client, const Dialogue& dialogue) {
             client.Upload(dialogue, 4, 0, 2);
             Message theirs = client.State(4, 2, Bytes(kRow));
             theirs.session = kVictim;
             RawClient::Send(*client.upload, theirs);
         }},
        {"the other client's session, after its own, over the API for inference",
         kOther,
         "session 7 on a connection of session 8",
         [](RawClient& client, const Dialogue&) {
             client.End(3);
             Message theirs = client.Header(MessageKind::End, 4, 0);
             theirs.session = kVictim;
             RawClient::Send(*client.inference, theirs);
         }},
        {"a request behind an answered one",
         kOther,
         "a token is requested after position 17, and one after position 18 was before",
         [](RawClient& client, const Dialogue& dialogue) {
             client.Upload(dialogue, 0, 0, kPrompt);
             client.Ask(0, kPrompt - 1);
             client.Ask(0, kPrompt - 2);
         }},
        {"a request that is over",
         kOther,
         "request 5 is over",
         [](RawClient& client, const Dialogue& dialogue) {
             client.Upload(dialogue, 5, 0, kPrompt);
             client.End(5);
             client.Ask(5, kPrompt - 1);
         }},
    };
    for (const MessageKind kind : {MessageKind::Tokens,
                                   MessageKind::NextToken,
                                   MessageKind::Embedding,
                                   MessageKind::KvCache,
                                   MessageKind::End,
                                   MessageKind::Request,
                                   MessageKind::ContextLost,
                                   MessageKind::Generate})
    {
        cases.push_back({"another kind of message over the API for uploads",
                         kOther,
                         "expected hidden-state of layer 2, request 0, got " + std::string(NameOf(kind)),
                         Uploads([kind](const RawClient& c) {
                             Message message = c.State(0, 0, Bytes(kRow));
                             message.kind = kind;
                             return message;
                         })});
    }
    for (const MessageKind kind : {MessageKind::Tokens,
                                   MessageKind::NextToken,
                                   MessageKind::HiddenState,
                                   MessageKind::Skip,
                                   MessageKind::ContextLost,
                                   MessageKind::Generate})
    {
        cases.push_back({"another kind of message over the API for inference",
                         kOther,
                         "expected request of layer 2, request 0, got " + std::string(NameOf(kind)),
                         Asks([kind](const RawClient& c) {
                             Message message = c.State(0, 0, Bytes(kRow));
                             message.kind = kind;
                             return message;
                         })});
    }
    for (const std::uint16_t layer : {0, 1, 3, 65535})
    {
        const std::string got = " of layer " + std::to_string(layer) + ", request 0";
        cases.push_back({"states of another layer",
                         kOther,
                         "got hidden-state" + got,
                         Uploads([layer](const RawClient& c) {
                             Message message = c.State(0, 0, Bytes(kRow));
                             message.layer = layer;
                             return message;
                         })});
        cases.push_back({"a request of another layer", kOther, "got request" + got, Asks([layer](const RawClient& c) {
                             Message message = c.Header(MessageKind::Request, 0, 0);
                             message.layer = layer;
                             return message;
                         })});
    }
    for (const DType dtype : {DType::F16, DType::BF16, DType::I32})
    {
        cases.push_back({"another type of elements",
                         kOther,
                         "expected elements of fp32, got " + std::string(NameOf(dtype)),
                         Uploads([dtype](const RawClient& c) {
                             Message message = c.State(0, 0, Bytes(kRow));
                             message.dtype = dtype;
                             return message;
                         })});
    }
    return cases;
}

bool
IsSame(const Served& a, const Served& b)
{
    return a.replies == b.replies && SameBits(a.answer, b.answer);
}

} // namespace

TEST_CASE("Whoever breaks the protocol loses the connection, and nobody else notices", "[ce-collm][cloud]")
{
    // Computing is free and the links are their own, so that the two clients share the cloud's state alone: every
    // answer has to come at the same instant.
    const CloudSetup setup{.context = kContext, .contextTimeout = MilliSeconds(700)};
    const Dialogue dialogue = Converse(40, kPrompt, kTokens, 2);
    const Served alone = TwoClients(setup, dialogue, nullptr).TheFirst();
    REQUIRE(SameBits(alone.answer, dialogue.answer));
    const std::size_t frames = FramePool::Live();
    for (const Case& its : Cases())
    {
        CAPTURE(its.what, its.reason);
        const TwoClients both(setup, dialogue, its.misbehaviour);
        CHECK(IsSame(both.TheFirst(), alone));
        REQUIRE(both.run.ends.size() == 1);
        CHECK(both.run.ends[0].session == its.session);
        CHECK(both.run.ends[0].reason.find(its.reason) != std::string::npos);
        const bool byUpload = both.other->upload->inbox.end == Inbox::End::Closed;
        const bool byInference = both.other->inference->inbox.end == Inbox::End::Closed;
        CHECK(byUpload != byInference);
        CHECK(both.run.StateBytes() + both.run.KvBytes() == 0);
    }
    CHECK(FramePool::Live() == frames);
}

TEST_CASE("Who waits for a state that never comes is told after the context timeout", "[ce-collm][cloud]")
{
    const Dialogue dialogue = Converse(40, kPrompt, kTokens, 2);
    CloudRun run({.contextTimeout = MilliSeconds(700)});
    RawClient& client = run.NewClient(kOther);
    client.Upload(dialogue, 0, 0, 3);
    client.Ask(0, kPrompt - 1);
    CloudRun::At(MilliSeconds(400), [&] { client.Upload(dialogue, 0, 4, 3); }); // which is not what is missing
    CloudRun::Until(Seconds(2));
    REQUIRE(run.ends.size() == 1);
    // The request leaves behind three rows at 100 Mbps, and takes a millisecond.
    CHECK(run.ends[0].at == ns3::NanoSeconds(3 * kRow * 80) + MilliSeconds(1 + 700));
    CHECK(client.inference->inbox.end == Inbox::End::Closed);
    CHECK(client.Replies().empty());
}

TEST_CASE("A request may have every position of the context", "[ce-collm][cloud]")
{
    const Dialogue dialogue = Converse(40, kPrompt, kContext - kPrompt + 1, 2);
    REQUIRE(dialogue.states.Rows() == kContext);
    CloudRun run({.context = kContext});
    RawClient& client = run.NewClient(kOther);
    client.Upload(dialogue, 0, 0, kContext);
    client.Ask(0, kContext - 1);
    CloudRun::Until(Seconds(1));
    CHECK(client.Tokens() == std::vector<TokenId>{dialogue.answer.tokens.back()});
    CHECK(run.ends.empty());
}

TEST_CASE("States that are no numbers are their sender's business", "[ce-collm][cloud]")
{
    const CloudSetup setup{.context = kContext};
    const Dialogue dialogue = Converse(40, kPrompt, kTokens, 2);
    const Served alone = TwoClients(setup, dialogue, nullptr).TheFirst();
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    {
        CAPTURE(value);
        const TwoClients both(setup, dialogue, [value](RawClient& client, const Dialogue& its) {
            Dialogue none = its;
            std::ranges::fill(none.states.Row(2), value);
            client.Upload(none, 0, 0, kPrompt);
            client.Ask(0, kPrompt - 1);
        });
        CHECK(IsSame(both.TheFirst(), alone));
        CHECK(both.other->Tokens().size() == 1);
    }
}
