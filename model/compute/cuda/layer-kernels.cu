// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cuda/layer-kernels.h"

#include "base/cuda/launch.h"
#include "base/cuda/warp.h"
#include "compute/cuda/weight-rows.h"
#include "compute/exp.h"

#include <algorithm>
#include <stdexcept>

namespace splitllm
{

namespace
{

constexpr unsigned kThreads = 256; //!< of a block of element-wise work

constexpr unsigned kWarps = 4;   //!< of a block that multiplies
constexpr unsigned kPair = 2;    //!< rows of a matrix that a warp takes together
constexpr unsigned kUnroll = 4;  //!< loads of a row that a lane has under way
constexpr unsigned kTokens = 4;  //!< rows of x that share a pass over the weights

unsigned
Blocks(std::size_t items, std::size_t each)
{
    return static_cast<unsigned>((items + each - 1) / each);
}

__device__ __forceinline__ float
Silu(float x)
{
    return x / (1.0F + Exp(-x));
}

/// Half to even; what is not finite stays so. Tensor cores may cut instead, which is four times the squared error.
__device__ __forceinline__ float
ToTf32(float x)
{
    constexpr std::uint32_t kCut = 13; // bits of mantissa that TF32 lacks
    const std::uint32_t bits = __float_as_uint(x);
    if ((bits & 0x7F800000U) == 0x7F800000U)
    {
        return x;
    }
    const std::uint32_t rounded = bits + (1U << (kCut - 1)) - 1 + (bits >> kCut & 1);
    return __uint_as_float(rounded & ~((1U << kCut) - 1));
}

/// RMS norm on the way into a product.
struct Rms
{
    const float* scale; //!< null: all 1
    float eps;
};

/// x[column, column + 8) of each of \p kRows tokens, times the norm's scale; adds up the squares.
template <unsigned kRows, bool kRms>
__device__ __forceinline__ void
LoadInput(const float* x,
          std::size_t stride,
          unsigned tokens,
          unsigned column,
          const Rms& rms,
          float (&values)[kRows][kVector],
          float (&squares)[kRows])
{
    float scale[kVector];
    if (kRms)
    {
        for (unsigned i = 0; i < kVector; ++i)
        {
            scale[i] = rms.scale == nullptr ? 1.0F : __ldg(rms.scale + column + i);
        }
    }
    for (unsigned t = 0; t < kRows; ++t)
    {
        // Rows beyond the last repeat it; nobody writes them.
        const auto* at = reinterpret_cast<const float4*>(x + (t < tokens ? t : tokens - 1) * stride + column);
        const float4 low = at[0];
        const float4 high = at[1];
        values[t][0] = low.x;
        values[t][1] = low.y;
        values[t][2] = low.z;
        values[t][3] = low.w;
        values[t][4] = high.x;
        values[t][5] = high.y;
        values[t][6] = high.z;
        values[t][7] = high.w;
        for (unsigned i = 0; kRms && i < kVector; ++i)
        {
            squares[t] = fmaf(values[t][i], values[t][i], squares[t]);
            values[t][i] *= scale[i];
        }
    }
}

/**
 * The products of rows \p rowA of \p a and \p rowB of \p b with kRows tokens, in every lane of the warp, times the norm's
 * factor if kRms. Sums are taken lane by lane and joined by a butterfly, whatever the number of tokens.
 */
template <typename Weights, unsigned kRows, bool kRms>
__device__ __forceinline__ void
DotPair(const DeviceMatrix& a,
        unsigned rowA,
        const DeviceMatrix& b,
        unsigned rowB,
        const float* x,
        unsigned tokens,
        const Rms& rms,
        float (&sums)[kPair][kRows],
        float (&factors)[kRows])
{
    const unsigned n = a.in;
    const unsigned lane = threadIdx.x % kWarp;
    float squares[kRows] = {};
    for (unsigned t = 0; t < kRows; ++t)
    {
        sums[0][t] = 0.0F;
        sums[1][t] = 0.0F;
    }
    if (n % kVector == 0)
    {
        typename Weights::Raw raw[kPair][kUnroll];
        for (unsigned first = lane * kVector; first < n; first += kUnroll * kWarp * kVector)
        {
#pragma unroll
            for (unsigned u = 0; u < kUnroll; ++u)
            {
                const unsigned column = first + u * kWarp * kVector;
                if (column < n)
                {
                    raw[0][u] = Weights::Load(a, rowA, column);
                    raw[1][u] = Weights::Load(b, rowB, column);
                }
            }
#pragma unroll
            for (unsigned u = 0; u < kUnroll; ++u)
            {
                const unsigned column = first + u * kWarp * kVector;
                if (column < n)
                {
                    float values[kRows][kVector];
                    LoadInput<kRows, kRms>(x, n, tokens, column, rms, values, squares);
                    for (unsigned r = 0; r < kPair; ++r)
                    {
                        float w[kVector];
                        Weights::Widen(raw[r][u], w);
                        for (unsigned t = 0; t < kRows; ++t)
                        {
                            for (unsigned i = 0; i < kVector; ++i)
                            {
                                sums[r][t] = fmaf(w[i], values[t][i], sums[r][t]);
                            }
                        }
                    }
                }
            }
        }
    }
    else
    {
        for (unsigned column = lane; column < n; column += kWarp)
        {
            const float scale = kRms && rms.scale != nullptr ? rms.scale[column] : 1.0F;
            const float wA = Weights::One(a, rowA, column);
            const float wB = Weights::One(b, rowB, column);
            for (unsigned t = 0; t < kRows; ++t)
            {
                float value = x[std::size_t{t < tokens ? t : tokens - 1} * n + column];
                if (kRms)
                {
                    squares[t] = fmaf(value, value, squares[t]);
                    value *= scale;
                }
                sums[0][t] = fmaf(wA, value, sums[0][t]);
                sums[1][t] = fmaf(wB, value, sums[1][t]);
            }
        }
    }
    for (unsigned t = 0; t < kRows; ++t)
    {
        factors[t] = 1.0F;
        if (kRms)
        {
            factors[t] = 1.0F / sqrtf(WarpSum(squares[t]) / static_cast<float>(n) + rms.eps);
        }
        for (unsigned r = 0; r < kPair; ++r)
        {
            sums[r][t] = WarpSum(sums[r][t]) * factors[t];
        }
    }
}

__device__ __forceinline__ float
Finished(float y, std::size_t at, const FinishWith& with)
{
    switch (with.finish)
    {
    case Finish::Add:
        return y + with.addend[at];
    case Finish::Scale:
        return y * with.factor;
    case Finish::Relu:
        return y > 0.0F ? y : 0.0F;
    case Finish::Silu:
        return Silu(y);
    default:
        return y;
    }
}

/// Arguments of MultiplyKernel.
struct Products
{
    Product of[kMostProducts];
    unsigned count;
};

/// Each warp takes a pair of rows; pairs of the products lie one behind the other.
template <typename Weights, unsigned kRows, bool kRms>
__global__ void __launch_bounds__(kWarps * kWarp)
    MultiplyKernel(Products products, unsigned tokens, Rms rms, float* normed, FinishWith with)
{
    unsigned pair = blockIdx.x * kWarps + threadIdx.x / kWarp;
    unsigned index = 0;
    while (index < products.count && pair >= (products.of[index].matrix.out + kPair - 1) / kPair)
    {
        pair -= (products.of[index].matrix.out + kPair - 1) / kPair;
        index++;
    }
    if (index == products.count)
    {
        return;
    }
    const Product& product = products.of[index];
    const DeviceMatrix& matrix = product.matrix;
    const unsigned first = pair * kPair;
    const unsigned second = first + 1 < matrix.out ? first + 1 : first;
    float sums[kPair][kRows];
    float factors[kRows];
    DotPair<Weights, kRows, kRms>(matrix, first, matrix, second, product.x, tokens, rms, sums, factors);
    const unsigned lane = threadIdx.x % kWarp;
    for (unsigned t = 0; t < kRows; ++t)
    {
        // Lane r writes row r of the pair.
        const unsigned row = first + lane;
        if (t < tokens && lane < kPair && row < matrix.out)
        {
            const std::size_t at = std::size_t{t} * matrix.out + row;
            const float y = (lane == 0 ? sums[0][t] : sums[1][t]) + (matrix.bias == nullptr ? 0.0F : matrix.bias[row]);
            product.y[at] = Finished(y, at, with);
        }
    }
    if (kRms && normed != nullptr && blockIdx.x == 0 && threadIdx.x < kWarp)
    {
        for (unsigned t = 0; t < kRows && t < tokens; ++t)
        {
            for (unsigned i = lane; i < matrix.in; i += kWarp)
            {
                const std::size_t at = std::size_t{t} * matrix.in + i;
                normed[at] = product.x[at] * factors[t] * (rms.scale == nullptr ? 1.0F : rms.scale[i]);
            }
        }
    }
}

/// Each warp takes one row of the gate and the same of the up matrix.
template <typename Weights, unsigned kRows, bool kRms>
__global__ void __launch_bounds__(kWarps * kWarp)
    GatedKernel(DeviceMatrix gate, DeviceMatrix up, const float* x, unsigned tokens, Rms rms, float* inner)
{
    const unsigned row = blockIdx.x * kWarps + threadIdx.x / kWarp;
    if (row >= gate.out)
    {
        return;
    }
    float sums[kPair][kRows];
    float factors[kRows];
    DotPair<Weights, kRows, kRms>(gate, row, up, row, x, tokens, rms, sums, factors);
    for (unsigned t = 0; t < kRows; ++t)
    {
        if (t < tokens && threadIdx.x % kWarp == 0)
        {
            inner[std::size_t{t} * gate.out + row] = Silu(sums[0][t]) * sums[1][t];
        }
    }
}

/// Calls \p run with the struct that reads \p form.
template <typename Run>
void
WithRows(WeightForm form, Run&& run)
{
    switch (form)
    {
    case WeightForm::F32:
        return run(F32Rows{});
    case WeightForm::F16:
        return run(F16Rows{});
    case WeightForm::Bf16:
        return run(Bf16Rows{});
    case WeightForm::Int8:
        return run(Int8Rows{});
    case WeightForm::Int4:
        return run(Int4Rows{});
    }
    throw std::logic_error("a matrix of no known form");
}

/// Calls run(first, count, rows) for runs of at most kTokens of \p w tokens; rows is 1 where there is one token.
template <typename Run>
void
InRunsOfTokens(std::size_t w, Run&& run)
{
    for (std::size_t first = 0; first < w; first += kTokens)
    {
        run(first, static_cast<unsigned>(std::min<std::size_t>(kTokens, w - first)));
    }
}

__global__ void
NormaliseKernel(DeviceNorm norm, const float* x, unsigned n, float* y)
{
    __shared__ float shared[kWarp];
    const float* from = x + std::size_t{blockIdx.x} * n;
    float* to = y + std::size_t{blockIdx.x} * n;
    float mean = 0.0F;
    if (norm.shift != nullptr)
    {
        float sum = 0.0F;
        for (unsigned i = threadIdx.x; i < n; i += blockDim.x)
        {
            sum += from[i];
        }
        mean = BlockSum(sum, shared) / static_cast<float>(n);
    }
    float squares = 0.0F;
    for (unsigned i = threadIdx.x; i < n; i += blockDim.x)
    {
        const float centred = from[i] - mean;
        squares = fmaf(centred, centred, squares);
    }
    const float factor = 1.0F / sqrtf(BlockSum(squares, shared) / static_cast<float>(n) + norm.eps);
    for (unsigned i = threadIdx.x; i < n; i += blockDim.x)
    {
        const float scaled = (from[i] - mean) * factor * (norm.scale == nullptr ? 1.0F : norm.scale[i]);
        to[i] = norm.shift == nullptr ? scaled : scaled + norm.shift[i];
    }
}

template <typename Weights>
__global__ void
ExpandKernel(DeviceMatrix matrix, float* to)
{
    for (unsigned column = threadIdx.x; column < matrix.in; column += blockDim.x)
    {
        to[std::size_t{blockIdx.x} * matrix.in + column] = ToTf32(Weights::One(matrix, blockIdx.x, column));
    }
}

__global__ void
RoundKernel(const float* from, std::size_t n, float* to)
{
    const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i < n)
    {
        to[i] = ToTf32(from[i]);
    }
}

__global__ void
FinishKernel(const float* product, std::size_t elements, unsigned out, const float* bias, FinishWith with, float* y)
{
    const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i < elements)
    {
        y[i] = Finished(product[i] + (bias == nullptr ? 0.0F : bias[i % out]), i, with);
    }
}

__global__ void
SiluTimesKernel(float* gate, const float* up, std::size_t n)
{
    const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i < n)
    {
        gate[i] = Silu(gate[i]) * up[i];
    }
}

__global__ void
AddKernel(const float* a, const float* b, std::size_t n, float* y)
{
    const std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i < n)
    {
        y[i] = a[i] + b[i];
    }
}

/// Block i adds row i.
__global__ void
AddRowsKernel(const float* addend, const std::uint32_t* rows, unsigned n, float* sum)
{
    for (unsigned i = threadIdx.x; i < n; i += blockDim.x)
    {
        sum[std::size_t{rows[blockIdx.x]} * n + i] += addend[std::size_t{blockIdx.x} * n + i];
    }
}

/// Block i copies columns of row i.
__global__ void
CopyColumnsKernel(const float* from, std::size_t fromStride, unsigned columns, float* to, std::size_t toStride)
{
    for (unsigned i = threadIdx.x; i < columns; i += blockDim.x)
    {
        to[blockIdx.x * toStride + i] = from[blockIdx.x * fromStride + i];
    }
}

template <typename Weights>
__global__ void
EmbedKernel(EmbeddingTables tables, const std::uint32_t* tokens, const std::uint32_t* positions, float* hidden)
{
    constexpr std::uint32_t kPositionOffset = 2; // OPT's table starts with two rows that no position uses
    const std::uint32_t d = tables.tokens.in;
    for (std::uint32_t i = threadIdx.x; i < d; i += blockDim.x)
    {
        float h = Weights::One(tables.tokens, tokens[blockIdx.x], i);
        if (tables.positions.weights != nullptr)
        {
            h += Weights::One(tables.positions, positions[blockIdx.x] + kPositionOffset, i);
        }
        hidden[std::size_t{blockIdx.x} * d + i] = h;
    }
}

} // namespace

void
MultiplyFew(std::span<const Product> products,
            std::size_t w,
            const DeviceNorm* rms,
            float* normed,
            const FinishWith& with,
            cudaStream_t stream)
{
    unsigned pairs = 0;
    for (const Product& product : products)
    {
        if (product.matrix.form != products.front().matrix.form || product.matrix.in != products.front().matrix.in)
        {
            throw std::logic_error("products of one launch have matrices of different forms or columns");
        }
        pairs += Blocks(product.matrix.out, kPair);
    }
    if (products.empty() || products.size() > kMostProducts || w == 0 || w > kFewRows)
    {
        throw std::logic_error("too many or too few products or rows for one launch");
    }
    const Rms norm{rms == nullptr ? nullptr : rms->scale, rms == nullptr ? 0.0F : rms->eps};
    WithRows(products.front().matrix.form, [&]<typename Weights>(Weights) {
        InRunsOfTokens(w, [&](std::size_t first, unsigned tokens) {
            Products of{.of = {}, .count = static_cast<unsigned>(products.size())};
            for (std::size_t i = 0; i < products.size(); ++i)
            {
                of.of[i] = products[i];
                of.of[i].x += first * products[i].matrix.in;
                of.of[i].y += first * products[i].matrix.out;
            }
            FinishWith its = with;
            its.addend += with.addend == nullptr ? 0 : first * products.front().matrix.out;
            float* itsNormed = normed == nullptr ? nullptr : normed + first * products.front().matrix.in;
            const auto launch = [&](auto kernel) {
                Launch(kernel, Blocks(pairs, kWarps), kWarps * kWarp, 0, stream, of, tokens, norm, itsNormed, its);
            };
            if (tokens == 1)
            {
                launch(rms == nullptr ? MultiplyKernel<Weights, 1, false> : MultiplyKernel<Weights, 1, true>);
            }
            else
            {
                launch(rms == nullptr ? MultiplyKernel<Weights, kTokens, false>
                                      : MultiplyKernel<Weights, kTokens, true>);
            }
        });
    });
}

void
GatedFew(const DeviceMatrix& gate,
         const DeviceMatrix& up,
         const float* x,
         std::size_t w,
         const DeviceNorm* rms,
         float* inner,
         cudaStream_t stream)
{
    if (gate.form != up.form || gate.in != up.in || gate.out != up.out || w == 0 || w > kFewRows)
    {
        throw std::logic_error("gate and up matrix differ in form or shape, or too many rows");
    }
    const Rms norm{rms == nullptr ? nullptr : rms->scale, rms == nullptr ? 0.0F : rms->eps};
    WithRows(gate.form, [&]<typename Weights>(Weights) {
        InRunsOfTokens(w, [&](std::size_t first, unsigned tokens) {
            const float* itsX = x + first * gate.in;
            float* itsInner = inner + first * gate.out;
            const auto launch = [&](auto kernel) {
                Launch(kernel, Blocks(gate.out, kWarps), kWarps * kWarp, 0, stream, gate, up, itsX, tokens, norm, itsInner);
            };
            if (tokens == 1)
            {
                launch(rms == nullptr ? GatedKernel<Weights, 1, false> : GatedKernel<Weights, 1, true>);
            }
            else
            {
                launch(rms == nullptr ? GatedKernel<Weights, kTokens, false> : GatedKernel<Weights, kTokens, true>);
            }
        });
    });
}

void
Normalise(const DeviceNorm& norm, const float* x, std::size_t w, std::size_t n, float* y, cudaStream_t stream)
{
    Launch(NormaliseKernel, static_cast<unsigned>(w), kThreads, 0, stream, norm, x, static_cast<unsigned>(n), y);
}

void
RoundTf32(const float* from, std::size_t n, float* to, cudaStream_t stream)
{
    Launch(RoundKernel, Blocks(n, kThreads), kThreads, 0, stream, from, n, to);
}

void
ExpandTf32(const DeviceMatrix& matrix, float* to, cudaStream_t stream)
{
    WithRows(matrix.form, [&]<typename Weights>(Weights) {
        Launch(ExpandKernel<Weights>, matrix.out, kThreads, 0, stream, matrix, to);
    });
}

void
FinishRows(const float* product,
           std::size_t w,
           std::size_t out,
           const float* bias,
           const FinishWith& with,
           float* y,
           cudaStream_t stream)
{
    if (product == y && bias == nullptr && with.finish == Finish::None)
    {
        return;
    }
    const std::size_t elements = w * out;
    const auto columns = static_cast<unsigned>(out);
    Launch(FinishKernel, Blocks(elements, kThreads), kThreads, 0, stream, product, elements, columns, bias, with, y);
}

void
SiluTimes(float* gate, const float* up, std::size_t n, cudaStream_t stream)
{
    Launch(SiluTimesKernel, Blocks(n, kThreads), kThreads, 0, stream, gate, up, n);
}

void
Add(const float* a, const float* b, std::size_t n, float* y, cudaStream_t stream)
{
    Launch(AddKernel, Blocks(n, kThreads), kThreads, 0, stream, a, b, n, y);
}

void
AddRows(const float* addend, const std::uint32_t* rows, std::size_t w, std::size_t n, float* sum, cudaStream_t stream)
{
    if (w > 0)
    {
        const auto columns = static_cast<unsigned>(n);
        Launch(AddRowsKernel, static_cast<unsigned>(w), kThreads, 0, stream, addend, rows, columns, sum);
    }
}

void
CopyColumns(const float* from,
            std::size_t w,
            std::size_t columns,
            std::size_t fromStride,
            float* to,
            std::size_t toStride,
            cudaStream_t stream)
{
    const auto rows = static_cast<unsigned>(w);
    Launch(CopyColumnsKernel, rows, kThreads, 0, stream, from, fromStride, static_cast<unsigned>(columns), to, toStride);
}

void
EmbedTokens(const EmbeddingTables& tables,
      const std::uint32_t* tokens,
      const std::uint32_t* positions,
      std::size_t w,
      float* hidden,
      cudaStream_t stream)
{
    if (tables.positions.weights != nullptr && tables.positions.form != tables.tokens.form)
    {
        throw std::logic_error("embeddings of tokens and positions are stored in different forms");
    }
    WithRows(tables.tokens.form, [&]<typename Weights>(Weights) {
        Launch(EmbedKernel<Weights>, static_cast<unsigned>(w), kThreads, 0, stream, tables, tokens, positions, hidden);
    });
}

} // namespace splitllm
