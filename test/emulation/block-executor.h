// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_EMULATION_BLOCK_EXECUTOR_H
#define SPLITLLM_EMULATION_BLOCK_EXECUTOR_H

#include "cuda-emulation.h"

#include <cstddef>

namespace splitllm::emulation
{

/// Runs body once for each thread of the grid, block after block. Throws what a thread throws, and std::logic_error
/// where threads wait for each other in a way that CUDA does not define. One caller at a time.
void RunGrid(const ThreadBody& body, dim3 grid, dim3 block, std::size_t sharedBytes);

/// The order of later grids.
void RunInOrder(Order order);

} // namespace splitllm::emulation

#endif // SPLITLLM_EMULATION_BLOCK_EXECUTOR_H
