// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CODEC_KERNELS_TABLES_H
#define SPLITLLM_CODEC_KERNELS_TABLES_H

#include "codec/codec-kernels.h"

namespace splitllm
{

// One table a source file. Only codec-kernels.cc decides which of them this CPU may run.
extern const CodecKernels kCodecKernelsPlain;
extern const CodecKernels kCodecKernelsAvx2;   // x86-64 only
extern const CodecKernels kCodecKernelsAvx512; // x86-64 only

} // namespace splitllm

#endif // SPLITLLM_CODEC_KERNELS_TABLES_H
