// SPDX-License-Identifier: GPL-2.0-only

// CE-CoLLM's cloud against clients that send whatever they like: what it answers, and whom they can disturb.

#include "support/catch.h"
#include "support/cloud-run.h"
#include "support/same-bits.h"

#include "sim/frame-pool.h"

#include <algorithm>
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
constexpr std::size_t kLayers = 4;
constexpr std::size_t kHidden = 64;

/// Rows of a dialogue, sent as one message.
struct Piece
{
    std::size_t first;
    std::size_t rows;
};

/// Positions [\p first, \p last) in pieces of up to seven, some of them twice, in no order.
std::vector<Piece>
Pieces(std::size_t first, std::size_t last, std::mt19937& draw)
{
    std::vector<Piece> pieces;
    while (first < last)
    {
        const std::size_t rows = std::min<std::size_t>(1 + draw() % 7, last - first);
        pieces.push_back({first, rows});
        if (draw() % 3 == 0)
        {
            // Again, and a bit of what is before it.
            const std::size_t before = std::min<std::size_t>(first, draw() % 3);
            pieces.push_back({first - before, rows + before});
        }
        first += rows;
    }
    for (std::size_t i = pieces.size(); i > 1; i--)
    {
        std::swap(pieces[i - 1], pieces[draw() % i]);
    }
    return pieces;
}

/// Which of the answer's tokens are asked for: the last one, and some before.
std::vector<std::size_t>
Asked(std::mt19937& draw)
{
    std::vector<std::size_t> asked;
    for (std::size_t index = 0; index < kTokens; index++)
    {
        if (index + 1 == kTokens || draw() % 3 == 0)
        {
            asked.push_back(index);
        }
    }
    return asked;
}

/// What \p dialogue says about the tokens \p asked.
Answer
Expected(const Dialogue& dialogue, const std::vector<std::size_t>& asked)
{
    Answer expected;
    for (const std::size_t index : asked)
    {
        expected.tokens.push_back(dialogue.answer.tokens[index]);
        expected.logits.push_back(dialogue.answer.logits[index]);
    }
    return expected;
}

Answer
Given(const CloudRun& run, const RawClient& client)
{
    Answer given;
    given.tokens = client.Tokens();
    for (const CloudRun::Chosen& chosen : run.chosen)
    {
        if (chosen.session == client.session)
        {
            given.logits.push_back(chosen.logits);
        }
    }
    return given;
}

/// The positions that each request has to send through the layers: from the one before on.
std::vector<std::size_t>
Gaps(const Dialogue& dialogue, const std::vector<std::size_t>& asked)
{
    std::vector<std::size_t> gaps;
    std::size_t consumed = 0;
    for (const std::size_t index : asked)
    {
        gaps.push_back(dialogue.PositionOf(index) + 1 - consumed);
        consumed = dialogue.PositionOf(index) + 1;
    }
    return gaps;
}

/// Whether layers behind \p uploadLayer ran for \p session in batches of \p gaps rows each, and the others not at all.
bool
RanInBatches(const CloudRun& run, std::uint32_t session, std::size_t uploadLayer, const std::vector<std::size_t>& gaps)
{
    for (std::size_t layer = 1; layer <= kLayers; layer++)
    {
        const auto& expected = layer > uploadLayer ? gaps : std::vector<std::size_t>();
        if (run.RowsOf("project", session, static_cast<int>(layer)) != expected ||
            run.RowsOf("finish-layer", session, static_cast<int>(layer)) != expected)
        {
            return false;
        }
    }
    return run.RowsOf("head", session, 0) == std::vector<std::size_t>(gaps.size(), 1);
}

} // namespace

TEST_CASE("States in any order, cut anyhow and sent twice, give the model's tokens and logits", "[ce-collm][cloud]")
{
    const std::size_t frames = FramePool::Live();
    for (const DType wire : {DType::F32, DType::F16})
    {
        for (const std::size_t layer : {1, 2, 3})
        {
            const Dialogue dialogue = Converse(40, kPrompt, kTokens, layer, wire);
            for (std::uint32_t seed = 0; seed < 6; seed++)
            {
                CAPTURE(NameOf(wire), layer, seed);
                std::mt19937 draw(seed);
                CloudRun run({.wire = wire, .uploadLayer = layer});
                RawClient& client = run.NewClient(7);
                const std::vector<std::size_t> asked = Asked(draw);
                std::size_t uploaded = 0;
                std::size_t messages = 0;
                Time at = MilliSeconds(1);
                for (const std::size_t index : asked)
                {
                    const std::size_t position = dialogue.PositionOf(index);
                    const std::vector<Piece> pieces = Pieces(uploaded, position + 1, draw);
                    const std::size_t requested = draw() % (pieces.size() + 1); // before, between or behind them
                    CloudRun::At(at, [&client, &dialogue, pieces, requested, position] {
                        for (std::size_t i = 0; i <= pieces.size(); i++)
                        {
                            if (i == requested)
                            {
                                client.Ask(3, position);
                            }
                            if (i < pieces.size())
                            {
                                client.Upload(dialogue, 3, pieces[i].first, pieces[i].rows);
                            }
                        }
                    });
                    messages += pieces.size() + 1;
                    uploaded = position + 1;
                    at += seed % 2 == 0 ? MilliSeconds(20) : MilliSeconds(0); // one after the other, or all at once
                }
                CloudRun::Until(Seconds(1));
                CHECK(SameBits(Given(run, client), Expected(dialogue, asked)));
                CHECK(RanInBatches(run, client.session, layer, Gaps(dialogue, asked)));
                for (std::size_t i = 0; i < asked.size(); i++)
                {
                    CHECK(client.Replies().at(i).position == dialogue.PositionOf(asked[i]) + 1);
                    CHECK(client.Replies().at(i).request == 3);
                }
                CHECK(run.received == messages);
                CHECK(run.sent == asked.size());
                CHECK(run.ends.empty());
                client.End(3);
                CloudRun::Until(Seconds(2));
                CHECK(run.StateBytes() + run.KvBytes() == 0);
            }
        }
    }
    CHECK(FramePool::Live() == frames);
}

TEST_CASE("States in no order give the model's tokens to requests that wait for them", "[ce-collm][cloud]")
{
    const Dialogue dialogue = Converse(40, kPrompt, kTokens, 2);
    for (std::uint32_t seed = 0; seed < 10; seed++)
    {
        CAPTURE(seed);
        std::mt19937 draw(seed);
        CloudRun run({.layerMs = seed % 2 == 0 ? 0.0 : 1.5});
        RawClient& client = run.NewClient(7);
        const std::vector<std::size_t> asked = Asked(draw);
        const std::vector<Piece> pieces = Pieces(0, kPrompt + kTokens - 1, draw);
        std::size_t next = 0;
        for (std::size_t i = 0; i < pieces.size(); i++)
        {
            CloudRun::At(MilliSeconds(static_cast<int>(i)), [&client, &dialogue, piece = pieces[i]] {
                client.Upload(dialogue, 3, piece.first, piece.rows);
            });
            if (next < asked.size() && draw() % 2 == 0)
            {
                const std::size_t position = dialogue.PositionOf(asked[next++]);
                CloudRun::At(MilliSeconds(static_cast<int>(i)), [&client, position] { client.Ask(3, position); });
            }
        }
        for (; next < asked.size(); next++)
        {
            const std::size_t position = dialogue.PositionOf(asked[next]);
            CloudRun::At(MilliSeconds(100), [&client, position] { client.Ask(3, position); });
        }
        CloudRun::Until(Seconds(1));
        CHECK(SameBits(Given(run, client), Expected(dialogue, asked)));
        CHECK(RanInBatches(run, client.session, 2, Gaps(dialogue, asked)));
        CHECK(run.ends.empty());
    }
}

TEST_CASE("A repeated request is answered with the same token, which is not computed again", "[ce-collm][cloud]")
{
    const Dialogue dialogue = Converse(40, kPrompt, kTokens, 2);
    CloudRun run;
    RawClient& client = run.NewClient(7);
    client.Upload(dialogue, 0, 0, kPrompt);
    for (int i = 0; i < 3; i++)
    {
        client.Ask(0, kPrompt - 1);
    }
    CloudRun::Until(Seconds(1));
    CHECK(client.Tokens() == std::vector<TokenId>(3, dialogue.answer.tokens[0]));
    CHECK(RanInBatches(run, 7, 2, {kPrompt}));
    CHECK(run.ends.empty());
}
