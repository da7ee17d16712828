// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cpu/kernels.h"
#include "compute/cpu/team.h"
#include "read-bandwidth.h"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <vector>

// Achieved GB/s of the products of decode beside the read bandwidth of the same run, and GFLOP/s of those of prefill.

using namespace splitllm;

namespace
{

constexpr std::size_t kColumns = 576;

/// One token: every weight is read from memory once.
void
Decode(benchmark::State& state, const Kernels& kernels, DType dtype)
{
    const auto threads = static_cast<std::size_t>(state.range(0));
    const std::size_t rowBytes = kColumns * SizeOf(dtype);
    const std::size_t rows = (std::size_t{256} << 20) / rowBytes;
    const std::vector<std::byte> weights(rows * rowBytes, std::byte{0x3c});
    const std::vector<float> x(kColumns, 1.0F);
    std::vector<float> y(rows);
    const Kernels::MatMul matMul = dtype == DType::F32   ? kernels.matMulF32
                                   : dtype == DType::F16 ? kernels.matMulF16
                                                         : kernels.matMulBf16;
    const double limit = bench::ReadBandwidth(threads, {weights});
    Team team(threads);
    double best = 0.0;
    for (auto _ : state)
    {
        const double seconds = bench::Seconds([&] {
            team.Run(threads, true, [&](std::size_t thread, std::size_t) {
                const std::size_t first = rows * thread / threads;
                const std::size_t count = rows * (thread + 1) / threads - first;
                matMul(weights.data() + first * rowBytes, count, kColumns, x.data(), 1, y.data() + first, rows);
            });
        });
        best = std::max(best, static_cast<double>(rows * rowBytes) / seconds);
    }
    state.counters["GB_per_s"] = best * 1e-9;
    state.counters["read_GB_per_s"] = limit * 1e-9;
    state.counters["ratio"] = best / limit;
}

/// 400 tokens by a block of weights that the cache holds, on one thread.
void
Prefill(benchmark::State& state, const Kernels& kernels)
{
    constexpr std::size_t kTokens = 400;
    constexpr std::size_t kRows = 96;
    const auto columns = static_cast<std::size_t>(state.range(0));
    const std::vector<std::uint16_t> weights(kRows * columns, 0x3f80);
    const std::vector<float> x(kTokens * columns, 1.0F);
    std::vector<float> y(kTokens * kRows);
    double best = 0.0;
    for (auto _ : state)
    {
        const double seconds = bench::Seconds(
            [&] { kernels.matMulBf16(weights.data(), kRows, columns, x.data(), kTokens, y.data(), kRows); });
        best = std::max(best, 2.0 * kRows * kTokens * static_cast<double>(columns) / seconds);
    }
    state.counters["GFLOP_per_s"] = best * 1e-9;
}

/// Keys and values of one head group at 1024 positions, in the cache.
void
Attention(benchmark::State& state, const Kernels& kernels)
{
    constexpr std::size_t kPositions = 1024;
    constexpr std::size_t kHeadDim = 64;
    const auto group = static_cast<std::size_t>(state.range(0));
    const std::vector<float> keys(kPositions * kHeadDim, 0.5F);
    const std::vector<float> queries(group * kHeadDim, 0.01F);
    std::vector<float> scores(group * kPositions);
    std::vector<float> y(group * kHeadDim);
    for (auto _ : state)
    {
        kernels.matMulF32(keys.data(), kPositions, kHeadDim, queries.data(), group, scores.data(), kPositions);
        for (std::size_t g = 0; g < group; ++g)
        {
            kernels.softmax(scores.data() + g * kPositions, kPositions);
        }
        kernels.weightedSum(scores.data(), kPositions, group, keys.data(), kPositions, kHeadDim, y.data());
        benchmark::DoNotOptimize(y.data());
    }
}

[[maybe_unused]] const bool kRegistered = [] {
    for (const Kernels* kernels : SupportedKernels())
    {
        const std::string name = "kernels/" + std::string(kernels->name);
        for (const DType dtype : {DType::BF16, DType::F16, DType::F32})
        {
            const std::string decode = name + "/decode/" + std::string(NameOf(dtype));
            benchmark::RegisterBenchmark(decode.c_str(), Decode, *kernels, dtype)
                ->ArgName("threads")
                ->Arg(1)
                ->Arg(static_cast<std::int64_t>(Cores()))
                ->Iterations(10)
                ->Unit(benchmark::kMillisecond)
                ->UseRealTime();
        }
        benchmark::RegisterBenchmark((name + "/prefill/bf16").c_str(), Prefill, *kernels)
            ->ArgName("columns")
            ->Arg(576)
            ->Arg(1536)
            ->Unit(benchmark::kMicrosecond);
        benchmark::RegisterBenchmark((name + "/attention").c_str(), Attention, *kernels)
            ->ArgName("group")
            ->Arg(1)
            ->Arg(3)
            ->Unit(benchmark::kMicrosecond);
    }
    return true;
}();

} // namespace
