// SPDX-License-Identifier: GPL-2.0-only
// In place of the GPU's coder where the program is built without CUDA.
#include "base/gpu.h"
#include "base/input-error.h"
#include "codec/container-coder.h"

namespace splitllm
{

std::shared_ptr<const ContainerCoder>
MakeCudaContainerCoder()
{
    throw InputError(WhyNoCuda());
}

} // namespace splitllm
