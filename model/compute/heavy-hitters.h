// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_HEAVY_HITTERS_H
#define SPLITLLM_HEAVY_HITTERS_H

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace splitllm
{

/**
 * Attention that an entry got, in units of 2^-36: an integer, so that a sum's bits do not depend on its order. There is
 * room for 2^28 softmax weights of 1: those of 64 heads for 4 million rows.
 */
using Attention = std::uint64_t;

/**
 * Which entries stay where \p kept of them do, as Backend::Prune says: the last, and of the others those of most
 * attention; of equals the later. Ascending.
 * \param kept 1 to the number of entries
 */
std::vector<std::uint32_t> HeavyHitters(std::span<const Attention> attention, std::size_t kept);

} // namespace splitllm

#endif // SPLITLLM_HEAVY_HITTERS_H
