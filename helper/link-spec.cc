// SPDX-License-Identifier: GPL-2.0-only
#include "link-spec.h"

#include "base/input-error.h"
#include "base/units.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

namespace splitllm
{

using namespace ns3;

namespace
{

constexpr std::uint64_t kLeastRate = 1000; // a slower message would take longer than simulated time goes
constexpr std::uint64_t kMostBandwidth = 1'000'000'000'000;
constexpr std::uint64_t kMostAttempts = 1'000'000;
constexpr std::uint32_t kMostStations = 1000; // ns-3's access point has 2007 association identifiers

Time
Duration(StrictObject& object, const std::string& key, std::optional<std::string> fallback = std::nullopt)
{
    return NanoSeconds(ReadDuration(object, key, std::move(fallback)).count());
}

DataRate
Rate(StrictObject& object)
{
    const std::uint64_t rate = ReadBitRate(object, "rate");
    if (rate < kLeastRate)
    {
        object.Fail("rate", "must be at least 1kbps");
    }
    return DataRate(rate);
}

/// What links need on which TCP runs.
void
ReadPackets(StrictObject& object, LinkSpec& link)
{
    link.mtu = static_cast<std::uint16_t>(object.Integer("mtu", 576, 65535, 1500));
    link.queueBytes = ReadBytes(object, "queue", 1'000'000);
    if (link.queueBytes < link.mtu || link.queueBytes > std::numeric_limits<std::uint32_t>::max())
    {
        object.Fail("queue", "must hold at least a packet of the MTU and at most 4 GiB");
    }
}

void
ReadWired(StrictObject& object, LinkSpec& link)
{
    link.rate = Rate(object);
    link.delay = Duration(object, "delay", "0ns");
    link.loss = object.Number("loss", 0.0, 0.5, 0.0);
    link.outages = ReadOutages(object);
    ReadPackets(object, link);
}

void
ReadServiceKinds(StrictObject& link, LinkSpec& spec)
{
    StrictObject kinds = link.Object("kinds");
    for (const std::string& name : kinds.Keys())
    {
        const std::optional<MessageKind> kind = MessageKindFromName(name);
        if (!kind)
        {
            kinds.Fail(name, "unknown message kind; accepted: " + Joined(MessageKindNames()));
        }
        StrictObject cost = kinds.Object(name);
        ServiceCost& entry = spec.kinds[*kind];
        if (cost.Has("startup"))
        {
            entry.startup = Duration(cost, "startup");
        }
        if (cost.Has("payload_bytes"))
        {
            entry.payloadBytes = cost.Integer("payload_bytes", 0, std::numeric_limits<std::uint32_t>::max());
        }
        cost.Finish();
    }
    kinds.Finish();
}

void
ReadService(StrictObject& object, LinkSpec& link)
{
    link.rate = Rate(object);
    link.delay = Duration(object, "delay", "0ns");
    link.startup = Duration(object, "startup", "0ns");
    link.outages = ReadOutages(object);
    if (object.Has("kinds"))
    {
        ReadServiceKinds(object, link);
    }
}

/// The rate under "rate": a value, "optimal" (OPSC's Eq 9 with its ceiling) or "relaxed" (without it), in whole bit/s.
DataRate
FadingRate(StrictObject& object, const FadingSpec& fading)
{
    const std::string rate = object.String("rate", "optimal");
    if (rate != "optimal" && rate != "relaxed")
    {
        return Rate(object);
    }
    // Rounded down, so that rounding costs no attempt.
    const double best = std::floor(rate == "optimal" ? OptimalRate(fading.channel, fading.epsilon)
                                                     : RelaxedRate(fading.channel));
    if (best < static_cast<double>(kLeastRate))
    {
        object.Fail("rate", "at this bandwidth and SNR the " + rate + " rate is below 1kbps, the least accepted");
    }
    return DataRate(static_cast<std::uint64_t>(best));
}

void
ReadFading(StrictObject& object, LinkSpec& link)
{
    FadingSpec& fading = link.fading;
    const std::uint64_t bandwidth = ReadFrequency(object, "bandwidth");
    if (bandwidth > kMostBandwidth)
    {
        object.Fail("bandwidth", "must be at most 1000GHz");
    }
    fading.channel.bandwidth = static_cast<double>(bandwidth);
    fading.channel.snr = object.Number("snr", 0.0, 1e12);
    if (fading.channel.snr == 0.0)
    {
        object.Fail("snr", "must be above 0: a mean signal-to-noise ratio, linear and not in dB");
    }
    fading.epsilon = object.Number("epsilon", 0.0, 1.0, 1e-3);
    if (fading.epsilon == 0.0 || fading.epsilon == 1.0)
    {
        object.Fail("epsilon", "must be above 0 and below 1");
    }
    link.rate = FadingRate(object, fading);
    const std::uint64_t needed =
        OutageAttempts(fading.channel, static_cast<double>(link.rate.GetBitRate()), fading.epsilon);
    if (needed > kMostAttempts)
    {
        object.Fail("rate", "so many attempts fail at this rate that more than 1000000 are needed; choose a lower one");
    }
    fading.attempts = static_cast<std::uint32_t>(object.Integer("attempts", 1, kMostAttempts, needed));
    fading.feedback = Duration(object, "feedback", "0ns");
    link.delay = Duration(object, "delay", "0ns");
    fading.coherence = Duration(object, "coherence", "0ns");
    fading.tcp = object.Choice("transport", {"message", "tcp"}, "message") == "tcp";
    if (fading.tcp)
    {
        ReadPackets(object, link);
    }
    else
    {
        fading.measuresSnr = object.Choice("csi", {"mean", "measured"}, "mean") == "measured";
        fading.onLoss =
            object.Choice("on_loss", {"resend", "fail"}, "resend") == "fail" ? OnLoss::Fail : OnLoss::Resend;
    }
}

void
ReadWifi(StrictObject& object, LinkSpec& link, std::uint32_t users)
{
    if (users > kMostStations)
    {
        object.Fail("type", "a Wi-Fi cell takes at most " + std::to_string(kMostStations) + " user devices");
    }
    WifiSpec& wifi = link.wifi;
    const auto metres = [&object](const Json& text) {
        if (!text.is_string())
        {
            object.Fail("distance", "must be a length such as \"10m\", or a list of one for each user device");
        }
        try
        {
            return static_cast<double>(ParseLength(text.get<std::string>())) / 1000.0;
        }
        catch (const InputError& error)
        {
            object.Fail("distance", error.what());
        }
    };
    if (!object.Has("distance"))
    {
        object.Fail("distance", "missing; accepted: a length such as \"10m\", or a list of one for each user device");
    }
    const Json& distance = object.Raw("distance");
    if (!distance.is_array())
    {
        wifi.distances.assign(users, metres(distance));
    }
    else
    {
        if (distance.size() != users)
        {
            object.Fail("distance",
                        "lists " + std::to_string(distance.size()) + " lengths for " + std::to_string(users) +
                            " user devices; accepted: one length, or one for each");
        }
        std::ranges::transform(distance, std::back_inserter(wifi.distances), metres);
    }
    const std::string width = object.Choice("channel_width", {"20MHz", "40MHz", "80MHz", "160MHz"}, "20MHz");
    wifi.channelWidth = static_cast<std::uint16_t>(ParseFrequency(width) / 1'000'000);
    wifi.rateControl = object.Choice("rate_control", {"minstrel-ht", "ideal", "constant"}, "minstrel-ht");
    if (wifi.rateControl == "constant")
    {
        wifi.mcs = static_cast<std::uint32_t>(object.Integer("mcs", 0, 11));
    }
}

} // namespace

ServiceLinkConfig
ServiceConfigOf(const LinkSpec& link)
{
    return {.rate = link.rate, .delay = link.delay, .startup = link.startup, .kinds = link.kinds};
}

LinkSpec
ReadLink(StrictObject& links, const std::string& name, const std::map<std::string, std::uint32_t>& groups)
{
    LinkSpec link;
    link.name = name;
    // "device-edge": the dash that separates two group names; a group's own name may contain dashes.
    for (std::size_t dash = name.find('-'); dash != std::string::npos; dash = name.find('-', dash + 1))
    {
        if (groups.contains(name.substr(0, dash)) && groups.contains(name.substr(dash + 1)))
        {
            link.from = name.substr(0, dash);
            link.to = name.substr(dash + 1);
        }
    }
    if (link.from.empty())
    {
        links.Fail(name, "a link is called after the two groups of nodes that it joins, such as \"device-edge\"");
    }
    StrictObject object = links.Object(name);
    const std::string type = object.Choice("type", {"wired", "wifi", "fading", "service"});
    if (object.Has("outages") && type != "wired" && type != "service")
    {
        object.Fail("outages", "a " + type + " link has none; accepted on types wired, service");
    }
    if (type == "wired")
    {
        link.type = LinkType::Wired;
        ReadWired(object, link);
    }
    else if (type == "wifi")
    {
        link.type = LinkType::Wifi;
        ReadWifi(object, link, std::max(groups.at(link.from), groups.at(link.to)));
    }
    else if (type == "fading")
    {
        link.type = LinkType::Fading;
        ReadFading(object, link);
    }
    else
    {
        link.type = LinkType::Service;
        ReadService(object, link);
    }
    link.pcap = object.Bool("pcap", false);
    if (link.pcap && name.find('/') != std::string::npos)
    {
        object.Fail("pcap", "the file is called after the link; accepted where no group's name has a slash");
    }
    object.Finish();
    return link;
}

} // namespace splitllm
