// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_MLORA_H
#define SPLITLLM_MLORA_H

#include "schemes/scheme.h"

namespace splitllm
{

/**
 * The whole model and the adapter on the user's device, as in Local, with a KV cache that forgets (TLC-Calibrator,
 * section 5.1, baseline "MLoRA": MobiLoRA's dynamic pruning of low-importance entries).
 *
 * After each layer the layer's cache keeps a share of the positions consumed so far: the newest and, of the others,
 * those that got most attention (see Backend::Prune). So the rows of a prompt attend to all before them, and a decoded
 * token to what was kept and itself. A share of 1 is Local.
 */
class MLoraScheme final : public Scheme
{
  public:
    /// \param keep share of the positions that each layer keeps. \throws InputError unless it is above 0 and at most 1
    MLoraScheme(SchemeParts parts, double keep);

    bool HasServer() const override;
    std::unique_ptr<UserRole> MakeUser(Session& session) const override;
    std::unique_ptr<ServerRole> MakeServer(Session& session) const override;
    Footprint UserFootprint() const override;
    Footprint ServerFootprint() const override;

  private:
    double m_keep;
};

} // namespace splitllm

#endif // SPLITLLM_MLORA_H
