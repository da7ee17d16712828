// SPDX-License-Identifier: GPL-2.0-only
#include "capture.h"

#include "ns3/boolean.h"
#include "ns3/config.h"
#include "ns3/simulator.h"
#include "ns3/trace-helper.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ios>
#include <limits>

namespace splitllm
{

using namespace ns3;

namespace
{

constexpr int kUser0 = 147;                      // DLT_USER0, which ns-3 has no name for
constexpr std::uint32_t kLongestRecord = 262144; // that Wireshark reads

} // namespace

void
CaptureNanoseconds()
{
    Config::SetDefault("ns3::PcapFileWrapper::NanosecMode", BooleanValue(true));
}

Ptr<PcapFileWrapper>
OpenCapture(const std::string& file, CaptureOf content)
{
    CaptureNanoseconds();
    const bool messages = content == CaptureOf::Messages;
    return PcapHelper().CreateFile(file,
                                   std::ios::out,
                                   messages ? static_cast<PcapHelper::DataLinkType>(kUser0) : PcapHelper::DLT_PPP,
                                   messages ? kLongestRecord : std::numeric_limits<std::uint32_t>::max());
}

void
CaptureMessage(PcapFileWrapper& file, Direction direction, const ConnectionId& connection, Ptr<const Packet> message)
{
    std::array<std::uint8_t, 8> front{};
    front[0] = static_cast<std::uint8_t>(direction);
    std::memcpy(front.data() + 4, &connection.number, sizeof(connection.number));
    auto record = Create<Packet>(front.data(), static_cast<std::uint32_t>(front.size()));
    record->AddAtEnd(message);
    file.Write(Simulator::Now(), record);
}

} // namespace splitllm
