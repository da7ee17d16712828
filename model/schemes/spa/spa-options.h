// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SPA_OPTIONS_H
#define SPLITLLM_SPA_OPTIONS_H

#include "compute/backend.h"
#include "policy/gate-policy.h"

#include <memory>

namespace splitllm
{

/// Which of SPA's two nodes does a part of the work.
enum class SpaNode
{
    Cloud,
    Device,
};

/// How SPA is set up.
struct SpaOptions
{
    std::shared_ptr<const ResidentSide> side;
    std::shared_ptr<const GatePolicy> policy;     //!< for which tokens the device is asked
    SpaNode downProjection = SpaNode::Cloud;      //!< who projects the states down: it decides the bytes that cross
    SpaNode head = SpaNode::Device;               //!< who has the head where the gate is open
    bool stream = true; //!< the cloud goes on by itself behind a closed gate; otherwise every token is sent back to it
};

} // namespace splitllm

#endif // SPLITLLM_SPA_OPTIONS_H
