// SPDX-License-Identifier: GPL-2.0-only
// In place of the CUDA backend where the program is built without it.
#include "base/input-error.h"
#include "compute/cuda-backend.h"

namespace splitllm
{

std::shared_ptr<Backend>
MakeCudaBackend(CudaTimes)
{
    throw InputError(WhyNoCuda());
}

} // namespace splitllm
