// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_ADAPTER_SPLIT_H
#define SPLITLLM_ADAPTER_SPLIT_H

#include "schemes/scheme.h"

#include <memory>

namespace splitllm
{

/**
 * Bottleneck adapters on the device and the base model at the server, SPA's baseline "Adapter" (Table 2): two exchanges
 * a layer, because an adapter follows the attention block and another one the MLP.
 *
 * A step sends h0 up; for each layer the attention block's output down and what its adapter adds up, then the same for
 * the MLP; at the end hL of the last row down. Embedding, adapters, head and the choice of tokens stay on the device. A
 * prompt crosses like a token, with all its rows in each message, and so do the hypotheses of a beam search.
 */
class AdapterSplitScheme final : public Scheme
{
  public:
    /// \throws InputError if \p parts have no bottleneck adapters
    explicit AdapterSplitScheme(SchemeParts parts);

    bool HasServer() const override;
    std::unique_ptr<UserRole> MakeUser(Session& session) const override;
    std::unique_ptr<ServerRole> MakeServer(Session& session) const override;
    Footprint UserFootprint() const override;
    Footprint ServerFootprint() const override;
};

} // namespace splitllm

#endif // SPLITLLM_ADAPTER_SPLIT_H
