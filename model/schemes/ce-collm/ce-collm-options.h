// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CE_COLLM_OPTIONS_H
#define SPLITLLM_CE_COLLM_OPTIONS_H

#include "compute/backend.h"
#include "policy/exit-policy.h"

#include "ns3/nstime.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

namespace splitllm
{

/// How CE-CoLLM's edge generates.
enum class CeCollmMode
{
    Collaborative, //!< the cloud is asked for the tokens that no exit is sure of
    Standalone,    //!< the edge has no connection
};

/// How CE-CoLLM is set up.
struct CeCollmOptions
{
    CeCollmMode mode = CeCollmMode::Collaborative;
    std::shared_ptr<const ResidentExits> exits;   //!< the edge runs the layers up to the last of them
    std::shared_ptr<const ExitPolicy> policy;     //!< which tokens are taken from an exit
    std::size_t uploadLayer = 0;                  //!< the cloud goes on behind it; at most the last exit's
    std::optional<double> uploadBelow;            //!< states wait while the latest confidence is not below; absent: none waits
    ns3::Time timeout = ns3::Seconds(1);          //!< for how long the edge waits for an answer
    ns3::Time retry = ns3::Seconds(1);            //!< when the edge tries again, after it went on alone
    ns3::Time contextTimeout = ns3::Seconds(60);  //!< a context that is not used for so long is dropped
    std::optional<std::uint64_t> contextMemory{}; //!< bytes of all contexts; absent: what the node has left
};

/**
 * \throws InputError for an adapter, or an upload layer behind the last exit
 * \throws std::logic_error where exits or a policy are missing
 */
void CheckCeCollm(const CeCollmOptions& options, bool hasAdapter);

} // namespace splitllm

#endif // SPLITLLM_CE_COLLM_OPTIONS_H
