// SPDX-License-Identifier: GPL-2.0-only

/*
 * The kernels over V, a vector of 16 fp32 lanes. kernels-avx2.cc and kernels-avx512.cc define V and include this file
 * inside their own unnamed namespace, so that no function compiled for one instruction set can be linked into code
 * for another; for the same reason nothing here calls a function of the standard library.
 *
 * V has: Zero(), All(x), Load(p), LoadPart(p, count) (the other lanes are 0), Store(p), StorePart(p, count),
 * + - * /, Fma(a, b, c) = a * b + c, Max, Round (half to even), PowerOfTwo (of integers in [-126, 127]), KeepPart(a, b,
 * count) = a in the first count lanes and b in the others, ZeroBelow(x, limit, y) = x < limit ? 0 : y, InfinityAbove,
 * Sum(v), Largest(v) and StoreSums(vectors, p). Its registers hold kRows x kTokens and kQueries x kColumns sums.
 *
 * Levels<Bits> is what the codes of a group stand for: Of(p) is for the scale and the minimum at p, and Weights(codes,
 * half) are the weights of the first (0) or second (1) 16 of 32 codes, fma(code, scale, minimum).
 */

constexpr std::size_t kLanes = 16;

/// One tile of a product: R weight rows by T tokens.
template <int R, int T, typename W>
inline void
Tile(const W* w, std::size_t n, const float* x, float* y, std::size_t yStride)
{
    V sums[T][R];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
    {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
        {
            sums[t][r] = V::Zero();
        }
    }
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
    {
        V columns[T];
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t)
        {
            columns[t] = V::Load(x + t * n + i);
        }
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
        {
            const V row = V::Load(w + r * n + i);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t)
            {
                sums[t][r] = Fma(row, columns[t], sums[t][r]);
            }
        }
    }
    if (const std::size_t rest = n - i; rest > 0)
    {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
        {
            const V row = V::LoadPart(w + r * n + i, rest);
#pragma GCC unroll 8
            for (int t = 0; t < T; ++t)
            {
                const V column = V::LoadPart(x + t * n + i, rest);
                sums[t][r] = KeepPart(Fma(row, column, sums[t][r]), sums[t][r], rest);
            }
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
    {
        StoreSums(sums[t], y + t * yStride);
    }
}

/// All rows by \p tokens tokens, T at a time and the rest in smaller tiles.
template <int T, typename W>
inline void
Tiles(const W* w, std::size_t rows, std::size_t n, const float* x, std::size_t tokens, float* y, std::size_t yStride)
{
    // One token is bound by memory, which is fastest when it is read from front to back: several rows side by side
    // halve its speed on some CPUs. Out-of-order execution overlaps a row with the next.
    constexpr int kTall = T == 1 ? 1 : V::kRows;
    for (; tokens >= T; tokens -= T, x += T * n, y += T * yStride)
    {
        std::size_t r = 0;
        for (; r + kTall <= rows; r += kTall)
        {
            Tile<kTall, T>(w + r * n, n, x, y + r, yStride);
        }
        for (; r < rows; ++r)
        {
            Tile<1, T>(w + r * n, n, x, y + r, yStride);
        }
    }
    if constexpr (T > 1)
    {
        Tiles<T - 1>(w, rows, n, x, tokens, y, yStride);
    }
}

template <typename W>
void
MatMul(const void* weights,
       std::size_t rows,
       std::size_t n,
       const float* x,
       std::size_t tokens,
       float* y,
       std::size_t yStride)
{
    Tiles<V::kTokens>(static_cast<const W*>(weights), rows, n, x, tokens, y, yStride);
}

template <typename T>
inline V
LoadChunk(const T* from, std::size_t count)
{
    return count == kLanes ? V::Load(from) : V::LoadPart(from, count);
}

/// One tile of a product with codes of \p Bits bits: R rows by T tokens, \p n a multiple of \p group.
template <int Bits, int R, int T>
inline void
QuantisedTile(const std::uint8_t* codes,
              const std::uint16_t* scales,
              std::size_t group,
              std::size_t n,
              const float* x,
              float* y,
              std::size_t yStride)
{
    constexpr std::size_t kChunk = 2 * kLanes;
    constexpr std::size_t kChunkBytes = kChunk * Bits / 8;
    const std::size_t rowBytes = n * Bits / 8;
    const std::size_t rowScales = n / group * 2;
    V sums[T][R];
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
    {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
        {
            sums[t][r] = V::Zero();
        }
    }
    const std::uint8_t* next = codes + R * rowBytes;
    float pairs[R][kLanes]; // scales and minima of eight groups
    std::size_t held = 0;   // where those begin in a row
    for (std::size_t first = 0, pair = 0; first < n; first += group, pair += 2)
    {
        if (pair % kLanes == 0)
        {
            // the last eight overlap those before, which is faster than to load a part
            held = rowScales >= kLanes && rowScales - pair < kLanes ? rowScales - kLanes : pair;
            const std::size_t count = rowScales < kLanes ? rowScales : kLanes;
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r)
            {
                LoadChunk(reinterpret_cast<const F16*>(scales + r * rowScales + held), count).Store(pairs[r]);
            }
        }
        Levels<Bits> levels[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r)
        {
            levels[r] = Levels<Bits>::Of(pairs[r] + pair - held);
        }
        for (std::size_t i = first; i < first + group; i += kChunk, codes += kChunkBytes, next += R * kChunkBytes)
        {
            if constexpr (T == 1)
            {
                // Rows side by side hide from the CPU that memory is read from front to back.
                for (std::size_t line = 0; line < R * kChunkBytes; line += 64)
                {
                    __builtin_prefetch(next + line);
                }
            }
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half)
            {
                V columns[T];
#pragma GCC unroll 8
                for (int t = 0; t < T; ++t)
                {
                    columns[t] = V::Load(x + t * n + i + half * kLanes);
                }
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r)
                {
                    const V row = levels[r].Weights(codes + r * rowBytes, half);
#pragma GCC unroll 8
                    for (int t = 0; t < T; ++t)
                    {
                        sums[t][r] = Fma(row, columns[t], sums[t][r]);
                    }
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
    {
        StoreSums(sums[t], y + t * yStride);
    }
}

/// All rows by \p tokens tokens, T at a time and the rest in smaller tiles.
template <int Bits, int T>
inline void
QuantisedTiles(const QuantisedRows& weights,
               std::size_t rows,
               std::size_t n,
               const float* x,
               std::size_t tokens,
               float* y,
               std::size_t yStride)
{
    const std::size_t rowBytes = n * Bits / 8;
    const std::size_t rowScales = n / weights.group * 2;
    for (; tokens >= T; tokens -= T, x += T * n, y += T * yStride)
    {
        std::size_t r = 0;
        for (; r + V::kRows <= rows; r += V::kRows)
        {
            QuantisedTile<Bits, V::kRows, T>(
                weights.codes + r * rowBytes, weights.scales + r * rowScales, weights.group, n, x, y + r, yStride);
        }
        for (; r < rows; ++r)
        {
            QuantisedTile<Bits, 1, T>(
                weights.codes + r * rowBytes, weights.scales + r * rowScales, weights.group, n, x, y + r, yStride);
        }
    }
    if constexpr (T > 1)
    {
        QuantisedTiles<Bits, T - 1>(weights, rows, n, x, tokens, y, yStride);
    }
}

template <int Bits>
void
QuantisedMatMul(const QuantisedRows& weights,
                std::size_t rows,
                std::size_t n,
                const float* x,
                std::size_t tokens,
                float* y,
                std::size_t yStride)
{
    QuantisedTiles<Bits, V::kTokens>(weights, rows, n, x, tokens, y, yStride);
}

/// Calls body(i, count) for all chunks of 16 elements of [0, n), the last of which may be shorter.
template <typename Body>
inline void
ForChunks(std::size_t n, Body body)
{
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
    {
        body(i, kLanes);
    }
    if (i < n)
    {
        body(i, n - i);
    }
}

inline void
StoreChunk(V v, float* to, std::size_t count)
{
    if (count == kLanes)
    {
        v.Store(to);
    }
    else
    {
        v.StorePart(to, count);
    }
}

inline V
ExpV(V x)
{
    const V n = Round(x * V::All(expf32::kLog2E));
    const V r = Fma(n, V::All(-expf32::kLn2Low), Fma(n, V::All(-expf32::kLn2High), x));
    V p = V::All(expf32::kPolynomial[0]);
#pragma GCC unroll 8
    for (int i = 1; i < 6; ++i)
    {
        p = Fma(p, r, V::All(expf32::kPolynomial[i]));
    }
    p = Fma(p, r * r, r) + V::All(1.0F);
    const V half = Round(n * V::All(0.5F));
    p = p * PowerOfTwo(half) * PowerOfTwo(n - half);
    return InfinityAbove(x, expf32::kLargest, ZeroBelow(x, expf32::kSmallest, p));
}

void
Softmax(float* x, std::size_t n)
{
    const V lowest = V::All(x[0]);
    V top = lowest;
    ForChunks(n, [&](std::size_t i, std::size_t count) {
        top = Max(top, KeepPart(LoadChunk(x + i, count), lowest, count));
    });
    const V largest = V::All(Largest(top));
    V sums = V::Zero();
    ForChunks(n, [&](std::size_t i, std::size_t count) {
        const V e = ExpV(LoadChunk(x + i, count) - largest);
        StoreChunk(e, x + i, count);
        sums = KeepPart(sums + e, sums, count);
    });
    const V scale = V::All(1.0F / Sum(sums));
    ForChunks(n, [&](std::size_t i, std::size_t count) {
        StoreChunk(LoadChunk(x + i, count) * scale, x + i, count);
    });
}

/// weightedSum of Q queries for up to C vectors of columns, the last of which has \p last columns.
template <int Q, int C>
inline void
ValueTile(const float* scores,
          std::size_t scoreStride,
          const float* values,
          std::size_t positions,
          std::size_t width,
          std::size_t last,
          float* y)
{
    V sums[Q][C];
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q)
    {
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c)
        {
            sums[q][c] = V::Zero();
        }
    }
    for (std::size_t p = 0; p < positions; ++p)
    {
        V row[C];
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c)
        {
            row[c] = c + 1 < C ? V::Load(values + p * width + c * kLanes)
                               : LoadChunk(values + p * width + c * kLanes, last);
        }
#pragma GCC unroll 8
        for (int q = 0; q < Q; ++q)
        {
            const V score = V::All(scores[q * scoreStride + p]);
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c)
            {
                sums[q][c] = Fma(score, row[c], sums[q][c]);
            }
        }
    }
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q)
    {
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c)
        {
            StoreChunk(sums[q][c], y + q * width + c * kLanes, c + 1 < C ? kLanes : last);
        }
    }
}

template <int Q>
inline void
Queries(const float* scores,
        std::size_t scoreStride,
        const float* values,
        std::size_t positions,
        std::size_t width,
        float* y)
{
    std::size_t i = 0;
    for (; i + V::kColumns * kLanes <= width; i += V::kColumns * kLanes)
    {
        ValueTile<Q, V::kColumns>(scores, scoreStride, values + i, positions, width, kLanes, y + i);
    }
    ForChunks(width - i, [=](std::size_t j, std::size_t count) {
        ValueTile<Q, 1>(scores, scoreStride, values + i + j, positions, width, count, y + i + j);
    });
}

void
WeightedSum(const float* scores,
            std::size_t scoreStride,
            std::size_t queries,
            const float* values,
            std::size_t positions,
            std::size_t width,
            float* y)
{
    std::size_t q = 0;
    for (; q + V::kQueries <= queries; q += V::kQueries)
    {
        Queries<V::kQueries>(scores + q * scoreStride, scoreStride, values, positions, width, y + q * width);
    }
    for (; q < queries; ++q)
    {
        Queries<1>(scores + q * scoreStride, scoreStride, values, positions, width, y + q * width);
    }
}

void
SiluTimes(float* gate, const float* up, std::size_t n)
{
    ForChunks(n, [=](std::size_t i, std::size_t count) {
        const V g = LoadChunk(gate + i, count);
        const V silu = g / (V::All(1.0F) + ExpV(V::All(-0.0F) - g));
        StoreChunk(silu * LoadChunk(up + i, count), gate + i, count);
    });
}

inline float
SumOfSquares(const float* x, std::size_t n)
{
    V sums = V::Zero();
    ForChunks(n, [&](std::size_t i, std::size_t count) {
        const V v = LoadChunk(x + i, count);
        sums = KeepPart(Fma(v, v, sums), sums, count);
    });
    return Sum(sums);
}

inline V
InverseRoot(float x)
{
    return V::All(1.0F / __builtin_sqrtf(x));
}

void
RmsNorm(const float* x, const float* scale, float eps, std::size_t n, float* y)
{
    const V inverse = InverseRoot(SumOfSquares(x, n) / static_cast<float>(n) + eps);
    ForChunks(n, [=](std::size_t i, std::size_t count) {
        StoreChunk(LoadChunk(x + i, count) * inverse * LoadChunk(scale + i, count), y + i, count);
    });
}

void
LayerNorm(const float* x, const float* scale, const float* shift, float eps, std::size_t n, float* y)
{
    V sums = V::Zero();
    ForChunks(n, [&](std::size_t i, std::size_t count) {
        sums = KeepPart(sums + LoadChunk(x + i, count), sums, count);
    });
    const V mean = V::All(Sum(sums) / static_cast<float>(n));
    ForChunks(n, [=](std::size_t i, std::size_t count) { StoreChunk(LoadChunk(x + i, count) - mean, y + i, count); });
    const V inverse = InverseRoot(SumOfSquares(y, n) / static_cast<float>(n) + eps);
    ForChunks(n, [=](std::size_t i, std::size_t count) {
        const V v = LoadChunk(y + i, count) * inverse;
        StoreChunk(Fma(v, LoadChunk(scale + i, count), LoadChunk(shift + i, count)), y + i, count);
    });
}

constexpr Kernels
Table(const char* name)
{
    return Kernels{
        .name = name,
        .matMulF32 = MatMul<float>,
        .matMulF16 = MatMul<F16>,
        .matMulBf16 = MatMul<Bf16>,
        .matMulInt8 = QuantisedMatMul<8>,
        .matMulInt4 = QuantisedMatMul<4>,
        .softmax = Softmax,
        .weightedSum = WeightedSum,
        .siluTimes = SiluTimes,
        .rmsNorm = RmsNorm,
        .layerNorm = LayerNorm,
    };
}
