// SPDX-License-Identifier: GPL-2.0-only
// The codec's inner loops one element at a time: all of the plain set, and of the others what is left of a row behind
// its last whole vector. Included by one source file an instruction set, inside an unnamed namespace, with its flags.

// What is marked for a GPU is the arithmetic of the CUDA kernels too.

/// The bits of |x|.
SPLITLLM_HOST_DEVICE inline std::uint32_t
MagnitudeBits(const float& x)
{
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits & 0x7FFFFFFF;
}

/// The magnitude with the bits \p bits where it is below the threshold, else 0.
SPLITLLM_HOST_DEVICE inline float
MagnitudeBelow(std::uint32_t bits, std::uint32_t threshold)
{
    bits = bits < threshold ? bits : 0;
    float magnitude;
    std::memcpy(&magnitude, &bits, sizeof bits);
    return magnitude;
}

/// The code of an element, \p quotient steps of the quantiser large.
SPLITLLM_HOST_DEVICE inline std::uint8_t
CodeOfQuotient(float quotient, const QuantiserStep& step)
{
    // Adding 1.5 * 2^23 leaves no bits for a fraction: the sum is rounded half to even, and its low bits are the code.
    constexpr float kRound = 12582912.0F;
    float level = quotient + step.zero;
    level = level > 0.0F ? level : 0.0F;
    level = (level < step.top ? level : step.top) + kRound;
    std::uint32_t bits;
    std::memcpy(&bits, &level, sizeof bits);
    return static_cast<std::uint8_t>(bits);
}

/// The code of an element whose magnitude has the bits \p bits.
SPLITLLM_HOST_DEVICE inline std::uint8_t
CodeOf(std::uint32_t bits, const QuantiserStep& step)
{
    return CodeOfQuotient(MagnitudeBelow(bits, step.threshold) / step.scale, step);
}

/// |(a >> shift) - b|
SPLITLLM_HOST_DEVICE inline std::uint32_t
CodeDistance(std::uint8_t a, std::uint8_t b, unsigned shift)
{
    const int difference = (a >> shift) - b;
    return static_cast<std::uint32_t>(difference < 0 ? -difference : difference);
}

/// code * 2 + sign of \p x; code 0 has none unless \p signedZero.
SPLITLLM_HOST_DEVICE inline std::uint8_t
SymbolOf(const float& x, std::uint8_t code, bool signedZero)
{
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const bool hasSign = signedZero || code != 0;
    return static_cast<std::uint8_t>(code << 1 | (hasSign ? bits >> 31 : 0));
}

/// Adds x[first, n) to \p range.
inline void
RangeOf(const float* x, std::size_t first, std::size_t n, std::uint32_t threshold, RowRange& range)
{
    for (std::size_t i = first; i < n; i++)
    {
        const std::uint32_t bits = MagnitudeBits(x[i]);
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
    for (std::size_t i = first; i < n; i++)
    {
        codes[i] = CodeOf(MagnitudeBits(x[i]), step);
    }
}

inline std::uint64_t
DistortionFrom(const std::uint8_t* a, const std::uint8_t* b, std::size_t first, std::size_t n, unsigned shift)
{
    std::uint64_t sum = 0;
    for (std::size_t i = first; i < n; i++)
    {
        sum += CodeDistance(a[i], b[i], shift);
    }
    return sum;
}

inline void
AddSignsFrom(const float* x, std::size_t first, std::size_t n, bool signedZero, std::uint8_t* codes)
{
    for (std::size_t i = first; i < n; i++)
    {
        codes[i] = SymbolOf(x[i], codes[i], signedZero);
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
