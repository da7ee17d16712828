// SPDX-License-Identifier: GPL-2.0-only

// Invariants 1, 2, 3 and 8 for CE-CoLLM: what edge and cloud compute together, what crosses, and when.

#include "support/catch.h"
#include "support/error-of.h"
#include "support/same-bits.h"
#include "support/split-run.h"
#include "support/study-fixture.h"
#include "support/tiny-deployment.h"

#include "llm/exits.h"
#include "metrics.h"
#include "schemes/ce-collm/ce-collm-options.h"
#include "simulation.h"

#include <limits>
#include <map>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

/// Untrained exits after \p layers.
std::shared_ptr<const Exits>
ExitsAfter(std::vector<std::size_t> layers)
{
    const auto exits = std::make_shared<Exits>();
    exits->layers = std::move(layers);
    return exits;
}

SplitLlmHelper
Collaborative(const std::string& model, const std::string& wire, std::size_t uploadLayer, double threshold)
{
    SplitLlmHelper llm;
    llm.SetModel(TestModel(model));
    llm.SetScheme("ce-collm");
    CeCollmOptions options;
    options.policy = ExitByConfidence({threshold, threshold});
    options.uploadLayer = uploadLayer;
    llm.SetCeCollm(options, ExitsAfter({1, 3}));
    llm.SetWireType(wire);
    return llm;
}

/// A study of CE-CoLLM on the tiny LLaMA: exits after layers 1 and 3 of 4.
Json
CeCollmStudy(const Json& scheme)
{
    Json study = TinyStudy();
    study["model"].erase("adapter");
    study["nodes"] = {{"edge", {{"role", "user-device"}, {"hardware", "device-13tflops"}}},
                      {"cloud", {{"role", "cloud"}, {"hardware", "a800-80gb"}}}};
    study["links"] = {{"edge-cloud", {{"type", "service"}, {"rate", "100Mbps"}}}};
    study["scheme"] = {{"name", "ce-collm"},
                       {"exits", {{"layers", {1, 3}}}},
                       {"policy", {{"name", "confidence"}, {"threshold", 2.0}}}};
    study["scheme"].update(scheme);
    return study;
}

RunRecords
Run(Json study)
{
    return Simulate(ReadStudy(study, "test", Folders()), 0, 1, [] {});
}

} // namespace

TEST_CASE("Above every confidence, CE-CoLLM over an fp32 wire gives the bits of the whole model", "[ce-collm][invariant-2]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        const Answer whole = Monolithic(TestModel(model), {}).Ask(Prompt(), kNewTokens);
        for (const std::size_t layer : {1, 2, 3})
        {
            CAPTURE(model, layer);
            SplitRun run(Collaborative(model, "fp32", layer, 2.0));
            CHECK(SameBits(run.Ask(Prompt(), kNewTokens), whole));
            CHECK(run.lost.empty());
        }
    }
}

TEST_CASE("Over a 16-bit wire CE-CoLLM gives the bits of a model that rounds what is uploaded", "[ce-collm][invariant-2]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        for (const std::size_t layer : {1, 3})
        {
            CAPTURE(model, layer);
            SplitRun run(Collaborative(model, "fp16", layer, 2.0));
            CHECK(SameBits(run.Ask(Prompt(), kNewTokens), RoundedAfter(TestModel(model), layer, Prompt(), kNewTokens)));
        }
    }
}

TEST_CASE("At threshold 0 nothing is requested, and the first exit's tokens are uploaded all the same", "[ce-collm]")
{
    SplitRun run(Collaborative("tiny-llama", "fp32", 3, 0.0));
    const Answer answer = run.Ask(Prompt(), kNewTokens);
    std::map<std::string, std::size_t> sent;
    for (const MessageRecord& message : run.messages)
    {
        sent[message.kind]++;
    }
    CHECK(sent == std::map<std::string, std::size_t>{{"hidden-state", kNewTokens}, {"end", 1}});
    CHECK(answer.tokens.size() == kNewTokens);
}
