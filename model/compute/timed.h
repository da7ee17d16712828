// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TIMED_H
#define SPLITLLM_TIMED_H

#include "compute/backend.h"

#include <chrono>
#include <utility>

namespace splitllm
{

/// The result of \p compute with its cost, and how long it took on this host.
template <typename F>
auto
Timed(Operation operation, std::size_t rows, const Work& work, F&& compute)
{
    const auto start = std::chrono::steady_clock::now();
    auto value = compute();
    const auto elapsed = std::chrono::steady_clock::now() - start;
    return Computed<decltype(value)>{std::move(value), operation, rows, work, elapsed};
}

} // namespace splitllm

#endif // SPLITLLM_TIMED_H
