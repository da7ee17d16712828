// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_KERNELS_TABLES_H
#define SPLITLLM_KERNELS_TABLES_H

#include "compute/cpu/kernels.h"

namespace splitllm
{

// One table a source file. Only kernels.cc decides which of them this CPU may run.
extern const Kernels kKernelsPlain;
extern const Kernels kKernelsAvx2;   // x86-64 only
extern const Kernels kKernelsAvx512; // x86-64 only

} // namespace splitllm

#endif // SPLITLLM_KERNELS_TABLES_H
