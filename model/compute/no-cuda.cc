// SPDX-License-Identifier: GPL-2.0-only
// In place of the CUDA backend where the program is built without it.
#include "base/input-error.h"
#include "compute/cuda-backend.h"

namespace splitllm
{

std::string
WhyNoCuda()
{
    return "this program was built without CUDA; accepted: a build with CUDA Toolkit 12.8 or newer (SPLIT_LLM_CUDA=ON)";
}

std::string
CudaDeviceName()
{
    return {};
}

std::shared_ptr<Backend>
MakeCudaBackend(CudaTimes)
{
    throw InputError(WhyNoCuda());
}

} // namespace splitllm
