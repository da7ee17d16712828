// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/ce-collm/ce-collm.h"

#include "base/input-error.h"
#include "compute/footprint.h"
#include "schemes/ce-collm/cloud.h"
#include "schemes/ce-collm/edge.h"

#include <stdexcept>
#include <string>
#include <utility>

namespace splitllm
{

void
CheckCeCollm(const CeCollmOptions& options, bool hasAdapter)
{
    if (!options.exits || !options.policy)
    {
        throw std::logic_error("scheme \"ce-collm\" needs exits and a policy that decides about them");
    }
    if (hasAdapter)
    {
        throw InputError("scheme \"ce-collm\" has no place for an adapter");
    }
    const std::size_t last = options.exits->Layers().back();
    if (options.uploadLayer == 0 || options.uploadLayer > last)
    {
        throw InputError("the states after layer " + std::to_string(options.uploadLayer) +
                         " cannot be uploaded; accepted: 1 to " + std::to_string(last) + ", the last exit's layer");
    }
}

CeCollmScheme::CeCollmScheme(SchemeParts parts, CeCollmOptions options)
    : Scheme(std::move(parts)),
      m_options(std::move(options))
{
    CheckCeCollm(m_options, Parts().adapter != nullptr);
}

bool
CeCollmScheme::HasServer() const
{
    return m_options.mode == CeCollmMode::Collaborative;
}

bool
CeCollmScheme::HasUploadApi() const
{
    return HasServer();
}

std::unique_ptr<UserRole>
CeCollmScheme::MakeUser(Session& session) const
{
    return std::make_unique<CeCollmEdge>(session, Parts(), m_options);
}

std::unique_ptr<Service>
CeCollmScheme::MakeService(Host& host) const
{
    return std::make_unique<CeCollmCloud>(host, Parts(), m_options);
}

Footprint
CeCollmScheme::UserFootprint() const
{
    const ModelConfig& config = Parts().model->Config();
    const std::uint64_t layers = LayerBytes(config, m_options.exits->Layers().back());
    return {EmbeddingBytes(config) + layers + HeadBytes(config) + m_options.exits->Bytes(), 0};
}

Footprint
CeCollmScheme::ServerFootprint() const
{
    const ModelConfig& config = Parts().model->Config();
    const std::uint64_t head = HeadBytes(config) + (config.tiedHead ? EmbeddingBytes(config) : 0);
    return {LayerBytes(config, config.layers - m_options.uploadLayer) + head, 0};
}

} // namespace splitllm
