// SPDX-License-Identifier: GPL-2.0-only
#include "compute/exp.h"
#include "compute/cpu/kernels-tables.h"

#include <cstdint>
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

struct F16
{
    std::uint16_t bits;
};

struct Bf16
{
    std::uint16_t bits;
};

inline __mmask16
First(std::size_t count)
{
    return static_cast<__mmask16>((1U << count) - 1U);
}

inline __m512
Widened(__m256i bits, const F16*)
{
    return _mm512_cvtph_ps(bits);
}

inline __m512
Widened(__m256i bits, const Bf16*)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

struct V
{
    static constexpr int kRows = 4;
    static constexpr int kTokens = 4;
    static constexpr int kColumns = 4;
    static constexpr int kQueries = 3;

    __m512 lanes;

    static V Zero()
    {
        return {_mm512_setzero_ps()};
    }

    static V All(float x)
    {
        return {_mm512_set1_ps(x)};
    }

    static V Load(const float* from)
    {
        return {_mm512_loadu_ps(from)};
    }

    static V LoadPart(const float* from, std::size_t count)
    {
        return {_mm512_maskz_loadu_ps(First(count), from)};
    }

    template <typename W>
    static V Load(const W* from)
    {
        return {Widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)), from)};
    }

    template <typename W>
    static V LoadPart(const W* from, std::size_t count)
    {
        return {Widened(_mm256_maskz_loadu_epi16(First(count), from), from)};
    }

    void Store(float* to) const
    {
        _mm512_storeu_ps(to, lanes);
    }

    void StorePart(float* to, std::size_t count) const
    {
        _mm512_mask_storeu_ps(to, First(count), lanes);
    }
};

inline V
operator+(V a, V b)
{
    return {_mm512_add_ps(a.lanes, b.lanes)};
}

inline V
operator-(V a, V b)
{
    return {_mm512_sub_ps(a.lanes, b.lanes)};
}

inline V
operator*(V a, V b)
{
    return {_mm512_mul_ps(a.lanes, b.lanes)};
}

inline V
operator/(V a, V b)
{
    return {_mm512_div_ps(a.lanes, b.lanes)};
}

inline V
Fma(V a, V b, V c)
{
    return {_mm512_fmadd_ps(a.lanes, b.lanes, c.lanes)};
}

inline V
Max(V a, V b)
{
    return {_mm512_max_ps(a.lanes, b.lanes)};
}

inline V
Round(V x)
{
    return {_mm512_roundscale_ps(x.lanes, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

inline V
PowerOfTwo(V exponent)
{
    const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(exponent.lanes), _mm512_set1_epi32(127));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(biased, 23))};
}

inline V
KeepPart(V a, V b, std::size_t count)
{
    return {_mm512_mask_mov_ps(b.lanes, First(count), a.lanes)};
}

inline V
ZeroBelow(V x, float limit, V y)
{
    const __mmask16 below = _mm512_cmp_ps_mask(x.lanes, _mm512_set1_ps(limit), _CMP_LT_OQ);
    return {_mm512_mask_mov_ps(y.lanes, below, _mm512_setzero_ps())};
}

inline V
InfinityAbove(V x, float limit, V y)
{
    const __mmask16 above = _mm512_cmp_ps_mask(x.lanes, _mm512_set1_ps(limit), _CMP_GT_OQ);
    return {_mm512_mask_mov_ps(y.lanes, above, _mm512_set1_ps(__builtin_inff()))};
}

inline float
Sum(V v)
{
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v.lanes), _mm512_extractf32x8_ps(v.lanes, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

template <int R>
inline void
StoreSums(const V (&sums)[R], float* to)
{
    for (int r = 0; r < R; ++r)
    {
        to[r] = Sum(sums[r]);
    }
}

/// Four at once: a quarter of the register for each.
inline void
StoreSums(const V (&sums)[4], float* to)
{
    const auto pair = [](V a, V b) {
        return _mm512_add_ps(_mm512_shuffle_f32x4(a.lanes, b.lanes, 0x44),
                             _mm512_shuffle_f32x4(a.lanes, b.lanes, 0xEE));
    };
    const __m512 ab = pair(sums[0], sums[1]);
    const __m512 cd = pair(sums[2], sums[3]);
    __m512 v = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
    v = _mm512_add_ps(v, _mm512_permute_ps(v, 0x4E));
    v = _mm512_add_ps(v, _mm512_permute_ps(v, 0xB1));
    const __m512i firsts = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
    _mm_storeu_ps(to, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, v)));
}

inline float
Largest(V v)
{
    return _mm512_reduce_max_ps(v.lanes);
}

template <int Bits>
struct Levels;

template <>
struct Levels<8>
{
    __m512 scale;
    __m512 minimum;

    static Levels Of(const float* pair)
    {
        return {_mm512_set1_ps(pair[0]), _mm512_set1_ps(pair[1])};
    }

    V Weights(const std::uint8_t* codes, int half) const
    {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes) + half);
        return {_mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)), scale, minimum)};
    }
};

/// All 16 weights that a group can have, so that a code is the index of its weight.
template <>
struct Levels<4>
{
    __m512 weights;

    static Levels Of(const float* pair)
    {
        const __m512 code = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        return {_mm512_fmadd_ps(code, _mm512_set1_ps(pair[0]), _mm512_set1_ps(pair[1]))};
    }

    V Weights(const std::uint8_t* codes, int half) const
    {
        const __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
        // The lowest four bits of an index count.
        return {_mm512_permutexvar_ps(half == 0 ? both : _mm512_srli_epi32(both, 4), weights)};
    }
};

#include "compute/cpu/kernels-inl.h"

} // namespace

constinit const Kernels kKernelsAvx512 = Table("avx512");

} // namespace splitllm

#endif // __x86_64__
