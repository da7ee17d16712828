// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CUDA_BACKEND_H
#define SPLITLLM_CUDA_BACKEND_H

#include "base/gpu.h"
#include "compute/backend.h"

#include <memory>

/// \file
/// The way to the CUDA backend, whether or not this program was built with it.

namespace splitllm
{

/// Where the CUDA backend's Computed::elapsed comes from.
enum class CudaTimes
{
    None,   //!< nowhere: it is 0, and the host goes on while the GPU computes
    Events, //!< events on the GPU around each operation, which the host waits for: for measured timing
};

/**
 * Executes LLaMA and OPT layers on a GPU, in fp32 with the weights as they are stored or as codes of 8 or 4 bits.
 * Results differ from the CPU backend's in rounding alone. Tensors stay on the GPU until their elements are asked for.
 * \throws InputError saying WhyNoCuda
 */
std::shared_ptr<Backend> MakeCudaBackend(CudaTimes times);

} // namespace splitllm

#endif // SPLITLLM_CUDA_BACKEND_H
