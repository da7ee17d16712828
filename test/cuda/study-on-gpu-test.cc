// SPDX-License-Identifier: GPL-2.0-only
#include "base/input-error.h"
#include "simulation.h"
#include "support/bottleneck-folder.h"
#include "support/catch.h"
#include "support/gpu.h"
#include "support/side-folder.h"
#include "support/study-fixture.h"
#include "support/temporary-folder.h"

#include <string>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

RunRecords
Run(Json json, const std::string& backend)
{
    json["backend"] = backend;
    return Simulate(ReadStudy(json, "test", Folders()), 0, 1, [] {});
}

/// The tiny study of each scheme that has one: \p model with adapters where the scheme has a place for them.
std::vector<Json>
StudiesOf(const std::string& model, const std::string& bottleneck, const std::string& side)
{
    std::vector<Json> studies;
    const auto add = [&](const char* scheme, const char* server, const Json& adapter) {
        Json study = TinyStudy();
        study["model"] = {{"path", model}};
        if (!adapter.is_null())
        {
            study["model"]["adapter"] = {{"path", adapter}};
        }
        if (std::string(server) == "cloud")
        {
            study["nodes"].erase("edge");
            study["nodes"]["cloud"] = {{"role", "cloud"}, {"hardware", "a800-80gb"}};
            study["links"] = {{"device-cloud", {{"type", "service"}, {"rate", "100Mbps"}}}};
        }
        study["scheme"] = Json::parse(scheme);
        studies.push_back(study);
    };
    const Json lora = model + "-lora";
    add(R"({"name": "server"})", "edge", lora);
    add(R"({"name": "local"})", "edge", lora);
    add(R"({"name": "mlora", "keep": 0.5})", "edge", lora);
    add(R"({"name": "linfer"})", "edge", lora);
    add(R"({"name": "tlc", "policy": {"name": "random", "offload": 0.6, "return": 0.5}})", "edge", lora);
    add(R"({"name": "naive-split", "split": 2})", "cloud", {});
    add(R"({"name": "opsc", "split": 2, "codec": "fp16"})", "cloud", {});
    add(R"({"name": "opsc", "split": 1, "codec": {"name": "tab-q", "bits": 8, "delta": 0}})", "cloud", {});
    add(R"({"name": "ce-collm", "exits": {"layers": [2, 3]}, "policy": {"name": "confidence", "threshold": 0.02}})",
        "cloud",
        {});
    add(R"({"name": "adapter-split"})", "edge", bottleneck);
    add(R"({"name": "spa"})", "cloud", {});
    studies.back()["scheme"]["side"] = {{"path", side}};
    Json beams = studies.front();
    beams["workload"]["beams"] = 3;
    studies.push_back(beams);
    return studies;
}

} // namespace

TEST_CASE("Every scheme says the same on the GPU as on the CPU, at the same instants", "[cuda][study][slow]")
{
    SPLITLLM_NEEDS_GPU();
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        const TemporaryFolder folder;
        const ModelConfig config = LoadConfig(TestModel(model));
        const std::string side = WriteSideNetwork(folder, config, 5, 7).string();
        BottleneckFolder bottleneck(config, 6);
        for (const Json& study : StudiesOf(model, bottleneck.Write().string(), side))
        {
            INFO(model << ": " << study["scheme"].dump());
            const RunRecords gpu = Run(study, "cuda");
            const RunRecords cpu = Run(study, "cpu");
            REQUIRE(gpu.tokens.size() == 16);
            REQUIRE(gpu.tokens.size() == cpu.tokens.size());
            for (std::size_t i = 0; i < cpu.tokens.size(); ++i)
            {
                CHECK(gpu.tokens[i].token.token == cpu.tokens[i].token.token);
                CHECK(gpu.tokens[i].token.latency == cpu.tokens[i].token.latency);
            }
        }
    }
}

TEST_CASE("A study whose nodes have measured timing is charged what the GPU took", "[cuda][study]")
{
    SPLITLLM_NEEDS_GPU();
    Json study = TinyStudy();
    study["nodes"]["edge"]["hardware"] =
        Json::parse(R"({"profile": "a800-80gb", "name": "this-gpu", "timing": "measured"})");
    const RunRecords run = Run(study, "cuda");
    for (const TokenRow& row : run.tokens)
    {
        CHECK(row.token.components[static_cast<std::size_t>(Component::Base)].IsStrictlyPositive());
    }
}

TEST_CASE("A study asks for a backend that there is, and not in shape mode", "[study]")
{
    const auto error = [](Json study, const Json& backend) {
        study["backend"] = backend;
        try
        {
            ReadStudy(study, "test", Folders());
        }
        catch (const InputError& cause)
        {
            return std::string(cause.what());
        }
        return std::string();
    };
    CHECK(error(TinyStudy(), "cpu").empty());
    CHECK(error(TinyStudy(), "gpu").starts_with("test: backend: "));
    CHECK(error(TinyStudy(), "gpu").find("cuda") != std::string::npos);
    if (!HasGpu())
    {
        CHECK(error(TinyStudy(), "cuda").starts_with("test: backend: is \"cuda\", but no GPU for CUDA: "));
    }
    Json shape = TinyStudy();
    shape["mode"] = "shape";
    CHECK(error(shape, "cpu").starts_with("test: backend: shape mode computes nothing"));
}

#ifdef SPLITLLM_CUDA_EMULATION
TEST_CASE("Out of the GPU's memory is an out-of-memory result of the study point", "[cuda][study]")
{
    struct Memory
    {
        explicit Memory(std::size_t bytes)
        {
            emulation::SetMemory(bytes);
        }

        ~Memory()
        {
            emulation::SetMemory(std::size_t{8} << 30);
        }
    };

    // The weights do not fit; or they do, and what is computed does not, for which cuBLAS takes up to 4 x 32 MiB.
    constexpr std::size_t kLeast = 1 << 16;
    std::size_t loaded = 0;
    for (std::size_t bytes = kLeast; bytes < (std::size_t{256} << 20); bytes += bytes / 3)
    {
        const Memory memory(bytes);
        const RunRecords run = Run(TinyStudy(), "cuda");
        if (run.outOfMemory.empty())
        {
            CHECK(loaded > 0);
            CHECK(run.tokens.size() == 16);
            return;
        }
        CHECK(run.outOfMemoryReason.find("out of memory on the GPU") != std::string::npos);
        const bool whenLoading = run.outOfMemoryReason.find("cannot hold the model") != std::string::npos;
        CHECK((bytes > kLeast || whenLoading));
        loaded += whenLoading ? 0 : 1;
    }
    FAIL("it never fits");
}
#endif
