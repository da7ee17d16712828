// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_BLOCK_FADING_HELPER_H
#define SPLITLLM_BLOCK_FADING_HELPER_H

#include "ns3/net-device-container.h"
#include "ns3/node.h"
#include "ns3/object-factory.h"

#include <cstdint>
#include <string>

namespace splitllm
{

/// Joins pairs of nodes by a channel with Rayleigh block fading, each with a device that repeats what was lost.
class BlockFadingHelper
{
  public:
    BlockFadingHelper();

    /// An attribute of the BlockFadingNetDevices made from now on.
    void SetDeviceAttribute(const std::string& name, const ns3::AttributeValue& value);

    /// An attribute of the BlockFadingChannels made from now on.
    void SetChannelAttribute(const std::string& name, const ns3::AttributeValue& value);

    /// The queue of the devices made from now on. \param type "ns3::DropTailQueue<Packet>" by default
    void SetQueue(const std::string& type, const std::string& name, const ns3::AttributeValue& value);

    /// Joins \p a and \p b. \return the device of each
    ns3::NetDeviceContainer Install(ns3::Ptr<ns3::Node> a, ns3::Ptr<ns3::Node> b);

    /// Fixes the fading of the channels of \p devices. \return how many streams it took: one a device
    static std::int64_t AssignStreams(const ns3::NetDeviceContainer& devices, std::int64_t stream);

  private:
    ns3::ObjectFactory m_device;
    ns3::ObjectFactory m_channel;
    ns3::ObjectFactory m_queue;
};

} // namespace splitllm

#endif // SPLITLLM_BLOCK_FADING_HELPER_H
