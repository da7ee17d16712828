// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CRC32C_H
#define SPLITLLM_CRC32C_H

#include <cstddef>
#include <cstdint>
#include <span>

namespace splitllm
{

/**
 * CRC-32C (Castagnoli, reflected polynomial 0x82F63B78, as in RFC 3720) of \p bytes, continuing from \p crc: the
 * checksum of two pieces is Crc32c(second, Crc32c(first)).
 */
std::uint32_t Crc32c(std::span<const std::byte> bytes, std::uint32_t crc = 0);

} // namespace splitllm

#endif // SPLITLLM_CRC32C_H
