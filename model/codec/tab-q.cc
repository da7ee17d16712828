// SPDX-License-Identifier: GPL-2.0-only
#include "codec/tab-q.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace splitllm
{

namespace
{

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
    const unsigned lowest = LowestBits(first);
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
        const std::uint64_t sum =
            kernels.distortion(firstCodes.data(), trialCodes.data(), row.size(), first - trial);
        if (IsDistorted(sum, row.size(), trial, parameters))
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
        values[symbol] = ValueOfSymbol(scale, zero, static_cast<unsigned>(symbol));
    }
}

} // namespace splitllm
