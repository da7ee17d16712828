// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TAB_Q_H
#define SPLITLLM_TAB_Q_H

#include "codec/codec-kernels.h"

#include <cstdint>
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

/**
 * \param least Tmin >= 0
 * \param most Tmax >= Tmin, finite
 * \param bits Q, 1 to 7
 */
QuantiserScale ScaleOf(float least, float most, unsigned bits);

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

/**
 * The numbers that the symbols of a row stand for, OPSC Eq 7: magnitudes first, then signs. Beyond the largest float it
 * is the largest float.
 * \param values one for each symbol
 */
void ValuesOfSymbols(float scale, std::int32_t zero, std::span<float> values);

} // namespace splitllm

#endif // SPLITLLM_TAB_Q_H
