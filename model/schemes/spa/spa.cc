// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/spa/spa.h"

#include "base/input-error.h"
#include "compute/footprint.h"
#include "schemes/spa/cloud.h"
#include "schemes/spa/device.h"

#include <stdexcept>
#include <utility>

namespace splitllm
{

SpaScheme::SpaScheme(SchemeParts parts, SpaOptions options)
    : Scheme(std::move(parts)),
      m_options(std::move(options))
{
    if (Parts().adapter)
    {
        throw InputError("scheme \"spa\" has a side network in place of an adapter");
    }
    if (!m_options.side || !m_options.policy)
    {
        throw std::logic_error("SPA without a side network or a policy");
    }
}

bool
SpaScheme::HasServer() const
{
    return true;
}

std::unique_ptr<UserRole>
SpaScheme::MakeUser(Session& session) const
{
    return std::make_unique<SpaDevice>(session, Parts(), m_options);
}

std::unique_ptr<ServerRole>
SpaScheme::MakeServer(Session& session) const
{
    return std::make_unique<SpaCloud>(session, Parts(), m_options);
}

Footprint
SpaScheme::UserFootprint() const
{
    const ModelConfig& config = Parts().model->Config();
    const std::uint64_t down = m_options.downProjection == SpaNode::Device ? m_options.side->DownBytes() : 0;
    const std::uint64_t head = m_options.head == SpaNode::Device ? StandaloneHeadBytes(config) : 0;
    return {head, m_options.side->BlockBytes() + down};
}

Footprint
SpaScheme::ServerFootprint() const
{
    const std::uint64_t down = m_options.downProjection == SpaNode::Cloud ? m_options.side->DownBytes() : 0;
    const std::uint64_t gate = m_options.policy->UsesGate() ? m_options.side->GateBytes() : 0;
    return {ModelBytes(Parts().model->Config()), down + gate};
}

} // namespace splitllm
