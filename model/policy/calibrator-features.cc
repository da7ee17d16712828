// SPDX-License-Identifier: GPL-2.0-only
#include "policy/calibrator-features.h"

#include "base/deterministic-math.h"
#include "policy/lanes.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace splitllm
{

namespace
{

/**
 * e^x for x <= 0, relative error below 4e-7; below -87 it stays at e^-87. Much faster than deterministic::Exp and as
 * reproducible; entropies need no more.
 */
inline Lanes
ExpBelowZero(Lanes x)
{
    using Integers = std::int32_t __attribute__((vector_size(16)));
    constexpr float kLog2E = 1.44269504F;
    constexpr float kLn2High = 0.693359375F;
    constexpr float kLn2Low = -2.12194440e-4F;
    constexpr float kRound = 12582912.0F; // 1.5 * 2^23: adding and subtracting it rounds to an integer
    constexpr float kLeast = -87.0F;
    x = x > kLeast ? x : Lanes{} + kLeast;
    const Lanes n = (x * kLog2E + kRound) - kRound;
    const Lanes r = (x - n * kLn2High) - n * kLn2Low;
    Lanes p = r * 1.9875691500e-4F + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    const Integers exponent = (__builtin_convertvector(n, Integers) + 127) << 23;
    Lanes power;
    std::memcpy(&power, &exponent, sizeof(power));
    return p * power;
}

/// Largest element.
float
Largest(std::span<const float> values)
{
    std::array<Lanes, 4> largest;
    largest.fill(Lanes{} + values.front());
    ForEachFour(values, values, values.front(), [&largest](std::size_t k, Lanes v, Lanes) {
        largest[k] = v > largest[k] ? v : largest[k];
    });
    float most = values.front();
    for (const Lanes& four : largest)
    {
        for (std::size_t lane = 0; lane < kLanes; lane++)
        {
            most = std::max(most, static_cast<float>(four[lane]));
        }
    }
    return most;
}

/// Cosine of the angle between two vectors of the norms given; 0 where one has none.
double
Similarity(std::span<const float> a, double normOfA, std::span<const float> b)
{
    if (b.empty())
    {
        return 0.0;
    }
    std::array<Lanes, 4> product{};
    std::array<Lanes, 4> squares{};
    ForEachFour(a, b, 0.0F, [&](std::size_t k, Lanes x, Lanes y) {
        product[k] += x * y;
        squares[k] += y * y;
    });
    const double norms = normOfA * std::sqrt(Sum(squares));
    return norms > 0.0 ? Sum(product) / norms : 0.0;
}

/// Eqs 7 and 8 with the largest element taken out of the exponentials: log(sum e) - sum(e v) / sum(e).
double
Entropy(std::span<const float> values)
{
    const float largest = Largest(values);
    const float nothing = largest - 100.0F; // after the last element: its exponential does not count
    std::array<Lanes, 4> sum{};
    std::array<Lanes, 4> weighted{};
    ForEachFour(values, values, nothing, [&](std::size_t k, Lanes v, Lanes) {
        const Lanes below = v - largest;
        const Lanes e = ExpBelowZero(below);
        sum[k] += e;
        weighted[k] += e * below;
    });
    const double total = Sum(sum);
    return deterministic::Log(total) - Sum(weighted) / total;
}

double
SquaredDistance(std::span<const float> a, std::span<const float> b)
{
    std::array<Lanes, 4> sum{};
    ForEachFour(a, b, 0.0F, [&sum](std::size_t k, Lanes x, Lanes y) { sum[k] += (x - y) * (x - y); });
    return Sum(sum);
}

} // namespace

double
Norm(std::span<const float> values)
{
    return std::sqrt(Dot(values, values));
}

Tier1Features
ComputeTier1Features(std::span<const float> hidden, std::span<const float> usual)
{
    std::array<Lanes, 4> sum{};
    std::array<Lanes, 4> squares{};
    std::array<Lanes, 4> deviations{};
    ForEachFour(hidden, usual, 0.0F, [&](std::size_t k, Lanes x, Lanes mean) {
        sum[k] += x;
        squares[k] += x * x;
        deviations[k] += (x - mean) * (x - mean);
    });
    const auto d = static_cast<double>(hidden.size());
    return {std::sqrt(Sum(squares)), Sum(sum) / d, Largest(hidden), std::sqrt(Sum(deviations) / d)};
}

Tier2Features
ComputeTier2Features(const UpdateView& update,
                     const UpdateView& previous,
                     const std::array<float, 3>& baseNorms,
                     const UpdateView& usual)
{
    const std::array<std::span<const float>, 3> now{update.query, update.key, update.value};
    const std::array<std::span<const float>, 3> before{previous.query, previous.key, previous.value};
    const std::array<std::span<const float>, 3> mean{usual.query, usual.key, usual.value};
    Tier2Features features{};
    for (std::size_t p = 0; p < 3; p++)
    {
        const double norm = Norm(now[p]);
        features[p] = baseNorms[p] > 0.0F ? norm / baseNorms[p] : 0.0;
        features[3 + p] = Similarity(now[p], norm, before[p]);
        features[6 + p] = Entropy(now[p]);
        features[9 + p] = SquaredDistance(now[p], mean[p]);
    }
    return features;
}

std::size_t
Tier1FeatureFlops(std::size_t elements)
{
    return 7 * elements; // square and add, add, subtract, square and add, compare
}

std::size_t
Tier2FeatureFlops(std::size_t elements)
{
    return 17 * elements; // norm 2, similarity 6, entropy 6 (compare, subtract, exp, add, multiply and add), diversity 3
}

} // namespace splitllm
