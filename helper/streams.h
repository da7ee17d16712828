// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_STREAMS_H
#define SPLITLLM_STREAMS_H

#include <cstdint>

/**
 * \file
 * Where the random streams of a study begin. Streams below these are left to ns-3's own models.
 */

namespace splitllm
{

constexpr std::int64_t kOrderStream = 1 << 22;    //!< the order of the requests
constexpr std::int64_t kArrivalStream = kOrderStream + 1; //!< when they come in
constexpr std::int64_t kLinkStreams = 1 << 23;    //!< losses, fading, Wi-Fi
constexpr std::int64_t kBackhaulStreams = kLinkStreams + (1 << 21); //!< losses behind a gateway
constexpr std::int64_t kOutageStreams = 3 << 22;  //!< when outages of the link begin
constexpr std::int64_t kBackhaulOutageStreams = kOutageStreams + (1 << 15); //!< when those behind a gateway do
constexpr std::int64_t kServerOutageStreams = kOutageStreams + (1 << 16); //!< when those of the server do
constexpr std::int64_t kSessionStreams = 1 << 24; //!< sampling and decisions

} // namespace splitllm

#endif // SPLITLLM_STREAMS_H
