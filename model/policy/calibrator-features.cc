// SPDX-License-Identifier: GPL-2.0-only
#include "policy/calibrator-features.h"

#include "base/deterministic-math.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace splitllm
{

namespace
{

/**
 * e^x for x <= 0, relative error below 4e-7, zero below -87. Much faster than deterministic::Exp and as reproducible;
 * entropies need no more.
 */
float
ExpBelowZero(float x)
{
    constexpr float kLog2E = 1.44269504F;
    constexpr float kLn2High = 0.693359375F;
    constexpr float kLn2Low = -2.12194440e-4F;
    constexpr float kRound = 12582912.0F; // 1.5 * 2^23: adding and subtracting it rounds to an integer
    x = std::max(x, -87.0F);
    const float shifted = x * kLog2E + kRound;
    const float n = shifted - kRound;
    const float r = (x - n * kLn2High) - n * kLn2Low;
    float p = 1.9875691500e-4F;
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    const auto exponent = static_cast<std::uint32_t>(static_cast<std::int32_t>(n) + 127) << 23;
    return p * std::bit_cast<float>(exponent);
}

double
Similarity(std::span<const float> a, std::span<const float> b)
{
    if (b.empty())
    {
        return 0.0;
    }
    double product = 0.0;
    double ofA = 0.0;
    double ofB = 0.0;
    for (std::size_t i = 0; i < a.size(); i++)
    {
        product += static_cast<double>(a[i]) * b[i];
        ofA += static_cast<double>(a[i]) * a[i];
        ofB += static_cast<double>(b[i]) * b[i];
    }
    const double norms = std::sqrt(ofA) * std::sqrt(ofB);
    return norms > 0.0 ? product / norms : 0.0;
}

/// Eqs 7 and 8 with the largest element taken out of the exponentials: log(sum e) - sum(e v) / sum(e).
double
Entropy(std::span<const float> values)
{
    const float largest = *std::ranges::max_element(values);
    double sum = 0.0;
    double weighted = 0.0;
    for (const float value : values)
    {
        const float below = value - largest;
        const double e = ExpBelowZero(below);
        sum += e;
        weighted += e * below;
    }
    return deterministic::Log(sum) - weighted / sum;
}

double
SquaredDistance(std::span<const float> a, std::span<const float> b)
{
    double sum = 0.0;
    for (std::size_t i = 0; i < a.size(); i++)
    {
        const double difference = static_cast<double>(a[i]) - b[i];
        sum += difference * difference;
    }
    return sum;
}

} // namespace

double
Norm(std::span<const float> values)
{
    double sum = 0.0;
    for (const float value : values)
    {
        sum += static_cast<double>(value) * value;
    }
    return std::sqrt(sum);
}

Tier1Features
ComputeTier1Features(std::span<const float> hidden, std::span<const float> usual)
{
    double squares = 0.0;
    double sum = 0.0;
    double deviations = 0.0;
    float largest = hidden.front();
    for (std::size_t i = 0; i < hidden.size(); i++)
    {
        const double value = hidden[i];
        const double deviation = value - usual[i];
        squares += value * value;
        sum += value;
        deviations += deviation * deviation;
        largest = std::max(largest, hidden[i]);
    }
    const auto d = static_cast<double>(hidden.size());
    return {std::sqrt(squares), sum / d, largest, std::sqrt(deviations / d)};
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
        features[p] = baseNorms[p] > 0.0F ? Norm(now[p]) / baseNorms[p] : 0.0;
        features[3 + p] = Similarity(now[p], before[p]);
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
