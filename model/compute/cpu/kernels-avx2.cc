// SPDX-License-Identifier: GPL-2.0-only
#include "compute/exp.h"
#include "compute/cpu/kernels-tables.h"

#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>

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

inline __m256
Widened(__m128i bits, const F16*)
{
    return _mm256_cvtph_ps(bits);
}

inline __m256
Widened(__m128i bits, const Bf16*)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

/// All bits set in the lanes of a half (offset 0 or 8) that are among the first \p count of 16.
inline __m256i
First(std::size_t count, int offset)
{
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count) - offset), index);
}

/// Lanes 0 to 7 and 8 to 15.
struct V
{
    static constexpr int kRows = 2;
    static constexpr int kTokens = 3;
    static constexpr int kColumns = 2;
    static constexpr int kQueries = 3;

    __m256 low;
    __m256 high;

    static V Zero()
    {
        return {_mm256_setzero_ps(), _mm256_setzero_ps()};
    }

    static V All(float x)
    {
        return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
    }

    static V Load(const float* from)
    {
        return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
    }

    static V LoadPart(const float* from, std::size_t count)
    {
        // A lane that is masked out does not fault, so the second half may lie past the end.
        return {_mm256_maskload_ps(from, First(count, 0)), _mm256_maskload_ps(from + 8, First(count, 8))};
    }

    template <typename W>
    static V Load(const W* from)
    {
        const __m128i* bits = reinterpret_cast<const __m128i*>(from);
        return {Widened(_mm_loadu_si128(bits), from), Widened(_mm_loadu_si128(bits + 1), from)};
    }

    template <typename W>
    static V LoadPart(const W* from, std::size_t count)
    {
        W part[16] = {};
        __builtin_memcpy(part, from, count * sizeof(W));
        return Load(part);
    }

    void Store(float* to) const
    {
        _mm256_storeu_ps(to, low);
        _mm256_storeu_ps(to + 8, high);
    }

    void StorePart(float* to, std::size_t count) const
    {
        _mm256_maskstore_ps(to, First(count, 0), low);
        _mm256_maskstore_ps(to + 8, First(count, 8), high);
    }
};

inline V
operator+(V a, V b)
{
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}

inline V
operator-(V a, V b)
{
    return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}

inline V
operator*(V a, V b)
{
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}

inline V
operator/(V a, V b)
{
    return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}

inline V
Fma(V a, V b, V c)
{
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}

inline V
Max(V a, V b)
{
    return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}

inline V
Round(V x)
{
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.low, kNearest), _mm256_round_ps(x.high, kNearest)};
}

inline __m256
PowerOfTwo(__m256 exponent)
{
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(exponent), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}

inline V
PowerOfTwo(V exponent)
{
    return {PowerOfTwo(exponent.low), PowerOfTwo(exponent.high)};
}

inline V
KeepPart(V a, V b, std::size_t count)
{
    return {_mm256_blendv_ps(b.low, a.low, _mm256_castsi256_ps(First(count, 0))),
            _mm256_blendv_ps(b.high, a.high, _mm256_castsi256_ps(First(count, 8)))};
}

inline V
ZeroBelow(V x, float limit, V y)
{
    const __m256 bound = _mm256_set1_ps(limit);
    return {_mm256_andnot_ps(_mm256_cmp_ps(x.low, bound, _CMP_LT_OQ), y.low),
            _mm256_andnot_ps(_mm256_cmp_ps(x.high, bound, _CMP_LT_OQ), y.high)};
}

inline V
InfinityAbove(V x, float limit, V y)
{
    const __m256 bound = _mm256_set1_ps(limit);
    const __m256 infinity = _mm256_set1_ps(__builtin_inff());
    return {_mm256_blendv_ps(y.low, infinity, _mm256_cmp_ps(x.low, bound, _CMP_GT_OQ)),
            _mm256_blendv_ps(y.high, infinity, _mm256_cmp_ps(x.high, bound, _CMP_GT_OQ))};
}

inline float
Sum(V v)
{
    const __m256 eight = _mm256_add_ps(v.low, v.high);
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

inline float
Largest(V v)
{
    const __m256 eight = _mm256_max_ps(v.low, v.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

template <int Bits>
struct Levels
{
    __m256 scale;
    __m256 minimum;

    static Levels Of(const float* pair)
    {
        return {_mm256_set1_ps(pair[0]), _mm256_set1_ps(pair[1])};
    }

    __m256 Weights(__m256i code) const
    {
        return _mm256_fmadd_ps(_mm256_cvtepi32_ps(code), scale, minimum);
    }

    V Weights(const std::uint8_t* codes, int half) const
    {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes) + (Bits == 8 ? half : 0));
        __m256i low = _mm256_cvtepu8_epi32(bytes);
        __m256i high = _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes, bytes));
        if constexpr (Bits == 4)
        {
            const __m256i four = _mm256_set1_epi32(15);
            low = half == 0 ? _mm256_and_si256(low, four) : _mm256_srli_epi32(low, 4);
            high = half == 0 ? _mm256_and_si256(high, four) : _mm256_srli_epi32(high, 4);
        }
        return {Weights(low), Weights(high)};
    }
};

#include "compute/cpu/kernels-inl.h"

} // namespace

constinit const Kernels kKernelsAvx2 = Table("avx2");

} // namespace splitllm

#endif // __x86_64__
