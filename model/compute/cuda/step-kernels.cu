// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cuda/step-kernels.h"

#include "base/cuda/launch.h"
#include "base/cuda/warp.h"

namespace splitllm
{

namespace
{

constexpr unsigned kThreads = 1024;
constexpr std::uint32_t kNone = 0xFFFFFFFF; //!< the index of no logit

/// A logit and where it is.
struct Candidate
{
    float logit;
    std::uint32_t index;
};

__device__ __forceinline__ Candidate
Better(const Candidate& a, const Candidate& b)
{
    return b.logit > a.logit || (b.logit == a.logit && b.index < a.index) ? b : a;
}

__device__ __forceinline__ Candidate
BestOfWarp(Candidate best)
{
    for (unsigned distance = kWarp / 2; distance > 0; distance /= 2)
    {
        const Candidate other{__shfl_xor_sync(kAllLanes, best.logit, static_cast<int>(distance)),
                              __shfl_xor_sync(kAllLanes, best.index, static_cast<int>(distance))};
        best = Better(best, other);
    }
    return best;
}

__global__ void __launch_bounds__(kThreads)
    EndStepKernel(const float* logits,
                  std::size_t n,
                  DecodingState* state,
                  std::uint32_t* decoded,
                  KvPlace* places,
                  unsigned count)
{
    __shared__ float bestLogits[kWarp];
    __shared__ std::uint32_t bestIndices[kWarp];
    Candidate best{-INFINITY, kNone};
    for (std::size_t i = threadIdx.x; i < n; i += kThreads)
    {
        best = Better(best, {logits[i], static_cast<std::uint32_t>(i)});
    }
    best = BestOfWarp(best);
    const unsigned lane = threadIdx.x % kWarp;
    if (lane == 0)
    {
        bestLogits[threadIdx.x / kWarp] = best.logit;
        bestIndices[threadIdx.x / kWarp] = best.index;
    }
    __syncthreads();
    if (threadIdx.x < kWarp)
    {
        best = BestOfWarp({bestLogits[lane], bestIndices[lane]}); // as many warps as lanes
        if (lane == 0)
        {
            const std::uint32_t token = best.index == kNone ? 0 : best.index;
            decoded[state->steps] = token;
            state->token = token;
            state->position++;
            state->steps++;
        }
    }
    for (unsigned i = threadIdx.x; i < count; i += kThreads)
    {
        places[i].entry++;
        places[i].position++;
    }
}

} // namespace

void
EndStep(const float* logits,
        std::size_t n,
        DecodingState* state,
        std::uint32_t* decoded,
        KvPlace* places,
        std::size_t count,
        cudaStream_t stream)
{
    Launch(EndStepKernel, 1, kThreads, 0, stream, logits, n, state, decoded, places, static_cast<unsigned>(count));
}

} // namespace splitllm
