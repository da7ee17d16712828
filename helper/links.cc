// SPDX-License-Identifier: GPL-2.0-only
#include "links.h"

#include "block-fading-helper.h"
#include "capture.h"
#include "net/block-fading-channel.h"
#include "net/block-fading-net-device.h"
#include "net/outage-error-model.h"
#include "net/tcp-message-port.h"
#include "streams.h"
#include "wifi-cell.h"

#include "ns3/data-rate.h"
#include "ns3/double.h"
#include "ns3/error-model.h"
#include "ns3/inet-socket-address.h"
#include "ns3/internet-stack-helper.h"
#include "ns3/ipv4-address-helper.h"
#include "ns3/ipv4-interface-container.h"
#include "ns3/net-device-container.h"
#include "ns3/point-to-point-helper.h"
#include "ns3/pointer.h"
#include "ns3/pcap-file-wrapper.h"
#include "ns3/queue-size.h"
#include "ns3/simulator.h"
#include "ns3/trace-helper.h"
#include "ns3/traffic-control-helper.h"
#include "ns3/uinteger.h"

#include <algorithm>
#include <array>
#include <utility>

namespace splitllm
{

using namespace ns3;

namespace
{

constexpr std::uint16_t kServerPort = 9000;

/// Point-to-point devices with TCP over them: a network of its own for each user.
class PacketLink : public Link
{
  public:
    PacketLink(LinkSpec spec, LinkEnds ends, Recorder& recorder)
        : m_spec(std::move(spec)),
          m_ends(std::move(ends)),
          m_recorder(recorder)
    {
        m_internet.SetIpv6StackInstall(false);
    }

    void Capture(const std::string& file) override
    {
        m_capture = OpenCapture(file, CaptureOf::PppFrames);
    }

    std::uint32_t SegmentBytes() const override
    {
        return TcpMessagePort::SegmentBytes(m_spec.mtu);
    }

    Address Join(Ptr<Node> node) override
    {
        m_internet.Install(node);
        const NetDeviceContainer devices = Connect(node, m_joined);
        const Ipv4InterfaceContainer interfaces = m_addresses.Assign(devices);
        m_addresses.NewNetwork();
        // The study's queue is the only one: ns-3's default queue disc would drop by its own rules before it.
        TrafficControlHelper().Uninstall(devices);
        // In the timeline the packets of one link must not overlap, so a server with many links has a row for each.
        const std::string& user = m_ends.userNames[m_joined];
        Trace(user, Direction::Up, devices.Get(0));
        Trace(m_ends.userNames.size() == 1 ? m_ends.serverName : m_ends.serverName + " link-" + std::to_string(m_joined),
              Direction::Down,
              devices.Get(1));
        if (m_capture)
        {
            PcapHelper().HookDefaultSink(devices.Get(1), "PromiscSniffer", m_capture);
        }
        m_joined++;
        return InetSocketAddress(interfaces.GetAddress(1), kServerPort);
    }

  protected:
    /// The devices of user number \p user and of the server.
    virtual NetDeviceContainer Connect(Ptr<Node> node, std::uint32_t user) = 0;

    /// Reports what \p device sends to the recorder. \param node its row in the timeline
    virtual void Trace(const std::string& node, Direction sends, Ptr<NetDevice> device) = 0;

    QueueSizeValue Queue() const
    {
        return QueueSizeValue(QueueSize(QueueSizeUnit::BYTES, static_cast<std::uint32_t>(m_spec.queueBytes)));
    }

    LinkSpec m_spec;
    LinkEnds m_ends;
    Recorder& m_recorder;

  private:
    InternetStackHelper m_internet;
    Ipv4AddressHelper m_addresses{"10.0.0.0", "255.255.255.252"};
    Ptr<PcapFileWrapper> m_capture; //!< null: none
    std::uint32_t m_joined = 0;
};

/// ns-3's point-to-point link.
class WiredLink final : public PacketLink
{
  public:
    using PacketLink::PacketLink;

  private:
    /// What loses packets at random; null if nothing does.
    Ptr<ErrorModel> Losses(std::int64_t stream) const
    {
        if (m_spec.loss == 0.0)
        {
            return nullptr;
        }
        auto errors = CreateObject<RateErrorModel>();
        errors->SetUnit(RateErrorModel::ERROR_UNIT_PACKET);
        errors->SetRate(m_spec.loss);
        errors->AssignStreams(stream);
        return errors;
    }

    NetDeviceContainer Connect(Ptr<Node> node, std::uint32_t user) override
    {
        PointToPointHelper helper;
        helper.SetDeviceAttribute("DataRate", DataRateValue(m_spec.rate));
        helper.SetDeviceAttribute("Mtu", UintegerValue(m_spec.mtu));
        helper.SetChannelAttribute("Delay", TimeValue(m_spec.delay));
        helper.SetQueue("ns3::DropTailQueue<Packet>", "MaxSize", Queue());
        const NetDeviceContainer devices = helper.Install(node, m_ends.server);
        for (std::uint32_t end = 0; end < 2; end++)
        {
            Ptr<ErrorModel> errors = Losses(kLinkStreams + 2 * user + end);
            if (!m_spec.outages.empty())
            {
                errors = CreateObject<OutageErrorModel>(m_outages, errors);
            }
            if (errors)
            {
                devices.Get(end)->SetAttribute("ReceiveErrorModel", PointerValue(errors));
            }
        }
        return devices;
    }

    void Trace(const std::string& node, Direction sends, Ptr<NetDevice> device) override
    {
        device->TraceConnectWithoutContext(
            "PhyTxBegin", Callback<void, Ptr<const Packet>>([this, node, sends](Ptr<const Packet> packet) {
                const Time now = Simulator::Now();
                const Time end = now + m_spec.rate.CalculateBytesTxTime(packet->GetSize());
                m_recorder.OnPacket(node, sends, packet->GetSize(), now, end);
            }));
    }

    std::vector<Outage> Outages() const override
    {
        return m_outages.Outages();
    }

    OutageSchedule m_outages{DrawOutages(m_spec.outages, kOutageStreams)}; //!< of all users
};

/// Adds one attempt to what is known about a link.
void
Count(LinkAttempts& link, const AttemptRecord& record, const FadingSpec& fading)
{
    link.frames += record.number == 1 ? 1 : 0;
    link.attempts++;
    link.failed += record.success ? 0 : 1;
    link.roundsLost += !record.success && record.number % fading.attempts == 0 ? 1 : 0;
    link.most = std::max(link.most, record.number);
    link.largestFrame = std::max(link.largestFrame, record.bytes);
    link.deliveredBytes += record.success ? record.bytes : 0;
    link.busy += record.end - record.start + fading.feedback;
}

/// A fading channel with TCP over it.
class FadingPacketLink final : public PacketLink
{
  public:
    using PacketLink::PacketLink;

    void Collect(RunRecords& records) const override
    {
        records.links[m_spec.name] = m_attempts;
    }

  private:
    NetDeviceContainer Connect(Ptr<Node> node, std::uint32_t user) override
    {
        const FadingSpec& fading = m_spec.fading;
        BlockFadingHelper helper;
        helper.SetDeviceAttribute("Rate", DataRateValue(m_spec.rate));
        helper.SetDeviceAttribute("Attempts", UintegerValue(fading.attempts));
        helper.SetDeviceAttribute("Feedback", TimeValue(fading.feedback));
        helper.SetDeviceAttribute("Mtu", UintegerValue(m_spec.mtu));
        helper.SetQueue("ns3::DropTailQueue<Packet>", "MaxSize", Queue());
        helper.SetChannelAttribute("Bandwidth", DoubleValue(fading.channel.bandwidth));
        helper.SetChannelAttribute("MeanSnr", DoubleValue(fading.channel.snr));
        helper.SetChannelAttribute("Coherence", TimeValue(fading.coherence));
        helper.SetChannelAttribute("Delay", TimeValue(m_spec.delay));
        const NetDeviceContainer devices = helper.Install(node, m_ends.server);
        helper.AssignStreams(devices, kLinkStreams + 2 * user);
        return devices;
    }

    void Trace(const std::string& node, Direction sends, Ptr<NetDevice> device) override
    {
        device->TraceConnectWithoutContext(
            "Attempt", Callback<void, const AttemptRecord&>([this, node, sends](const AttemptRecord& record) {
                Count(m_attempts, record, m_spec.fading);
                m_recorder.Records().wireBytes[static_cast<std::size_t>(sends)] += record.bytes;
                m_recorder.OnAttempt(node, record);
            }));
    }

    LinkAttempts m_attempts;
};

/// A link that carries messages whole, one for each user.
class WholeMessageLink : public Link
{
  public:
    Address Join(Ptr<Node>) override
    {
        return {};
    }

    void Capture(const std::string& file) override
    {
        m_capture = OpenCapture(file, CaptureOf::Messages);
    }

  protected:
    /// Lets \p user connect to \p server over \p link, as often as it has to.
    void ConnectOver(MessageLink& link, Ptr<UserDevice> user, Ptr<ServerApplication> server) const
    {
        if (m_capture)
        {
            link.atServer = [file = m_capture](Direction direction, const ConnectionId& connection, Ptr<const Packet> bytes) {
                CaptureMessage(*file, direction, connection, bytes);
            };
        }
        user->SetConnector([&link, server](Api api) {
            PortPair ports = link.Connect();
            if (!server->Attach(std::move(ports.server), api))
            {
                ports.user->Refuse("the server refused the connection");
            }
            return std::move(ports.user);
        });
    }

  private:
    Ptr<PcapFileWrapper> m_capture; //!< null: none
};

/// A fading channel with whole messages over it.
class FadingMessageLink final : public WholeMessageLink
{
  public:
    FadingMessageLink(LinkSpec spec, LinkEnds ends, Recorder& recorder)
        : m_spec(std::move(spec)),
          m_ends(std::move(ends)),
          m_recorder(recorder)
    {
    }

    void Attach(Ptr<UserDevice> user, Ptr<ServerApplication> server) override
    {
        const std::size_t index = m_links.size();
        const FadingSpec& fading = m_spec.fading;
        FadingLink& link = *m_links.emplace_back(std::make_unique<FadingLink>(FadingLinkConfig{
            .channel = fading.channel,
            .coherence = fading.coherence,
            .arq = {.rate = m_spec.rate, .attempts = fading.attempts, .feedback = fading.feedback},
            .delay = m_spec.delay,
            .onLoss = fading.onLoss,
            .epsilon = fading.epsilon,
            .measuresSnr = fading.measuresSnr}));
        link.AssignStreams(kLinkStreams + 2 * static_cast<std::int64_t>(index));
        const std::array<std::string, kDirections> rows{
            m_ends.userNames[index],
            m_ends.userNames.size() == 1 ? m_ends.serverName : m_ends.serverName + " link-" + std::to_string(index)};
        link.onAttempt = [this, rows](Direction sends, const AttemptRecord& record) {
            Count(m_attempts, record, m_spec.fading);
            m_recorder.OnAttempt(rows[static_cast<std::size_t>(sends)], record);
        };
        ConnectOver(link, user, server);
    }

    void Collect(RunRecords& records) const override
    {
        records.links[m_spec.name] = m_attempts;
        for (const std::unique_ptr<FadingLink>& link : m_links)
        {
            records.wireBytes[0] += link->BytesSent(Direction::Up);
            records.wireBytes[1] += link->BytesSent(Direction::Down);
        }
    }

  private:
    LinkSpec m_spec;
    LinkEnds m_ends;
    Recorder& m_recorder;
    std::vector<std::unique_ptr<FadingLink>> m_links; //!< one a user
    LinkAttempts m_attempts;
};

/// An ideal link with whole messages over it.
class CalibratedLink final : public WholeMessageLink
{
  public:
    explicit CalibratedLink(const LinkSpec& spec)
        : m_config(ServiceConfigOf(spec))
    {
        m_config.outages = OutageSchedule(DrawOutages(spec.outages, kOutageStreams));
    }

    void Attach(Ptr<UserDevice> user, Ptr<ServerApplication> server) override
    {
        ServiceLink& link = *m_links.emplace_back(std::make_unique<ServiceLink>(m_config));
        ConnectOver(link, user, server);
    }

    void Collect(RunRecords& records) const override
    {
        for (const std::unique_ptr<ServiceLink>& link : m_links)
        {
            records.wireBytes[0] += link->BytesSent(Direction::Up);
            records.wireBytes[1] += link->BytesSent(Direction::Down);
        }
    }

    std::vector<Outage> Outages() const override
    {
        return m_config.outages.Outages();
    }

  private:
    ServiceLinkConfig m_config;
    std::vector<std::unique_ptr<ServiceLink>> m_links; //!< one a user
};

} // namespace

std::unique_ptr<Link>
Link::Make(const LinkSpec& spec, const LinkEnds& ends, Recorder& recorder)
{
    switch (spec.type)
    {
    case LinkType::Wired:
        return std::make_unique<WiredLink>(spec, ends, recorder);
    case LinkType::Wifi:
        return std::make_unique<WifiCell>(spec, ends, recorder);
    case LinkType::Fading:
        if (spec.fading.tcp)
        {
            return std::make_unique<FadingPacketLink>(spec, ends, recorder);
        }
        return std::make_unique<FadingMessageLink>(spec, ends, recorder);
    case LinkType::Service:
        break;
    }
    return std::make_unique<CalibratedLink>(spec);
}

std::uint32_t
Link::SegmentBytes() const
{
    return TcpMessagePort::SegmentBytes(1500);
}

void
Link::Attach(Ptr<UserDevice>, Ptr<ServerApplication>)
{
}

Time
Link::ReadyAt() const
{
    return {};
}

bool
Link::RunsForEver() const
{
    return false;
}

std::vector<Outage>
Link::Outages() const
{
    return {};
}

void
Link::Collect(RunRecords&) const
{
}

} // namespace splitllm
