// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_WIFI_CELL_H
#define SPLITLLM_WIFI_CELL_H

#include "links.h"

#include "ns3/internet-stack-helper.h"
#include "ns3/ipv4-address-helper.h"
#include "ns3/ipv4-address.h"
#include "ns3/net-device.h"
#include "ns3/ssid.h"
#include "ns3/wifi-mac-helper.h"
#include "ns3/wifi-helper.h"
#include "ns3/yans-wifi-helper.h"

namespace splitllm
{

/**
 * ns-3's 802.11ax in the 5 GHz band, with TCP over it: the server is the access point of one cell, the users are its
 * stations and share the medium. All stand in one line, so they hear each other if they hear the access point.
 */
class WifiCell final : public Link
{
  public:
    WifiCell(LinkSpec spec, LinkEnds ends, Recorder& recorder);

    /// The frames of the whole cell, as the access point hears them.
    void Capture(const std::string& file) override;

    ns3::Address Join(ns3::Ptr<ns3::Node> node) override;

    /// Stations associate before: TCP's first packets would be lost, and repeated only seconds later.
    ns3::Time ReadyAt() const override;

    /// The access point sends beacons all the time.
    bool RunsForEver() const override;

    std::array<std::uint64_t, kDirections> BytesSent() const override;

  private:
    /// Gives \p node a device at \p distance metres, and an address.
    ns3::Ipv4Address Install(ns3::Ptr<ns3::Node> node, double distance, const ns3::WifiMacHelper& mac);
    void Trace(const std::string& node, Direction sends, ns3::Ptr<ns3::NetDevice> device);

    LinkSpec m_spec;
    LinkEnds m_ends;
    Recorder& m_recorder;
    ns3::WifiHelper m_wifi;
    ns3::YansWifiPhyHelper m_phy;
    ns3::Ssid m_ssid{"split-llm"};
    ns3::InternetStackHelper m_internet;
    ns3::Ipv4AddressHelper m_addresses{"10.0.0.0", "255.255.0.0"};
    ns3::Ipv4Address m_serverAddress;
    std::uint32_t m_joined = 0;
    std::array<std::uint64_t, kDirections> m_bytes{}; //!< of data frames
};

} // namespace splitllm

#endif // SPLITLLM_WIFI_CELL_H
