// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_TAB_Q_REFERENCE_H
#define SPLITLLM_TEST_TAB_Q_REFERENCE_H

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace splitllm::test
{

/// OPSC Algorithm 1 line by line, one element after the other, as the codec reads it. Nothing here is the codec's.
struct TabQReference
{
    unsigned bits = 0; //!< Q*
    float s = 0.0F;
    float z = 0.0F;
    std::vector<int> magnitudes;
    std::vector<int> signs;         //!< 1 or -1
    std::vector<double> distortion; //!< delta of Qbar - 2, Qbar - 3, ... as far as it was tried

    /// Eq 7: magnitudes first, then signs.
    float Value(std::size_t i) const
    {
        const float magnitude = std::min((static_cast<float>(magnitudes[i]) - z) * s, std::numeric_limits<float>::max());
        return z == 0.0F && magnitudes[i] == 0 ? 0.0F : static_cast<float>(signs[i]) * magnitude;
    }
};

/// Eqs 5 and 6 with Qmax = 2^Q - 1.
inline std::vector<int>
Aiq(const std::vector<float>& magnitudes, unsigned bits, float& s, float& z)
{
    const float least = *std::min_element(magnitudes.begin(), magnitudes.end());
    const float most = *std::max_element(magnitudes.begin(), magnitudes.end());
    const auto levels = static_cast<float>(std::pow(2.0, bits) - 1.0);
    s = (most - least) / levels;
    std::vector<int> codes(magnitudes.size(), 0);
    if (s == 0.0F)
    {
        s = least;
        z = least > 0.0F ? -1.0F : 0.0F;
        return codes;
    }
    z = -std::nearbyint(least / s) + 0.0F;
    for (std::size_t i = 0; i < codes.size(); i++)
    {
        const float level = std::nearbyint(magnitudes[i] / s + z);
        codes[i] = static_cast<int>(std::clamp(level, 0.0F, levels));
    }
    return codes;
}

/// \param tau infinity where there is no threshold
inline TabQReference
ReferenceTabQ(const std::vector<float>& row, unsigned qbar, double delta, bool normalised, float tau)
{
    TabQReference result;
    std::vector<float> magnitudes;
    for (const float x : row)
    {
        magnitudes.push_back(std::abs(x) < tau ? std::abs(x) : 0.0F);
        result.signs.push_back(std::signbit(x) ? -1 : 1);
    }
    result.bits = qbar - 1;
    const std::vector<int> first = Aiq(magnitudes, result.bits, result.s, result.z);
    result.magnitudes = first;
    const unsigned lowest = std::min(2U, qbar - 1);
    for (unsigned bits = qbar - 1; bits-- > lowest;)
    {
        float s = 0.0F;
        float z = 0.0F;
        const std::vector<int> codes = Aiq(magnitudes, bits, s, z);
        double sum = 0.0;
        for (std::size_t i = 0; i < codes.size(); i++)
        {
            sum += std::abs(std::floor(first[i] / std::pow(2.0, qbar - 1 - bits)) - codes[i]);
        }
        const double distortion = sum / static_cast<double>(codes.size()) / (normalised ? std::pow(2.0, bits) - 1.0 : 1.0);
        result.distortion.push_back(distortion);
        if (distortion > delta)
        {
            break;
        }
        result.bits = bits;
        result.s = s;
        result.z = z;
        result.magnitudes = codes;
    }
    return result;
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_TAB_Q_REFERENCE_H
