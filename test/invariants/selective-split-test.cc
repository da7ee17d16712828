// SPDX-License-Identifier: GPL-2.0-only

// Invariant 2 for splits that leave LoRA out of some cells: the bits of a whole model that leaves it out there.

#include "support/catch.h"
#include "support/same-bits.h"
#include "support/split-run.h"
#include "support/test-models.h"
#include "support/tiny-deployment.h"

#include "llm/config.h"
#include "policy/calibrator.h"
#include "policy/offload-policies.h"
#include "schemes/scheme.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

constexpr std::size_t kLayers = 4;

const std::filesystem::path kCalibrators = std::filesystem::path(SPLITLLM_SOURCE_DIR) / "test/data/tiny-calibrator";

std::shared_ptr<const OffloadPolicy>
Policy(const std::string& model, const std::string& json)
{
    Json parsed = Json::parse(json);
    StrictObject parameters(parsed, "test");
    const PolicyContext context{.config = LoadConfig(TestModel(model)),
                                .shapeMode = false,
                                .positions = {Prompt().size() + kNewTokens - 1},
                                .calibrators = kCalibrators,
                                .study = {}};
    return MakeOffloadPolicy(parameters, context);
}

/// TLC's calibrators for the tiny LLaMA.
std::shared_ptr<const OffloadPolicy>
Calibrators(const std::string& name, double tau1, double tau2)
{
    const Json parameters{{"name", "calibrator"}, {"path", name}, {"tau1", tau1}, {"tau2", tau2}};
    return Policy("tiny-llama", parameters.dump());
}

/// A split whose tensors cross without loss.
SplitLlmHelper
Lossless(const std::string& model, const std::string& scheme, std::shared_ptr<const OffloadPolicy> policy)
{
    return Deployment(model, scheme, "fp32", std::move(policy));
}

using Cells = std::set<std::pair<std::size_t, std::size_t>>; // layer, position

/// The cells that a tier said yes to.
Cells
Kept(const std::vector<DecisionRecord>& decisions, int tier)
{
    Cells cells;
    for (const DecisionRecord& decision : decisions)
    {
        if (decision.tier == tier && decision.yes)
        {
            cells.emplace(decision.layer, decision.position);
        }
    }
    return cells;
}

Answer
Whole(const std::string& model, const Cells& cells)
{
    Monolithic whole(TestModel(model), TestModel(model + "-lora"));
    whole.keeps = [&cells](std::size_t layer, std::size_t position) { return cells.contains({layer, position}); };
    return whole.Ask(Prompt(), kNewTokens);
}

std::size_t
Count(const std::vector<MessageRecord>& messages, const std::string& kind)
{
    return static_cast<std::size_t>(std::ranges::count(messages, kind, &MessageRecord::kind));
}

} // namespace

TEST_CASE("TLC with thresholds 0 gives the bits of a model without the adapter of layer 1", "[invariant-2]")
{
    for (const std::string calibrator : {"narrow", "wide"})
    {
        CAPTURE(calibrator);
        SplitRun run(Lossless("tiny-llama", "tlc", Calibrators(calibrator, 0.0, 0.0)));
        const Answer split = run.Ask(Prompt(), kNewTokens);

        Monolithic whole(TestModel("tiny-llama"), TestModel("tiny-llama-lora"));
        CHECK_FALSE(SameBits(split, whole.Ask(Prompt(), kNewTokens)));
        whole.keeps = [](std::size_t layer, std::size_t) { return layer > 1; };
        CHECK(SameBits(split, whole.Ask(Prompt(), kNewTokens)));
        CHECK(Count(run.messages, "skip") == 0);
        CHECK(Count(run.messages, "deltas") == (kLayers - 1) * kNewTokens);
    }
}

TEST_CASE("TLC with threshold 1 in either tier gives the bits of the base model", "[invariant-2]")
{
    Monolithic base(TestModel("tiny-llama"), "");
    const Answer expected = base.Ask(Prompt(), kNewTokens);
    {
        SplitRun run(Lossless("tiny-llama", "tlc", Calibrators("narrow", 1.0, 0.0)));
        CHECK(SameBits(run.Ask(Prompt(), kNewTokens), expected));
        CHECK(Count(run.messages, "layer-input") == 0);
    }
    {
        // Everything goes to the device and nothing comes back: each layer ends with a notice.
        SplitRun run(Lossless("tiny-llama", "tlc", Calibrators("narrow", 0.0, 1.0)));
        CHECK(SameBits(run.Ask(Prompt(), kNewTokens), expected));
        CHECK(Count(run.messages, "layer-input") == (kLayers - 1) * kNewTokens);
        CHECK(Count(run.messages, "skip") == (kLayers - 1) * kNewTokens);
        CHECK(Count(run.messages, "deltas") == 0);
    }
}

TEST_CASE("cells decided one by one give the bits of a model that leaves out the others", "[invariant-2]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        for (const std::string policy :
             {R"({"name": "random", "offload": 0.6, "return": 0.6})", R"({"name": "fixed", "layers": [1, 2, 4]})"})
        {
            CAPTURE(model, policy);
            SplitRun run(Lossless(model, "tlc", Policy(model, policy)));
            const Answer split = run.Ask(Prompt(), kNewTokens);
            const Cells kept = Kept(run.decisions, 2);
            const Cells offloaded = Kept(run.decisions, 1);
            CHECK(std::ranges::includes(offloaded, kept));
            CHECK(offloaded.size() < kLayers * (Prompt().size() + kNewTokens - 1));
            CHECK(std::ranges::none_of(offloaded, [](const auto& cell) { return cell.first == 1; }));
            CHECK(SameBits(split, Whole(model, kept)));
            Cells other = kept;
            other.erase(--other.end());
            CHECK_FALSE(SameBits(split, Whole(model, other)));
        }
    }
}

TEST_CASE("DLoRA that skips nothing is LInfer, and skips whole tokens otherwise", "[invariant-2]")
{
    const std::vector<float> quantiles = LoadTokenNormQuantiles(kCalibrators / "statistics.safetensors");
    const Answer linfer = SplitRun(Lossless("tiny-llama", "linfer", nullptr)).Ask(Prompt(), kNewTokens);
    for (const auto& policy : {KeepLargeTokens(1.0, quantiles), KeepRandomTokens(1.0)})
    {
        CHECK(SameBits(SplitRun(Lossless("tiny-llama", "dlora", policy)).Ask(Prompt(), kNewTokens), linfer));
    }
    for (const auto& policy : {KeepLargeTokens(0.5, quantiles), KeepRandomTokens(0.5)})
    {
        SplitRun run(Lossless("tiny-llama", "dlora", policy));
        const Answer split = run.Ask(Prompt(), kNewTokens);
        const Cells kept = Kept(run.decisions, 2);
        CHECK(SameBits(split, Whole("tiny-llama", kept)));
        std::map<std::size_t, std::size_t> layersOf;
        for (const auto& [layer, position] : kept)
        {
            layersOf[position]++;
        }
        CHECK(!layersOf.empty());
        CHECK(layersOf.size() < Prompt().size() + kNewTokens - 1);
        CHECK(std::ranges::all_of(layersOf, [](const auto& entry) { return entry.second == kLayers; }));
    }
}

TEST_CASE("each tier scores what its node holds: the residual at the edge, LoRA's updates at the device", "[policy]")
{
    for (const std::string name : {"narrow", "wide"})
    {
        CAPTURE(name);
        SplitRun run(Lossless("tiny-llama", "tlc", Calibrators(name, 0.45, 0.5)));
        const Answer split = run.Ask(Prompt(), kNewTokens);
        const Cells kept = Kept(run.decisions, 2);
        const Cells offloaded = Kept(run.decisions, 1);
        CHECK(!kept.empty());
        CHECK(kept.size() < offloaded.size());

        // The same states in a loop without nodes, and what the calibrator makes of them.
        const auto calibrator = Calibrator::Load(kCalibrators / name, LoadConfig(TestModel("tiny-llama")));
        std::map<std::tuple<int, std::size_t, std::size_t>, double> expected; // tier, layer, position
        std::map<std::size_t, std::vector<float>> previous;                   // by position
        Monolithic whole(TestModel("tiny-llama"), TestModel("tiny-llama-lora"));
        whole.keeps = [&kept](std::size_t layer, std::size_t position) { return kept.contains({layer, position}); };
        whole.tap = [&](std::size_t layer, std::size_t first, const Tensor& h, const Projections& base, const Deltas& d) {
            for (std::size_t row = 0; row < h.Rows(); row++)
            {
                const std::size_t position = first + row;
                if (layer == 1)
                {
                    continue;
                }
                expected[{1, layer, position}] = calibrator->Tier1Score(layer - 1, position, h.Row(row));
                if (!offloaded.contains({layer, position}))
                {
                    continue;
                }
                std::vector<float> update;
                std::array<float, 3> norms{};
                std::size_t i = 0;
                for (const auto& [part, ofBase] : {std::pair{&d.query, &base.query},
                                                   std::pair{&d.key, &base.key},
                                                   std::pair{&d.value, &base.value}})
                {
                    update.insert(update.end(), part->Row(row).begin(), part->Row(row).end());
                    double squares = 0.0;
                    for (const float value : ofBase->Row(row))
                    {
                        squares += static_cast<double>(value) * value;
                    }
                    norms[i++] = static_cast<float>(std::sqrt(squares));
                }
                expected[{2, layer, position}] =
                    calibrator->Tier2Score(layer - 1, update, previous[position], norms);
                previous[position] = update;
            }
        };
        CHECK(SameBits(split, whole.Ask(Prompt(), kNewTokens)));
        std::size_t scored = 0;
        for (const DecisionRecord& decision : run.decisions)
        {
            if (decision.layer > 1)
            {
                const double score = expected.at({decision.tier, decision.layer, decision.position});
                CHECK(std::abs(decision.score - score) < 1e-6); // the norms above are summed in another order
                CHECK(decision.yes == (decision.score > (decision.tier == 1 ? 0.45 : 0.5)));
                scored++;
            }
        }
        CHECK(scored == expected.size());
    }
}
