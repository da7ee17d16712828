// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_BENCH_READ_BANDWIDTH_H
#define SPLITLLM_BENCH_READ_BANDWIDTH_H

#include "compute/cpu/team.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
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
 * Bytes a second that \p threads threads read \p parts from memory at best: each sums its share of every part, front
 * to back. What a memory-bound kernel over the same bytes cannot exceed, if no cache holds them together.
 */
inline double
ReadBandwidth(std::size_t threads, const std::vector<std::span<const std::byte>>& parts)
{
    using Four = std::uint32_t __attribute__((vector_size(16)));
    constexpr std::size_t kSums = 8;
    Team team(threads);
    double best = 0.0;
    for (int pass = 0; pass < 5; ++pass)
    {
        std::atomic<std::size_t> bytes{0};
        const double seconds = Seconds([&] {
            team.Run(threads, true, [&](std::size_t thread, std::size_t) {
                Four sums[kSums] = {};
                for (const std::span<const std::byte> part : parts)
                {
                    const std::size_t share = part.size() / threads / sizeof(sums) * sizeof(sums);
                    const std::byte* from = part.data() + thread * share;
                    for (std::size_t i = 0; i < share; i += sizeof(sums))
                    {
                        for (std::size_t j = 0; j < kSums; ++j)
                        {
                            Four four;
                            std::memcpy(&four, from + i + j * sizeof(four), sizeof(four));
                            sums[j] += four;
                        }
                    }
                    bytes += share;
                }
                for (std::size_t j = 1; j < kSums; ++j)
                {
                    sums[0] += sums[j];
                }
                volatile std::uint32_t sink = sums[0][0];
                static_cast<void>(sink);
            });
        });
        best = std::max(best, static_cast<double>(bytes) / seconds);
    }
    return best;
}

} // namespace splitllm::bench

#endif // SPLITLLM_BENCH_READ_BANDWIDTH_H
