// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/scheme.h"

#include "base/input-error.h"
#include "schemes/tlc/linfer.h"
#include "schemes/tlc/local.h"
#include "schemes/tlc/server.h"

#include <utility>

namespace splitllm
{

Scheme::Scheme(SchemeParts parts)
    : m_parts(std::move(parts))
{
}

std::uint64_t
Scheme::AdapterBytes() const
{
    return m_parts.adapter ? m_parts.adapter->Bytes() : 0;
}

std::vector<std::string>
SchemeNames()
{
    return {"server", "local", "linfer"};
}

std::shared_ptr<const Scheme>
MakeScheme(const std::string& name, SchemeParts parts)
{
    if (name == "server")
    {
        return std::make_shared<ServerScheme>(std::move(parts));
    }
    if (name == "local")
    {
        return std::make_shared<LocalScheme>(std::move(parts));
    }
    if (name == "linfer")
    {
        if (!parts.adapter)
        {
            throw InputError("scheme \"linfer\" splits a LoRA adapter off the model: give model.adapter");
        }
        return std::make_shared<LInferScheme>(std::move(parts));
    }
    throw InputError("unknown scheme \"" + name + "\"; accepted: " + Joined(SchemeNames()));
}

} // namespace splitllm
