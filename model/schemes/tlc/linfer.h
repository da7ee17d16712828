// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_LINFER_H
#define SPLITLLM_LINFER_H

#include "schemes/scheme.h"

namespace splitllm
{

/**
 * The base model on the edge server, the adapter on the device, and an exchange at every layer (TLC-Calibrator,
 * section 2.2, baseline "LInfer").
 *
 * A step sends h0 up; for every layer the normed input of Q, K and V down and LoRA's three updates up, side by side in
 * one message; and hL of the last row down. Embedding, head and sampling stay on the device. A prompt crosses like a
 * token, with all its rows in each message.
 */
class LInferScheme final : public Scheme
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

#endif // SPLITLLM_LINFER_H
