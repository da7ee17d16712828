// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cpu/kernels.h"

#include "base/instruction-set.h"
#include "compute/cpu/kernels-tables.h"

namespace splitllm
{

namespace
{

const Kernels&
KernelsFor(InstructionSet set)
{
#if defined(__x86_64__)
    switch (set)
    {
    case InstructionSet::Avx2:
        return kKernelsAvx2;
    case InstructionSet::Avx512:
        return kKernelsAvx512;
    case InstructionSet::Plain:
        break;
    }
#else
    static_cast<void>(set); // always Plain
#endif
    return kKernelsPlain;
}

} // namespace

std::vector<const Kernels*>
SupportedKernels()
{
    std::vector<const Kernels*> supported;
    for (const InstructionSet set : SupportedInstructionSets())
    {
        supported.push_back(&KernelsFor(set));
    }
    return supported;
}

const Kernels&
BestKernels()
{
    return KernelsFor(BestInstructionSet());
}

} // namespace splitllm
