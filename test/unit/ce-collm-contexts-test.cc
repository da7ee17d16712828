// SPDX-License-Identifier: GPL-2.0-only

// What CE-CoLLM's cloud keeps of its clients, for how long, and what becomes of those who come again.

#include "support/catch.h"
#include "support/cloud-run.h"

#include "sim/frame-pool.h"

#include <algorithm>
#include <array>
#include <random>

using namespace splitllm;
using namespace splitllm::test;
using ns3::MilliSeconds;
using ns3::Seconds;
using ns3::Time;

namespace
{

constexpr std::size_t kPrompt = 19;
constexpr std::size_t kTokens = 12;

// Of the tiny LLaMA: d = 64, 2 KV heads of 16, ffn 176, and two layers behind the upload layer; all in fp32.
constexpr std::uint64_t kStateBytes = 64 * 4;              // of a position
constexpr std::uint64_t kKvBytes = 2 * 2 * 2 * 16 * 4;     // of a position: layers, keys and values, heads
constexpr std::uint64_t kFinishBytes = (2 * 64 + (64 + 2 * 32) + 64 + 2 * 176) * 4; // of a row in a layer's second half

/// Uploads what comes before token \p index of the answer, in \p request, and asks for it.
void
AskFor(RawClient& client, const Dialogue& dialogue, std::uint32_t request, std::size_t index, std::size_t first = 0)
{
    client.Upload(dialogue, request, first, dialogue.PositionOf(index) + 1 - first);
    client.Ask(request, dialogue.PositionOf(index));
}

std::size_t
CountOf(const RawClient& client, MessageKind kind)
{
    return static_cast<std::size_t>(
        std::ranges::count_if(client.Replies(), [kind](const RawClient::Reply& reply) { return reply.kind == kind; }));
}

const Dialogue&
TheDialogue()
{
    static const Dialogue dialogue = Converse(40, kPrompt, kTokens, 2);
    return dialogue;
}

/// The tokens of the answer at \p indices.
std::vector<TokenId>
Tokens(const Dialogue& dialogue, std::vector<std::size_t> indices)
{
    std::vector<TokenId> tokens;
    for (const std::size_t index : indices)
    {
        tokens.push_back(dialogue.answer.tokens.at(index));
    }
    return tokens;
}

} // namespace

TEST_CASE("A context takes its unused states, and keys and values of the others", "[ce-collm][cloud]")
{
    const std::size_t frames = FramePool::Live();
    const Dialogue& dialogue = TheDialogue();
    const auto begin = [&](CloudRun& run) -> RawClient& {
        RawClient& client = run.NewClient(7);
        client.Upload(dialogue, 2, 0, kPrompt);
        client.Upload(dialogue, 2, 5, 9);            // again
        client.Upload(dialogue, 2, kPrompt + 3, 2);  // too early
        CloudRun::Until(MilliSeconds(10));
        CHECK(run.StateBytes() == (kPrompt + 2) * kStateBytes);
        CHECK(run.KvBytes() == 0);
        client.Ask(2, kPrompt - 1);
        CloudRun::Until(MilliSeconds(20)); // in the first of two layers
        CHECK(run.StateBytes() == 2 * kStateBytes + kPrompt * kFinishBytes);
        CHECK(run.KvBytes() == kPrompt * kKvBytes);
        CloudRun::Until(MilliSeconds(60)); // done
        client.Upload(dialogue, 2, kPrompt - 4, 5); // of which one is new
        CloudRun::Until(MilliSeconds(70));
        CHECK(run.StateBytes() == 3 * kStateBytes);
        CHECK(run.KvBytes() == kPrompt * kKvBytes);
        return client;
    };
    SECTION("until its request is over")
    {
        CloudRun run({.layerMs = 15});
        RawClient& client = begin(run);
        client.End(1);
        CloudRun::Until(MilliSeconds(80));
        CHECK(run.StateBytes() + run.KvBytes() == 3 * kStateBytes + kPrompt * kKvBytes);
        client.End(2);
        CloudRun::Until(MilliSeconds(90));
        CHECK(run.StateBytes() + run.KvBytes() == 0);
    }
    SECTION("until both connections are closed")
    {
        for (const bool uploadFirst : {true, false})
        {
            CloudRun run({.layerMs = 15});
            RawClient& client = begin(run);
            (uploadFirst ? client.upload : client.inference)->port->Close();
            CloudRun::Until(MilliSeconds(80));
            CHECK(run.StateBytes() + run.KvBytes() == 3 * kStateBytes + kPrompt * kKvBytes);
            (uploadFirst ? client.inference : client.upload)->port->Close();
            CloudRun::Until(MilliSeconds(90));
            CHECK(run.StateBytes() + run.KvBytes() == 0);
            CHECK(run.ends.empty());
        }
    }
    SECTION("until the service dies")
    {
        CloudRun run({.layerMs = 15});
        RawClient& client = begin(run);
        AskFor(client, dialogue, 2, 6, kPrompt);
        CloudRun::Until(MilliSeconds(80)); // in the middle of it
        REQUIRE(run.KvBytes() == (kPrompt + 6) * kKvBytes);
        run.cloud->Crash();
        CHECK(run.StateBytes() + run.KvBytes() == 0);
        CloudRun::Until(MilliSeconds(200));
        CHECK(client.upload->inbox.end == Inbox::End::Closed);
        CHECK(client.inference->inbox.end == Inbox::End::Closed);
        run.cloud->Restart();
        client.Connect();
        AskFor(client, dialogue, 2, 0);
        CloudRun::Until(MilliSeconds(300));
        CHECK(client.Tokens() == Tokens(dialogue, {0, 0}));
    }
    SECTION("until the simulation ends, in the middle of a request")
    {
        CloudRun run({.layerMs = 15});
        AskFor(begin(run), dialogue, 2, 6, kPrompt);
        CloudRun::Until(MilliSeconds(80));
        CHECK(run.KvBytes() == (kPrompt + 6) * kKvBytes);
    }
    CHECK(FramePool::Live() == frames);
}

TEST_CASE("A context that nobody uses is dropped, and its client is told to upload it again", "[ce-collm][cloud]")
{
    const Dialogue& dialogue = TheDialogue();
    CloudRun run({.contextTimeout = MilliSeconds(500)});
    RawClient& client = run.NewClient(7);
    AskFor(client, dialogue, 2, 0);
    CloudRun::Until(MilliSeconds(400));
    client.Upload(dialogue, 2, kPrompt, 1);
    // It comes after a millisecond and the time of its bits.
    const Time used = MilliSeconds(401) + ns3::NanoSeconds(kStateBytes * 80);
    CloudRun::Until(used + MilliSeconds(500) - ns3::NanoSeconds(1));
    CHECK(run.KvBytes() == kPrompt * kKvBytes);
    CloudRun::Until(used + MilliSeconds(500) + ns3::NanoSeconds(1));
    CHECK(run.StateBytes() + run.KvBytes() == 0);

    AskFor(client, dialogue, 2, 2, kPrompt + 1);
    CloudRun::Until(Seconds(1));
    CHECK(run.StateBytes() == 0); // the rest is of no use
    REQUIRE(client.Replies().size() == 2);
    CHECK(client.Replies()[1].kind == MessageKind::ContextLost);
    CHECK(client.Replies()[1].request == 2);
    AskFor(client, dialogue, 2, 2);
    CloudRun::Until(Seconds(2) - MilliSeconds(600));
    CHECK(client.Tokens() == Tokens(dialogue, {0, 2}));
    CHECK(run.RowsOf("project", 7, 3) == std::vector<std::size_t>{kPrompt, kPrompt + 2});
    CHECK(run.ends.empty());
    client.Close();
}

TEST_CASE("A context is not dropped while a token is made of it, however long that takes", "[ce-collm][cloud]")
{
    const Dialogue& dialogue = TheDialogue();
    CloudRun run({.contextTimeout = MilliSeconds(500), .layerMs = 800});
    RawClient& client = run.NewClient(7);
    AskFor(client, dialogue, 2, 0);
    CloudRun::Until(MilliSeconds(2050)); // the token came at 1.6 s, which was the latest use
    CHECK(client.Tokens() == Tokens(dialogue, {0}));
    AskFor(client, dialogue, 2, 1, kPrompt);
    CloudRun::Until(MilliSeconds(5000));
    CHECK(client.Tokens() == Tokens(dialogue, {0, 1}));
    CHECK(run.StateBytes() + run.KvBytes() == 0);
}

TEST_CASE("Where memory is short the idle context goes that was not used for longest", "[ce-collm][cloud]")
{
    // Two contexts fit, with room for a few states more, and not a third one.
    constexpr std::uint64_t kTwo = 2 * kPrompt * kKvBytes + 5 * kStateBytes;
    const CloudSetup limited{.contextMemory = kTwo};
    // The device needs room for the rows that it computes as well.
    const CloudSetup small{.deviceMemory = kTwo + kPrompt * kFinishBytes};
    const Dialogue& dialogue = TheDialogue();
    for (const CloudSetup& setup : {limited, small})
    {
        for (const std::size_t used : {0, 1})
        {
            CAPTURE(setup.deviceMemory, used);
            CloudRun run(setup);
            std::array<RawClient*, 2> old{&run.NewClient(9), &run.NewClient(5)};
            CloudRun::At(MilliSeconds(10), [&] { AskFor(*old[0], dialogue, 0, 0); });
            CloudRun::At(MilliSeconds(20), [&] { AskFor(*old[1], dialogue, 0, 0); });
            CloudRun::At(MilliSeconds(30), [&] { old[used]->Upload(dialogue, 0, kPrompt, 1); });
            CloudRun::Until(MilliSeconds(35));
            CHECK(run.KvBytes() == 2 * kPrompt * kKvBytes);
            CHECK(run.StateBytes() == kStateBytes);
            RawClient& client = run.NewClient(7);
            AskFor(client, dialogue, 0, 0);
            CloudRun::Until(MilliSeconds(40));
            CHECK(client.Tokens() == Tokens(dialogue, {0}));
            CHECK(run.KvBytes() == 2 * kPrompt * kKvBytes);
            CHECK(run.StateBytes() == kStateBytes);
            old[used]->Ask(0, kPrompt);
            CloudRun::Until(MilliSeconds(50));
            CHECK(old[used]->Tokens() == Tokens(dialogue, {0, 1}));
            old[1 - used]->Upload(dialogue, 0, kPrompt, 1);
            old[1 - used]->Ask(0, kPrompt);
            CloudRun::Until(MilliSeconds(60));
            CHECK(old[1 - used]->Tokens() == Tokens(dialogue, {0}));
            CHECK(CountOf(*old[1 - used], MessageKind::ContextLost) == 1);
            CHECK(run.ends.empty());
        }
    }
}

TEST_CASE("Clients that push each other out of memory get the tokens of their own prompts", "[ce-collm][cloud]")
{
    const std::size_t frames = FramePool::Live();
    constexpr std::size_t kClients = 5;
    // At any instant one of them is served, and for two more there is room.
    constexpr std::uint64_t kLimit = 3 * (kPrompt + kTokens - 1) * kKvBytes;
    std::vector<Dialogue> dialogues;
    for (std::size_t i = 0; i < kClients; i++)
    {
        dialogues.push_back(Converse(static_cast<TokenId>(17 * i), kPrompt - i, kTokens, 2));
    }
    for (std::uint32_t seed = 0; seed < 5; seed++)
    {
        CAPTURE(seed);
        std::mt19937 draw(seed);
        CloudRun run({.contextMemory = kLimit});
        std::vector<RawClient*> clients;
        std::vector<std::size_t> uploaded(kClients);
        std::size_t lost = 0;
        for (std::size_t i = 0; i < kClients; i++)
        {
            RawClient& client = *clients.emplace_back(&run.NewClient(static_cast<std::uint32_t>(20 - i)));
            const Dialogue& dialogue = dialogues[i];
            std::size_t& first = uploaded[i];
            const auto ask = [&client, &dialogue, &first] {
                const std::size_t index = client.Tokens().size();
                AskFor(client, dialogue, 0, index, first);
                first = dialogue.PositionOf(index) + 1;
            };
            client.inference->onArrival = [&, ask](Endpoint& inference) {
                CHECK(run.KvBytes() + run.StateBytes() <= kLimit);
                if (inference.inbox.arrivals.back().message.kind == MessageKind::ContextLost)
                {
                    lost++;
                    first = 0;
                }
                if (client.Tokens().size() < kTokens)
                {
                    ns3::Simulator::Schedule(ns3::MicroSeconds(draw() % 100000), ask);
                }
            };
            CloudRun::At(ns3::MicroSeconds(draw() % 100000), ask);
        }
        CloudRun::Until(Seconds(10));
        for (std::size_t i = 0; i < kClients; i++)
        {
            CHECK(clients[i]->Tokens() == dialogues[i].answer.tokens);
            clients[i]->Close();
        }
        CHECK(lost > 0);
        CHECK(run.ends.empty());
        CloudRun::Until(Seconds(11));
        CHECK(run.KvBytes() + run.StateBytes() == 0);
    }
    CHECK(FramePool::Live() == frames);
}

TEST_CASE("A context that a request waits for is never dropped for another one", "[ce-collm][cloud]")
{
    const Dialogue& dialogue = TheDialogue();
    constexpr std::uint64_t kLimit = 2 * kPrompt * kStateBytes;
    SECTION("an idle one goes, though it was used later")
    {
        CloudRun run({.contextMemory = kLimit});
        RawClient& waiting = run.NewClient(9);
        RawClient& idle = run.NewClient(5);
        RawClient& client = run.NewClient(7);
        waiting.Upload(dialogue, 0, 1, kPrompt - 1);
        waiting.Ask(0, kPrompt - 1);
        CloudRun::At(MilliSeconds(10), [&] { idle.Upload(dialogue, 0, 0, kPrompt); });
        CloudRun::At(MilliSeconds(20), [&] { client.Upload(dialogue, 0, 0, kPrompt); });
        CloudRun::Until(MilliSeconds(30));
        CHECK(run.StateBytes() == (2 * kPrompt - 1) * kStateBytes);
        idle.Ask(0, kPrompt - 1);
        CloudRun::Until(MilliSeconds(40));
        CHECK(CountOf(idle, MessageKind::ContextLost) == 1);
        client.End(0);
        idle.End(0);
        CloudRun::Until(MilliSeconds(50));
        waiting.Upload(dialogue, 0, 0, 1);
        CloudRun::Until(MilliSeconds(60));
        CHECK(waiting.Tokens() == Tokens(dialogue, {0}));
        CHECK(run.ends.empty());
    }
    SECTION("without one the node is out of memory")
    {
        CloudRun run({.contextMemory = kLimit - 2 * kStateBytes});
        RawClient& waiting = run.NewClient(9);
        RawClient& client = run.NewClient(7);
        waiting.Upload(dialogue, 0, 1, kPrompt - 1);
        waiting.Ask(0, kPrompt - 1);
        CloudRun::At(MilliSeconds(10), [&] { client.Upload(dialogue, 0, 0, kPrompt); });
        CHECK_THROWS_AS(CloudRun::Until(MilliSeconds(30)), NodeOutOfMemory);
    }
    SECTION("nor the one that is uploaded to")
    {
        CloudRun run({.contextMemory = kPrompt * kStateBytes});
        RawClient& client = run.NewClient(7);
        client.Upload(dialogue, 0, 0, kPrompt);
        CloudRun::Until(MilliSeconds(10));
        CHECK(run.StateBytes() == kPrompt * kStateBytes);
        client.Upload(dialogue, 0, kPrompt, 1);
        CHECK_THROWS_AS(CloudRun::Until(MilliSeconds(20)), NodeOutOfMemory);
    }
    SECTION("where the device cannot hold the keys and values, it is out of memory")
    {
        CloudRun run({.deviceMemory = kPrompt * kKvBytes - 1});
        AskFor(run.NewClient(7), dialogue, 0, 0);
        CHECK_THROWS_AS(CloudRun::Until(MilliSeconds(20)), NodeOutOfMemory);
    }
}

TEST_CASE("What comes late for a request that is over makes no context", "[ce-collm][cloud]")
{
    const Dialogue& dialogue = TheDialogue();
    CloudRun run;
    RawClient& client = run.NewClient(7);
    AskFor(client, dialogue, 4, 0);
    client.End(4);
    for (const std::uint32_t request : {4, 3, 0})
    {
        client.Upload(dialogue, request, 0, kPrompt);
    }
    CloudRun::Until(MilliSeconds(100));
    CHECK(run.StateBytes() + run.KvBytes() == 0);
    client.Upload(dialogue, 5, 0, 3);
    client.Upload(dialogue, 4, 0, kPrompt);
    CloudRun::Until(MilliSeconds(200));
    CHECK(run.StateBytes() == 3 * kStateBytes);
    CHECK(run.ends.empty());
}

TEST_CASE("States of the next request may overtake the end of the one before", "[ce-collm][cloud]")
{
    const Dialogue& dialogue = TheDialogue();
    const Dialogue next = Converse(70, 13, 3, 2);
    CloudRun run({.contextTimeout = MilliSeconds(500), .layerMs = 15});
    RawClient& client = run.NewClient(7);
    SECTION("while the request before is idle")
    {
        AskFor(client, dialogue, 0, 0);
        CloudRun::Until(MilliSeconds(100));
        client.Upload(next, 1, 0, 13);
        CloudRun::Until(MilliSeconds(110));
        CHECK(run.KvBytes() == 0);
        client.End(0);
        CloudRun::Until(MilliSeconds(120));
        CHECK(run.StateBytes() == 13 * kStateBytes);
        client.Ask(1, 12);
        CloudRun::Until(MilliSeconds(200));
        CHECK(client.Tokens() == std::vector<TokenId>{dialogue.answer.tokens[0], next.answer.tokens[0]});
    }
    SECTION("and be dropped before that comes")
    {
        client.Upload(dialogue, 0, 0, 3);
        client.Upload(next, 1, 0, 13);
        CloudRun::At(MilliSeconds(510), [&] { client.Ask(0, 2); });
        CloudRun::At(MilliSeconds(520), [&] { client.Upload(dialogue, 0, 0, 3); });
        CloudRun::At(MilliSeconds(530), [&] { client.End(0); });
        CloudRun::At(MilliSeconds(540), [&] { client.Ask(1, 12); });
        CloudRun::Until(MilliSeconds(600));
        CHECK(run.StateBytes() == 0);
        REQUIRE(client.Replies().size() == 2);
        CHECK(client.Replies()[0].kind == MessageKind::ContextLost);
        CHECK(client.Replies()[0].request == 0);
        CHECK(client.Replies()[1].kind == MessageKind::ContextLost);
        CHECK(client.Replies()[1].request == 1);
    }
    SECTION("while it is computed, and asked for once more")
    {
        AskFor(client, dialogue, 0, 0);
        AskFor(client, dialogue, 0, 1, kPrompt); // which waits behind the first one
        CloudRun::At(MilliSeconds(10), [&] { client.Upload(next, 1, 0, 13); });
        CloudRun::At(MilliSeconds(12), [&] { client.End(0); });
        CloudRun::At(MilliSeconds(12), [&] { client.Ask(1, 12); });
        CloudRun::Until(MilliSeconds(200));
        CHECK(client.Replies().back().request == 1);
        CHECK(client.Replies().back().token == next.answer.tokens[0]);
    }
    SECTION("while it waits for a state that never comes")
    {
        client.Upload(dialogue, 0, 0, 3);
        client.Ask(0, kPrompt - 1);
        CloudRun::At(MilliSeconds(10), [&] { client.Upload(next, 1, 0, 13); });
        CloudRun::At(MilliSeconds(12), [&] { client.End(0); });
        CloudRun::At(MilliSeconds(12), [&] { client.Ask(1, 12); });
        CloudRun::Until(MilliSeconds(200));
        CHECK(client.Tokens() == std::vector<TokenId>{next.answer.tokens[0]});
    }
    CHECK(run.ends.empty());
}

TEST_CASE("A client that connects again is served, whatever its former connections do", "[ce-collm][cloud]")
{
    const std::size_t frames = FramePool::Live();
    const Dialogue& dialogue = TheDialogue();
    {
        CloudRun run({.contextTimeout = Seconds(2), .layerMs = 15});
        RawClient& client = run.NewClient(7);
        /// Uploads all over the new connections and asks, again if the cloud says that it lost what it had.
        const auto again = [&](std::size_t index) {
            client.Connect();
            client.inference->onArrival = [&client, &dialogue, index](Endpoint& inference) {
                if (inference.inbox.arrivals.back().message.kind == MessageKind::ContextLost)
                {
                    AskFor(client, dialogue, 0, index);
                }
            };
            AskFor(client, dialogue, 0, index);
        };
        std::vector<TokenId> former;   // what comes over the first connections
        std::size_t roundTrips = 1;    // until the token comes over the second ones
        SECTION("where nothing is under way, the context is still there")
        {
            AskFor(client, dialogue, 0, 0);
            CloudRun::At(MilliSeconds(100), [&] { again(5); });
            former = Tokens(dialogue, {0});
            roundTrips = 0;
        }
        SECTION("where a request waits for a state")
        {
            client.Upload(dialogue, 0, 3, kPrompt);
            client.Ask(0, kPrompt - 1);
            CloudRun::At(MilliSeconds(100), [&] { again(5); });
            former = Tokens(dialogue, {0}); // of which the state comes over the second ones
        }
        SECTION("where a request is computed")
        {
            AskFor(client, dialogue, 0, 0);
            CloudRun::At(MilliSeconds(15), [&] { again(5); });
            former = Tokens(dialogue, {0});
        }
        SECTION("where a request waits, and another one behind it")
        {
            client.Upload(dialogue, 0, 3, kPrompt);
            client.Ask(0, kPrompt - 1);
            client.Ask(0, kPrompt);
            CloudRun::At(MilliSeconds(100), [&] { again(5); });
            former = Tokens(dialogue, {0});
        }
        SECTION("where a request is computed, and another one waits behind it")
        {
            AskFor(client, dialogue, 0, 0);
            AskFor(client, dialogue, 0, 1, kPrompt);
            CloudRun::At(MilliSeconds(15), [&] { again(5); });
            former = Tokens(dialogue, {0});
        }
        CloudRun::Until(Seconds(1));
        const std::vector<RawClient::Reply> replies = client.Replies();
        std::vector<TokenId> expected = former;
        expected.push_back(dialogue.answer.tokens[5]);
        CHECK(client.Tokens() == expected);
        CHECK(client.inference->inbox.arrivals.size() == roundTrips + 1);
        CHECK(run.KvBytes() == (dialogue.PositionOf(5) + 1) * kKvBytes);
    }
    CHECK(FramePool::Live() == frames);
}
