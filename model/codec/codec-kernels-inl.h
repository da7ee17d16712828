// SPDX-License-Identifier: GPL-2.0-only
// The codec's inner loops one element at a time: all of the plain set, and of the others what is left of a row behind
// its last whole vector. Included by one source file an instruction set, inside an unnamed namespace, with its flags.

/// Adds x[first, n) to \p range.
inline void
RangeOf(const float* x, std::size_t first, std::size_t n, std::uint32_t threshold, RowRange& range)
{
    for (std::size_t i = first; i < n; i++)
    {
        std::uint32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7FFFFFFF;
        const bool below = bits < threshold;
        const std::uint32_t kept = below ? bits : 0;
        range.peak = std::max(range.peak, bits);
        range.most = std::max(range.most, kept);
        range.least = std::min(range.least, kept);
        range.above += below ? 0 : 1;
    }
}

inline void
QuantiseFrom(const float* x, std::size_t first, std::size_t n, const QuantiserStep& step, std::uint8_t* codes)
{
    // Adding 1.5 * 2^23 leaves no bits for a fraction: the sum is rounded half to even, and its low bits are the code.
    constexpr float kRound = 12582912.0F;
    for (std::size_t i = first; i < n; i++)
    {
        std::uint32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        bits &= 0x7FFFFFFF;
        bits = bits < step.threshold ? bits : 0;
        float magnitude;
        std::memcpy(&magnitude, &bits, sizeof bits);
        float level = magnitude / step.scale + step.zero;
        level = level > 0.0F ? level : 0.0F;
        level = (level < step.top ? level : step.top) + kRound;
        std::memcpy(&bits, &level, sizeof bits);
        codes[i] = static_cast<std::uint8_t>(bits);
    }
}

inline std::uint64_t
DistortionFrom(const std::uint8_t* a, const std::uint8_t* b, std::size_t first, std::size_t n, unsigned shift)
{
    std::uint64_t sum = 0;
    for (std::size_t i = first; i < n; i++)
    {
        const int difference = (a[i] >> shift) - b[i];
        sum += static_cast<std::uint64_t>(difference < 0 ? -difference : difference);
    }
    return sum;
}

inline void
AddSignsFrom(const float* x, std::size_t first, std::size_t n, bool signedZero, std::uint8_t* codes)
{
    for (std::size_t i = first; i < n; i++)
    {
        std::uint32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        const bool hasSign = signedZero || codes[i] != 0;
        codes[i] = static_cast<std::uint8_t>(codes[i] << 1 | (hasSign ? bits >> 31 : 0));
    }
}

inline void
Count16From(const std::uint8_t* symbols, std::size_t first, std::size_t n, std::uint32_t* histogram)
{
    for (std::size_t i = first; i < n; i++)
    {
        histogram[symbols[i]]++;
    }
}
