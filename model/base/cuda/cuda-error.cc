// SPDX-License-Identifier: GPL-2.0-only
#include "base/cuda/cuda-error.h"

#include "base/out-of-memory.h"

#include <string>

namespace splitllm
{

void
CheckCuda(cudaError_t status, const char* call)
{
    if (status == cudaSuccess)
    {
        return;
    }
    const std::string message = std::string(call) + ": " + cudaGetErrorString(status);
    if (status == cudaErrorMemoryAllocation)
    {
        cudaGetLastError(); // it would come back from the next launch
        throw OutOfMemory("out of memory on the GPU: " + message);
    }
    throw CudaError(message + " (" + cudaGetErrorName(status) + ")");
}

} // namespace splitllm
