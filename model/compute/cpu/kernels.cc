// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cpu/kernels.h"

#include "base/input-error.h"
#include "compute/cpu/kernels-tables.h"

#include <cstdlib>
#include <string>

namespace splitllm
{

std::vector<const Kernels*>
SupportedKernels()
{
    std::vector<const Kernels*> supported{&kKernelsPlain};
#if defined(__x86_64__)
    // Every CPU with AVX2 has F16C, which not every compiler can ask for.
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2)
    {
        supported.push_back(&kKernelsAvx2);
    }
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    {
        supported.push_back(&kKernelsAvx512);
    }
#endif
    return supported;
}

const Kernels&
BestKernels()
{
    const std::vector<const Kernels*> supported = SupportedKernels();
    const char* wanted = std::getenv("SPLITLLM_ISA");
    if (wanted == nullptr || *wanted == '\0')
    {
        return *supported.back();
    }
    std::string accepted;
    for (const Kernels* kernels : supported)
    {
        if (kernels->name == wanted)
        {
            return *kernels;
        }
        accepted += (accepted.empty() ? "" : ", ") + std::string(kernels->name);
    }
    throw InputError("environment variable SPLITLLM_ISA: \"" + std::string(wanted) +
                     "\" is no instruction set of this CPU; accepted: " + accepted);
}

} // namespace splitllm
