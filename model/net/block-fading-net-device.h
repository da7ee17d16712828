// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_BLOCK_FADING_NET_DEVICE_H
#define SPLITLLM_BLOCK_FADING_NET_DEVICE_H

#include "ns3/address.h"
#include "ns3/data-rate.h"
#include "ns3/mac48-address.h"
#include "ns3/net-device.h"
#include "ns3/node.h"
#include "ns3/nstime.h"
#include "ns3/packet.h"
#include "ns3/ptr.h"
#include "ns3/queue.h"
#include "ns3/split-llm-records.h"
#include "ns3/traced-callback.h"

#include <cstdint>
#include <memory>

namespace splitllm
{

class BlockFadingChannel;
class StopAndWait;

/**
 * A device at one end of a BlockFadingChannel. It sends one frame at a time at a fixed rate and repeats it until it gets
 * across, N times at most (stop-and-wait ARQ); a frame that N attempts have failed to bring across is dropped, and the
 * layers above have to notice. Frames are packets behind a PPP header of two bytes.
 */
class BlockFadingNetDevice : public ns3::NetDevice
{
  public:
    static ns3::TypeId GetTypeId();
    BlockFadingNetDevice();
    ~BlockFadingNetDevice() override;

    /// Connects the device to \p channel.
    void Attach(ns3::Ptr<BlockFadingChannel> channel);

    /// Where packets wait.
    void SetQueue(ns3::Ptr<ns3::Queue<ns3::Packet>> queue);

    /// What it sends fades by \p stream. The device must be attached. \return 1
    std::int64_t AssignStreams(std::int64_t stream);

    /// \p packet came across the channel.
    void Receive(ns3::Ptr<ns3::Packet> packet);

    typedef void (*AttemptCallback)(const AttemptRecord& record);

    void SetIfIndex(const std::uint32_t index) override;
    std::uint32_t GetIfIndex() const override;
    ns3::Ptr<ns3::Channel> GetChannel() const override;
    void SetAddress(ns3::Address address) override;
    ns3::Address GetAddress() const override;
    bool SetMtu(const std::uint16_t mtu) override;
    std::uint16_t GetMtu() const override;
    bool IsLinkUp() const override;
    void AddLinkChangeCallback(ns3::Callback<void> callback) override;
    bool IsBroadcast() const override;
    ns3::Address GetBroadcast() const override;
    bool IsMulticast() const override;
    ns3::Address GetMulticast(ns3::Ipv4Address group) const override;
    ns3::Address GetMulticast(ns3::Ipv6Address address) const override;
    bool IsBridge() const override;
    bool IsPointToPoint() const override;
    bool Send(ns3::Ptr<ns3::Packet> packet, const ns3::Address& to, std::uint16_t protocol) override;
    bool SendFrom(ns3::Ptr<ns3::Packet> packet,
                  const ns3::Address& from,
                  const ns3::Address& to,
                  std::uint16_t protocol) override;
    ns3::Ptr<ns3::Node> GetNode() const override;
    void SetNode(ns3::Ptr<ns3::Node> node) override;
    bool NeedsArp() const override;
    void SetReceiveCallback(ReceiveCallback callback) override;
    void SetPromiscReceiveCallback(PromiscReceiveCallback callback) override;
    bool SupportsSendFrom() const override;

  private:
    void DoDispose() override;
    void SendNext();
    ns3::Address PeerAddress() const;

    ns3::DataRate m_rate;
    std::uint32_t m_attempts;
    ns3::Time m_feedback;
    std::uint16_t m_mtu;
    ns3::Ptr<ns3::Queue<ns3::Packet>> m_queue;
    std::unique_ptr<StopAndWait> m_arq;
    ns3::Ptr<ns3::Packet> m_frame; //!< under way
    ns3::Ptr<BlockFadingChannel> m_channel;
    ns3::Ptr<ns3::Node> m_node;
    ns3::Mac48Address m_address;
    std::uint32_t m_ifIndex = 0;
    ReceiveCallback m_receive;
    PromiscReceiveCallback m_promiscReceive;
    ns3::TracedCallback<> m_linkChange;
    ns3::TracedCallback<const AttemptRecord&> m_attemptTrace;
    ns3::TracedCallback<ns3::Ptr<const ns3::Packet>> m_macTxTrace;
    ns3::TracedCallback<ns3::Ptr<const ns3::Packet>> m_macTxDropTrace;
    ns3::TracedCallback<ns3::Ptr<const ns3::Packet>> m_macRxTrace;
    ns3::TracedCallback<ns3::Ptr<const ns3::Packet>> m_phyTxEndTrace;
    ns3::TracedCallback<ns3::Ptr<const ns3::Packet>> m_phyTxDropTrace;
    ns3::TracedCallback<ns3::Ptr<const ns3::Packet>> m_promiscSnifferTrace;
};

} // namespace splitllm

#endif // SPLITLLM_BLOCK_FADING_NET_DEVICE_H
