// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_WARP_H
#define SPLITLLM_WARP_H

#include <cuda_runtime.h>

/// \file
/// What the threads of a warp, and of a block, do together. Sums are taken in an order that depends on nothing but the
/// number of threads, so that they have the same bits every time.

namespace splitllm
{

constexpr unsigned kWarp = 32;            //!< threads of a warp
constexpr unsigned kAllLanes = 0xFFFFFFFF; //!< the mask of a whole warp

/// The sum of every lane's \p x, in every lane.
template <typename T>
__device__ __forceinline__ T
WarpSum(T x)
{
    for (unsigned distance = kWarp / 2; distance > 0; distance /= 2)
    {
        x += __shfl_xor_sync(kAllLanes, x, static_cast<int>(distance));
    }
    return x;
}

/// The largest of every lane's \p x, in every lane.
template <typename T>
__device__ __forceinline__ T
WarpMax(T x)
{
    for (unsigned distance = kWarp / 2; distance > 0; distance /= 2)
    {
        const T other = __shfl_xor_sync(kAllLanes, x, static_cast<int>(distance));
        x = other > x ? other : x;
    }
    return x;
}

/**
 * The sum of every thread's \p x, in every thread of a block whose size is a multiple of kWarp.
 * \param shared one element a warp, for this alone until the next barrier of the block
 */
template <typename T>
__device__ __forceinline__ T
BlockSum(T x, T* shared)
{
    const unsigned lane = threadIdx.x % kWarp;
    const unsigned warps = blockDim.x / kWarp;
    x = WarpSum(x);
    if (lane == 0)
    {
        shared[threadIdx.x / kWarp] = x;
    }
    __syncthreads();
    x = lane < warps ? shared[lane] : T{};
    __syncthreads();
    return WarpSum(x);
}

/// The largest of every thread's \p x; as BlockSum. \p least is what counts where there is none.
template <typename T>
__device__ __forceinline__ T
BlockMax(T x, T least, T* shared)
{
    const unsigned lane = threadIdx.x % kWarp;
    const unsigned warps = blockDim.x / kWarp;
    x = WarpMax(x);
    if (lane == 0)
    {
        shared[threadIdx.x / kWarp] = x;
    }
    __syncthreads();
    x = lane < warps ? shared[lane] : least;
    __syncthreads();
    return WarpMax(x);
}

} // namespace splitllm

#endif // SPLITLLM_WARP_H
