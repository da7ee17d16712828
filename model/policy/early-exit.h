// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_EARLY_EXIT_H
#define SPLITLLM_EARLY_EXIT_H

#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>

namespace splitllm
{

/// A point at which OPSC's device may hand over: how deep it went, and how its output travels.
struct ExitPoint
{
    std::size_t tokens = 0; //!< w
    std::size_t layer = 0;  //!< l, from 1
    bool keysAndValues = false;
    bool compressed = false;

    std::size_t Depth() const
    {
        return tokens * layer;
    }

    bool operator==(const ExitPoint&) const = default;
};

/// Eq 11: the device's latency at a point, local computation and worst-case communication together.
using ExitLatency = std::function<std::chrono::nanoseconds(const ExitPoint& point)>;

/**
 * Eq 12 by enumeration: the deepest point, w times l, whose latency is at most \p deadline, in any form. Of equals the
 * one with more tokens, then the one with keys and values, then the one that is not compressed.
 * \param tokens the largest w
 * \param layers the largest l
 * \return nothing if not even one token and layer arrive in time
 */
std::optional<ExitPoint> DeepestPoint(const ExitLatency& latency,
                                      std::chrono::nanoseconds deadline,
                                      std::size_t tokens,
                                      std::size_t layers);

/**
 * Algorithm 2: goes through tokens and layers in turn. Where the output would come too late it is compressed, then sent
 * without keys and values, and where that is not enough the last tokens are dropped until it is, and generation ends.
 * Every token starts with keys and values again, and after a compression that helped the next layer is tried. Where no
 * token is left it ends at the last point that was in time.
 * \param keysAndValues whether they may travel at all
 * \return where it ends; nothing if no token arrives in time
 */
std::optional<ExitPoint> EarlyExit(const ExitLatency& latency,
                                   std::chrono::nanoseconds deadline,
                                   std::size_t tokens,
                                   std::size_t layers,
                                   bool keysAndValues = true);

} // namespace splitllm

#endif // SPLITLLM_EARLY_EXIT_H
