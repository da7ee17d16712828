// SPDX-License-Identifier: GPL-2.0-only
#include "wifi-cell.h"

#include "capture.h"
#include "streams.h"

#include "ns3/constant-position-mobility-model.h"
#include "ns3/inet-socket-address.h"
#include "ns3/simulator.h"
#include "ns3/string.h"
#include "ns3/vector.h"
#include "ns3/wifi-mac-helper.h"
#include "ns3/wifi-net-device.h"
#include "ns3/wifi-phy.h"
#include "ns3/wifi-psdu.h"
#include "ns3/wifi-tx-vector.h"

#include <utility>

namespace splitllm
{

using namespace ns3;

namespace
{

constexpr std::uint16_t kServerPort = 9000;
constexpr std::int64_t kStreamsOfANode = 1000; // more than ns-3 takes for a node's device and stack

} // namespace

WifiCell::WifiCell(LinkSpec spec, LinkEnds ends, Recorder& recorder)
    : m_spec(std::move(spec)),
      m_ends(std::move(ends)),
      m_recorder(recorder)
{
    m_internet.SetIpv6StackInstall(false);
    m_phy.SetChannel(YansWifiChannelHelper::Default().Create());
    m_phy.Set("ChannelSettings", StringValue("{0, " + std::to_string(m_spec.wifi.channelWidth) + ", BAND_5GHZ, 0}"));
    m_wifi.SetStandard(WIFI_STANDARD_80211ax);
    if (m_spec.wifi.rateControl == "constant")
    {
        m_wifi.SetRemoteStationManager("ns3::ConstantRateWifiManager",
                                       "DataMode",
                                       StringValue("HeMcs" + std::to_string(m_spec.wifi.mcs)));
    }
    else
    {
        m_wifi.SetRemoteStationManager(m_spec.wifi.rateControl == "ideal" ? "ns3::IdealWifiManager"
                                                                          : "ns3::MinstrelHtWifiManager");
    }
    WifiMacHelper mac;
    mac.SetType("ns3::ApWifiMac", "Ssid", SsidValue(m_ssid));
    m_serverAddress = Install(m_ends.server, 0.0, mac);
    Trace(m_ends.serverName, Direction::Down, m_ends.server->GetDevice(m_ends.server->GetNDevices() - 1));
}

void
WifiCell::Capture(const std::string& file)
{
    CaptureNanoseconds();
    m_phy.SetPcapDataLinkType(WifiPhyHelper::DLT_IEEE802_11_RADIO);
    m_phy.EnablePcap(file, m_ends.server->GetDevice(m_ends.server->GetNDevices() - 1), true, true);
}

Address
WifiCell::Join(Ptr<Node> node)
{
    m_internet.Install(node);
    WifiMacHelper mac;
    mac.SetType("ns3::StaWifiMac", "Ssid", SsidValue(m_ssid));
    const double distance = m_spec.wifi.distances.at(m_joined);
    const std::string& name = m_ends.userNames.at(m_joined);
    m_joined++;
    Install(node, distance, mac);
    Trace(name, Direction::Up, node->GetDevice(node->GetNDevices() - 1));
    return InetSocketAddress(m_serverAddress, kServerPort);
}

Time
WifiCell::ReadyAt() const
{
    return Seconds(1);
}

bool
WifiCell::RunsForEver() const
{
    return true;
}

std::array<std::uint64_t, kDirections>
WifiCell::BytesSent() const
{
    return m_bytes;
}

Ipv4Address
WifiCell::Install(Ptr<Node> node, double distance, const WifiMacHelper& mac)
{
    const NetDeviceContainer devices = m_wifi.Install(m_phy, mac, node);
    auto place = CreateObject<ConstantPositionMobilityModel>();
    place->SetPosition(Vector(distance, 0.0, 0.0));
    node->AggregateObject(place);
    const std::int64_t stream = kLinkStreams + kStreamsOfANode * m_joined;
    const std::int64_t taken = m_wifi.AssignStreams(devices, stream);
    m_internet.AssignStreams(NodeContainer(node), stream + taken);
    return m_addresses.Assign(devices).GetAddress(0);
}

void
WifiCell::Trace(const std::string& node, Direction sends, Ptr<NetDevice> device)
{
    const Ptr<WifiPhy> phy = DynamicCast<WifiNetDevice>(device)->GetPhy();
    phy->TraceConnectWithoutContext(
        "PhyTxPsduBegin",
        Callback<void, WifiConstPsduMap, WifiTxVector, double>(
            [this, node, sends, band = phy->GetPhyBand()](WifiConstPsduMap psdus, WifiTxVector vector, double) {
                std::uint32_t bytes = 0;
                for (const auto& [station, psdu] : psdus)
                {
                    bytes += psdu->GetHeader(0).HasData() ? psdu->GetSize() : 0;
                }
                if (bytes > 0)
                {
                    const Time now = Simulator::Now();
                    m_bytes[static_cast<std::size_t>(sends)] += bytes;
                    m_recorder.OnPacket(node, bytes, now, now + WifiPhy::CalculateTxDuration(psdus, vector, band));
                }
            }));
}

} // namespace splitllm
