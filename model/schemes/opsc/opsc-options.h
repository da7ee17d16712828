// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_OPSC_OPTIONS_H
#define SPLITLLM_OPSC_OPTIONS_H

#include "codec/tensor-codec.h"
#include "compute/backend.h"
#include "compute/weight-precision.h"
#include "policy/opsc-sizes.h"

#include "ns3/nstime.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

namespace splitllm
{

/// Where OPSC runs which layers.
enum class OpscPlacement
{
    Split,       //!< the front on the device, the back in the cloud: every token crosses
    DeviceFirst, //!< all layers on the device for the first tokens, then the cloud for the rest
};

/// What the cloud knows of the tokens before.
enum class OpscContext
{
    Stateful,    //!< it keeps its keys and values; the new token's state travels
    Stateless,   //!< nothing: all hidden states travel, and it recomputes (I_kv = 0)
    StatelessKv, //!< what the device sends: keys and values travel, and come back for the new token (I_kv = 1)
};

/// How OPSC is set up.
struct OpscOptions
{
    OpscPlacement placement = OpscPlacement::Split;
    std::size_t split = 1;                       //!< l: layers of the front, 1 to L
    std::shared_ptr<const ResidentModel> device; //!< the model in the device's precision; null: as it is
    OpscContext context = OpscContext::Stateful; //!< "split"
    KvPayload kvPayload = KvPayload::Printed;    //!< "split", where keys and values travel
    std::uint32_t deviceTokens = 0;              //!< "device-first": W, tokens that the device generates alone
    std::optional<ns3::Time> deadline;           //!< "split": a token's time until its upload arrives and is served
    bool controlled = true; //!< "split" with a deadline: whether Algorithm 2 acts; otherwise it is measured alone
    std::shared_ptr<const TensorCodec> compressed; //!< "split" with a deadline: what Algorithm 2 compresses with
};

/// The precision of a device whose weights have \p bits before and behind \p split; 16 leaves them as they are stored.
WeightPrecision OpscPrecision(const ModelConfig& config, std::size_t split, FrontBack bits, std::size_t group);

/// \throws InputError for a split outside 1..L, an adapter, or a deadline that nothing can be compressed for
void CheckOpsc(const OpscOptions& options, const ModelConfig& config, bool hasAdapter);

} // namespace splitllm

#endif // SPLITLLM_OPSC_OPTIONS_H
