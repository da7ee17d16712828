// SPDX-License-Identifier: GPL-2.0-only
#include "codec/bit-packing.h"

namespace splitllm
{

std::size_t
PackedBytes(std::size_t count, unsigned bits)
{
    return (count * bits + 7) / 8;
}

void
PackBits(std::span<const std::uint8_t> codes, unsigned bits, std::span<std::byte> to)
{
    std::uint32_t pending = 0;
    unsigned filled = 0;
    std::size_t at = 0;
    for (const std::uint8_t code : codes)
    {
        pending |= std::uint32_t{code} << filled;
        filled += bits;
        while (filled >= 8)
        {
            to[at++] = static_cast<std::byte>(pending);
            pending >>= 8;
            filled -= 8;
        }
    }
    if (filled > 0)
    {
        to[at] = static_cast<std::byte>(pending);
    }
}

bool
UnpackBits(std::span<const std::byte> from, unsigned bits, std::span<std::uint8_t> codes)
{
    std::uint32_t pending = 0;
    unsigned filled = 0;
    std::size_t at = 0;
    const std::uint32_t mask = (1U << bits) - 1;
    for (std::uint8_t& code : codes)
    {
        while (filled < bits)
        {
            pending |= std::to_integer<std::uint32_t>(from[at++]) << filled;
            filled += 8;
        }
        code = static_cast<std::uint8_t>(pending & mask);
        pending >>= bits;
        filled -= bits;
    }
    return pending == 0;
}

} // namespace splitllm
