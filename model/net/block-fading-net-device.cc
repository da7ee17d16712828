// SPDX-License-Identifier: GPL-2.0-only
#include "net/block-fading-net-device.h"

#include "net/block-fading-channel.h"
#include "net/stop-and-wait.h"

#include "ns3/abort.h"
#include "ns3/log.h"
#include "ns3/pointer.h"
#include "ns3/ppp-header.h"
#include "ns3/simulator.h"
#include "ns3/trace-source-accessor.h"
#include "ns3/uinteger.h"

namespace splitllm
{

using namespace ns3;

NS_LOG_COMPONENT_DEFINE("BlockFadingNetDevice");
NS_OBJECT_ENSURE_REGISTERED(BlockFadingNetDevice);

namespace
{

// IPv4 and IPv6, by EtherType and by PPP's number (RFC 1661).
constexpr std::uint16_t kEtherIpv4 = 0x0800;
constexpr std::uint16_t kEtherIpv6 = 0x86DD;
constexpr std::uint16_t kPppIpv4 = 0x0021;
constexpr std::uint16_t kPppIpv6 = 0x0057;

} // namespace

TypeId
BlockFadingNetDevice::GetTypeId()
{
    static TypeId tid =
        TypeId("splitllm::BlockFadingNetDevice")
            .SetParent<NetDevice>()
            .SetGroupName("SplitLlm")
            .AddConstructor<BlockFadingNetDevice>()
            .AddAttribute("Rate",
                          "R, at which frames are sent",
                          DataRateValue(DataRate("10Mbps")),
                          MakeDataRateAccessor(&BlockFadingNetDevice::m_rate),
                          MakeDataRateChecker())
            .AddAttribute("Attempts",
                          "N: a frame is dropped after so many attempts",
                          UintegerValue(5),
                          MakeUintegerAccessor(&BlockFadingNetDevice::m_attempts),
                          MakeUintegerChecker<std::uint32_t>(1))
            .AddAttribute("Feedback",
                          "From the end of an attempt until the sender knows how it ended",
                          TimeValue(Time(0)),
                          MakeTimeAccessor(&BlockFadingNetDevice::m_feedback),
                          MakeTimeChecker(Time(0)))
            .AddAttribute("Mtu",
                          "Bytes of an IP packet",
                          UintegerValue(1500),
                          MakeUintegerAccessor(&BlockFadingNetDevice::SetMtu, &BlockFadingNetDevice::GetMtu),
                          MakeUintegerChecker<std::uint16_t>(1))
            .AddAttribute("TxQueue",
                          "Where packets wait",
                          PointerValue(),
                          MakePointerAccessor(&BlockFadingNetDevice::m_queue),
                          MakePointerChecker<Queue<Packet>>())
            .AddTraceSource("Attempt",
                            "An attempt to send a frame ended",
                            MakeTraceSourceAccessor(&BlockFadingNetDevice::m_attemptTrace),
                            "splitllm::BlockFadingNetDevice::AttemptCallback")
            .AddTraceSource("MacTx",
                            "A packet was handed to the device",
                            MakeTraceSourceAccessor(&BlockFadingNetDevice::m_macTxTrace),
                            "ns3::Packet::TracedCallback")
            .AddTraceSource("MacTxDrop",
                            "A packet was dropped because the queue is full",
                            MakeTraceSourceAccessor(&BlockFadingNetDevice::m_macTxDropTrace),
                            "ns3::Packet::TracedCallback")
            .AddTraceSource("MacRx",
                            "A frame came across",
                            MakeTraceSourceAccessor(&BlockFadingNetDevice::m_macRxTrace),
                            "ns3::Packet::TracedCallback")
            .AddTraceSource("PhyTxEnd",
                            "An attempt to send this frame ended, well or not",
                            MakeTraceSourceAccessor(&BlockFadingNetDevice::m_phyTxEndTrace),
                            "ns3::Packet::TracedCallback")
            .AddTraceSource("PhyTxDrop",
                            "A frame was dropped because all attempts failed",
                            MakeTraceSourceAccessor(&BlockFadingNetDevice::m_phyTxDropTrace),
                            "ns3::Packet::TracedCallback")
            .AddTraceSource("PromiscSniffer",
                            "A frame is sent for the first time, or came across: what a capture on this device sees",
                            MakeTraceSourceAccessor(&BlockFadingNetDevice::m_promiscSnifferTrace),
                            "ns3::Packet::TracedCallback");
    return tid;
}

BlockFadingNetDevice::BlockFadingNetDevice()
    : m_arq(std::make_unique<StopAndWait>())
{
    m_arq->onAttempt = [this](const AttemptRecord& record) {
        m_attemptTrace(record);
        m_phyTxEndTrace(m_frame);
    };
    m_arq->onDelivered = [this] { m_channel->Carry(m_frame, *this); };
    m_arq->onDone = [this](bool delivered) {
        if (!delivered)
        {
            m_phyTxDropTrace(m_frame);
        }
        SendNext();
    };
}

BlockFadingNetDevice::~BlockFadingNetDevice() = default;

void
BlockFadingNetDevice::Attach(Ptr<BlockFadingChannel> channel)
{
    NS_LOG_FUNCTION(this << channel);
    m_channel = channel;
    m_channel->Attach(this);
    m_linkChange();
}

void
BlockFadingNetDevice::SetQueue(Ptr<Queue<Packet>> queue)
{
    m_queue = queue;
}

std::int64_t
BlockFadingNetDevice::AssignStreams(std::int64_t stream)
{
    m_channel->FadingOf(*this).SetStream(stream);
    return 1;
}

bool
BlockFadingNetDevice::Send(Ptr<Packet> packet, const Address& to, std::uint16_t protocol)
{
    NS_LOG_FUNCTION(this << packet << to << protocol);
    NS_ABORT_MSG_IF(protocol != kEtherIpv4 && protocol != kEtherIpv6,
                    "a BlockFadingNetDevice carries IPv4 and IPv6, not protocol " << protocol);
    NS_ABORT_MSG_IF(!m_queue, "a BlockFadingNetDevice needs a queue: install it with BlockFadingHelper");
    if (!m_channel)
    {
        m_macTxDropTrace(packet);
        return false;
    }
    PppHeader header;
    header.SetProtocol(protocol == kEtherIpv4 ? kPppIpv4 : kPppIpv6);
    packet->AddHeader(header);
    m_macTxTrace(packet);
    if (!m_queue->Enqueue(packet))
    {
        m_macTxDropTrace(packet);
        return false;
    }
    SendNext();
    return true;
}

bool
BlockFadingNetDevice::SendFrom(Ptr<Packet>, const Address&, const Address&, std::uint16_t)
{
    return false;
}

void
BlockFadingNetDevice::SendNext()
{
    if (m_arq->IsBusy())
    {
        return;
    }
    m_frame = m_queue->Dequeue();
    if (m_frame)
    {
        m_promiscSnifferTrace(m_frame);
        m_arq->Send(m_frame->GetSize(),
                    m_channel->FadingOf(*this),
                    {.rate = m_rate, .attempts = m_attempts, .feedback = m_feedback});
    }
}

void
BlockFadingNetDevice::Receive(Ptr<Packet> packet)
{
    NS_LOG_FUNCTION(this << packet);
    m_promiscSnifferTrace(packet);
    m_macRxTrace(packet);
    PppHeader header;
    packet->RemoveHeader(header);
    const std::uint16_t protocol = header.GetProtocol() == kPppIpv4 ? kEtherIpv4 : kEtherIpv6;
    if (!m_promiscReceive.IsNull())
    {
        m_promiscReceive(this, packet, protocol, PeerAddress(), GetAddress(), PACKET_HOST);
    }
    m_receive(this, packet, protocol, PeerAddress());
}

Address
BlockFadingNetDevice::PeerAddress() const
{
    const bool first = PeekPointer(m_channel->GetDevice(0)) == this;
    return m_channel->GetDevice(first ? 1 : 0)->GetAddress();
}

void
BlockFadingNetDevice::DoDispose()
{
    NS_LOG_FUNCTION(this);
    m_arq->Cancel();
    m_frame = nullptr;
    m_queue = nullptr;
    m_channel = nullptr;
    m_node = nullptr;
    m_receive = MakeNullCallback<bool, Ptr<NetDevice>, Ptr<const Packet>, std::uint16_t, const Address&>();
    m_promiscReceive = PromiscReceiveCallback();
    NetDevice::DoDispose();
}

void
BlockFadingNetDevice::SetIfIndex(const std::uint32_t index)
{
    m_ifIndex = index;
}

std::uint32_t
BlockFadingNetDevice::GetIfIndex() const
{
    return m_ifIndex;
}

Ptr<Channel>
BlockFadingNetDevice::GetChannel() const
{
    return m_channel;
}

void
BlockFadingNetDevice::SetAddress(Address address)
{
    m_address = Mac48Address::ConvertFrom(address);
}

Address
BlockFadingNetDevice::GetAddress() const
{
    return m_address;
}

bool
BlockFadingNetDevice::SetMtu(const std::uint16_t mtu)
{
    m_mtu = mtu;
    return true;
}

std::uint16_t
BlockFadingNetDevice::GetMtu() const
{
    return m_mtu;
}

bool
BlockFadingNetDevice::IsLinkUp() const
{
    return m_channel != nullptr;
}

void
BlockFadingNetDevice::AddLinkChangeCallback(Callback<void> callback)
{
    m_linkChange.ConnectWithoutContext(callback);
}

bool
BlockFadingNetDevice::IsBroadcast() const
{
    return true;
}

Address
BlockFadingNetDevice::GetBroadcast() const
{
    return Mac48Address::GetBroadcast();
}

bool
BlockFadingNetDevice::IsMulticast() const
{
    return true;
}

Address
BlockFadingNetDevice::GetMulticast(Ipv4Address group) const
{
    return Mac48Address::GetMulticast(group);
}

Address
BlockFadingNetDevice::GetMulticast(Ipv6Address address) const
{
    return Mac48Address::GetMulticast(address);
}

bool
BlockFadingNetDevice::IsBridge() const
{
    return false;
}

bool
BlockFadingNetDevice::IsPointToPoint() const
{
    return true;
}

Ptr<Node>
BlockFadingNetDevice::GetNode() const
{
    return m_node;
}

void
BlockFadingNetDevice::SetNode(Ptr<Node> node)
{
    m_node = node;
}

bool
BlockFadingNetDevice::NeedsArp() const
{
    return false;
}

void
BlockFadingNetDevice::SetReceiveCallback(ReceiveCallback callback)
{
    m_receive = callback;
}

void
BlockFadingNetDevice::SetPromiscReceiveCallback(PromiscReceiveCallback callback)
{
    m_promiscReceive = callback;
}

bool
BlockFadingNetDevice::SupportsSendFrom() const
{
    return false;
}

} // namespace splitllm
