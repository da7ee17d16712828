// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_FRAME_BYTES_H
#define SPLITLLM_TEST_FRAME_BYTES_H

#include "net/crc32c.h"
#include "net/wire.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace splitllm::test
{

using Bytes = std::vector<std::byte>;

/// \p count bytes that no two offsets or lengths share a pattern of.
inline Bytes
PatternBytes(std::size_t count, std::uint32_t seed = 1)
{
    Bytes bytes(count);
    std::uint32_t state = seed * 2654435761U + 1;
    for (std::byte& byte : bytes)
    {
        state = state * 1664525U + 1013904223U;
        byte = static_cast<std::byte>(state >> 24);
    }
    return bytes;
}

/// What travels for \p message; a phantom payload as zeros.
inline Bytes
FrameBytes(const Message& message)
{
    const HeaderBytes header = EncodeHeader(message);
    Bytes bytes(header.begin(), header.end());
    bytes.insert(bytes.end(), message.payload.bytes.begin(), message.payload.bytes.end());
    bytes.resize(kHeaderBytes + message.payload.size);
    return bytes;
}

/// \p frame with \p value at \p offset of its header and a checksum that fits.
template <typename T>
Bytes
WithField(Bytes frame, std::size_t offset, T value)
{
    std::memcpy(frame.data() + offset, &value, sizeof value);
    const std::span<const std::byte> all(frame);
    const std::uint32_t crc = Crc32c(all.subspan(kHeaderBytes), Crc32c(all.first(kHeaderBytes - 4)));
    std::memcpy(frame.data() + kHeaderBytes - 4, &crc, sizeof crc);
    return frame;
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_FRAME_BYTES_H
