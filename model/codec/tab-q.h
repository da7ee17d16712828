// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TAB_Q_H
#define SPLITLLM_TAB_Q_H

#include "codec/codec-kernels.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace splitllm
{

constexpr unsigned kTabQLeastBits = 2; //!< least Qbar
constexpr unsigned kTabQMostBits = 8;  //!< greatest Qbar

/// What steers token-wise adaptive bit quantisation (TAB-Q), OPSC Algorithm 1.
struct TabQParameters
{
    unsigned bits = 4;       //!< Qbar, bits of a code with its sign: kTabQLeastBits to kTabQMostBits
    double delta = 0.2;      //!< Delta, the distortion that a step down may have
    bool normalised = false; //!< distortion in parts of the greatest code instead of codes, so that it does not shrink with the number of levels
};

/**
 * One row as TAB-Q leaves it: x is about sign * (code - zero) * scale.
 *
 * A symbol is code * 2 + sign, below 2^(bits + 1). Where zero is 0, code 0 is the number 0 and has no sign: symbol 1 does
 * not occur. Where it is not, code 0 has a magnitude, and its sign travels.
 */
struct QuantisedRow
{
    unsigned bits = 1;      //!< Q*, bits of a code without its sign: 1 to 7
    float scale = 0.0F;     //!< s, finite and not negative
    std::int32_t zero = 0;  //!< z, never positive
    std::vector<std::uint8_t> symbols;
};

/// Scale and zero point, OPSC Eq 6 with Qmax = 2^Q - 1 and z = -round(Tmin / s).
struct QuantiserScale
{
    float scale = 0.0F;
    std::int32_t zero = 0;
    bool flat = false; //!< no step fits between Tmin and Tmax: every code is 0, which stands for Tmin

    bool operator==(const QuantiserScale&) const = default;
};

/// Qmax of \p bits bits of magnitude.
SPLITLLM_HOST_DEVICE constexpr float
GreatestCode(unsigned bits)
{
    return static_cast<float>((1U << bits) - 1U);
}

/**
 * \param least Tmin >= 0
 * \param most Tmax >= Tmin, finite
 * \param bits Q, 1 to 7
 */
SPLITLLM_HOST_DEVICE inline QuantiserScale
ScaleOf(float least, float most, unsigned bits)
{
    const float scale = (most - least) / GreatestCode(bits);
    if (scale == 0.0F)
    {
        // z = -1 makes code 0 stand for one step.
        return {.scale = least, .zero = least > 0.0F ? -1 : 0, .flat = true};
    }
    // The quotient is at most 127 * 2^24 or so: Tmax - Tmin is a unit in the last place of Tmin or more.
    return {.scale = scale, .zero = -static_cast<std::int32_t>(nearbyintf(least / scale)), .flat = false};
}

/// The least bits that Algorithm 1 tries where it starts from \p first.
SPLITLLM_HOST_DEVICE constexpr unsigned
LowestBits(unsigned first)
{
    return first < 2 ? first : 2;
}

/**
 * Whether the distortion of \p bits bits is above Delta.
 * \param sum of |first codes - codes| over the \p n elements of a row
 */
SPLITLLM_HOST_DEVICE inline bool
IsDistorted(std::uint64_t sum, std::size_t n, unsigned bits, const TabQParameters& parameters)
{
    const double unit = parameters.normalised ? GreatestCode(bits) : 1.0;
    return static_cast<double>(sum) / static_cast<double>(n) / unit > parameters.delta;
}

/// The number that a symbol stands for, OPSC Eq 7: magnitude first, then sign; at most the largest float.
SPLITLLM_HOST_DEVICE inline float
ValueOfSymbol(float scale, std::int32_t zero, unsigned symbol)
{
    const float steps = static_cast<float>(symbol / 2) - static_cast<float>(zero);
    const float product = steps * scale;
    const float magnitude = product < std::numeric_limits<float>::max() ? product : std::numeric_limits<float>::max();
    return symbol % 2 == 0 ? magnitude : -magnitude;
}

/**
 * Quantises the magnitudes with Qbar - 1 bits, then with one bit less for as long as the distortion against the first
 * codes stays within Delta, down to min(2, Qbar - 1). The last configuration within Delta is the result.
 * \param row finite values
 * \param range of \p row, with the same threshold
 * \param threshold bits of tau: elements with |x| >= tau count as zero (OPSC Eq 4)
 */
QuantisedRow QuantiseTabQ(std::span<const float> row,
                          const RowRange& range,
                          std::uint32_t threshold,
                          const TabQParameters& parameters,
                          const CodecKernels& kernels = BestCodecKernels());

/// The numbers that the symbols of a row stand for. \param values one for each symbol
void ValuesOfSymbols(float scale, std::int32_t zero, std::span<float> values);

} // namespace splitllm

#endif // SPLITLLM_TAB_Q_H
