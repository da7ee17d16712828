// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_MAKE_BACKEND_H
#define SPLITLLM_MAKE_BACKEND_H

#include "compute/backend.h"
#include "compute/cuda-backend.h"

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace splitllm
{

/// What computes the layers.
enum class BackendName
{
    Cpu,  //!< "cpu"
    Cuda, //!< "cuda"
};

/// "cpu" and "cuda".
std::vector<std::string> BackendNames();

std::string NameOf(BackendName name);

/// \throws std::logic_error for a name that is not among BackendNames
BackendName BackendFromName(const std::string& name);

/// A backend that computes with numbers, and how.
struct BackendChoice
{
    BackendName name = BackendName::Cpu;
    std::size_t threads = 0;            //!< of the CPU backend; 0: one for each core
    CudaTimes times = CudaTimes::None; //!< of the CUDA backend
};

/// Why \p name cannot be had here; empty if it can.
std::string WhyNot(BackendName name);

/// \throws InputError saying WhyNot; OutOfMemory where a GPU has no memory left
std::shared_ptr<Backend> MakeBackend(const BackendChoice& choice);

} // namespace splitllm

#endif // SPLITLLM_MAKE_BACKEND_H
