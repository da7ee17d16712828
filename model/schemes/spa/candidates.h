// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CANDIDATES_H
#define SPLITLLM_CANDIDATES_H

#include "codec/payload.h"
#include "net/wire.h"
#include "schemes/decoder.h"

#include <cstddef>

namespace splitllm
{

/// For each hypothesis in turn its most likely tokens: 4 bytes of id, and the log-probability in fp32.
Payload EncodeCandidates(const Candidates& candidates);

/**
 * The inverse of EncodeCandidates.
 * \param hypotheses how many there are \param each how many tokens each has
 * \throws ProtocolError unless there are so many, all below \p vocab, each list from the most likely token down
 */
Candidates DecodeCandidates(const Message& message, std::size_t hypotheses, std::size_t each, std::size_t vocab);

} // namespace splitllm

#endif // SPLITLLM_CANDIDATES_H
