// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_OPSC_DEVICE_FIRST_H
#define SPLITLLM_OPSC_DEVICE_FIRST_H

#include "schemes/scheme.h"

namespace splitllm
{

/**
 * OPSC with the whole model on the device, in its precision: it generates the first W tokens of an answer alone. Then it
 * sends the ids of all tokens so far, and the cloud's model, as it is, generates the rest one token at a time.
 */
class OpscDeviceFirstScheme final : public Scheme
{
  public:
    /// \throws InputError for a split outside 1..L, or an adapter
    OpscDeviceFirstScheme(SchemeParts parts, OpscOptions options);

    bool HasServer() const override;
    std::unique_ptr<UserRole> MakeUser(Session& session) const override;
    std::unique_ptr<ServerRole> MakeServer(Session& session) const override;
    Footprint UserFootprint() const override;
    Footprint ServerFootprint() const override;

  private:
    SchemeParts m_deviceParts; //!< with the model in the device's precision
    OpscOptions m_options;
    std::shared_ptr<const Scheme> m_cloud; //!< what serves the rest
};

} // namespace splitllm

#endif // SPLITLLM_OPSC_DEVICE_FIRST_H
