// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_LOCAL_H
#define SPLITLLM_LOCAL_H

#include "schemes/scheme.h"

namespace splitllm
{

/**
 * The whole model and the adapter on the user's device; nothing crosses (TLC-Calibrator, baseline "Local").
 *
 * With a KV cache that forgets it is the baseline "MLoRA" (section 5.1, MobiLoRA's dynamic pruning of low-importance
 * entries): after each layer the layer's cache keeps a share of the positions consumed so far, the newest and, of the
 * others, those that got most attention (see Backend::Prune). So the rows of a prompt attend to all before them, and a
 * decoded token to what was kept and itself.
 */
class LocalScheme final : public Scheme
{
  public:
    /// \param keep share of the positions that each layer keeps, 1 for all. \throws InputError unless above 0, at most 1
    explicit LocalScheme(SchemeParts parts, double keep = 1.0);

    bool HasServer() const override;
    std::unique_ptr<UserRole> MakeUser(Session& session) const override;
    Footprint UserFootprint() const override;
    Footprint ServerFootprint() const override;

  private:
    double m_keep;
};

} // namespace splitllm

#endif // SPLITLLM_LOCAL_H
