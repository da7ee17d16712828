// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cpu/kernels-tables.h"
#include "compute/exp.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

// The reference that the vector kernels are compared with, and the fallback on any CPU: nothing here is clever.

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

float
ToFloat(float value)
{
    return value;
}

float
ToFloat(F16 value)
{
    return FromF16(value.bits);
}

float
ToFloat(Bf16 value)
{
    return FromBf16(value.bits);
}

constexpr std::size_t kLanes = 16;
using Lanes = std::array<float, kLanes>;

float
SumLanes(Lanes lanes)
{
    for (std::size_t step = kLanes / 2; step > 0; step /= 2)
    {
        for (std::size_t i = 0; i < step; ++i)
        {
            lanes[i] += lanes[i + step];
        }
    }
    return lanes[0];
}

template <typename W>
float
Dot(const W* weights, const float* x, std::size_t n)
{
    Lanes lanes{};
    for (std::size_t i = 0; i < n; ++i)
    {
        lanes[i % kLanes] = std::fma(ToFloat(weights[i]), x[i], lanes[i % kLanes]);
    }
    return SumLanes(lanes);
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
    const W* w = static_cast<const W*>(weights);
    for (std::size_t t = 0; t < tokens; ++t)
    {
        for (std::size_t r = 0; r < rows; ++r)
        {
            y[t * yStride + r] = Dot(w + r * n, x + t * n, n);
        }
    }
}

/// What the code of \p column in a row of codes of \p Bits bits stands for.
template <unsigned Bits>
float
Weight(const std::uint8_t* codes, const std::uint16_t* scales, std::size_t group, std::size_t column)
{
    unsigned code = codes[column];
    if constexpr (Bits == 4)
    {
        code = codes[column / 32 * 16 + column % 16];
        code = column % 32 < 16 ? code & 15U : code >> 4;
    }
    const std::uint16_t* pair = scales + column / group * 2;
    return std::fma(static_cast<float>(code), FromF16(pair[0]), FromF16(pair[1]));
}

template <unsigned Bits>
void
QuantisedMatMul(const QuantisedRows& weights,
                std::size_t rows,
                std::size_t n,
                const float* x,
                std::size_t tokens,
                float* y,
                std::size_t yStride)
{
    std::vector<float> row(n);
    for (std::size_t r = 0; r < rows; ++r)
    {
        const std::uint8_t* codes = weights.codes + r * n * Bits / 8;
        const std::uint16_t* scales = weights.scales + r * n / weights.group * 2;
        for (std::size_t i = 0; i < n; ++i)
        {
            row[i] = Weight<Bits>(codes, scales, weights.group, i);
        }
        for (std::size_t t = 0; t < tokens; ++t)
        {
            y[t * yStride + r] = Dot(row.data(), x + t * n, n);
        }
    }
}

float
Sum(const float* x, std::size_t n)
{
    Lanes lanes{};
    for (std::size_t i = 0; i < n; ++i)
    {
        lanes[i % kLanes] += x[i];
    }
    return SumLanes(lanes);
}

void
Softmax(float* x, std::size_t n)
{
    const float largest = *std::max_element(x, x + n);
    for (std::size_t i = 0; i < n; ++i)
    {
        x[i] = Exp(x[i] - largest);
    }
    const float scale = 1.0F / Sum(x, n);
    for (std::size_t i = 0; i < n; ++i)
    {
        x[i] *= scale;
    }
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
    std::fill_n(y, queries * width, 0.0F);
    for (std::size_t q = 0; q < queries; ++q)
    {
        for (std::size_t p = 0; p < positions; ++p)
        {
            for (std::size_t i = 0; i < width; ++i)
            {
                float& out = y[q * width + i];
                out = std::fma(scores[q * scoreStride + p], values[p * width + i], out);
            }
        }
    }
}

void
SiluTimes(float* gate, const float* up, std::size_t n)
{
    for (std::size_t i = 0; i < n; ++i)
    {
        gate[i] = gate[i] / (1.0F + Exp(-gate[i])) * up[i];
    }
}

void
RmsNorm(const float* x, const float* scale, float eps, std::size_t n, float* y)
{
    const float mean = Dot(x, x, n) / static_cast<float>(n);
    const float inverse = 1.0F / std::sqrt(mean + eps);
    for (std::size_t i = 0; i < n; ++i)
    {
        y[i] = x[i] * inverse * scale[i];
    }
}

void
LayerNorm(const float* x, const float* scale, const float* shift, float eps, std::size_t n, float* y)
{
    const float mean = Sum(x, n) / static_cast<float>(n);
    for (std::size_t i = 0; i < n; ++i)
    {
        y[i] = x[i] - mean;
    }
    const float variance = Dot(y, y, n) / static_cast<float>(n);
    const float inverse = 1.0F / std::sqrt(variance + eps);
    for (std::size_t i = 0; i < n; ++i)
    {
        y[i] = std::fma(y[i] * inverse, scale[i], shift[i]);
    }
}

} // namespace

constinit const Kernels kKernelsPlain{
    .name = "plain",
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

} // namespace splitllm
