// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_BENCH_READ_BANDWIDTH_H
#define SPLITLLM_BENCH_READ_BANDWIDTH_H

#include "compute/cpu/team.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <vector>

namespace splitllm::bench
{

/// Seconds that \p body takes.
template <typename Body>
double
Seconds(const Body& body)
{
    const auto start = std::chrono::steady_clock::now();
    body();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/**
 * Bytes a second that \p threads threads read from memory at best: each sums its part of a buffer that no cache holds,
 * front to back. The limit of what a memory-bound kernel can do, measured in the same run.
 */
inline double
ReadBandwidth(std::size_t threads)
{
    using Four = float __attribute__((vector_size(16)));
    constexpr std::size_t kFours = std::size_t{1} << 24; // 256 MiB
    constexpr std::size_t kSums = 8;
    static const std::vector<Four> buffer(kFours, Four{1.0F, 1.0F, 1.0F, 1.0F});
    Team team(threads);
    double best = 0.0;
    for (int pass = 0; pass < 5; ++pass)
    {
        const double seconds = Seconds([&] {
            team.Run(threads, true, [&](std::size_t thread, std::size_t) {
                Four sums[kSums] = {};
                const std::size_t part = kFours / threads / kSums * kSums;
                const Four* from = buffer.data() + thread * part;
                for (std::size_t i = 0; i < part; i += kSums)
                {
                    for (std::size_t j = 0; j < kSums; ++j)
                    {
                        sums[j] += from[i + j];
                    }
                }
                for (std::size_t j = 1; j < kSums; ++j)
                {
                    sums[0] += sums[j];
                }
                volatile float sink = sums[0][0];
                static_cast<void>(sink);
            });
        });
        best = std::max(best, static_cast<double>(kFours * sizeof(Four)) / seconds);
    }
    return best;
}

} // namespace splitllm::bench

#endif // SPLITLLM_BENCH_READ_BANDWIDTH_H
