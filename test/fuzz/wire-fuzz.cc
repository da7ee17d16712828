// SPDX-License-Identifier: GPL-2.0-only
#include "net/crc32c.h"
#include "net/wire.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

namespace
{

using namespace splitllm;

constexpr std::size_t kMaxPayload = 1 << 16;
constexpr std::size_t kLengthOffset = 28;
constexpr std::size_t kCrcOffset = 32;

/// Makes the checksum of every frame in \p stream fit, which no mutation would.
void
Repair(std::span<std::byte> stream)
{
    while (stream.size() >= kHeaderBytes)
    {
        std::uint32_t length = 0;
        std::memcpy(&length, stream.data() + kLengthOffset, sizeof length);
        const bool phantom = (stream[7] & std::byte{1}) != std::byte{0};
        const std::size_t payload = std::min<std::size_t>(length, stream.size() - kHeaderBytes);
        const std::uint32_t crc = Crc32c(stream.subspan(kHeaderBytes, phantom ? 0 : payload),
                                         Crc32c(stream.first(kCrcOffset)));
        std::memcpy(stream.data() + kCrcOffset, &crc, sizeof crc);
        stream = stream.subspan(kHeaderBytes + payload);
    }
}

/// Encoded again, \p message is the \p frame that it was read from.
bool
IsSame(const Message& message, std::span<const std::byte> frame)
{
    const HeaderBytes header = EncodeHeader(message);
    const auto payload = frame.subspan(kHeaderBytes);
    return std::equal(header.begin(), header.end(), frame.begin()) && message.payload.size == payload.size() &&
           (message.payload.phantom ? message.payload.bytes.empty()
                                    : std::ranges::equal(message.payload.bytes, payload));
}

} // namespace

/**
 * Any stream is messages that encode to the bytes they came from, up to the first malformed one; and never more is asked
 * for than the limit. The first byte is the size of the pieces in which the stream comes; from 128 on, its checksums are
 * made to fit.
 */
extern "C" int
LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    if (size == 0)
    {
        return 0;
    }
    const std::size_t piece = data[0] % 128 + 1;
    const auto* first = reinterpret_cast<const std::byte*>(data) + 1;
    std::vector<std::byte> stream(first, first + size - 1);
    if (data[0] >= 128)
    {
        Repair(stream);
    }
    FrameReader reader(kMaxPayload);
    std::size_t frameStart = 0;
    std::size_t at = 0;
    try
    {
        while (at < stream.size())
        {
            const std::size_t count = std::min({piece, reader.Missing(), stream.size() - at});
            if (count == 0 || reader.Missing() > kMaxPayload)
            {
                std::abort();
            }
            if (!reader.Skips())
            {
                std::memcpy(reader.Cursor(), stream.data() + at, count);
            }
            at += count;
            const auto message = reader.Advance(count);
            if (message.has_value() != reader.IsIdle())
            {
                std::abort();
            }
            if (message)
            {
                if (!IsSame(*message, std::span(stream).subspan(frameStart, at - frameStart)))
                {
                    std::abort();
                }
                frameStart = at;
            }
        }
    }
    catch (const MalformedFrame&)
    {
    }
    return 0;
}
