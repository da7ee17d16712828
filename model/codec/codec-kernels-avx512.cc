// SPDX-License-Identifier: GPL-2.0-only
#include "codec/codec-kernels-tables.h"

#include <algorithm>
#include <cstring>
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
// gcc 12 warns of its own header (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif

namespace splitllm
{

namespace
{

#include "codec/codec-kernels-inl.h"
#include "codec/codec-kernels-256-inl.h"

constexpr std::size_t kWidth = 16;

inline __m512i
Magnitudes(const float* x)
{
    return _mm512_and_si512(_mm512_loadu_si512(x), _mm512_set1_epi32(0x7FFFFFFF));
}

RowRange
Range(const float* x, std::size_t n, std::uint32_t threshold)
{
    const __m512i limit = _mm512_set1_epi32(static_cast<int>(threshold));
    __m512i least = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i most = _mm512_setzero_si512();
    __m512i peak = _mm512_setzero_si512();
    std::size_t below = 0;
    const std::size_t whole = n / kWidth * kWidth;
    for (std::size_t i = 0; i < whole; i += kWidth)
    {
        const __m512i bits = Magnitudes(x + i);
        const __mmask16 isBelow = _mm512_cmplt_epi32_mask(bits, limit);
        const __m512i kept = _mm512_maskz_mov_epi32(isBelow, bits);
        peak = _mm512_max_epi32(peak, bits);
        most = _mm512_max_epi32(most, kept);
        least = _mm512_min_epi32(least, kept);
        below += static_cast<std::size_t>(__builtin_popcount(isBelow));
    }
    RowRange range{.least = static_cast<std::uint32_t>(_mm512_reduce_min_epi32(least)),
                   .most = static_cast<std::uint32_t>(_mm512_reduce_max_epi32(most)),
                   .peak = static_cast<std::uint32_t>(_mm512_reduce_max_epi32(peak)),
                   .above = whole - below};
    RangeOf(x, whole, n, threshold, range);
    return range;
}

void
Quantise(const float* x, std::size_t n, const QuantiserStep& step, std::uint8_t* codes)
{
    const __m512i limit = _mm512_set1_epi32(static_cast<int>(step.threshold));
    const __m512 scale = _mm512_set1_ps(step.scale);
    const __m512 zero = _mm512_set1_ps(step.zero);
    const __m512 top = _mm512_set1_ps(step.top);
    const std::size_t whole = n / kWidth * kWidth;
    for (std::size_t i = 0; i < whole; i += kWidth)
    {
        const __m512i bits = Magnitudes(x + i);
        const __m512 kept =
            _mm512_castsi512_ps(_mm512_maskz_mov_epi32(_mm512_cmplt_epi32_mask(bits, limit), bits));
        __m512 level = _mm512_add_ps(_mm512_div_ps(kept, scale), zero);
        level = _mm512_min_ps(_mm512_max_ps(level, _mm512_setzero_ps()), top);
        const __m512i code = _mm512_cvt_roundps_epi32(level, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + i), _mm512_cvtepi32_epi8(code));
    }
    QuantiseFrom(x, whole, n, step, codes);
}

std::uint64_t
Distortion(const std::uint8_t* first, const std::uint8_t* second, std::size_t n, unsigned shift)
{
    constexpr std::size_t kBytes = 64;
    const __m512i low = _mm512_set1_epi8(static_cast<char>(0xFFU >> shift));
    const __m128i count = _mm_cvtsi32_si128(static_cast<int>(shift));
    __m512i sum = _mm512_setzero_si512();
    const std::size_t whole = n / kBytes * kBytes;
    for (std::size_t i = 0; i < whole; i += kBytes)
    {
        const __m512i a = _mm512_and_si512(_mm512_srl_epi16(_mm512_loadu_si512(first + i), count), low);
        sum = _mm512_add_epi64(sum, _mm512_sad_epu8(a, _mm512_loadu_si512(second + i)));
    }
    return static_cast<std::uint64_t>(_mm512_reduce_add_epi64(sum)) + DistortionFrom(first, second, whole, n, shift);
}

void
AddSigns(const float* x, std::size_t n, bool signedZero, std::uint8_t* codes)
{
    const __m128i always = _mm_set1_epi8(signedZero ? 1 : 0);
    const std::size_t whole = n / kWidth * kWidth;
    for (std::size_t i = 0; i < whole; i += kWidth)
    {
        const __m128i code = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + i));
        const __m128i sign = _mm512_cvtepi32_epi8(_mm512_srli_epi32(_mm512_loadu_si512(x + i), 31));
        const __m128i hasSign = _mm_or_si128(_mm_min_epu8(code, _mm_set1_epi8(1)), always);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + i),
                         _mm_or_si128(_mm_add_epi8(code, code), _mm_and_si128(sign, hasSign)));
    }
    AddSignsFrom(x, whole, n, signedZero, codes);
}

void
Count16(const std::uint8_t* symbols, std::size_t n, std::uint32_t* histogram)
{
    constexpr std::size_t kBytes = 64;
    const std::size_t whole = n / kBytes * kBytes;
    // one symbol of each vector after the other: comparing is cheaper than adding in memory
    for (std::size_t i = 0; i < whole; i += kBytes)
    {
        const __m512i v = _mm512_loadu_si512(symbols + i);
        for (int symbol = 0; symbol < 16; symbol++)
        {
            const __mmask64 equal = _mm512_cmpeq_epi8_mask(v, _mm512_set1_epi8(static_cast<char>(symbol)));
            histogram[symbol] += static_cast<std::uint32_t>(__builtin_popcountll(equal));
        }
    }
    Count16From(symbols, whole, n, histogram);
}

/// The fields of RansEncodeSymbol for 16 lanes.
struct EncodeSymbols
{
    __m512i reciprocals;
    __m512i packed;
};

/// Looks symbols up in an alphabet of up to 16, which two registers hold.
class SmallAlphabet
{
  public:
    explicit SmallAlphabet(const RansEncodeTable& table)
    {
        const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
        const __m512i low = _mm512_loadu_si512(table.symbols);
        const __m512i high = _mm512_loadu_si512(table.symbols + 8);
        m_reciprocals = _mm512_permutex2var_epi32(low, even, high);
        m_packed = _mm512_permutex2var_epi32(low, _mm512_add_epi32(even, _mm512_set1_epi32(1)), high);
    }

    EncodeSymbols Find(__m512i symbols) const
    {
        return {_mm512_permutexvar_epi32(symbols, m_reciprocals), _mm512_permutexvar_epi32(symbols, m_packed)};
    }

  private:
    __m512i m_reciprocals;
    __m512i m_packed;
};

/// Looks symbols up in memory.
class AnyAlphabet
{
  public:
    explicit AnyAlphabet(const RansEncodeTable& table)
        : m_symbols(table.symbols)
    {
    }

    EncodeSymbols Find(__m512i symbols) const
    {
        return {_mm512_i32gather_epi32(symbols, m_symbols, 8),
                _mm512_i32gather_epi32(symbols, reinterpret_cast<const char*>(m_symbols) + 4, 8)};
    }

  private:
    const RansEncodeSymbol* m_symbols;
};

/// RansPut for 16 lanes, whose words go before \p top in the order of the lanes.
template <typename Alphabet>
inline std::uint16_t*
Put16(__m512i& x, const Alphabet& alphabet, const std::uint8_t* symbols, std::uint16_t* top)
{
    const EncodeSymbols symbol =
        alphabet.Find(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(symbols))));
    const __m512i low13 = _mm512_set1_epi32(0x1FFF);
    const __m512i f = _mm512_and_si512(symbol.packed, low13);
    const __mmask16 leaves = _mm512_cmpge_epu32_mask(x, _mm512_slli_epi32(f, 19));
    const auto count = static_cast<unsigned>(__builtin_popcount(leaves));
    top -= count;
    _mm256_mask_storeu_epi16(top,
                             static_cast<__mmask16>((1U << count) - 1),
                             _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(leaves, x)));
    x = _mm512_mask_srli_epi32(x, leaves, x, 16);
    const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(x, symbol.reciprocals), 32);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), _mm512_srli_epi64(symbol.reciprocals, 32));
    const __m512i high = _mm512_mask_blend_epi32(0xAAAA, even, odd);
    const __m512i quotient = _mm512_srlv_epi32(high, _mm512_srli_epi32(symbol.packed, 26));
    const __m512i bias = _mm512_and_si512(_mm512_srli_epi32(symbol.packed, 13), low13);
    const __m512i rest = _mm512_sub_epi32(_mm512_set1_epi32(kRansTotal), f);
    x = _mm512_add_epi32(_mm512_add_epi32(x, bias), _mm512_mullo_epi32(quotient, rest));
    return top;
}

template <typename Alphabet>
std::uint16_t*
Put32(const std::uint8_t* symbols,
      std::size_t steps,
      const Alphabet& alphabet,
      std::uint32_t* states,
      std::uint16_t* top)
{
    __m512i low = _mm512_loadu_si512(states);
    __m512i high = _mm512_loadu_si512(states + kWidth);
    for (std::size_t step = steps; step-- > 0;)
    {
        top = Put16(high, alphabet, symbols + step * kLanes + kWidth, top);
        top = Put16(low, alphabet, symbols + step * kLanes, top);
    }
    _mm512_storeu_si512(states, low);
    _mm512_storeu_si512(states + kWidth, high);
    return top;
}

std::uint16_t*
RansPut32(const std::uint8_t* symbols,
          std::size_t steps,
          const RansEncodeTable& table,
          std::uint32_t* states,
          std::uint16_t* top)
{
    return table.alphabet <= kWidth ? Put32(symbols, steps, SmallAlphabet(table), states, top)
                                    : Put32(symbols, steps, AnyAlphabet(table), states, top);
}

/// Four short chains hide the latency of the loads better than two.
inline void
Take8(__m256i& x, const std::uint32_t* slots, std::uint8_t* symbols, const std::byte*& words)
{
    const __m256i low12 = _mm256_set1_epi32(kRansTotal - 1);
    const __m256i slot = Gather(slots, _mm256_and_si256(x, low12));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(symbols), _mm256_cvtepi32_epi8(slot));
    const __m256i f = _mm256_add_epi32(_mm256_and_si256(_mm256_srli_epi32(slot, 8), low12), _mm256_set1_epi32(1));
    x = _mm256_add_epi32(_mm256_mullo_epi32(f, _mm256_srli_epi32(x, kRansBits)), _mm256_srli_epi32(slot, 20));
    const __mmask8 isLow = _mm256_cmplt_epu32_mask(x, _mm256_set1_epi32(kRansLow));
    const __m256i next = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(words)));
    x = _mm256_mask_or_epi32(x, isLow, _mm256_slli_epi32(x, 16), _mm256_maskz_expand_epi32(isLow, next));
    words += 2 * __builtin_popcount(isLow);
}

} // namespace

constinit const CodecKernels kCodecKernelsAvx512 =
    {InstructionSet::Avx512, Range, Quantise, Distortion, AddSigns, Count16, RansPut32, RansTake32};

} // namespace splitllm

#endif // __x86_64__
