// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_GPU_H
#define SPLITLLM_TEST_GPU_H

#include "support/catch.h"

#include <cuda_runtime_api.h>

namespace splitllm::test
{

inline bool
HasGpu()
{
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

} // namespace splitllm::test

/// Ends a test that has no GPU to run on. Catch2 v2 cannot skip: scripts/test counts this warning as skipped.
#define SPLITLLM_NEEDS_GPU()                                                                                           \
    if (!splitllm::test::HasGpu())                                                                                     \
    {                                                                                                                  \
        WARN("skipped: no GPU");                                                                                       \
        return;                                                                                                        \
    }                                                                                                                  \
    static_cast<void>(0)

#endif // SPLITLLM_TEST_GPU_H
