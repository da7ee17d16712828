// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SIDE_STATES_H
#define SPLITLLM_SIDE_STATES_H

#include "net/wire.h"
#include "schemes/scheme.h"
#include "schemes/spa/spa-options.h"

#include <vector>

namespace splitllm
{

/// The states behind all layers of a model, from the first to the last: w x d each, a row for each hypothesis.
using LayerStates = std::vector<Tensor>;

/// What the device computes with where the gate is open.
struct SideInputs
{
    Tensor input; //!< w x L s, what the down-projections make of the states
    Tensor last;  //!< w x d, the state behind the last layer; without rows where the device does not need it
};

/**
 * Sends down all that the device needs of \p states in one message about \p position. Who projects decides what that is:
 *  - the cloud: w x L s, what the side network reads; where the device has the head and adds to the last state, 4 bytes
 *    that say how long that is are in front of it, and the last state, w x d, behind;
 *  - the device: the states themselves, L w x d, layer by layer.
 */
Task<void> SendSideStates(Session& session,
                          const SchemeParts& parts,
                          const SpaOptions& options,
                          std::size_t position,
                          const LayerStates& states);

/// What SendSideStates sent in \p message, projected down. \throws ProtocolError unless it is that of \p rows rows
Task<SideInputs> TakeSideStates(Session& session,
                                const SchemeParts& parts,
                                const SpaOptions& options,
                                Message message,
                                std::size_t rows);

} // namespace splitllm

#endif // SPLITLLM_SIDE_STATES_H
