// SPDX-License-Identifier: GPL-2.0-only

#include "support/catch.h"
#include "support/error-of.h"
#include "support/reference-transformer.h"
#include "support/test-models.h"

#include "apps/split-llm-user-device.h"
#include "compute/cpu/cpu-backend.h"
#include "compute/shape-backend.h"
#include "schemes/host.h"
#include "schemes/tlc/local.h"

#include "ns3/node.h"
#include "ns3/simulator.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

constexpr std::size_t kPrompt = 19;
constexpr std::size_t kNewTokens = 12;

std::vector<TokenId>
Prompt()
{
    std::vector<TokenId> prompt(kPrompt);
    std::iota(prompt.begin(), prompt.end(), 40);
    return prompt;
}

struct Parts
{
    std::shared_ptr<Backend> backend;
    std::shared_ptr<const Model> model;
    std::shared_ptr<const Adapter> adapter;
    SchemeParts scheme;
};

/// A tiny model and its adapter, numeric on \p threads threads or, with 0, as shapes.
Parts
Tiny(const std::string& name, std::size_t threads)
{
    Parts parts;
    parts.model = Model::Load(TestModel(name));
    parts.adapter = Adapter::Load(TestModel(name + "-lora"), parts.model->config);
    if (threads > 0)
    {
        parts.backend = std::make_shared<CpuBackend>(threads);
    }
    else
    {
        parts.backend = std::make_shared<ShapeBackend>(DType::F32);
    }
    parts.scheme.model = parts.backend->Resident(parts.model);
    parts.scheme.adapter = parts.backend->Resident(parts.adapter, parts.model->config);
    return parts;
}

/// What a user's device saw after each token.
struct Run
{
    std::vector<TokenRecord> tokens;
    std::vector<std::vector<float>> logits;
    std::vector<std::uint64_t> kv;     //!< bytes in the ledger
    std::vector<std::uint64_t> kvPeak; //!< so far
    std::vector<std::uint64_t> peak;   //!< of all memory, so far
    std::size_t prunings = 0;

    std::vector<TokenId> Answer() const
    {
        std::vector<TokenId> answer;
        std::ranges::transform(tokens, std::back_inserter(answer), &TokenRecord::token);
        return answer;
    }
};

/// Asks the prompt once on a device that runs \p scheme.
Run
Ask(const Parts& parts, std::shared_ptr<const Scheme> scheme)
{
    using namespace ns3;
    Run run;
    const auto node = CreateObject<Node>();
    const auto user = CreateObject<UserDevice>();
    user->SetScheme(std::move(scheme));
    user->SetMachine(parts.backend,
                     std::make_shared<const DeviceProfile>(DeviceProfile::Load(
                         "device-13tflops", std::filesystem::path(SPLITLLM_SOURCE_DIR) / "scenarios/hardware")));
    user->AddRequest({.index = 0, .prompt = Prompt(), .newTokens = kNewTokens});
    node->AddApplication(user);
    const std::function<void(const TokenRecord&)> onToken = [&](const TokenRecord& record) {
        const MemoryLedger& memory = user->GetHost()->memory;
        run.tokens.push_back(record);
        run.kv.push_back(memory.Used(MemoryUse::Kv));
        run.kvPeak.push_back(memory.Peak(MemoryUse::Kv));
        run.peak.push_back(memory.Peak());
    };
    const std::function<void(const LogitsRecord&)> onLogits = [&](const LogitsRecord& record) {
        run.logits.emplace_back(record.values, record.values + record.vocab);
    };
    const std::function<void(const ComputeRecord&)> onCompute = [&](const ComputeRecord& record) {
        run.prunings += record.operation == "prune" ? 1 : 0;
    };
    user->TraceConnectWithoutContext("Compute", Callback<void, const ComputeRecord&>(onCompute));
    user->TraceConnectWithoutContext("Token", Callback<void, const TokenRecord&>(onToken));
    user->TraceConnectWithoutContext("Logits", Callback<void, const LogitsRecord&>(onLogits));
    Simulator::Run();
    Simulator::Destroy();
    REQUIRE(run.tokens.size() == kNewTokens);
    return run;
}

Run
AskMLora(const std::string& model, std::size_t threads, double keep)
{
    const Parts parts = Tiny(model, threads);
    return Ask(parts, std::make_shared<LocalScheme>(parts.scheme, keep));
}

bool
SameBits(const Run& a, const Run& b)
{
    bool same = a.Answer() == b.Answer() && a.logits.size() == kNewTokens && b.logits.size() == kNewTokens;
    for (std::size_t i = 0; same && i < kNewTokens; ++i)
    {
        same = a.logits[i].size() == b.logits[i].size() &&
               std::memcmp(a.logits[i].data(), b.logits[i].data(), a.logits[i].size() * sizeof(float)) == 0;
    }
    return same;
}

/// Whether every token took the same time for the same reasons, and the ledger had the same entries.
bool
SameCosts(const Run& a, const Run& b)
{
    return a.kv == b.kv && a.kvPeak == b.kvPeak && a.peak == b.peak &&
           std::ranges::equal(a.tokens, b.tokens, [](const TokenRecord& x, const TokenRecord& y) {
               return x.latency == y.latency && x.components == y.components;
           });
}

} // namespace

TEST_CASE("MLoRA that keeps all is Local, bit for bit and at the same cost", "[mlora]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        CAPTURE(model);
        const Parts parts = Tiny(model, 1);
        const Run local = Ask(parts, std::make_shared<LocalScheme>(parts.scheme));
        const Run all = AskMLora(model, 1, 1.0);
        CHECK(SameBits(all, local));
        CHECK(SameCosts(all, local));
        CHECK(local.prunings == 0);

        const Run half = AskMLora(model, 1, 0.5); // pruning does matter
        CHECK(half.prunings == 4 * kNewTokens);
        CHECK_FALSE(SameBits(half, local));
        CHECK_FALSE(SameCosts(half, local));
    }
}

TEST_CASE("MLoRA's logits are those of the reference transformer with the same heavy hitters", "[mlora]")
{
    for (const std::string name : {"tiny-llama", "tiny-opt"})
    {
        for (const std::size_t denominator : {2, 5})
        {
            const Parts parts = Tiny(name, 1);
            const Run run = AskMLora(name, 1, 1.0 / static_cast<double>(denominator));
            std::vector<std::size_t> calls(kNewTokens, 1);
            calls.front() = kPrompt;
            std::vector<TokenId> tokens = Prompt();
            const std::vector<TokenId> answer = run.Answer();
            tokens.insert(tokens.end(), answer.begin(), answer.end() - 1);
            const auto expected =
                ReferenceTransformer(*parts.model, parts.adapter.get(), {1, denominator, calls}).Logits(tokens);
            for (std::size_t i = 0; i < kNewTokens; ++i)
            {
                const double nmse = Nmse(run.logits[i], expected.row(static_cast<Eigen::Index>(kPrompt - 1 + i)));
                INFO(name << " 1/" << denominator << " token " << i << " NMSE " << nmse);
                CHECK(nmse < 1e-6);
            }
        }
    }
}

TEST_CASE("MLoRA gives the same bits on any number of threads", "[mlora]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        CHECK(SameBits(AskMLora(model, 3, 0.5), AskMLora(model, 1, 0.5)));
    }
}

TEST_CASE("MLoRA that keeps half of the cache has half of it in the ledger", "[mlora]")
{
    constexpr std::size_t kLayers = 4;
    for (const auto& [model, entry] : {std::pair<std::string, std::size_t>{"tiny-llama", 2 * 32 * 4}, // fp32, 2 heads
                                       std::pair<std::string, std::size_t>{"tiny-opt", 2 * 64 * 4}})
    {
        CAPTURE(model);
        const Run run = AskMLora(model, 1, 0.5);
        for (std::size_t i = 0; i < kNewTokens; ++i)
        {
            CHECK(run.kv[i] == kLayers * ((kPrompt + i + 1) / 2) * entry);
        }
        // The last layer holds the whole prompt while the others are pruned.
        CHECK(run.kvPeak.front() == ((kLayers - 1) * 10 + kPrompt) * entry);
        CHECK(run.kvPeak.back() == (kLayers * 15 + 1) * entry);
    }
}

TEST_CASE("MLoRA in shape mode takes the same time and memory as in numeric mode", "[mlora]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        for (const double keep : {0.3, 0.5, 1.0})
        {
            CAPTURE(model, keep);
            CHECK(SameCosts(AskMLora(model, 0, keep), AskMLora(model, 1, keep)));
        }
    }
}

TEST_CASE("MLoRA refuses to keep nothing, or more than all", "[mlora]")
{
    const Parts parts = Tiny("tiny-llama", 0);
    for (const double keep : {0.0, -1.0, 1.01, std::numeric_limits<double>::quiet_NaN()})
    {
        CHECK(ErrorOf([&] { LocalScheme(parts.scheme, keep); }).find("accepted: a share above 0 and at most 1") !=
              std::string::npos);
    }
}
