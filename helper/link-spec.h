// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_LINK_SPEC_H
#define SPLITLLM_LINK_SPEC_H

#include "base/strict-json.h"
#include "net/fading-link.h"
#include "net/service-link.h"
#include "outage-spec.h"

#include "ns3/data-rate.h"
#include "ns3/nstime.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace splitllm
{

enum class LinkType
{
    Wired,
    Wifi,
    Fading,
    Service,
};

/// What a fading link has beyond rate and delay.
struct FadingSpec
{
    RayleighChannel channel{};
    double epsilon = 1e-3; //!< outage target
    bool measuresSnr = false; //!< senders of whole messages go by their attempts, not by the mean SNR
    ns3::Time coherence;   //!< zero: every attempt sees a block of its own
    std::uint32_t attempts = 1;
    ns3::Time feedback;
    bool tcp = false;               //!< packets over TCP; otherwise messages go whole
    OnLoss onLoss = OnLoss::Resend; //!< of whole messages
};

/// How users reach the access point.
struct WifiSpec
{
    std::vector<double> distances; //!< metres, one a user
    std::uint16_t channelWidth = 20; //!< MHz
    std::string rateControl;       //!< "minstrel-ht", "ideal" or "constant"
    std::uint32_t mcs = 0;         //!< "constant": index of modulation and coding
};

/// A link between two groups of nodes: one instance for each member of the larger group, but one Wi-Fi cell for all.
struct LinkSpec
{
    std::string name;
    std::string from; //!< group names
    std::string to;
    LinkType type = LinkType::Wired;
    ns3::DataRate rate;           //!< all but Wi-Fi
    ns3::Time delay;              //!< all but Wi-Fi
    std::uint16_t mtu = 1500;     //!< with TCP
    double loss = 0.0;            //!< wired: probability that a packet is lost
    std::uint64_t queueBytes = 0; //!< wired, and fading with TCP
    ns3::Time startup;            //!< service
    std::map<MessageKind, ServiceCost> kinds; //!< service
    std::vector<OutageSpec> outages;          //!< wired and service
    FadingSpec fading;
    WifiSpec wifi;
    bool pcap = false; //!< whether what the server sends and receives over it is captured

    /// Whether messages cross as they are; otherwise TCP carries them.
    bool CarriesWholeMessages() const
    {
        return type == LinkType::Service || (type == LinkType::Fading && !fading.tcp);
    }
};

/// The figures of a service link, without its outages, which are drawn for each run.
ServiceLinkConfig ServiceConfigOf(const LinkSpec& link);

/**
 * Reads the link \p name of the object \p links.
 * \param groups the study's groups of nodes and how many members each has
 */
LinkSpec ReadLink(StrictObject& links, const std::string& name, const std::map<std::string, std::uint32_t>& groups);

} // namespace splitllm

#endif // SPLITLLM_LINK_SPEC_H
