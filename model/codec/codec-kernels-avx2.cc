// SPDX-License-Identifier: GPL-2.0-only
#include "codec/codec-kernels-tables.h"

#include <algorithm>
#include <array>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>

namespace splitllm
{

namespace
{

#include "codec/codec-kernels-inl.h"
#include "codec/codec-kernels-256-inl.h"

constexpr std::size_t kWidth = 8;

inline __m256i
Magnitudes(const float* x)
{
    return _mm256_and_si256(LoadBits(x), _mm256_set1_epi32(0x7FFFFFFF));
}

/// The low byte of each lane, in order.
inline void
StoreBytes(__m256i lanes, std::uint8_t* to)
{
    const __m256i firsts = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, -1,
                                            -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i bytes = _mm256_shuffle_epi8(lanes, firsts);
    const __m128i both = _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), both);
}

/// The 8 low lanes of \p lanes as 16-bit words, in order; their high halves must be zero.
inline __m128i
Words(__m256i lanes)
{
    return _mm_packus_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
}

RowRange
Range(const float* x, std::size_t n, std::uint32_t threshold)
{
    const __m256i limit = _mm256_set1_epi32(static_cast<int>(threshold));
    __m256i least = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i most = _mm256_setzero_si256();
    __m256i peak = _mm256_setzero_si256();
    std::size_t below = 0;
    const std::size_t whole = n / kWidth * kWidth;
    for (std::size_t i = 0; i < whole; i += kWidth)
    {
        const __m256i bits = Magnitudes(x + i);
        const __m256i isBelow = _mm256_cmpgt_epi32(limit, bits);
        const __m256i kept = _mm256_and_si256(isBelow, bits);
        peak = _mm256_max_epi32(peak, bits);
        most = _mm256_max_epi32(most, kept);
        least = _mm256_min_epi32(least, kept);
        below += static_cast<std::size_t>(
            __builtin_popcount(static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(isBelow)))));
    }
    std::uint32_t lanes[3][kWidth];
    std::memcpy(lanes[0], &least, sizeof least);
    std::memcpy(lanes[1], &most, sizeof most);
    std::memcpy(lanes[2], &peak, sizeof peak);
    RowRange range{.least = *std::min_element(lanes[0], lanes[0] + kWidth),
                   .most = *std::max_element(lanes[1], lanes[1] + kWidth),
                   .peak = *std::max_element(lanes[2], lanes[2] + kWidth),
                   .above = whole - below};
    RangeOf(x, whole, n, threshold, range);
    return range;
}

void
Quantise(const float* x, std::size_t n, const QuantiserStep& step, std::uint8_t* codes)
{
    const __m256i limit = _mm256_set1_epi32(static_cast<int>(step.threshold));
    const __m256 scale = _mm256_set1_ps(step.scale);
    const __m256 zero = _mm256_set1_ps(step.zero);
    const __m256 top = _mm256_set1_ps(step.top);
    const __m256 round = _mm256_set1_ps(12582912.0F); // see QuantiseFrom
    const std::size_t whole = n / kWidth * kWidth;
    for (std::size_t i = 0; i < whole; i += kWidth)
    {
        const __m256i bits = Magnitudes(x + i);
        const __m256 kept = _mm256_castsi256_ps(_mm256_and_si256(_mm256_cmpgt_epi32(limit, bits), bits));
        __m256 level = _mm256_add_ps(_mm256_div_ps(kept, scale), zero);
        level = _mm256_min_ps(_mm256_max_ps(level, _mm256_setzero_ps()), top);
        StoreBytes(_mm256_castps_si256(_mm256_add_ps(level, round)), codes + i);
    }
    QuantiseFrom(x, whole, n, step, codes);
}

std::uint64_t
Distortion(const std::uint8_t* first, const std::uint8_t* second, std::size_t n, unsigned shift)
{
    constexpr std::size_t kBytes = 32;
    const __m256i low = _mm256_set1_epi8(static_cast<char>(0xFFU >> shift));
    const __m128i count = _mm_cvtsi32_si128(static_cast<int>(shift));
    __m256i sum = _mm256_setzero_si256();
    const std::size_t whole = n / kBytes * kBytes;
    for (std::size_t i = 0; i < whole; i += kBytes)
    {
        const __m256i a = _mm256_and_si256(_mm256_srl_epi16(LoadBits(first + i), count), low);
        sum = _mm256_add_epi64(sum, _mm256_sad_epu8(a, LoadBits(second + i)));
    }
    std::uint64_t sums[4];
    std::memcpy(sums, &sum, sizeof sum);
    return sums[0] + sums[1] + sums[2] + sums[3] + DistortionFrom(first, second, whole, n, shift);
}

void
AddSigns(const float* x, std::size_t n, bool signedZero, std::uint8_t* codes)
{
    const __m256i always = _mm256_set1_epi32(signedZero ? 1 : 0);
    const std::size_t whole = n / kWidth * kWidth;
    for (std::size_t i = 0; i < whole; i += kWidth)
    {
        const __m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + i)));
        const __m256i hasSign = _mm256_or_si256(_mm256_min_epu32(code, _mm256_set1_epi32(1)), always);
        const __m256i sign = _mm256_and_si256(_mm256_srli_epi32(LoadBits(x + i), 31), hasSign);
        StoreBytes(_mm256_or_si256(_mm256_add_epi32(code, code), sign), codes + i);
    }
    AddSignsFrom(x, whole, n, signedZero, codes);
}

/// Count16 for the four symbols from \p first on, in \p vectors of 32 symbols, at most 255.
inline void
CountFour(const std::uint8_t* symbols, std::size_t vectors, int first, std::uint32_t* histogram)
{
    __m256i counts[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    for (std::size_t i = 0; i < vectors; i++)
    {
        const __m256i v = LoadBits(symbols + 32 * i);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
        {
            const __m256i equal = _mm256_cmpeq_epi8(v, _mm256_set1_epi8(static_cast<char>(first + j)));
            counts[j] = _mm256_sub_epi8(counts[j], equal); // minus -1
        }
    }
    for (int j = 0; j < 4; j++)
    {
        std::uint64_t sums[4];
        const __m256i sum = _mm256_sad_epu8(counts[j], _mm256_setzero_si256());
        std::memcpy(sums, &sum, sizeof sum);
        histogram[first + j] += static_cast<std::uint32_t>(sums[0] + sums[1] + sums[2] + sums[3]);
    }
}

void
Count16(const std::uint8_t* symbols, std::size_t n, std::uint32_t* histogram)
{
    const std::size_t vectors = n / 32;
    for (std::size_t done = 0; done < vectors; done += 255)
    {
        const std::size_t now = std::min<std::size_t>(vectors - done, 255);
        for (int first = 0; first < 16; first += 4)
        {
            CountFour(symbols + 32 * done, now, first, histogram);
        }
    }
    Count16From(symbols, vectors * 32, n, histogram);
}

/// For each set of 8 lanes, how bytes move that make 8 words of 16 bits.
struct LaneTables
{
    std::array<std::array<std::uint8_t, 16>, 256> toEnd{};  //!< the words of the set, in order, to the last places
    std::array<std::array<std::uint8_t, 16>, 256> spread{}; //!< the first words, in order, to the set; zero elsewhere

    constexpr LaneTables()
    {
        for (unsigned set = 0; set < 256; set++)
        {
            unsigned place = 8;
            for (unsigned lane = 0; lane < 8; lane++)
            {
                place -= set >> lane & 1;
            }
            unsigned found = 0;
            for (unsigned lane = 0; lane < 8; lane++)
            {
                const bool isIn = (set >> lane & 1) != 0;
                for (unsigned byte = 0; byte < 2; byte++)
                {
                    spread[set][2 * lane + byte] = static_cast<std::uint8_t>(isIn ? 2 * found + byte : 0x80);
                    if (isIn)
                    {
                        toEnd[set][2 * place + byte] = static_cast<std::uint8_t>(2 * lane + byte);
                    }
                }
                place += isIn ? 1 : 0;
                found += isIn ? 1 : 0;
            }
        }
    }
};

constexpr LaneTables kLaneTables;

inline __m128i
Move(__m128i words, const std::array<std::uint8_t, 16>& order)
{
    return _mm_shuffle_epi8(words, _mm_loadu_si128(reinterpret_cast<const __m128i*>(order.data())));
}

/// x >= y of unsigned lanes, all ones where it holds.
inline __m256i
NotBelow(__m256i x, __m256i y)
{
    return _mm256_cmpeq_epi32(_mm256_max_epu32(x, y), x);
}

inline unsigned
SetOf(__m256i lanes)
{
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(lanes)));
}

/// The fields of RansEncodeSymbol for 8 lanes.
struct EncodeSymbols
{
    __m256i reciprocals;
    __m256i packed;
};

/// Looks symbols up in an alphabet of up to 16, which four registers hold.
class SmallAlphabet
{
  public:
    explicit SmallAlphabet(const RansEncodeTable& table)
    {
        std::uint32_t fields[2][16];
        for (std::size_t i = 0; i < 16; i++)
        {
            fields[0][i] = table.symbols[i].reciprocal;
            fields[1][i] = table.symbols[i].packed;
        }
        for (std::size_t i = 0; i < 2; i++)
        {
            m_low[i] = LoadBits(fields[i]);
            m_high[i] = LoadBits(fields[i] + 8);
        }
    }

    EncodeSymbols Find(__m256i symbols) const
    {
        return {Find(symbols, 0), Find(symbols, 1)};
    }

  private:
    __m256i Find(__m256i symbols, std::size_t field) const
    {
        const __m256 isHigh = _mm256_castsi256_ps(_mm256_slli_epi32(symbols, 28)); // bit 3 as the sign
        return _mm256_castps_si256(
            _mm256_blendv_ps(_mm256_castsi256_ps(_mm256_permutevar8x32_epi32(m_low[field], symbols)),
                             _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(m_high[field], symbols)),
                             isHigh));
    }

    __m256i m_low[2];
    __m256i m_high[2];
};

/// Looks symbols up in memory.
class AnyAlphabet
{
  public:
    explicit AnyAlphabet(const RansEncodeTable& table)
        : m_fields(reinterpret_cast<const int*>(table.symbols))
    {
    }

    EncodeSymbols Find(__m256i symbols) const
    {
        return {_mm256_i32gather_epi32(m_fields, symbols, 8), _mm256_i32gather_epi32(m_fields + 1, symbols, 8)};
    }

  private:
    const int* m_fields;
};

/// RansPut for 8 lanes, whose words go before \p top in the order of the lanes.
template <typename Alphabet>
inline std::uint16_t*
Put8(__m256i& x, const Alphabet& alphabet, const std::uint8_t* symbols, std::uint16_t* top)
{
    const EncodeSymbols symbol =
        alphabet.Find(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(symbols))));
    const __m256i low13 = _mm256_set1_epi32(0x1FFF);
    const __m256i f = _mm256_and_si256(symbol.packed, low13);
    const __m256i leaves = NotBelow(x, _mm256_slli_epi32(f, 19));
    const unsigned set = SetOf(leaves);
    // The words that leave come last; those before them are overwritten by what follows.
    const __m128i words = Words(_mm256_and_si256(x, _mm256_set1_epi32(0xFFFF)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(top - kWidth), Move(words, kLaneTables.toEnd[set]));
    top -= __builtin_popcount(set);
    x = _mm256_blendv_epi8(x, _mm256_srli_epi32(x, 16), leaves);
    const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(x, symbol.reciprocals), 32);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(symbol.reciprocals, 32));
    const __m256i high = _mm256_blend_epi32(even, odd, 0xAA);
    const __m256i quotient = _mm256_srlv_epi32(high, _mm256_srli_epi32(symbol.packed, 26));
    const __m256i bias = _mm256_and_si256(_mm256_srli_epi32(symbol.packed, 13), low13);
    const __m256i rest = _mm256_sub_epi32(_mm256_set1_epi32(kRansTotal), f);
    x = _mm256_add_epi32(_mm256_add_epi32(x, bias), _mm256_mullo_epi32(quotient, rest));
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
    // by name: an array would stay in memory
    __m256i a = LoadBits(states);
    __m256i b = LoadBits(states + 8);
    __m256i c = LoadBits(states + 16);
    __m256i d = LoadBits(states + 24);
    for (std::size_t step = steps; step-- > 0;)
    {
        const std::uint8_t* first = symbols + step * kLanes;
        top = Put8(d, alphabet, first + 24, top);
        top = Put8(c, alphabet, first + 16, top);
        top = Put8(b, alphabet, first + 8, top);
        top = Put8(a, alphabet, first, top);
    }
    StoreStates(a, b, c, d, states);
    return top;
}

std::uint16_t*
RansPut32(const std::uint8_t* symbols,
          std::size_t steps,
          const RansEncodeTable& table,
          std::uint32_t* states,
          std::uint16_t* top)
{
    return table.alphabet <= 16 ? Put32(symbols, steps, SmallAlphabet(table), states, top)
                                : Put32(symbols, steps, AnyAlphabet(table), states, top);
}

inline void
Take8(__m256i& x, const std::uint32_t* slots, std::uint8_t* symbols, const std::byte*& words)
{
    const __m256i low12 = _mm256_set1_epi32(kRansTotal - 1);
    const __m256i slot = Gather(slots, _mm256_and_si256(x, low12));
    StoreBytes(slot, symbols);
    const __m256i f =
        _mm256_add_epi32(_mm256_and_si256(_mm256_srli_epi32(slot, 8), low12), _mm256_set1_epi32(1));
    x = _mm256_add_epi32(_mm256_mullo_epi32(f, _mm256_srli_epi32(x, kRansBits)), _mm256_srli_epi32(slot, 20));
    const __m256i isLow = _mm256_cmpgt_epi32(_mm256_set1_epi32(kRansLow), x); // below 2^31: signed will do
    const unsigned set = SetOf(isLow);
    const __m128i next = _mm_loadu_si128(reinterpret_cast<const __m128i*>(words));
    const __m256i word = _mm256_cvtepu16_epi32(Move(next, kLaneTables.spread[set]));
    const __m256i shift = _mm256_and_si256(isLow, _mm256_set1_epi32(16));
    x = _mm256_or_si256(_mm256_sllv_epi32(x, shift), word);
    words += 2 * __builtin_popcount(set);
}

} // namespace

constinit const CodecKernels kCodecKernelsAvx2 =
    {InstructionSet::Avx2, Range, Quantise, Distortion, AddSigns, Count16, RansPut32, RansTake32};

} // namespace splitllm

#endif // __x86_64__
