// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_STEP_KERNELS_H
#define SPLITLLM_STEP_KERNELS_H

#include "compute/cuda/attention-kernels.h"

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace splitllm
{

/// Where a decoding on the GPU stands.
struct DecodingState
{
    std::uint32_t token = 0;    //!< that goes in next
    std::uint32_t position = 0; //!< of that token
    std::uint32_t steps = 0;    //!< done
};

/**
 * Ends a step: the index of the largest of \p n logits, of equals the lowest (0 if all are NaN), is the next token and
 * goes behind those decoded; the position and all \p count places move on by one.
 */
void EndStep(const float* logits,
             std::size_t n,
             DecodingState* state,
             std::uint32_t* decoded,
             KvPlace* places,
             std::size_t count,
             cudaStream_t stream);

} // namespace splitllm

#endif // SPLITLLM_STEP_KERNELS_H
