// SPDX-License-Identifier: GPL-2.0-only
#include "codec/codec-kernels-tables.h"

#include <algorithm>
#include <cstring>

namespace splitllm
{

namespace
{

#include "codec/codec-kernels-inl.h"

constexpr unsigned kLanes = 32;

RowRange
Range(const float* x, std::size_t n, std::uint32_t threshold)
{
    RowRange range{.least = 0x7FFFFFFF};
    RangeOf(x, 0, n, threshold, range);
    return range;
}

void
Quantise(const float* x, std::size_t n, const QuantiserStep& step, std::uint8_t* codes)
{
    QuantiseFrom(x, 0, n, step, codes);
}

std::uint64_t
Distortion(const std::uint8_t* first, const std::uint8_t* second, std::size_t n, unsigned shift)
{
    return DistortionFrom(first, second, 0, n, shift);
}

void
AddSigns(const float* x, std::size_t n, bool signedZero, std::uint8_t* codes)
{
    AddSignsFrom(x, 0, n, signedZero, codes);
}

void
Count16(const std::uint8_t* symbols, std::size_t n, std::uint32_t* histogram)
{
    // Four tables take turns: adding to one place twice in a row would wait for the first sum.
    std::uint32_t counts[4][16] = {};
    const std::size_t whole = n / 4 * 4;
    for (std::size_t i = 0; i < whole; i++)
    {
        counts[i % 4][symbols[i]]++;
    }
    Count16From(symbols, whole, n, histogram);
    for (std::size_t symbol = 0; symbol < 16; symbol++)
    {
        histogram[symbol] += counts[0][symbol] + counts[1][symbol] + counts[2][symbol] + counts[3][symbol];
    }
}

std::uint16_t*
RansPut32(const std::uint8_t* symbols,
          std::size_t steps,
          const RansEncodeTable& table,
          std::uint32_t* states,
          std::uint16_t* top)
{
    for (std::size_t i = steps * kLanes; i-- > 0;)
    {
        std::uint16_t word;
        if (RansPut(states[i % kLanes], table.symbols[symbols[i]], word))
        {
            *--top = word;
        }
    }
    return top;
}

std::size_t
RansTake32(std::uint8_t* symbols,
           std::size_t steps,
           const RansDecodeTable& table,
           std::uint32_t* states,
           const std::byte*& words,
           const std::byte* end)
{
    for (std::size_t step = 0; step < steps; step++, symbols += kLanes)
    {
        if (end - words < 2 * static_cast<std::ptrdiff_t>(kLanes))
        {
            return step;
        }
        for (unsigned lane = 0; lane < kLanes; lane++)
        {
            symbols[lane] = RansTake(states[lane], table.slots);
            if (states[lane] < kRansLow)
            {
                std::uint16_t word;
                std::memcpy(&word, words, sizeof word);
                words += sizeof word;
                states[lane] = states[lane] << 16 | word;
            }
        }
    }
    return steps;
}

} // namespace

constinit const CodecKernels kCodecKernelsPlain =
    {InstructionSet::Plain, Range, Quantise, Distortion, AddSigns, Count16, RansPut32, RansTake32};

} // namespace splitllm
