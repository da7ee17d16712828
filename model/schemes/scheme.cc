// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/scheme.h"

#include "base/input-error.h"
#include "policy/offload-policies.h"
#include "schemes/ce-collm/ce-collm.h"
#include "schemes/ce-collm/streaming-server.h"
#include "schemes/opsc/device-first.h"
#include "schemes/opsc/split.h"
#include "schemes/spa/adapter-split.h"
#include "schemes/spa/spa.h"
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

std::optional<std::vector<TokenId>>
UserRole::Answer() const
{
    return std::nullopt;
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
    return {"server",
            "local",
            "mlora",
            "linfer",
            "dlora",
            "tlc",
            "opsc",
            "naive-split",
            "ce-collm",
            "spa",
            "lst",
            "adapter-split"};
}

std::string_view
WhyNoBeams(std::string_view name)
{
    if (name == "ce-collm")
    {
        return "its exits are taken, and its contexts kept, for one sequence";
    }
    if (name == "opsc" || name == "naive-split")
    {
        return "its states, keys and values travel for one sequence, under one deadline a token";
    }
    return {};
}

std::shared_ptr<const Scheme>
MakeScheme(const std::string& name, SchemeParts parts, SchemeOptions options)
{
    const Sampling& sampling = parts.sampling;
    if (sampling.beams > 0 && !WhyNoBeams(name).empty())
    {
        throw InputError("scheme \"" + name + "\" cannot search with beams: " + std::string(WhyNoBeams(name)));
    }
    if (sampling.beams > 0 && sampling.temperature > 0.0)
    {
        throw InputError("a beam search does not sample; accepted: beams, or a temperature above 0");
    }
    if (2 * sampling.beams > parts.model->Config().vocab)
    {
        throw InputError(std::to_string(sampling.beams) + " beams; accepted: at most half the vocabulary, which has " +
                         std::to_string(parts.model->Config().vocab) + " tokens");
    }
    // A search at the server goes on by itself: the user could not tell it which token is next.
    if (name == "server" && (options.stream || sampling.beams > 0))
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
    if (name == "lst")
    {
        options.spa.policy = OpenAlways();
    }
    if (name == "spa" || name == "lst")
    {
        return std::make_shared<SpaScheme>(std::move(parts), std::move(options.spa));
    }
    throw InputError("unknown scheme \"" + name + "\"; accepted: " + Joined(SchemeNames()));
}

} // namespace splitllm
