// SPDX-License-Identifier: GPL-2.0-only
#include "net/wire.h"

#include "net/crc32c.h"
#include "support/catch.h"
#include "support/frame-bytes.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace splitllm;
using test::Bytes;
using test::FrameBytes;
using test::PatternBytes;
using test::WithField;

namespace
{

// Frames as a script of a few lines writes them (struct.pack("<IBBBBIIIIHHI") and a bitwise CRC-32C).
constexpr std::array<std::uint8_t, 41> kDeltasFrame{
    0x53, 0x4C, 0x4C, 0x4D, 0x01, 0x05, 0x03, 0x00, 0x04, 0x03, 0x02, 0x01, 0x08, 0x07, 0x06, 0x05, 0x0C, 0x0B,
    0x0A, 0x09, 0x10, 0x0F, 0x0E, 0x0D, 0x12, 0x11, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00, 0x07, 0xF6, 0x77, 0xF8,
    0xDE, 0xAD, 0xBE, 0xEF, 0x00};
constexpr std::array<std::uint8_t, 36> kPhantomHeader{
    0x53, 0x4C, 0x4C, 0x4D, 0x01, 0x04, 0x02, 0x01, 0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x01, 0x00, 0x00, 0x80, 0x20, 0x00, 0x00, 0x00, 0x00, 0x20, 0x00, 0x00, 0x2B, 0xBA, 0x12, 0xF9};
constexpr std::array<std::uint8_t, 36> kEndFrame{
    0x53, 0x4C, 0x4C, 0x4D, 0x01, 0x07, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x94, 0x69, 0x90, 0x2B};

template <std::size_t N>
Bytes
ToBytes(const std::array<std::uint8_t, N>& values)
{
    Bytes bytes(N);
    std::memcpy(bytes.data(), values.data(), N);
    return bytes;
}

Message
DeltasMessage()
{
    return {.kind = MessageKind::Deltas,
            .dtype = DType::BF16,
            .session = 0x01020304,
            .request = 0x05060708,
            .sequence = 0x090A0B0C,
            .position = 0x0D0E0F10,
            .layer = 0x1112,
            .payload = Payload::Of({std::byte{0xDE}, std::byte{0xAD}, std::byte{0xBE}, std::byte{0xEF}, std::byte{0}})};
}

Message
PhantomMessage()
{
    return {.kind = MessageKind::LayerInput,
            .dtype = DType::F16,
            .session = 7,
            .request = 0,
            .sequence = 0,
            .position = 0x80000001,
            .layer = 32,
            .payload = Payload::Phantom(8192)};
}

Message
EndMessage()
{
    return {.kind = MessageKind::End,
            .dtype = DType::F32,
            .session = 0,
            .request = 2,
            .sequence = 65536,
            .position = 0,
            .layer = 0,
            .payload = {}};
}

/// Gives \p bytes to \p reader, at most \p chunk at a time; appends the messages that they completed.
void
Feed(FrameReader& reader, std::span<const std::byte> bytes, std::size_t chunk, std::vector<Message>& messages)
{
    while (!bytes.empty())
    {
        REQUIRE(reader.Missing() > 0);
        const std::size_t count = std::min({reader.Missing(), chunk, bytes.size()});
        if (!reader.Skips())
        {
            std::memcpy(reader.Cursor(), bytes.data(), count);
        }
        bytes = bytes.subspan(count);
        if (auto message = reader.Advance(count))
        {
            messages.push_back(std::move(*message));
        }
    }
}

std::vector<Message>
Feed(FrameReader& reader, std::span<const std::byte> bytes, std::size_t chunk)
{
    std::vector<Message> messages;
    Feed(reader, bytes, chunk, messages);
    return messages;
}

/// The reason for which a reader with that limit refuses \p bytes; empty if it does not.
std::string
ReasonOf(const Bytes& bytes, std::size_t maxPayload = 1 << 20)
{
    FrameReader reader(maxPayload);
    try
    {
        Feed(reader, bytes, bytes.size());
    }
    catch (const MalformedFrame& malformed)
    {
        return malformed.what();
    }
    return "";
}

void
CheckEqual(const Message& actual, const Message& expected)
{
    CHECK(actual.kind == expected.kind);
    CHECK(actual.dtype == expected.dtype);
    CHECK(actual.session == expected.session);
    CHECK(actual.request == expected.request);
    CHECK(actual.sequence == expected.sequence);
    CHECK(actual.position == expected.position);
    CHECK(actual.layer == expected.layer);
    CHECK(actual.payload.size == expected.payload.size);
    CHECK(actual.payload.phantom == expected.payload.phantom);
    CHECK(actual.payload.bytes == expected.payload.bytes);
}

/// Most address space that the process had, in KiB.
std::size_t
PeakAddressSpace()
{
    std::ifstream status("/proc/self/status");
    std::string word;
    std::size_t kib = 0;
    while (status >> word)
    {
        if (word == "VmPeak:")
        {
            status >> kib;
        }
    }
    return kib;
}

} // namespace

TEST_CASE("CRC-32C agrees with its published values", "[crc32c]")
{
    const auto of = [](std::string_view text) { return Crc32c(std::as_bytes(std::span(text))); };
    CHECK(of("123456789") == 0xE3069283);
    CHECK(of("") == 0);
    CHECK(of(std::string(32, '\0')) == 0x8A9136AA); // RFC 3720, B.4
    CHECK(of(std::string(32, '\xFF')) == 0x62A8AB43);
    std::string up(32, '\0');
    std::string down(32, '\0');
    std::string many(1000, '\0');
    for (std::size_t i = 0; i < 32; i++)
    {
        up[i] = static_cast<char>(i);
        down[i] = static_cast<char>(31 - i);
    }
    for (std::size_t i = 0; i < 1000; i++)
    {
        many[i] = static_cast<char>(i * 7 % 251);
    }
    CHECK(of(up) == 0x46DD794E);
    CHECK(of(down) == 0x113FDB5C);
    CHECK(of(many) == 0xA345377A); // by a bitwise script
}

TEST_CASE("CRC-32C is the same in pieces, at any offset and length", "[crc32c]")
{
    // One bit at a time, as the polynomial is defined.
    const auto bitwise = [](std::span<const std::byte> bytes) {
        std::uint32_t crc = ~0U;
        for (const std::byte byte : bytes)
        {
            crc ^= std::to_integer<std::uint32_t>(byte);
            for (int bit = 0; bit < 8; bit++)
            {
                crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78U : 0U);
            }
        }
        return ~crc;
    };
    const Bytes bytes = PatternBytes(400);
    const std::span<const std::byte> all(bytes);
    for (std::size_t offset = 0; offset < 9; offset++)
    {
        for (std::size_t length = 0; length < 300; length += length < 40 ? 1 : 37)
        {
            const auto piece = all.subspan(offset, length);
            const std::uint32_t expected = bitwise(piece);
            CHECK(Crc32c(piece) == expected);
            CHECK(Crc32c(piece.subspan(length / 3), Crc32c(piece.first(length / 3))) == expected);
        }
    }
}

TEST_CASE("A header has the documented layout, byte by byte", "[wire]")
{
    CHECK(FrameBytes(DeltasMessage()) == ToBytes(kDeltasFrame));
    const HeaderBytes phantom = EncodeHeader(PhantomMessage());
    CHECK(Bytes(phantom.begin(), phantom.end()) == ToBytes(kPhantomHeader));
    CHECK(FrameBytes(EndMessage()) == ToBytes(kEndFrame));
}

TEST_CASE("A reader gives back what the golden bytes say", "[wire]")
{
    FrameReader reader(8192);
    const auto deltas = Feed(reader, ToBytes(kDeltasFrame), 1000);
    REQUIRE(deltas.size() == 1);
    CheckEqual(deltas[0], DeltasMessage());

    Bytes phantomFrame = ToBytes(kPhantomHeader);
    phantomFrame.resize(phantomFrame.size() + 8192, std::byte{0x5A}); // its bytes mean nothing
    const auto phantom = Feed(reader, phantomFrame, 1000);
    REQUIRE(phantom.size() == 1);
    CheckEqual(phantom[0], PhantomMessage());
    CHECK(phantom[0].payload.bytes.capacity() == 0);

    const auto end = Feed(reader, ToBytes(kEndFrame), 1000);
    REQUIRE(end.size() == 1);
    CheckEqual(end[0], EndMessage());
}

TEST_CASE("Messages back to back come out whole, however the stream is cut", "[wire]")
{
    std::vector<Message> sent{DeltasMessage(), EndMessage(), PhantomMessage(), EndMessage(), DeltasMessage()};
    for (const std::size_t size : {0, 1, 35, 36, 37, 1448, 5000})
    {
        Message message = DeltasMessage();
        message.payload = Payload::Of(PatternBytes(size));
        sent.push_back(message);
    }
    Bytes stream;
    for (const Message& message : sent)
    {
        const Bytes frame = FrameBytes(message);
        stream.insert(stream.end(), frame.begin(), frame.end());
    }
    for (const std::size_t chunk : {1, 2, 7, 36, 41, 1448, 1 << 20})
    {
        FrameReader reader(8192);
        const auto received = Feed(reader, stream, chunk);
        REQUIRE(received.size() == sent.size());
        for (std::size_t i = 0; i < sent.size(); i++)
        {
            CheckEqual(received[i], sent[i]);
        }
        CHECK(reader.IsIdle());
        CHECK(reader.Missing() == kHeaderBytes);
    }
}

TEST_CASE("A reader waits for what is missing and is idle only between messages", "[wire]")
{
    const Bytes frame = ToBytes(kDeltasFrame);
    FrameReader reader(8192);
    CHECK(reader.IsIdle());
    for (std::size_t i = 0; i < frame.size(); i++)
    {
        CHECK(reader.Missing() == (i < kHeaderBytes ? kHeaderBytes : frame.size()) - i);
        CHECK_FALSE(reader.Skips());
        *reader.Cursor() = frame[i];
        CHECK(reader.Advance(1).has_value() == (i + 1 == frame.size()));
        CHECK(reader.IsIdle() == (i + 1 == frame.size()));
    }
}

TEST_CASE("A phantom payload is counted and not copied", "[wire]")
{
    FrameReader reader(8192);
    CHECK(Feed(reader, ToBytes(kPhantomHeader), 100).empty());
    CHECK(reader.Skips());
    CHECK(reader.Missing() == 8192);
    CHECK_FALSE(reader.Advance(8191).has_value());
    CHECK(reader.Skips());
    CHECK(reader.Advance(1).has_value());
    CHECK_FALSE(reader.Skips());
}

TEST_CASE("Each malformed field is refused with its reason", "[wire]")
{
    const Bytes good = ToBytes(kDeltasFrame);
    CHECK(ReasonOf(good).empty());
    const auto kinds = static_cast<std::uint8_t>(MessageKindNames().size());

    CHECK(ReasonOf(WithField(good, 0, std::uint32_t{0x4D4C4C54})) == "no message starts here (wrong magic)");
    CHECK(ReasonOf(Bytes(kHeaderBytes)) == "no message starts here (wrong magic)");
    CHECK(ReasonOf(WithField(good, 4, std::uint8_t{0})) == "wire version 0, expected 1");
    CHECK(ReasonOf(WithField(good, 4, std::uint8_t{2})) == "wire version 2, expected 1");
    CHECK(ReasonOf(WithField(good, 5, std::uint8_t{0})) == "unknown message kind 0");
    CHECK(ReasonOf(WithField(good, 5, kinds)).empty());
    CHECK(ReasonOf(WithField(good, 5, static_cast<std::uint8_t>(kinds + 1))) ==
          "unknown message kind " + std::to_string(kinds + 1));
    CHECK(ReasonOf(WithField(good, 5, std::uint8_t{255})) == "unknown message kind 255");
    CHECK(ReasonOf(WithField(good, 6, std::uint8_t{0})) == "unknown element type 0");
    CHECK(ReasonOf(WithField(good, 6, std::uint8_t{255})) == "unknown element type 255");
    for (int bit = 2; bit < 8; bit++)
    {
        CHECK(ReasonOf(WithField(good, 7, static_cast<std::uint8_t>(1 << bit))) == "reserved bits are set");
    }
    for (int bit = 0; bit < 16; bit++)
    {
        const auto front = static_cast<std::uint16_t>(1 << bit);
        CHECK(ReasonOf(WithField(good, 26, front)).starts_with("real bytes in front of a phantom payload: "));
    }
    Bytes flipped = good;
    flipped.back() ^= std::byte{0x10};
    CHECK(ReasonOf(flipped) == "checksum mismatch in message 151653132"); // 0x090A0B0C
    Bytes wrongSum = good;
    wrongSum[32] ^= std::byte{1};
    CHECK(ReasonOf(wrongSum) == "checksum mismatch in message 151653132");
}

TEST_CASE("A length above the limit is refused when the header is there, without memory for it", "[wire]")
{
    const Bytes good = ToBytes(kDeltasFrame);
    CHECK(ReasonOf(good, 5).empty());
    CHECK(ReasonOf(good, 4) == "payload of 5 bytes exceeds the limit of 4");

    const std::size_t before = PeakAddressSpace();
    Bytes huge = WithField(good, 28, std::numeric_limits<std::uint32_t>::max());
    huge.resize(kHeaderBytes);
    CHECK(ReasonOf(huge, 1 << 20) == "payload of 4294967295 bytes exceeds the limit of 1048576");
    // A phantom takes no memory, but its length is not believed either.
    const Bytes phantom = WithField(huge, 7, std::uint8_t{1});
    CHECK(ReasonOf(phantom, 1 << 20) == "payload of 4294967295 bytes exceeds the limit of 1048576");
    CHECK(PeakAddressSpace() - before < std::size_t{1} << 20); // 1 GiB
}

TEST_CASE("A cut stream never gives a message", "[wire]")
{
    const Bytes frame = ToBytes(kDeltasFrame);
    for (std::size_t length = 0; length < frame.size(); length++)
    {
        FrameReader reader(8192);
        CHECK(Feed(reader, std::span(frame).first(length), 13).empty());
        CHECK(reader.IsIdle() == (length == 0));
    }
}

TEST_CASE("A flipped bit never gives a message and is found before much more has come", "[wire]")
{
    Message longer = DeltasMessage();
    longer.payload = Payload::Of(PatternBytes(100));
    Message phantom = PhantomMessage();
    phantom.payload = Payload::Phantom(100);
    for (const Message& message : {DeltasMessage(), longer, phantom, EndMessage()})
    {
        const Bytes frame = FrameBytes(message);
        const std::size_t guarded = message.payload.phantom ? kHeaderBytes : frame.size();
        for (std::size_t bit = 0; bit < 8 * guarded; bit++)
        {
            Bytes flipped = frame;
            flipped[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
            // A longer length waits for what follows: at most the limit, here the next message.
            flipped.resize(flipped.size() + 128);
            FrameReader reader(128);
            std::vector<Message> messages;
            CHECK_THROWS_AS(Feed(reader, flipped, flipped.size(), messages), MalformedFrame);
            CHECK(messages.empty());
        }
    }
}

TEST_CASE("Kinds of messages and their names are one to one", "[wire]")
{
    const std::vector<std::string> names = MessageKindNames();
    CHECK(names.front() == "tokens");
    std::uint8_t value = 1; // what travels, without gaps
    for (const std::string& name : names)
    {
        const auto kind = MessageKindFromName(name);
        REQUIRE(kind.has_value());
        CHECK(NameOf(*kind) == name);
        CHECK(static_cast<std::uint8_t>(*kind) == value++);
    }
    CHECK_FALSE(MessageKindFromName("Tokens").has_value());
    CHECK_FALSE(MessageKindFromName("").has_value());
}
