// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/scheme.h"

#include "base/input-error.h"
#include "policy/offload-policies.h"
#include "schemes/ce-collm/ce-collm.h"
#include "schemes/ce-collm/streaming-server.h"
#include "schemes/opsc/device-first.h"
#include "schemes/opsc/split.h"
#include "schemes/spa/adapter-split.h"
#include "schemes/tlc/local.h"
#include "schemes/tlc/lora-split.h"
#include "schemes/tlc/server.h"

#include <stdexcept>
#include <utility>

namespace splitllm
{

namespace
{

/// A service whose connections have nothing in common.
class SeparateRoles final : public Service
{
  public:
    explicit SeparateRoles(const Scheme& scheme)
        : m_scheme(scheme)
    {
    }

    std::unique_ptr<ServerRole> MakeRole(Session& session) override
    {
        return m_scheme.MakeServer(session);
    }

  private:
    const Scheme& m_scheme;
};

/// CE-CoLLM's naive cloud-edge deployment (Fig 2b): nothing is kept in the cloud, and all states travel for every token.
OpscOptions
NaiveSplit(std::size_t split)
{
    OpscOptions options;
    options.split = split;
    options.context = OpscContext::Stateless;
    return options;
}

} // namespace

void
UserRole::BeginRequest(const RequestLimits&)
{
}

Task<void>
UserRole::Connect(Session& session)
{
    session.Connect();
    co_await session.Opened();
}

Scheme::Scheme(SchemeParts parts)
    : m_parts(std::move(parts))
{
}

bool
Scheme::HasUploadApi() const
{
    return false;
}

std::unique_ptr<Service>
Scheme::MakeService(Host&) const
{
    return std::make_unique<SeparateRoles>(*this);
}

std::unique_ptr<ServerRole>
Scheme::MakeServer(Session&) const
{
    throw std::logic_error("the scheme has no server");
}

std::uint64_t
Scheme::AdapterBytes() const
{
    return (m_parts.adapter ? m_parts.adapter->Bytes() : 0) + (m_parts.bottleneck ? m_parts.bottleneck->Bytes() : 0);
}

std::vector<std::string>
SchemeNames()
{
    return {"server", "local", "mlora", "linfer", "dlora", "tlc", "opsc", "naive-split", "ce-collm", "adapter-split"};
}

std::shared_ptr<const Scheme>
MakeScheme(const std::string& name, SchemeParts parts, SchemeOptions options)
{
    if (name == "server" && options.stream)
    {
        return std::make_shared<StreamingServerScheme>(std::move(parts));
    }
    if (name == "server")
    {
        return std::make_shared<ServerScheme>(std::move(parts));
    }
    if (name == "local")
    {
        return std::make_shared<LocalScheme>(std::move(parts));
    }
    if (name == "mlora")
    {
        return std::make_shared<LocalScheme>(std::move(parts), options.keep);
    }
    if (name == "linfer" || name == "dlora" || name == "tlc")
    {
        if (!parts.adapter)
        {
            throw InputError("scheme \"" + name + "\" splits a LoRA adapter off the model: give model.adapter");
        }
        if (name == "linfer")
        {
            options.policy = ExchangeEverything();
            options.firstLayer = true;
        }
        if (!options.policy)
        {
            throw InputError("scheme \"" + name + "\" needs a policy that decides about its cells");
        }
        return std::make_shared<LoraSplitScheme>(std::move(parts), std::move(options.policy), options.firstLayer);
    }
    if (name == "opsc" && options.opsc.placement == OpscPlacement::DeviceFirst)
    {
        return std::make_shared<OpscDeviceFirstScheme>(std::move(parts), std::move(options.opsc));
    }
    if (name == "opsc")
    {
        return std::make_shared<OpscSplitScheme>(std::move(parts), std::move(options.opsc));
    }
    if (name == "naive-split")
    {
        return std::make_shared<OpscSplitScheme>(std::move(parts), NaiveSplit(options.opsc.split));
    }
    if (name == "ce-collm")
    {
        return std::make_shared<CeCollmScheme>(std::move(parts), std::move(options.ceCollm));
    }
    if (name == "adapter-split")
    {
        return std::make_shared<AdapterSplitScheme>(std::move(parts));
    }
    throw InputError("unknown scheme \"" + name + "\"; accepted: " + Joined(SchemeNames()));
}

} // namespace splitllm
