// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_BIT_PACKING_H
#define SPLITLLM_BIT_PACKING_H

#include <cstddef>
#include <cstdint>
#include <span>

namespace splitllm
{

/// Bytes that \p count codes of \p bits bits take.
std::size_t PackedBytes(std::size_t count, unsigned bits);

/// Writes \p codes, each below 2^bits (\p bits 1 to 8), one after the other from the lowest bit of the first byte on.
/// \param to exactly PackedBytes long; what is left of its last byte is zero
void PackBits(std::span<const std::uint8_t> codes, unsigned bits, std::span<std::byte> to);

/// The inverse of PackBits. \return whether what is left of the last byte is zero, as PackBits leaves it
bool UnpackBits(std::span<const std::byte> from, unsigned bits, std::span<std::uint8_t> codes);

} // namespace splitllm

#endif // SPLITLLM_BIT_PACKING_H
