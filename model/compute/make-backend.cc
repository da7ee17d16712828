// SPDX-License-Identifier: GPL-2.0-only
#include "compute/make-backend.h"

#include "compute/cpu/cpu-backend.h"

#include <stdexcept>

namespace splitllm
{

std::vector<std::string>
BackendNames()
{
    return {NameOf(BackendName::Cpu), NameOf(BackendName::Cuda)};
}

std::string
NameOf(BackendName name)
{
    return name == BackendName::Cuda ? "cuda" : "cpu";
}

BackendName
BackendFromName(const std::string& name)
{
    for (const BackendName its : {BackendName::Cpu, BackendName::Cuda})
    {
        if (name == NameOf(its))
        {
            return its;
        }
    }
    throw std::logic_error("no backend has the name " + name);
}

std::string
WhyNot(BackendName name)
{
    return name == BackendName::Cuda ? WhyNoCuda() : "";
}

std::shared_ptr<Backend>
MakeBackend(const BackendChoice& choice)
{
    if (choice.name == BackendName::Cuda)
    {
        return MakeCudaBackend(choice.times);
    }
    return std::make_shared<CpuBackend>(choice.threads);
}

} // namespace splitllm
