// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CUDA_ERROR_H
#define SPLITLLM_CUDA_ERROR_H

#include <cuda_runtime_api.h>

#include <stdexcept>

namespace splitllm
{

/// A CUDA call failed, other than for lack of memory.
class CudaError : public std::runtime_error
{
  public:
    using std::runtime_error::runtime_error;
};

/**
 * Does nothing if \p status is success.
 * \param call what was called, for the message
 * \throws OutOfMemory if the GPU's memory is used up; CudaError for everything else
 */
void CheckCuda(cudaError_t status, const char* call);

} // namespace splitllm

#endif // SPLITLLM_CUDA_ERROR_H
