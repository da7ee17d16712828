// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_PARENTS_H
#define SPLITLLM_PARENTS_H

#include "codec/payload.h"
#include "net/wire.h"

#include <cstddef>
#include <span>
#include <vector>

namespace splitllm
{

/// \p payload, whose rows are the hypotheses of a beam search, behind the indices of those that they go on from, 4
/// bytes each. They are at the front, where a phantom has bytes too.
Payload WithParents(std::span<const std::size_t> parents, Payload payload);

/**
 * Takes the parents of \p beams hypotheses from the front of the payload of \p message.
 * \throws ProtocolError if they are not there, or one is not below \p running
 */
std::vector<std::size_t> TakeParents(Message& message, std::size_t beams, std::size_t running);

} // namespace splitllm

#endif // SPLITLLM_PARENTS_H
