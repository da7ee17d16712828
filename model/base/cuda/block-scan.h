// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_BLOCK_SCAN_H
#define SPLITLLM_BLOCK_SCAN_H

#include "base/cuda/warp.h"

/// \file
/// Prefix sums over the threads of a warp and of a block.

namespace splitllm
{

/// The sum of \p x over the lanes up to and with this one.
template <typename T>
__device__ __forceinline__ T
WarpInclusiveSum(T x)
{
    const unsigned lane = threadIdx.x % kWarp;
    for (unsigned distance = 1; distance < kWarp; distance *= 2)
    {
        const T below = __shfl_up_sync(kAllLanes, x, distance);
        x += lane >= distance ? below : T{};
    }
    return x;
}

/**
 * The sum of \p x over the threads before this one, in a block whose size is a multiple of kWarp.
 * \param total where the sum over all threads goes, in every thread
 * \param shared one element a warp, for this alone until the next barrier of the block
 */
template <typename T>
__device__ __forceinline__ T
BlockExclusiveSum(T x, T& total, T* shared)
{
    const unsigned lane = threadIdx.x % kWarp;
    const unsigned warp = threadIdx.x / kWarp;
    const T upTo = WarpInclusiveSum(x);
    if (lane == kWarp - 1)
    {
        shared[warp] = upTo;
    }
    __syncthreads();
    const T sums = WarpInclusiveSum(lane < blockDim.x / kWarp ? shared[lane] : T{});
    __syncthreads();
    total = __shfl_sync(kAllLanes, sums, static_cast<int>(kWarp - 1));
    const T before = __shfl_sync(kAllLanes, sums, static_cast<int>(warp == 0 ? 0 : warp - 1));
    return (warp == 0 ? T{} : before) + upTo - x;
}

} // namespace splitllm

#endif // SPLITLLM_BLOCK_SCAN_H
