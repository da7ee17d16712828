// SPDX-License-Identifier: GPL-2.0-only
#include "device-measurement.h"

#include "compute/cpu/cpu-backend.h"
#include "compute/cuda-backend.h"
#include "compute/device-profile.h"
#include "support/catch.h"
#include "support/gpu.h"
#include "support/odd-models.h"
#include "support/random-model.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

std::vector<MeasuredCall>
Measured(Backend& backend)
{
    const ModelConfig config = OddLlama();
    MeasuredParts parts;
    parts.models.push_back(backend.Resident(RandomModel(config, 3)));
    parts.adapter = backend.Resident(RandomAdapter(config, 5, 2.0F, DType::BF16, 4), config);
    const MeasurementPlan plan{
        .rows = {1, 3}, .contexts = {0, 7}, .sequences = {2}, .layers = 2, .repeats = 2, .prune = true};
    return MeasureDevice(backend, parts, plan, [](const std::string&) {});
}

} // namespace

TEST_CASE("a GPU is measured call by call as a CPU is, and its profile gives its times", "[cuda][device-measurement]")
{
    SPLITLLM_NEEDS_GPU();
    CpuBackend cpu(1);
    const std::shared_ptr<Backend> gpu = MakeCudaBackend(CudaTimes::Events);
    const std::vector<MeasuredCall> calls = Measured(*gpu);
    const std::vector<MeasuredCall> expected = Measured(cpu);
    REQUIRE(calls.size() == expected.size());

    const MeasuredOn on{.device = CudaDeviceName(), .software = "s", .model = "odd-llama", .command = "c", .date = ""};
    Json json = ParseStrictJson(MeasuredProfile("gpu", on, calls), "gpu.json");
    StrictObject object(json, "gpu.json");
    const DeviceProfile profile = DeviceProfile::Read(object, {});
    for (std::size_t i = 0; i < calls.size(); i++)
    {
        const auto& [operation, sample, context] = calls[i];
        INFO(NameOf(operation) << ", rows " << sample.rows << ", context " << context);
        CHECK(operation == expected[i].operation);
        CHECK(context == expected[i].context);
        CHECK(sample.median.count() > 0);
        CHECK(sample.repeats == expected[i].sample.repeats);
        // A study on the CPU charges what the GPU took.
        const TimeSample& there = expected[i].sample;
        CHECK(profile.TimeOf(operation, there.rows, there.work, DType::BF16, {}) == sample.median);
    }
}
