// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SERVER_H
#define SPLITLLM_SERVER_H

#include "schemes/scheme.h"

namespace splitllm
{

/**
 * The whole model and the adapter on the edge server; token ids cross (TLC-Calibrator, baseline "Server").
 */
class ServerScheme : public Scheme
{
  public:
    using Scheme::Scheme;

    bool HasServer() const override;
    std::unique_ptr<UserRole> MakeUser(Session& session) const override;
    std::unique_ptr<ServerRole> MakeServer(Session& session) const override;
    Footprint UserFootprint() const override;
    Footprint ServerFootprint() const override;
};

} // namespace splitllm

#endif // SPLITLLM_SERVER_H
