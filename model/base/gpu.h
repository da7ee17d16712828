// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_GPU_H
#define SPLITLLM_GPU_H

#include <string>

/// \file
/// The GPU that CUDA computes on, whether or not this program was built with CUDA.

namespace splitllm
{

/// Why nothing can be computed by CUDA here (built without, no driver, no GPU), with what to do; empty if it can.
std::string WhyNoCuda();

/// The GPU with its driver and runtime, for people; empty where there is none.
std::string CudaDeviceName();

} // namespace splitllm

#endif // SPLITLLM_GPU_H
