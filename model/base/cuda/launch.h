// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_LAUNCH_H
#define SPLITLLM_LAUNCH_H

#include "base/cuda/cuda-error.h"

#include <cuda_runtime.h>

#include <cstddef>

/// \file
/// How kernels are started, and how they name their dynamic shared memory. The same sources are also compiled for the
/// host, where an emulation executes them; then <cuda_runtime.h> is its own.

#ifdef __CUDACC__
/// Names the block's dynamic shared memory \p name, as elements of \p Type. Aligned to 16 bytes.
#define SPLITLLM_DYNAMIC_SHARED(Type, name)                                                                            \
    extern __shared__ __align__(16) unsigned char splitllmDynamicShared[];                                             \
    Type* const name = reinterpret_cast<Type*>(splitllmDynamicShared)
#else
#define SPLITLLM_DYNAMIC_SHARED(Type, name) Type* const name = static_cast<Type*>(emulation::DynamicShared())
#endif

namespace splitllm
{

/// Shared memory that a block may have without being asked for.
constexpr std::size_t kSharedBytes = 48 * 1024;

/**
 * Puts \p kernel(\p arguments...) into \p stream: \p grid blocks of \p block threads with \p sharedBytes of dynamic
 * shared memory each. \throws CudaError if it cannot be started
 */
template <typename... Parameters, typename... Arguments>
void
Launch(void (*kernel)(Parameters...),
       dim3 grid,
       dim3 block,
       std::size_t sharedBytes,
       cudaStream_t stream,
       Arguments... arguments)
{
    if (sharedBytes > kSharedBytes)
    {
        CheckCuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                       cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       static_cast<int>(sharedBytes)),
                  "cudaFuncSetAttribute");
    }
#ifdef __CUDACC__
    kernel<<<grid, block, sharedBytes, stream>>>(static_cast<Parameters>(arguments)...);
#else
    emulation::Launch(kernel, grid, block, sharedBytes, stream, static_cast<Parameters>(arguments)...);
#endif
    CheckCuda(cudaGetLastError(), "kernel launch");
}

} // namespace splitllm

#endif // SPLITLLM_LAUNCH_H
