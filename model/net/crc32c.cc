// SPDX-License-Identifier: GPL-2.0-only
#include "net/crc32c.h"

#include <array>
#include <bit>
#include <cstring>

namespace splitllm
{

namespace
{

static_assert(std::endian::native == std::endian::little, "eight bytes are folded in as one little-endian word");

constexpr std::uint32_t kPolynomial = 0x82F63B78;

/// tables[k][b]: what byte b contributes when k further bytes follow it ("slicing by eight").
constexpr auto kTables = [] {
    std::array<std::array<std::uint32_t, 256>, 8> tables{};
    for (std::uint32_t byte = 0; byte < 256; byte++)
    {
        std::uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
        {
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
        }
        tables[0][byte] = crc;
    }
    for (std::size_t k = 1; k < 8; k++)
    {
        for (std::size_t byte = 0; byte < 256; byte++)
        {
            const std::uint32_t before = tables[k - 1][byte];
            tables[k][byte] = (before >> 8) ^ tables[0][before & 0xFF];
        }
    }
    return tables;
}();

} // namespace

std::uint32_t
Crc32c(std::span<const std::byte> bytes, std::uint32_t crc)
{
    crc = ~crc;
    while (bytes.size() >= 8)
    {
        std::uint64_t word;
        std::memcpy(&word, bytes.data(), 8);
        word ^= crc;
        crc = 0;
        for (std::size_t k = 0; k < 8; k++)
        {
            crc ^= kTables[7 - k][(word >> (8 * k)) & 0xFF];
        }
        bytes = bytes.subspan(8);
    }
    for (const std::byte byte : bytes)
    {
        crc = (crc >> 8) ^ kTables[0][(crc ^ std::to_integer<std::uint32_t>(byte)) & 0xFF];
    }
    return ~crc;
}

} // namespace splitllm
