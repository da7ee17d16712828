// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_BLOCK_FADING_CHANNEL_H
#define SPLITLLM_BLOCK_FADING_CHANNEL_H

#include "ns3/channel.h"
#include "ns3/nstime.h"
#include "ns3/packet.h"
#include "ns3/ptr.h"

#include <array>
#include <cstddef>
#include <memory>

namespace splitllm
{

class BlockFading;
class BlockFadingNetDevice;

/**
 * A wireless channel between two devices with Rayleigh block fading (OPSC, Eq 10): the SNR is exponentially distributed,
 * constant during a block, and independent from block to block and between the two directions. Which rate it carries
 * follows from its capacity, W log2(1 + SNR). The two directions do not disturb each other.
 */
class BlockFadingChannel : public ns3::Channel
{
  public:
    static ns3::TypeId GetTypeId();
    BlockFadingChannel();
    ~BlockFadingChannel() override;

    /// Adds \p device, the first or the second one.
    void Attach(ns3::Ptr<BlockFadingNetDevice> device);

    /// The fading that \p sender sends through; made from the attributes at the first call.
    BlockFading& FadingOf(const BlockFadingNetDevice& sender);

    /// Brings \p packet to the device that is not \p sender, a delay from now.
    void Carry(ns3::Ptr<const ns3::Packet> packet, const BlockFadingNetDevice& sender);

    std::size_t GetNDevices() const override;
    ns3::Ptr<ns3::NetDevice> GetDevice(std::size_t i) const override;

  private:
    void DoDispose() override;

    /// 0 or 1.
    std::size_t IndexOf(const BlockFadingNetDevice& device) const;

    double m_bandwidth; //!< Hz
    double m_meanSnr;   //!< linear
    ns3::Time m_coherence;
    ns3::Time m_delay;
    std::size_t m_attached = 0;
    std::array<ns3::Ptr<BlockFadingNetDevice>, 2> m_devices;
    std::array<std::unique_ptr<BlockFading>, 2> m_fading; //!< by sender
};

} // namespace splitllm

#endif // SPLITLLM_BLOCK_FADING_CHANNEL_H
