// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_WEIGHT_ROWS_H
#define SPLITLLM_WEIGHT_ROWS_H

#include "compute/cuda/layer-kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

/// \file
/// How kernels read the elements of a matrix: one struct for each form. Raw is what 8 neighbouring elements are loaded
/// as, so that many loads are under way before the first is widened.

namespace splitllm
{

/// Neighbouring elements that a lane reads together.
constexpr unsigned kVector = 8;

__device__ __forceinline__ float
WidenF16(std::uint16_t bits)
{
    return __half2float(__ushort_as_half(bits));
}

__device__ __forceinline__ float
WidenBf16(std::uint16_t bits)
{
    return __uint_as_float(static_cast<std::uint32_t>(bits) << 16);
}

struct F32Rows
{
    struct Raw
    {
        float4 low;
        float4 high;
    };

    /// Elements [column, column + 8) of \p row; column and columns are multiples of 8.
    static __device__ __forceinline__ Raw Load(const DeviceMatrix& matrix, std::uint32_t row, std::uint32_t column)
    {
        const auto* at = reinterpret_cast<const float4*>(static_cast<const float*>(matrix.weights) +
                                                         std::size_t{row} * matrix.in + column);
        return {__ldg(at), __ldg(at + 1)};
    }

    static __device__ __forceinline__ void Widen(const Raw& raw, float (&w)[kVector])
    {
        w[0] = raw.low.x;
        w[1] = raw.low.y;
        w[2] = raw.low.z;
        w[3] = raw.low.w;
        w[4] = raw.high.x;
        w[5] = raw.high.y;
        w[6] = raw.high.z;
        w[7] = raw.high.w;
    }

    static __device__ __forceinline__ float One(const DeviceMatrix& matrix, std::uint32_t row, std::uint32_t column)
    {
        return static_cast<const float*>(matrix.weights)[std::size_t{row} * matrix.in + column];
    }
};

/// fp16 and bf16.
template <float (*kWiden)(std::uint16_t)>
struct Rows16
{
    using Raw = uint4;

    static __device__ __forceinline__ Raw Load(const DeviceMatrix& matrix, std::uint32_t row, std::uint32_t column)
    {
        return __ldg(reinterpret_cast<const uint4*>(static_cast<const std::uint16_t*>(matrix.weights) +
                                                    std::size_t{row} * matrix.in + column));
    }

    static __device__ __forceinline__ void Widen(const Raw& raw, float (&w)[kVector])
    {
        Pair(raw.x, w[0], w[1]);
        Pair(raw.y, w[2], w[3]);
        Pair(raw.z, w[4], w[5]);
        Pair(raw.w, w[6], w[7]);
    }

    static __device__ __forceinline__ float One(const DeviceMatrix& matrix, std::uint32_t row, std::uint32_t column)
    {
        return kWiden(static_cast<const std::uint16_t*>(matrix.weights)[std::size_t{row} * matrix.in + column]);
    }

  private:
    static __device__ __forceinline__ void Pair(std::uint32_t bits, float& low, float& high)
    {
        low = kWiden(static_cast<std::uint16_t>(bits));
        high = kWiden(static_cast<std::uint16_t>(bits >> 16));
    }
};

using F16Rows = Rows16<WidenF16>;
using Bf16Rows = Rows16<WidenBf16>;

/// The scale and minimum of 8 columns.
__device__ __forceinline__ float2
ScaleOf(const DeviceMatrix& matrix, std::uint32_t row, std::uint32_t column)
{
    const std::size_t group = std::size_t{row} * (matrix.in / matrix.group) + column / matrix.group;
    const std::uint32_t both = __ldg(reinterpret_cast<const std::uint32_t*>(matrix.scales) + group);
    return {WidenF16(static_cast<std::uint16_t>(both)), WidenF16(static_cast<std::uint16_t>(both >> 16))};
}

/// Codes of 8 or 4 bits, as QuantisedMatrix lays them out.
template <unsigned kBits>
struct CodeRows
{
    struct Raw
    {
        uint2 codes; //!< 8 bits: one a byte; 4 bits: one in the lower half of each byte
        float2 scale;
    };

    static __device__ __forceinline__ Raw Load(const DeviceMatrix& matrix, std::uint32_t row, std::uint32_t column)
    {
        const auto* codes = static_cast<const std::uint8_t*>(matrix.weights) + std::size_t{row} * matrix.in * kBits / 8;
        Raw raw;
        if (kBits == 8)
        {
            raw.codes = __ldg(reinterpret_cast<const uint2*>(codes + column));
        }
        else
        {
            // 32 columns are 16 bytes, columns 16 to 31 in the upper halves
            raw.codes = __ldg(reinterpret_cast<const uint2*>(codes + column / 32 * 16 + column % 16));
            const unsigned shift = column % 32 < 16 ? 0 : 4;
            raw.codes.x = raw.codes.x >> shift & 0x0F0F0F0FU;
            raw.codes.y = raw.codes.y >> shift & 0x0F0F0F0FU;
        }
        raw.scale = ScaleOf(matrix, row, column);
        return raw;
    }

    static __device__ __forceinline__ void Widen(const Raw& raw, float (&w)[kVector])
    {
        for (unsigned i = 0; i < kVector; ++i)
        {
            const std::uint32_t code = (i < 4 ? raw.codes.x : raw.codes.y) >> (i % 4 * 8) & 0xFF;
            w[i] = fmaf(static_cast<float>(code), raw.scale.x, raw.scale.y);
        }
    }

    static __device__ __forceinline__ float One(const DeviceMatrix& matrix, std::uint32_t row, std::uint32_t column)
    {
        const Raw raw = Load(matrix, row, column / kVector * kVector);
        const std::uint32_t i = column % kVector;
        const std::uint32_t code = (i < 4 ? raw.codes.x : raw.codes.y) >> (i % 4 * 8) & 0xFF;
        return fmaf(static_cast<float>(code), raw.scale.x, raw.scale.y);
    }
};

using Int8Rows = CodeRows<8>;
using Int4Rows = CodeRows<4>;

} // namespace splitllm

#endif // SPLITLLM_WEIGHT_ROWS_H
