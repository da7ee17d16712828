// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CONNECTION_ID_H
#define SPLITLLM_CONNECTION_ID_H

#include <compare>
#include <cstdint>

namespace splitllm
{

/// Names a connection, at both its ends. No two connections of a simulation have the same one.
struct ConnectionId
{
    /// The user's host: over TCP its IPv4 address, on a link that carries messages whole the link's number.
    std::uint64_t client = 0;
    /// Tells the client's connections apart: TCP's port at the client, or how many the link made before.
    std::uint32_t number = 0;

    auto operator<=>(const ConnectionId&) const = default;
};

/// A number for a link that carries messages whole: 2^32, which is no IPv4 address, and up, in the order of the calls
/// in this simulation.
std::uint64_t NextLinkNumber();

} // namespace splitllm

#endif // SPLITLLM_CONNECTION_ID_H
