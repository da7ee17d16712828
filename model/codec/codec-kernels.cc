// SPDX-License-Identifier: GPL-2.0-only
#include "codec/codec-kernels.h"

#include "codec/codec-kernels-tables.h"

namespace splitllm
{

const CodecKernels&
CodecKernelsFor(InstructionSet set)
{
#if defined(__x86_64__)
    switch (set)
    {
    case InstructionSet::Avx2:
        return kCodecKernelsAvx2;
    case InstructionSet::Avx512:
        return kCodecKernelsAvx512;
    case InstructionSet::Plain:
        break;
    }
#else
    static_cast<void>(set); // always Plain
#endif
    return kCodecKernelsPlain;
}

const CodecKernels&
BestCodecKernels()
{
    static const CodecKernels& best = CodecKernelsFor(BestInstructionSet());
    return best;
}

} // namespace splitllm
