// SPDX-License-Identifier: GPL-2.0-only
#include "block-fading-helper.h"

#include "net/block-fading-channel.h"
#include "net/block-fading-net-device.h"

#include "ns3/mac48-address.h"
#include "ns3/net-device-queue-interface.h"
#include "ns3/packet.h"
#include "ns3/queue.h"

namespace splitllm
{

using namespace ns3;

BlockFadingHelper::BlockFadingHelper()
{
    m_device.SetTypeId(BlockFadingNetDevice::GetTypeId());
    m_channel.SetTypeId(BlockFadingChannel::GetTypeId());
    m_queue.SetTypeId("ns3::DropTailQueue<Packet>");
}

void
BlockFadingHelper::SetDeviceAttribute(const std::string& name, const AttributeValue& value)
{
    m_device.Set(name, value);
}

void
BlockFadingHelper::SetChannelAttribute(const std::string& name, const AttributeValue& value)
{
    m_channel.Set(name, value);
}

void
BlockFadingHelper::SetQueue(const std::string& type, const std::string& name, const AttributeValue& value)
{
    m_queue = ObjectFactory(type);
    m_queue.Set(name, value);
}

NetDeviceContainer
BlockFadingHelper::Install(Ptr<Node> a, Ptr<Node> b)
{
    auto channel = m_channel.Create<BlockFadingChannel>();
    NetDeviceContainer devices;
    for (const Ptr<Node>& node : {a, b})
    {
        auto device = m_device.Create<BlockFadingNetDevice>();
        device->SetAddress(Mac48Address::Allocate());
        const auto queue = m_queue.Create<Queue<Packet>>();
        device->SetQueue(queue);
        node->AddDevice(device);
        device->Attach(channel);
        // Lets queue discs above wait for room in the queue.
        auto flowControl = CreateObject<NetDeviceQueueInterface>();
        flowControl->GetTxQueue(0)->ConnectQueueTraces(queue);
        device->AggregateObject(flowControl);
        devices.Add(device);
    }
    return devices;
}

std::int64_t
BlockFadingHelper::AssignStreams(const NetDeviceContainer& devices, std::int64_t stream)
{
    std::int64_t taken = 0;
    for (auto device = devices.Begin(); device != devices.End(); ++device)
    {
        taken += DynamicCast<BlockFadingNetDevice>(*device)->AssignStreams(stream + taken);
    }
    return taken;
}

} // namespace splitllm
