// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_EMULATION_CUDA_BF16_H
#define SPLITLLM_EMULATION_CUDA_BF16_H

/// Stands in for the CUDA toolkit's header of this name: bf16 as a storage type with its conversions.

#include "cuda_runtime.h"
#include "tensor/dtype.h"

// NOLINTBEGIN(readability-identifier-naming)

struct alignas(2) __nv_bfloat16
{
    unsigned short bits;
};

struct alignas(4) __nv_bfloat162
{
    __nv_bfloat16 x, y;
};

using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

inline unsigned short
__bfloat16_as_ushort(__nv_bfloat16 value)
{
    return value.bits;
}

inline __nv_bfloat16
__ushort_as_bfloat16(unsigned short bits)
{
    return {bits};
}

inline float
__bfloat162float(__nv_bfloat16 value)
{
    return splitllm::FromBf16(value.bits);
}

inline __nv_bfloat16
__float2bfloat16_rn(float value)
{
    return {splitllm::ToBf16(value)};
}

inline __nv_bfloat16
__float2bfloat16(float value)
{
    return __float2bfloat16_rn(value);
}

inline float2
__bfloat1622float2(__nv_bfloat162 values)
{
    return {__bfloat162float(values.x), __bfloat162float(values.y)};
}

inline __nv_bfloat162
__floats2bfloat162_rn(float x, float y)
{
    return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}

inline __nv_bfloat162
__float22bfloat162_rn(float2 values)
{
    return __floats2bfloat162_rn(values.x, values.y);
}

// NOLINTEND(readability-identifier-naming)

#endif // SPLITLLM_EMULATION_CUDA_BF16_H
