// SPDX-License-Identifier: GPL-2.0-only
#include "compute/heavy-hitters.h"

#include <algorithm>
#include <numeric>

namespace splitllm
{

std::vector<std::uint32_t>
HeavyHitters(std::span<const Attention> attention, std::size_t kept)
{
    std::vector<std::uint32_t> entries(attention.size());
    std::iota(entries.begin(), entries.end(), 0);
    // All but the last, which stays in any case, compete for the places; of equals the later wins.
    const auto last = entries.end() - 1;
    const auto dropped = entries.begin() + static_cast<std::ptrdiff_t>(kept - 1);
    std::nth_element(entries.begin(), dropped, last, [&](std::uint32_t a, std::uint32_t b) {
        return attention[a] != attention[b] ? attention[a] > attention[b] : a > b;
    });
    entries.erase(dropped, last);
    std::ranges::sort(entries);
    return entries;
}

} // namespace splitllm
