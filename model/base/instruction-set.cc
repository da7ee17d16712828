// SPDX-License-Identifier: GPL-2.0-only
#include "base/instruction-set.h"

#include "base/input-error.h"

#include <cstdlib>
#include <string>

namespace splitllm
{

std::string_view
NameOf(InstructionSet set)
{
    switch (set)
    {
    case InstructionSet::Avx2:
        return "avx2";
    case InstructionSet::Avx512:
        return "avx512";
    case InstructionSet::Plain:
        break;
    }
    return "plain";
}

std::vector<InstructionSet>
SupportedInstructionSets()
{
    std::vector<InstructionSet> supported{InstructionSet::Plain};
#if defined(__x86_64__)
    // Every CPU with AVX2 has F16C, which not every compiler can ask for.
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2)
    {
        supported.push_back(InstructionSet::Avx2);
    }
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    {
        supported.push_back(InstructionSet::Avx512);
    }
#endif
    return supported;
}

InstructionSet
BestInstructionSet()
{
    const std::vector<InstructionSet> supported = SupportedInstructionSets();
    const char* wanted = std::getenv("SPLITLLM_ISA");
    if (wanted == nullptr || *wanted == '\0')
    {
        return supported.back();
    }
    std::string accepted;
    for (const InstructionSet set : supported)
    {
        if (NameOf(set) == wanted)
        {
            return set;
        }
        accepted += (accepted.empty() ? "" : ", ") + std::string(NameOf(set));
    }
    throw InputError("environment variable SPLITLLM_ISA: \"" + std::string(wanted) +
                     "\" is no instruction set of this CPU; accepted: " + accepted);
}

} // namespace splitllm
