// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cuda-backend.h"

#include "base/input-error.h"
#include "compute/cuda/gpu-backend.h"

#include <string>

namespace splitllm
{

std::shared_ptr<Backend>
MakeCudaBackend(CudaTimes times)
{
    const std::string why = WhyNoCuda();
    if (!why.empty())
    {
        throw InputError(why);
    }
    return std::make_shared<GpuBackend>(times);
}

} // namespace splitllm
