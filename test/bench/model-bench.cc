// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cpu/cpu-backend.h"
#include "read-bandwidth.h"
#include "support/random-model.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

// Decode and prefill of SmolLM2-135M: the model in the folder that SPLITLLM_MODEL names, else random weights of its
// shape. Everything a token needs is timed: embedding, all layers, head, choice of the token.

using namespace splitllm;

namespace
{

std::shared_ptr<const Model>
TheModel()
{
    static const std::shared_ptr<const Model> model = [] {
        const char* folder = std::getenv("SPLITLLM_MODEL");
        return folder != nullptr && std::filesystem::exists(folder)
                   ? Model::Load(folder)
                   : test::RandomModel(NamedShape("smollm2-135m", DType::BF16), 1);
    }();
    return model;
}

/// One sequence that grows token by token.
class Sequence
{
  public:
    Sequence(std::size_t threads, std::size_t capacity)
        : m_backend(threads),
          m_model(m_backend.Resident(TheModel())),
          m_cache(m_backend.NewCache(*m_model, 0, m_model->Config().layers, capacity))
    {
    }

    /// Appends \p tokens; the next token by the last row's logits.
    TokenId Step(const std::vector<TokenId>& tokens)
    {
        Tensor hidden = m_backend.Embed(*m_model, tokens, m_cache->Length(0)).value;
        for (std::size_t layer = 0; layer < m_model->Config().layers; ++layer)
        {
            const Projections projections = m_backend.Project(*m_model, layer, hidden).value;
            hidden = m_backend.FinishLayer(*m_model, layer, hidden, projections, *m_cache).value;
        }
        const Tensor logits = m_backend.Head(*m_model, hidden.Slice(hidden.Rows() - 1, 1)).value;
        return m_backend.Sample(logits, {}, 0.0).value;
    }

  private:
    CpuBackend m_backend;
    std::shared_ptr<const ResidentModel> m_model;
    std::unique_ptr<KvCache> m_cache;
};

/// The matrices that every token's step reads.
std::vector<std::span<const std::byte>>
Matrices(const Model& model)
{
    std::vector<std::span<const std::byte>> matrices;
    const auto add = [&](const ArrayView& view) {
        if (view.data != nullptr)
        {
            matrices.emplace_back(view.data, view.Elements() * SizeOf(view.dtype));
        }
    };
    for (const LayerWeights& layer : model.layers)
    {
        for (const LinearWeights* linear :
             {&layer.query, &layer.key, &layer.value, &layer.output, &layer.gate, &layer.up, &layer.down})
        {
            add(linear->weight);
        }
    }
    add(model.head);
    return matrices;
}

double
Median(std::vector<double> values)
{
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::ranges::nth_element(values, middle);
    return *middle;
}

/// 32 tokens after a prompt of 32: the best speed, and the median ratio to the read bandwidth measured just before.
void
Decode(benchmark::State& state)
{
    constexpr std::size_t kTokens = 32;
    const auto threads = static_cast<std::size_t>(state.range(0));
    const std::vector<std::span<const std::byte>> matrices = Matrices(*TheModel());
    double bytes = 0.0;
    for (const std::span<const std::byte> matrix : matrices)
    {
        bytes += static_cast<double>(matrix.size());
    }
    double best = 0.0;
    std::vector<double> limits;
    std::vector<double> ratios;
    for (auto _ : state)
    {
        limits.push_back(bench::ReadBandwidth(threads, matrices));
        Sequence sequence(threads, 2 * kTokens);
        TokenId token = sequence.Step(std::vector<TokenId>(kTokens, 100));
        const double seconds = bench::Seconds([&] {
            for (std::size_t i = 0; i < kTokens; ++i)
            {
                token = sequence.Step({token});
            }
        });
        best = std::max(best, kTokens / seconds);
        ratios.push_back(bytes * kTokens / seconds / limits.back());
    }
    state.counters["tokens_per_s"] = best;
    state.counters["GB_per_s"] = best * bytes * 1e-9;
    state.counters["read_GB_per_s"] = Median(limits) * 1e-9;
    state.counters["ratio"] = Median(ratios);
}

void
Prefill(benchmark::State& state)
{
    const auto threads = static_cast<std::size_t>(state.range(0));
    const auto tokens = static_cast<std::size_t>(state.range(1));
    double best = 0.0;
    for (auto _ : state)
    {
        Sequence sequence(threads, tokens);
        const std::vector<TokenId> prompt(tokens, 100);
        best = std::max(best, static_cast<double>(tokens) / bench::Seconds([&] { sequence.Step(prompt); }));
    }
    const ModelConfig& config = TheModel()->config;
    const double linear = 2.0 * static_cast<double>(config.LayerParameters() * config.layers);
    state.counters["tokens_per_s"] = best;
    state.counters["GFLOP_per_s"] = best * linear * 1e-9;
}

const auto kCores = static_cast<std::int64_t>(Cores());

BENCHMARK(Decode)
    ->Name("model/decode")
    ->ArgName("threads")
    ->Arg(1)
    ->Arg(kCores)
    ->Iterations(8)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

BENCHMARK(Prefill)
    ->Name("model/prefill")
    ->ArgNames({"threads", "tokens"})
    ->Args({1, 400})
    ->Args({kCores, 400})
    ->Args({kCores, 4})
    ->Args({kCores, 16})
    ->Iterations(6)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

} // namespace
