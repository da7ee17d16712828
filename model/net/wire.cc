// SPDX-License-Identifier: GPL-2.0-only
#include "net/wire.h"

#include "net/crc32c.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <string>
#include <utility>

namespace splitllm
{

namespace
{

static_assert(std::endian::native == std::endian::little, "header fields are copied as little-endian");

constexpr std::uint32_t kMagic = 0x4D4C4C53; // "SLLM"
constexpr std::uint8_t kVersion = 1;
constexpr std::uint8_t kPhantomFlag = 1;
constexpr std::uint8_t kCodedFlag = 2;
constexpr std::size_t kCrcOffset = 32;

constexpr std::array<std::pair<MessageKind, std::string_view>, 19> kKinds{{
    {MessageKind::Tokens, "tokens"},
    {MessageKind::NextToken, "next-token"},
    {MessageKind::Embedding, "embedding"},
    {MessageKind::LayerInput, "layer-input"},
    {MessageKind::Deltas, "deltas"},
    {MessageKind::FinalState, "final-state"},
    {MessageKind::End, "end"},
    {MessageKind::Skip, "skip"},
    {MessageKind::HiddenState, "hidden-state"},
    {MessageKind::KvCache, "kv-cache"},
    {MessageKind::Request, "request"},
    {MessageKind::ContextLost, "context-lost"},
    {MessageKind::Generate, "generate"},
    {MessageKind::SideStates, "side-states"},
    {MessageKind::SideOutput, "side-output"},
    {MessageKind::AdapterInput, "adapter-input"},
    {MessageKind::AdapterOutput, "adapter-output"},
    {MessageKind::Answer, "answer"},
    {MessageKind::Candidates, "candidates"},
}};

template <typename T>
void
Store(HeaderBytes& header, std::size_t offset, T value)
{
    std::memcpy(header.data() + offset, &value, sizeof(T));
}

template <typename T>
T
Load(const HeaderBytes& header, std::size_t offset)
{
    T value;
    std::memcpy(&value, header.data() + offset, sizeof(T));
    return value;
}

} // namespace

std::string_view
NameOf(MessageKind kind)
{
    for (const auto& [value, name] : kKinds)
    {
        if (value == kind)
        {
            return name;
        }
    }
    return "?";
}

std::optional<MessageKind>
MessageKindFromName(std::string_view name)
{
    for (const auto& [value, itsName] : kKinds)
    {
        if (itsName == name)
        {
            return value;
        }
    }
    return std::nullopt;
}

std::vector<std::string>
MessageKindNames()
{
    std::vector<std::string> names;
    for (const auto& entry : kKinds)
    {
        names.emplace_back(entry.second);
    }
    return names;
}

HeaderBytes
EncodeHeader(const Message& message)
{
    HeaderBytes header{};
    Store(header, 0, kMagic);
    Store(header, 4, kVersion);
    Store(header, 5, message.kind);
    Store(header, 6, message.dtype);
    Store(header, 7, static_cast<std::uint8_t>((message.payload.phantom ? kPhantomFlag : 0) |
                                               (message.payload.coded ? kCodedFlag : 0)));
    Store(header, 8, message.session);
    Store(header, 12, message.request);
    Store(header, 16, message.sequence);
    Store(header, 20, message.position);
    Store(header, 24, message.layer);
    Store(header, 26, static_cast<std::uint16_t>(message.payload.phantom ? message.payload.bytes.size() : 0));
    Store(header, 28, static_cast<std::uint32_t>(message.payload.size));
    const std::uint32_t crc = Crc32c(std::span(header).first(kCrcOffset));
    Store(header, kCrcOffset, Crc32c(message.payload.bytes, crc));
    return header;
}

FrameReader::FrameReader(std::size_t maxPayload)
    : m_maxPayload(maxPayload)
{
}

std::size_t
FrameReader::Missing() const
{
    if (m_headerFilled < kHeaderBytes)
    {
        return kHeaderBytes - m_headerFilled;
    }
    // The front of a phantom is copied, the rest is not.
    const std::size_t real = m_message.payload.bytes.size();
    return (m_payloadFilled < real ? real : m_message.payload.size) - m_payloadFilled;
}

bool
FrameReader::Skips() const
{
    return m_headerFilled == kHeaderBytes && m_payloadFilled >= m_message.payload.bytes.size();
}

std::byte*
FrameReader::Cursor()
{
    return m_headerFilled < kHeaderBytes ? m_header.data() + m_headerFilled
                                         : m_message.payload.bytes.data() + m_payloadFilled;
}

bool
FrameReader::IsIdle() const
{
    return m_headerFilled == 0;
}

std::optional<Message>
FrameReader::Advance(std::size_t count)
{
    if (m_headerFilled < kHeaderBytes)
    {
        m_headerFilled += count;
        if (m_headerFilled < kHeaderBytes)
        {
            return std::nullopt;
        }
        ParseHeader();
    }
    else
    {
        m_payloadFilled += count;
    }
    if (m_payloadFilled < m_message.payload.size)
    {
        return std::nullopt;
    }
    return Finish();
}

void
FrameReader::ParseHeader()
{
    if (Load<std::uint32_t>(m_header, 0) != kMagic)
    {
        throw MalformedFrame("no message starts here (wrong magic)");
    }
    if (const auto version = Load<std::uint8_t>(m_header, 4); version != kVersion)
    {
        throw MalformedFrame("wire version " + std::to_string(version) + ", expected " + std::to_string(kVersion));
    }
    const auto kind = Load<std::uint8_t>(m_header, 5);
    if (kind < 1 || kind > kKinds.size())
    {
        throw MalformedFrame("unknown message kind " + std::to_string(kind));
    }
    const auto dtype = Load<std::uint8_t>(m_header, 6);
    if (dtype < static_cast<std::uint8_t>(DType::F32) || dtype > static_cast<std::uint8_t>(DType::I8))
    {
        throw MalformedFrame("unknown element type " + std::to_string(dtype));
    }
    const auto flags = Load<std::uint8_t>(m_header, 7);
    const auto front = Load<std::uint16_t>(m_header, 26);
    const auto length = Load<std::uint32_t>(m_header, 28);
    if ((flags & ~(kPhantomFlag | kCodedFlag)) != 0)
    {
        throw MalformedFrame("reserved bits are set");
    }
    if (front > length || (front > 0 && (flags & kPhantomFlag) == 0))
    {
        throw MalformedFrame("real bytes in front of a phantom payload: " + std::to_string(front) + " of " +
                             std::to_string(length));
    }
    if (length > m_maxPayload)
    {
        throw MalformedFrame("payload of " + std::to_string(length) + " bytes exceeds the limit of " +
                             std::to_string(m_maxPayload));
    }
    m_message.kind = static_cast<MessageKind>(kind);
    m_message.dtype = static_cast<DType>(dtype);
    m_message.session = Load<std::uint32_t>(m_header, 8);
    m_message.request = Load<std::uint32_t>(m_header, 12);
    m_message.sequence = Load<std::uint32_t>(m_header, 16);
    m_message.position = Load<std::uint32_t>(m_header, 20);
    m_message.layer = Load<std::uint16_t>(m_header, 24);
    m_message.payload.size = length;
    m_message.payload.phantom = (flags & kPhantomFlag) != 0;
    m_message.payload.coded = (flags & kCodedFlag) != 0;
    m_crc = Load<std::uint32_t>(m_header, kCrcOffset);
    m_message.payload.bytes.resize(m_message.payload.phantom ? front : length);
}

Message
FrameReader::Finish()
{
    const std::uint32_t crc = Crc32c(std::span(m_header).first(kCrcOffset));
    if (Crc32c(m_message.payload.bytes, crc) != m_crc)
    {
        throw MalformedFrame("checksum mismatch in message " + std::to_string(m_message.sequence));
    }
    m_headerFilled = 0;
    m_payloadFilled = 0;
    return std::exchange(m_message, Message{});
}

} // namespace splitllm
