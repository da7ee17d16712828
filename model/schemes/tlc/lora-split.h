// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_LORA_SPLIT_H
#define SPLITLLM_LORA_SPLIT_H

#include "policy/offload-policy.h"
#include "schemes/scheme.h"

#include <memory>

namespace splitllm
{

/**
 * LoRA-split inference (TLC-Calibrator, section 2.2 and Algorithm 1): the base model on the edge server, the adapter on
 * the device, and at every layer an exchange about the tokens that a policy finds worth it.
 *
 * A step sends h0 up; for each layer the normed input of Q, K and V of the offloaded rows down, and those of LoRA's
 * updates that the device returns up, side by side in one message, or the notice that nothing comes back; at the end hL
 * of the last row down. Embedding, head and the choice of tokens stay on the device. A prompt crosses like a token,
 * with all its rows in each message; so do the hypotheses of a beam search, whose embedding message says which one each
 * row goes on from, and whose final states go down together.
 *
 * LInfer exchanges everything, DLoRA leaves out whole tokens, TLC-Calibrator decides about every (layer, token) cell.
 */
class LoraSplitScheme final : public Scheme
{
  public:
    /**
     * \param policy decides about the cells
     * \param firstLayer whether the policy decides about layer 1 as well; otherwise it never offloads (Algorithm 1, line 6)
     */
    LoraSplitScheme(SchemeParts parts, std::shared_ptr<const OffloadPolicy> policy, bool firstLayer);

    bool HasServer() const override;
    std::unique_ptr<UserRole> MakeUser(Session& session) const override;
    std::unique_ptr<ServerRole> MakeServer(Session& session) const override;
    Footprint UserFootprint() const override;
    Footprint ServerFootprint() const override;

  private:
    std::shared_ptr<const OffloadPolicy> m_policy;
    bool m_firstLayer;
};

} // namespace splitllm

#endif // SPLITLLM_LORA_SPLIT_H
