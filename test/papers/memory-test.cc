// SPDX-License-Identifier: GPL-2.0-only

// Sizes that TLC-Calibrator reports (Table 3's out-of-memory cells, appendix C.2).

#include "support/catch.h"
#include "support/study-fixture.h"

#include "compute/footprint.h"
#include "llm/adapter.h"
#include "simulation.h"

using namespace splitllm;

TEST_CASE("rank-16 adapters of OPT-13B in fp32 take 75 MiB, and its int8 weights 12.85 GB", "[papers]")
{
    const ModelConfig opt = NamedShape("opt-13b", DType::I8);
    CHECK(LoraParameters(opt, 16) * SizeOf(DType::F32) == 78'643'200); // printed: 75.16 MB
    CHECK(ModelBytes(opt) == 12'853'473'280);                          // printed: 12.75 GB
}

TEST_CASE("a device of 8 GB holds OPT-1.3B in fp32 and Llama-3.2-3B in fp16, but not LLaMA-7B in fp16", "[papers]")
{
    const auto outOfMemory = [](const char* shape, const char* dtype) {
        Json json = Json::parse(R"({
          "study": "local", "mode": "shape", "model": { "adapter": { "rank": 16 } },
          "nodes": { "device": { "role": "user-device", "hardware": { "profile": "device-13tflops", "memory": "8GB" } } },
          "scheme": { "name": "local" },
          "workload": { "prompt_tokens": [ { "tokens": 20, "requests": 1 } ], "new_tokens": 4 } })");
        json["model"]["shape"] = shape;
        json["model"]["dtype"] = dtype;
        const RunRecords records = Simulate(ReadStudy(json, "test", test::Folders()), 0, 1, [] {});
        CHECK((records.tokens.size() == 4) == records.outOfMemory.empty());
        return records.outOfMemory;
    };
    CHECK(outOfMemory("opt-1.3b", "fp32").empty());
    CHECK(outOfMemory("llama-3.2-3b", "fp16").empty());
    CHECK(outOfMemory("llama-7b", "fp16") == "device");
}
