// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_OPSC_SPLIT_H
#define SPLITLLM_OPSC_SPLIT_H

#include "schemes/scheme.h"

namespace splitllm
{

/**
 * OPSC with a split at layer l: the device runs the embedding and layers 1 to l, the cloud the others, head and
 * sampling. For every token the device sends what Eq 3 says: the new state, all states, or keys and values with the new
 * state. Under a deadline Algorithm 2 decides for each token in which form, and ends the answer where none arrives in
 * time; the deadline comes with every answer, shorter the busier the cloud is.
 */
class OpscSplitScheme final : public Scheme
{
  public:
    /// \throws InputError for a split outside 1..L, an adapter, or a deadline without a codec that compresses
    OpscSplitScheme(SchemeParts parts, OpscOptions options);

    bool HasServer() const override;
    std::unique_ptr<UserRole> MakeUser(Session& session) const override;
    std::unique_ptr<ServerRole> MakeServer(Session& session) const override;
    Footprint UserFootprint() const override;
    Footprint ServerFootprint() const override;

  private:
    OpscOptions m_options;
};

} // namespace splitllm

#endif // SPLITLLM_OPSC_SPLIT_H
