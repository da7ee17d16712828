// SPDX-License-Identifier: GPL-2.0-only
// In place of cuda/gpu.cc where the program is built without CUDA.
#include "base/gpu.h"

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

} // namespace splitllm
