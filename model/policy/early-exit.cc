// SPDX-License-Identifier: GPL-2.0-only
#include "policy/early-exit.h"

#include <initializer_list>
#include <tuple>

namespace splitllm
{

std::optional<ExitPoint>
DeepestPoint(const ExitLatency& latency, std::chrono::nanoseconds deadline, std::size_t tokens, std::size_t layers)
{
    const auto rank = [](const ExitPoint& point) {
        return std::tuple(point.Depth(), point.tokens, point.keysAndValues, !point.compressed);
    };
    std::optional<ExitPoint> deepest;
    for (std::size_t w = 1; w <= tokens; w++)
    {
        for (std::size_t l = 1; l <= layers; l++)
        {
            for (const bool keysAndValues : {false, true})
            {
                for (const bool compressed : {false, true})
                {
                    const ExitPoint point{w, l, keysAndValues, compressed};
                    if (latency(point) <= deadline && (!deepest || rank(point) > rank(*deepest)))
                    {
                        deepest = point;
                    }
                }
            }
        }
    }
    return deepest;
}

std::optional<ExitPoint>
EarlyExit(const ExitLatency& latency,
          std::chrono::nanoseconds deadline,
          std::size_t tokens,
          std::size_t layers,
          bool keysAndValues)
{
    std::optional<ExitPoint> reached;
    for (std::size_t w = 1; w <= tokens; w++)
    {
        ExitPoint point{w, 0, keysAndValues, false};
        for (point.layer = 1; point.layer <= layers; point.layer++)
        {
            if (latency(point) <= deadline)
            {
                reached = point;
                continue;
            }
            point.compressed = true;
            if (latency(point) > deadline)
            {
                point.keysAndValues = false;
            }
            while (point.tokens > 0 && latency(point) > deadline)
            {
                point.tokens--;
            }
            if (point.tokens < w)
            {
                return point.tokens > 0 ? std::optional(point) : reached;
            }
            reached = point;
        }
    }
    return reached;
}

} // namespace splitllm
