// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_EMULATION_CUDA_FP16_H
#define SPLITLLM_EMULATION_CUDA_FP16_H

/// Stands in for the CUDA toolkit's header of this name: fp16 as a storage type with its conversions.

#include "cuda_runtime.h"
#include "tensor/dtype.h"

// NOLINTBEGIN(readability-identifier-naming)

struct alignas(2) __half
{
    unsigned short bits;
};

struct alignas(4) __half2
{
    __half x, y;
};

using half = __half;
using half2 = __half2;

inline unsigned short
__half_as_ushort(__half value)
{
    return value.bits;
}

inline __half
__ushort_as_half(unsigned short bits)
{
    return {bits};
}

inline float
__half2float(__half value)
{
    return splitllm::FromF16(value.bits);
}

inline __half
__float2half_rn(float value)
{
    return {splitllm::ToF16(value)};
}

inline __half
__float2half(float value)
{
    return __float2half_rn(value);
}

inline float2
__half22float2(__half2 values)
{
    return {__half2float(values.x), __half2float(values.y)};
}

inline __half2
__floats2half2_rn(float x, float y)
{
    return {__float2half_rn(x), __float2half_rn(y)};
}

inline __half2
__float22half2_rn(float2 values)
{
    return __floats2half2_rn(values.x, values.y);
}

// NOLINTEND(readability-identifier-naming)

#endif // SPLITLLM_EMULATION_CUDA_FP16_H
