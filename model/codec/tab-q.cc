// SPDX-License-Identifier: GPL-2.0-only
#include "codec/tab-q.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <limits>

namespace splitllm
{

namespace
{

float
GreatestCode(unsigned bits)
{
    return static_cast<float>((1U << bits) - 1U);
}

void
Codes(std::span<const float> row,
      const QuantiserScale& scale,
      unsigned bits,
      std::uint32_t threshold,
      std::span<std::uint8_t> codes,
      const CodecKernels& kernels)
{
    if (scale.flat)
    {
        std::fill(codes.begin(), codes.end(), std::uint8_t{0});
        return;
    }
    const QuantiserStep step{scale.scale, static_cast<float>(scale.zero), GreatestCode(bits), threshold};
    kernels.quantise(row.data(), row.size(), step, codes.data());
}

} // namespace

QuantiserScale
ScaleOf(float least, float most, unsigned bits)
{
    const float scale = (most - least) / GreatestCode(bits);
    if (scale == 0.0F)
    {
        // z = -1 makes code 0 stand for one step.
        return {.scale = least, .zero = least > 0.0F ? -1 : 0, .flat = true};
    }
    // The quotient is at most 127 * 2^24 or so: Tmax - Tmin is a unit in the last place of Tmin or more.
    return {.scale = scale, .zero = -static_cast<std::int32_t>(std::nearbyint(least / scale)), .flat = false};
}

QuantisedRow
QuantiseTabQ(std::span<const float> row,
             const RowRange& range,
             std::uint32_t threshold,
             const TabQParameters& parameters,
             const CodecKernels& kernels)
{
    assert(parameters.bits >= kTabQLeastBits && parameters.bits <= kTabQMostBits);
    const float least = std::bit_cast<float>(range.least);
    const float most = std::bit_cast<float>(range.most);
    const unsigned first = parameters.bits - 1;
    const unsigned lowest = std::min(2U, first);
    unsigned bits = first;
    QuantiserScale scale = ScaleOf(least, most, bits);
    std::vector<std::uint8_t> firstCodes(row.size());
    Codes(row, scale, bits, threshold, firstCodes, kernels);
    std::vector<std::uint8_t> codes;                   // those of `bits`, once it is not `first` any more
    std::vector<std::uint8_t> trialCodes(row.size());
    while (bits > lowest)
    {
        const unsigned trial = bits - 1;
        const QuantiserScale trialScale = ScaleOf(least, most, trial);
        Codes(row, trialScale, trial, threshold, trialCodes, kernels);
        const auto sum = static_cast<double>(
            kernels.distortion(firstCodes.data(), trialCodes.data(), row.size(), first - trial));
        const double unit = parameters.normalised ? GreatestCode(trial) : 1.0;
        if (sum / static_cast<double>(row.size()) / unit > parameters.delta)
        {
            break;
        }
        bits = trial;
        scale = trialScale;
        codes.resize(row.size());
        codes.swap(trialCodes);
    }
    if (bits == first)
    {
        codes.swap(firstCodes);
    }
    kernels.addSigns(row.data(), row.size(), scale.zero != 0, codes.data());
    return {bits, scale.scale, scale.zero, std::move(codes)};
}

void
ValuesOfSymbols(float scale, std::int32_t zero, std::span<float> values)
{
    for (std::size_t symbol = 0; symbol < values.size(); symbol++)
    {
        const float steps = static_cast<float>(symbol / 2) - static_cast<float>(zero);
        const float magnitude = std::min(steps * scale, std::numeric_limits<float>::max());
        values[symbol] = symbol % 2 == 0 ? magnitude : -magnitude;
    }
}

} // namespace splitllm
