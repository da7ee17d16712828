// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_LANES_H
#define SPLITLLM_LANES_H

#include <array>
#include <cstddef>
#include <cstring>
#include <span>

namespace splitllm
{

/**
 * \file
 * Sums over vectors in a fixed order, sixteen elements at a time: as reproducible as a plain loop, and a decision stays
 * cheap beside the layer that it is about.
 */

using Lanes = float __attribute__((vector_size(16)));
constexpr std::size_t kLanes = 4;
constexpr std::size_t kBlock = 4 * kLanes; // four sums, so that an addition need not wait for the one before

/// Four elements at \p from.
inline Lanes
Load(const float* from)
{
    Lanes lanes;
    std::memcpy(&lanes, from, sizeof(lanes));
    return lanes;
}

/// The sum of all lanes, in double.
inline double
Sum(const std::array<Lanes, 4>& lanes)
{
    const Lanes four = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
    return (static_cast<double>(four[0]) + four[1]) + (static_cast<double>(four[2]) + four[3]);
}

/// Elements of \p values from \p first on as a whole block, with \p beyond after the last.
inline std::array<float, kBlock>
Tail(std::span<const float> values, std::size_t first, float beyond)
{
    std::array<float, kBlock> block;
    block.fill(beyond);
    std::memcpy(block.data(), values.data() + first, (values.size() - first) * sizeof(float));
    return block;
}

/// Calls \p visit(k, a, b) with all elements of two vectors of one length, four each, k counting 0 to 3 over and over;
/// after the last element come \p beyond in both.
template <typename F>
inline void
ForEachFour(std::span<const float> a, std::span<const float> b, float beyond, F&& visit)
{
    std::size_t i = 0;
    const auto block = [&visit](const float* x, const float* y) {
#pragma GCC unroll 4 // keeps the sums in registers
        for (std::size_t k = 0; k < 4; k++)
        {
            visit(k, Load(x + k * kLanes), Load(y + k * kLanes));
        }
    };
    for (; i + kBlock <= a.size(); i += kBlock)
    {
        block(a.data() + i, b.data() + i);
    }
    if (i < a.size())
    {
        block(Tail(a, i, beyond).data(), Tail(b, i, beyond).data());
    }
}

/// The scalar product of two vectors of one length.
inline double
Dot(std::span<const float> a, std::span<const float> b)
{
    std::array<Lanes, 4> sum{};
    ForEachFour(a, b, 0.0F, [&sum](std::size_t k, Lanes x, Lanes y) { sum[k] += x * y; });
    return Sum(sum);
}

/// The scalar products of \p vector with four rows of its length that lie one after the other at \p rows.
inline std::array<double, 4>
FourDots(const float* rows, std::span<const float> vector)
{
    const std::size_t n = vector.size();
    std::array<Lanes, 4> sum{};
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
    {
        const Lanes v = Load(vector.data() + i);
#pragma GCC unroll 4
        for (std::size_t k = 0; k < 4; k++)
        {
            sum[k] += Load(rows + k * n + i) * v;
        }
    }
    std::array<double, 4> dots;
    for (std::size_t k = 0; k < 4; k++)
    {
        for (std::size_t j = i; j < n; j++)
        {
            sum[k][j - i] += rows[k * n + j] * vector[j];
        }
        dots[k] = (static_cast<double>(sum[k][0]) + sum[k][1]) + (static_cast<double>(sum[k][2]) + sum[k][3]);
    }
    return dots;
}

} // namespace splitllm

#endif // SPLITLLM_LANES_H
