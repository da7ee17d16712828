// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TIMED_H
#define SPLITLLM_TIMED_H

#include "compute/backend.h"

#include <chrono>
#include <optional>
#include <utility>

namespace splitllm
{

/// How long \p run takes by the clock of this host.
template <typename F>
std::chrono::nanoseconds
HostTime(F&& run)
{
    const auto start = std::chrono::steady_clock::now();
    run();
    return std::chrono::steady_clock::now() - start;
}

/// The result of \p compute, which is no backend's work (a codec's, a policy's), with its cost and HostTime.
template <typename F>
auto
Timed(Operation operation, std::size_t rows, const Work& work, F&& compute)
{
    std::optional<decltype(compute())> value;
    const std::chrono::nanoseconds elapsed = HostTime([&] { value.emplace(compute()); });
    return Computed<decltype(compute())>{std::move(*value), operation, rows, work, elapsed};
}

} // namespace splitllm

#endif // SPLITLLM_TIMED_H
