// SPDX-License-Identifier: GPL-2.0-only

#include "support/catch.h"
#include "support/error-of.h"
#include "support/temporary-folder.h"

#include "policy/early-exit.h"
#include "policy/opsc-configuration.h"
#include "policy/opsc-sizes.h"

#include <cmath>
#include <fstream>
#include <random>

using namespace splitllm;
using namespace std::chrono_literals;
using splitllm::test::ErrorOf;
using splitllm::test::TemporaryFolder;

namespace
{

using Nanoseconds = std::chrono::nanoseconds;

/// A static channel: c a token and layer, b a state or, with keys and values, ten of them; compressed a quarter.
ExitLatency
StaticChannel(Nanoseconds compute, Nanoseconds state)
{
    return [=](const ExitPoint& point) {
        const Nanoseconds sent = state * point.tokens * (point.keysAndValues ? 10 : 1) / (point.compressed ? 4 : 1);
        return compute * point.tokens * point.layer + sent;
    };
}

} // namespace

TEST_CASE("OPSC's equations count what the paper's figures say")
{
    const ModelConfig llama = NamedShape("llama-2-7b", DType::F16);
    CHECK(OpscWeightBytes(llama, 20, {4, 16}) == 20ULL * 202'383'360 / 2 + 12ULL * 202'383'360 * 2); // 6.8810 GB
    CHECK(OpscWeightBytes(llama, 20, {4, 16}) == 6'881'034'240ULL);
    const ModelConfig llama13 = NamedShape("llama-2-13b", DType::F16);
    CHECK(OpscWeightBytes(llama13, 40, {4, 16}) == 40ULL * 317'204'480 / 2);
    CHECK(OpscKvBits(llama, 250, 20, {16, 16}) == 8 * 130'883'584ULL);
    CHECK(OpscKvBits(llama, 250, 20, {16, 16}, KvPayload::Needed) == 8ULL * (2 * 12 * 249 + 1) * 4096 * 2);
    CHECK(OpscKvBits(llama, 1, 32, {8, 16}) == 8ULL * (2 * 32 + 1) * 4096);
    CHECK(OpscPayloadBits(llama, 250, 20, true, {4, 8}) == OpscKvBits(llama, 250, 20, {4, 8}));
    CHECK(OpscPayloadBits(llama, 250, 20, false, {4, 8}) == 250ULL * 4096 * 4);
    // Keys and values have the width of their heads, states that of the model.
    const ModelConfig smol = NamedShape("smollm2-135m", DType::BF16);
    CHECK(OpscKvBits(smol, 3, 10, {16, 16}) == 16ULL * (2 * 10 * 3 * 192 + 2 * 20 * 2 * 192 + 576));
}

TEST_CASE("Algorithm 2 stops at the token count of the closed form on a static channel")
{
    const Nanoseconds c = 1000ns;
    const Nanoseconds b = 4000ns;
    for (const std::size_t layers : {1, 4})
    {
        for (const Nanoseconds deadline : {900ns, 1999ns, 2000ns, 10'001ns, 64'000ns, 64'999ns})
        {
            CAPTURE(layers, deadline.count());
            const auto reached = EarlyExit(StaticChannel(c, b), deadline, 1000, layers);
            // Compressed, without keys and values: w (c L + b / 4) <= D for all layers.
            const std::size_t whole = deadline / (c * layers + b / 4);
            CHECK((reached ? reached->tokens : 0) >= whole);
            // The token behind may get as far as some layer, not the last.
            if (reached && reached->tokens > whole)
            {
                CHECK(reached->layer < layers);
                CHECK(c * reached->tokens * reached->layer + b * reached->tokens / 4 <= deadline);
            }
            if (layers == 1)
            {
                CHECK((reached ? reached->tokens : 0) == whole);
            }
        }
    }
}

TEST_CASE("Algorithm 2 uses the first form that arrives, and keys and values again for the next token")
{
    const ExitLatency latency = [](const ExitPoint& point) {
        // Token 2 is late with keys and values, and late uncompressed; the others never are.
        const bool late = point.tokens == 2 && (point.keysAndValues || !point.compressed);
        return late ? 11ns : 9ns;
    };
    CHECK(EarlyExit(latency, 10ns, 2, 3) == ExitPoint{2, 3, false, true});
    CHECK(EarlyExit(latency, 10ns, 3, 3) == ExitPoint{3, 3, true, false});
    CHECK(EarlyExit(latency, 10ns, 3, 3, false) == ExitPoint{3, 3, false, false});
    CHECK(EarlyExit(latency, 8ns, 3, 3) == std::nullopt);
}

TEST_CASE("Algorithm 2 keeps its deadline, and never gets deeper than Eq 12")
{
    std::mt19937 random(3); // for the channels alone
    std::size_t equal = 0;
    for (int trial = 0; trial < 300; trial++)
    {
        const ExitLatency latency = StaticChannel(Nanoseconds(random() % 50), Nanoseconds(random() % 400));
        const Nanoseconds deadline(random() % 20'000);
        const auto reached = EarlyExit(latency, deadline, 12, 6);
        const auto deepest = DeepestPoint(latency, deadline, 12, 6);
        CAPTURE(trial);
        CHECK(reached.has_value() == deepest.has_value());
        if (reached && deepest)
        {
            CHECK(latency(*reached) <= deadline);
            CHECK(latency(*deepest) <= deadline);
            CHECK(reached->Depth() <= deepest->Depth());
            equal += reached->Depth() == deepest->Depth() ? 1 : 0;
        }
    }
    CHECK(equal > 100); // the comparison is one of like with like
}

TEST_CASE("Eq 12 finds the deepest point by hand")
{
    // 10 w l <= 95 with at most 6 tokens and 4 layers: 9 by (3, 3); 8 by (2, 4) and (4, 2).
    const ExitLatency latency = [](const ExitPoint& point) { return Nanoseconds(10 * point.Depth()); };
    CHECK(DeepestPoint(latency, 95ns, 6, 4) == ExitPoint{3, 3, true, false});
    CHECK(DeepestPoint(latency, 85ns, 6, 4) == ExitPoint{4, 2, true, false});
    CHECK(DeepestPoint(latency, 9ns, 6, 4) == std::nullopt);
}

TEST_CASE("Eq 8 takes the most activation bits that memory and accuracy allow")
{
    ModelConfig config = NamedShape("llama-2-7b", DType::F16);
    AccuracyTable table{.base = 10.0, .group = 64, .rows = {}};
    const auto row = [&](std::size_t split, FrontBack weights, unsigned bits, double perplexity) {
        table.rows.push_back({{split, weights, bits}, "fp16", perplexity});
    };
    row(8, {4, 16}, 8, 10.05);
    row(16, {4, 16}, 8, 10.08);
    row(24, {4, 16}, 8, 10.11);  // loses too much
    row(16, {4, 16}, 16, 10.01); // needs most memory
    row(16, {4, 16}, 4, 10.09);
    const std::uint64_t weights16 = OpscWeightBytes(config, 16, {4, 16});
    const std::uint64_t at16 = weights16 + OpscKvBits(config, 100, 16, {16, 16}) / 8;
    const std::uint64_t at8 = weights16 + OpscKvBits(config, 100, 16, {8, 8}) / 8;
    const auto choose = [&](double drop, std::uint64_t memory) {
        return ChooseConfiguration(config, table, {.drop = drop, .memory = memory, .tokens = 100});
    };
    CHECK(choose(0.01, at16)->configuration.activationBits == 16);
    CHECK(choose(0.01, at16 - 1)->configuration.activationBits == 8);
    CHECK(choose(0.01, at16 - 1)->configuration.split == 16);
    CHECK(choose(0.02, at16 - 1)->configuration.split == 24);
    CHECK_FALSE(choose(0.005, at16 - 1)); // the only accurate one that is left has more layers in 16 bits
    CHECK(choose(0.005, 2 * at16)->configuration.split == 16);
    CHECK(choose(0.01, at8)->configuration.activationBits == 8);
    CHECK(choose(0.01, at8 - 1)->configuration.activationBits == 4);
    CHECK_FALSE(choose(0.01, 1'000'000));
}

TEST_CASE("a table of accuracies says what is wrong with it")
{
    const TemporaryFolder folder;
    const auto file = folder.Path() / "accuracy.json";
    const ModelConfig config = NamedShape("llama-2-7b", DType::F16);
    const auto errorOf = [&](const std::string& text) {
        std::ofstream(file) << text;
        return ErrorOf([&] { AccuracyTable::Load(file, config); });
    };
    CHECK(errorOf(R"({"command": "c", "model": "opt-13b", "rows": []})").ends_with(
        ": model: is \"opt-13b\"; accepted: a measurement of llama-2-7b"));
    CHECK(errorOf(R"({"command": "c", "model": "llama-2-7b", "weight_group": 64, "rows": []})").ends_with(
        ": rows: have none with split 0, the model as it is"));
    CHECK(errorOf(R"({"command": "c", "model": "llama-2-7b", "weight_group": 64, "rows": [{"split": 33}]})").ends_with(
        ": rows[0].split: is 33; accepted: an integer from 0 to 32"));
}
