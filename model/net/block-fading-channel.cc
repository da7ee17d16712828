// SPDX-License-Identifier: GPL-2.0-only
#include "net/block-fading-channel.h"

#include "net/block-fading-net-device.h"
#include "net/stop-and-wait.h"

#include "ns3/abort.h"
#include "ns3/double.h"
#include "ns3/log.h"
#include "ns3/node.h"
#include "ns3/simulator.h"

#include <limits>

namespace splitllm
{

using namespace ns3;

NS_LOG_COMPONENT_DEFINE("BlockFadingChannel");
NS_OBJECT_ENSURE_REGISTERED(BlockFadingChannel);

TypeId
BlockFadingChannel::GetTypeId()
{
    constexpr double least = std::numeric_limits<double>::min();
    static TypeId tid =
        TypeId("splitllm::BlockFadingChannel")
            .SetParent<Channel>()
            .SetGroupName("SplitLlm")
            .AddConstructor<BlockFadingChannel>()
            .AddAttribute("Bandwidth",
                          "W in Hz",
                          DoubleValue(10e6),
                          MakeDoubleAccessor(&BlockFadingChannel::m_bandwidth),
                          MakeDoubleChecker<double>(least))
            .AddAttribute("MeanSnr",
                          "Mean signal-to-noise ratio, linear",
                          DoubleValue(10.0),
                          MakeDoubleAccessor(&BlockFadingChannel::m_meanSnr),
                          MakeDoubleChecker<double>(least))
            .AddAttribute("Coherence",
                          "Length of a block; zero: every attempt sees a block of its own",
                          TimeValue(Time(0)),
                          MakeTimeAccessor(&BlockFadingChannel::m_coherence),
                          MakeTimeChecker(Time(0)))
            .AddAttribute("Delay",
                          "One-way propagation delay",
                          TimeValue(Time(0)),
                          MakeTimeAccessor(&BlockFadingChannel::m_delay),
                          MakeTimeChecker(Time(0)));
    return tid;
}

BlockFadingChannel::BlockFadingChannel() = default;
BlockFadingChannel::~BlockFadingChannel() = default;

void
BlockFadingChannel::Attach(Ptr<BlockFadingNetDevice> device)
{
    NS_LOG_FUNCTION(this << device);
    NS_ABORT_MSG_IF(m_attached == m_devices.size(), "a BlockFadingChannel joins two devices, not more");
    m_devices[m_attached++] = device;
}

BlockFading&
BlockFadingChannel::FadingOf(const BlockFadingNetDevice& sender)
{
    std::unique_ptr<BlockFading>& fading = m_fading[IndexOf(sender)];
    if (!fading)
    {
        fading = std::make_unique<BlockFading>(RayleighChannel{.bandwidth = m_bandwidth, .snr = m_meanSnr}, m_coherence);
    }
    return *fading;
}

void
BlockFadingChannel::Carry(Ptr<const Packet> packet, const BlockFadingNetDevice& sender)
{
    NS_LOG_FUNCTION(this << packet);
    const Ptr<BlockFadingNetDevice>& receiver = m_devices[1 - IndexOf(sender)];
    NS_ABORT_MSG_IF(!receiver, "a BlockFadingChannel joins two devices, and has one");
    Simulator::ScheduleWithContext(receiver->GetNode()->GetId(),
                                   m_delay,
                                   &BlockFadingNetDevice::Receive,
                                   receiver,
                                   packet->Copy());
}

std::size_t
BlockFadingChannel::GetNDevices() const
{
    return m_attached;
}

Ptr<NetDevice>
BlockFadingChannel::GetDevice(std::size_t i) const
{
    return m_devices.at(i);
}

void
BlockFadingChannel::DoDispose()
{
    m_devices = {};
    m_attached = 0;
    Channel::DoDispose();
}

std::size_t
BlockFadingChannel::IndexOf(const BlockFadingNetDevice& device) const
{
    return PeekPointer(m_devices[0]) == &device ? 0 : 1;
}

} // namespace splitllm
