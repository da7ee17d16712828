// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cpu/cpu-backend.h"
#include "compute/footprint.h"
#include "read-bandwidth.h"
#include "support/random-model.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

// Layers of 8- and 4-bit weights beside the same layers as they are stored (bf16), in the same run: tokens decoded one
// by one, each of which reads every weight once, and a prompt.

using namespace splitllm;

namespace
{

/// So many layers of a named shape, of random weights, with next to no vocabulary.
std::shared_ptr<const Model>
Layers(const char* shape, std::size_t layers)
{
    ModelConfig config = NamedShape(shape, DType::BF16);
    config.layers = layers;
    config.vocab = 32;
    return test::RandomModel(config, 1);
}

/// Seconds of processor time that \p body takes on each of \p threads threads: other programs disturb it little.
template <typename Body>
double
ProcessorSeconds(std::size_t threads, const Body& body)
{
    const std::clock_t start = std::clock();
    body();
    return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC / static_cast<double>(threads);
}

/// Seconds that a call of \p rows takes in all layers of \p model, after \p before positions.
double
SecondsOf(Backend& backend, std::size_t threads, const ResidentModel& model, std::size_t before, std::size_t rows)
{
    const std::size_t layers = model.Config().layers;
    const auto cache = backend.NewCache(model, 0, layers, before + rows);
    const auto run = [&](std::size_t count) {
        Tensor hidden = Tensor::Zeros(count, model.Config().hidden);
        std::ranges::fill(hidden.Values(), 0.5F);
        for (std::size_t layer = 0; layer < layers; ++layer)
        {
            const Projections projections = backend.Project(model, layer, hidden).value;
            hidden = backend.FinishLayer(model, layer, hidden, projections, *cache).value;
        }
        benchmark::DoNotOptimize(hidden.Values().data());
    };
    if (before > 0)
    {
        run(before);
    }
    return ProcessorSeconds(threads, [&] { run(rows); });
}

/// \param rows 1 for decode, after 16 positions; else a prompt
void
Compare(benchmark::State& state, const char* shape, std::size_t layers, std::size_t rows)
{
    const auto threads = static_cast<std::size_t>(state.range(0));
    const std::size_t before = rows == 1 ? 16 : 0;
    const auto model = Layers(shape, layers);
    const ModelConfig& config = model->config;
    CpuBackend backend(threads);
    std::vector<std::shared_ptr<const ResidentModel>> models;
    for (const unsigned bits : {16, 8, 4})
    {
        models.push_back(backend.Resident(model, WeightPrecision::Front(config, layers, bits)));
    }
    const ArrayView& up = model->layers.front().up.weight;
    const std::span<const std::byte> large(up.data, up.Elements() * SizeOf(up.dtype));
    double limit = 0.0;
    std::vector<double> best(models.size(), std::numeric_limits<double>::infinity());
    for (auto _ : state)
    {
        limit = std::max(limit, bench::ReadBandwidth(threads, {large}));
        for (std::size_t i = 0; i < models.size(); ++i)
        {
            best[i] = std::min(best[i], SecondsOf(backend, threads, *models[i], before, rows));
        }
    }
    const auto bytes = [&](std::size_t i) {
        return static_cast<double>(LayerBytes(config, models[i]->Precision(), 0, layers).Total());
    };
    state.counters["bf16_ms"] = best[0] * 1e3;
    state.counters["int8_speedup"] = best[0] / best[1];
    state.counters["int4_speedup"] = best[0] / best[2];
    state.counters["bf16_GB_per_s"] = bytes(0) / best[0] * 1e-9;
    state.counters["int8_GB_per_s"] = bytes(1) / best[1] * 1e-9;
    state.counters["int4_GB_per_s"] = bytes(2) / best[2] * 1e-9;
    state.counters["read_GB_per_s"] = limit * 1e-9;
}

[[maybe_unused]] const bool kRegistered = [] {
    struct Case
    {
        const char* shape;
        std::size_t layers;
        std::size_t rows;
    };
    for (const auto& [shape, layers, rows] : {Case{"smollm2-135m", 30, 1},
                                              Case{"llama-2-7b", 1, 1},
                                              Case{"smollm2-135m", 4, 100}})
    {
        const std::string name = std::string("quantised/") + (rows == 1 ? "decode/" : "prefill/") + shape;
        benchmark::RegisterBenchmark(name.c_str(), Compare, shape, layers, rows)
            ->ArgName("threads")
            ->Arg(1)
            ->Arg(static_cast<std::int64_t>(Cores()))
            ->Iterations(10)
            ->Unit(benchmark::kMillisecond)
            ->UseRealTime();
    }
    return true;
}();

} // namespace
