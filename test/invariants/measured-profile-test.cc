// SPDX-License-Identifier: GPL-2.0-only

// A study with measured hardware takes, wherever it runs, the times that were measured.

#include "support/catch.h"
#include "support/error-of.h"
#include "support/study-fixture.h"

#include "compute/cpu/cpu-backend.h"
#include "device-measurement.h"
#include "simulation.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

constexpr auto kNoProgress = [] {};

/// The calls of tiny-llama with its adapter that the tiny study makes, and some around them, as this host takes them.
std::vector<MeasuredCall>
Measured(const std::vector<std::size_t>& sequences)
{
    CpuBackend backend(1);
    const auto model = Model::Load(TestModel("tiny-llama"));
    MeasuredParts parts;
    parts.models.push_back(backend.Resident(model));
    parts.adapter = backend.Resident(Adapter::Load(TestModel("tiny-llama-lora"), model->config), model->config);
    const MeasurementPlan plan{.rows = {1, 2, 7, 12, 24},
                               .contexts = {0, 7, 8, 9, 12, 13, 14},
                               .sequences = sequences,
                               .layers = 4,
                               .repeats = 2,
                               .prune = false};
    return MeasureDevice(backend, parts, plan, [](const std::string&) {});
}

/// The profile of \p calls, inline.
Json
Profile(const std::vector<MeasuredCall>& calls)
{
    const MeasuredOn on{.device = "this host", .software = "s", .model = "tiny-llama", .command = "c", .date = ""};
    return Json::parse(MeasuredProfile("here", on, calls));
}

/// \p study without weights: other tensors, which are counted in bf16 and not in fp32.
Json
InShapeMode(Json study)
{
    study["mode"] = "shape";
    study["model"]["dtype"] = "bf16";
    study["model"]["adapter"] = {{"rank", 4}};
    study["workload"].erase("prompts");
    study["workload"].erase("requests");
    study["workload"]["prompt_tokens"] = Json::parse(
        R"([{"tokens": 7, "requests": 1}, {"tokens": 12, "requests": 1},
            {"tokens": 7, "requests": 1}, {"tokens": 12, "requests": 1}])");
    return study;
}

std::vector<TokenRow>
Run(Json study)
{
    return Simulate(ReadStudy(study, "test", Folders()), 0, 1, kNoProgress).tokens;
}

} // namespace

TEST_CASE("a token on measured hardware takes the sum of its operations' medians", "[measured-profile]")
{
    const std::vector<MeasuredCall> calls = Measured({});
    const auto median = [&](Operation operation, std::size_t rows, std::size_t context = 0, std::uint64_t flops = 0) {
        const auto found = std::ranges::find_if(calls, [&](const MeasuredCall& call) {
            return call.operation == operation && call.sample.rows == rows && call.context == context &&
                   (flops == 0 || call.sample.work.flops == flops);
        });
        REQUIRE(found != calls.end());
        return found->sample.median.count();
    };
    Json numeric = TinyStudy();
    numeric["scheme"]["name"] = "local";
    numeric["nodes"]["device"]["hardware"] = Profile(calls);
    for (const Json& study : {numeric, InShapeMode(numeric)})
    {
        CAPTURE(study["mode"].get<std::string>());
        const std::vector<TokenRow> rows = Run(study);
        REQUIRE(rows.size() == 16);
        for (const TokenRow& row : rows)
        {
            const std::size_t prompt = row.token.request % 2 == 0 ? 7 : 12;
            const bool first = row.token.position == 1;
            const std::size_t w = first ? prompt : 1;
            const std::size_t context = first ? 0 : prompt + row.token.position - 2;
            const auto of = [&row](Component component) {
                return row.token.components[static_cast<std::size_t>(component)].GetNanoSeconds();
            };
            CAPTURE(prompt, row.token.position);
            // 4 layers; greedy of a vocabulary of 256
            CHECK(of(Component::Base) == median(Operation::Embed, w) + 4 * median(Operation::Project, w) +
                                             4 * median(Operation::FinishLayer, w, context) +
                                             median(Operation::Head, 1) + median(Operation::Sample, 1, 0, 256));
            CHECK(of(Component::Adapter) == 4 * (median(Operation::Adapt, w) + median(Operation::Merge, w)));
        }
    }
}

TEST_CASE("numbers and shapes take the same time on measured hardware, alone and in batches", "[measured-profile]")
{
    const Json profile = Profile(Measured({2}));
    for (const std::uint32_t batch : {1, 2})
    {
        CAPTURE(batch);
        Json numeric = TinyStudy();
        numeric["nodes"]["edge"]["hardware"] = profile;
        numeric["nodes"]["edge"]["batch"] = batch;
        numeric["nodes"]["device"]["hardware"] = profile;
        numeric["scheme"]["name"] = "server";
        const std::vector<TokenRow> numbers = Run(numeric);
        const std::vector<TokenRow> shapes = Run(InShapeMode(numeric));
        REQUIRE(numbers.size() == 16);
        REQUIRE(shapes.size() == 16);
        for (std::size_t i = 0; i < numbers.size(); i++)
        {
            CAPTURE(i);
            CHECK(numbers[i].token.components[static_cast<std::size_t>(Component::Base)].IsStrictlyPositive());
            CHECK(numbers[i].token.latency == shapes[i].token.latency);
            CHECK(numbers[i].token.components == shapes[i].token.components);
        }
    }
}

TEST_CASE("a study that asks for more than was measured is an error that names profile and operation",
          "[measured-profile]")
{
    Json study = TinyStudy();
    study["nodes"]["edge"]["hardware"] = Profile(Measured({}));
    study["scheme"]["name"] = "server";
    study["workload"]["new_tokens"] = 5; // one more than was measured
    const std::string expected = "hardware profile here: timing.table.finish-layer.samples: a call with rows 1, ";
    CHECK(ErrorOf([&] { Run(study); }).find(expected) != std::string::npos);
}
