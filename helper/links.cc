// SPDX-License-Identifier: GPL-2.0-only
#include "links.h"

#include "block-fading-helper.h"
#include "capture.h"
#include "net/block-fading-channel.h"
#include "net/block-fading-net-device.h"
#include "net/host-routing.h"
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
#include <functional>
#include <iterator>
#include <utility>

namespace splitllm
{

using namespace ns3;

namespace
{

constexpr std::uint16_t kServerPort = 9000;

/// What links of the same nodes must not have in common.
struct LinkNumbers
{
    const char* networks = "10.0.0.0";     //!< the first one
    std::int64_t losses = kLinkStreams;    //!< the first of its random streams
    std::int64_t outages = kOutageStreams; //!< likewise
};

constexpr LinkNumbers kBackhaulNumbers{.networks = "10.255.0.0", .losses = kBackhaulStreams, .outages = kBackhaulOutageStreams};

/// The outages of the link called \p name.
std::vector<OutageRow>
OutagesOf(const std::string& name, const OutageSchedule& schedule)
{
    std::vector<OutageRow> rows;
    for (const Outage& outage : schedule.Outages())
    {
        rows.push_back({name, outage.begin, outage.end});
    }
    return rows;
}

/// Point-to-point devices with TCP over them: a network of its own for each user.
class PacketLink : public Link
{
  public:
    PacketLink(LinkSpec spec, LinkEnds ends, Recorder& recorder, const LinkNumbers& numbers = {})
        : m_spec(std::move(spec)),
          m_ends(std::move(ends)),
          m_recorder(recorder),
          m_numbers(numbers),
          m_addresses(numbers.networks, "255.255.255.252")
    {
        m_internet.SetIpv6StackInstall(false);
        m_internet.SetRoutingHelper(HostRoutingHelper());
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
        HostRoutingOf(node)->SetDefault(interfaces.GetAddress(1), interfaces.Get(0).second);
        HostRoutingOf(m_ends.server)->AddHost(interfaces.GetAddress(0), interfaces.Get(1).second);
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

    std::array<std::uint64_t, kDirections> BytesSent() const override
    {
        return m_bytes;
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
    LinkNumbers m_numbers;
    std::array<std::uint64_t, kDirections> m_bytes{};

  private:
    InternetStackHelper m_internet;
    Ipv4AddressHelper m_addresses;
    Ptr<PcapFileWrapper> m_capture; //!< null: none
    std::uint32_t m_joined = 0;
};

/// ns-3's point-to-point link.
class WiredLink final : public PacketLink
{
  public:
    using PacketLink::PacketLink;

    std::vector<OutageRow> Outages() const override
    {
        return OutagesOf(m_spec.name, m_outages);
    }

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
            Ptr<ErrorModel> errors = Losses(m_numbers.losses + 2 * user + end);
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
                m_bytes[static_cast<std::size_t>(sends)] += packet->GetSize();
                m_recorder.OnPacket(node, packet->GetSize(), now, end);
            }));
    }

    OutageSchedule m_outages{DrawOutages(m_spec.outages, m_numbers.outages)}; //!< of all users
};

/// A wire from each user to a gateway, and one from there to the server. Packets are forwarded by IP.
class WiresThroughGateway final : public Link
{
  public:
    WiresThroughGateway(const LinkSpec& access,
                        const LinkSpec& backhaul,
                        const std::string& gateway,
                        const LinkEnds& ends,
                        Recorder& recorder)
        : m_names{access.name, backhaul.name},
          m_server(ends.server),
          m_access(access, {.server = m_gateway, .serverName = gateway, .userNames = ends.userNames}, recorder),
          m_backhaul(backhaul,
                     {.server = ends.server, .serverName = ends.serverName, .userNames = {gateway}},
                     recorder,
                     kBackhaulNumbers)
    {
    }

    void Capture(const std::string& file) override
    {
        m_backhaul.Capture(file);
    }

    std::uint32_t SegmentBytes() const override
    {
        return std::min(m_access.SegmentBytes(), m_backhaul.SegmentBytes());
    }

    Address Join(Ptr<Node> node) override
    {
        if (m_serverAddress.IsInvalid())
        {
            JoinGateway();
        }
        m_access.Join(node);
        return m_serverAddress;
    }

    std::vector<OutageRow> Outages() const override
    {
        std::vector<OutageRow> rows = m_access.Outages();
        std::ranges::move(m_backhaul.Outages(), std::back_inserter(rows));
        return rows;
    }

    std::array<std::uint64_t, kDirections> BytesSent() const override
    {
        return m_access.BytesSent();
    }

    void Collect(RunRecords& records) const override
    {
        records.linkBytes[m_names[0]] = m_access.BytesSent();
        records.linkBytes[m_names[1]] = m_backhaul.BytesSent();
    }

  private:
    void JoinGateway()
    {
        m_serverAddress = m_backhaul.Join(m_gateway);
        const Ipv4Address address = m_gateway->GetObject<Ipv4>()->GetAddress(1, 0).GetLocal();
        HostRoutingOf(m_server)->SetDefault(address, m_server->GetObject<Ipv4>()->GetNInterfaces() - 1);
    }

    std::array<std::string, 2> m_names;
    Ptr<Node> m_gateway = CreateObject<Node>();
    Ptr<Node> m_server;
    WiredLink m_access;
    WiredLink m_backhaul;
    Address m_serverAddress; //!< at the backhaul, once the first user joined
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
                m_bytes[static_cast<std::size_t>(sends)] += record.bytes;
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
    /// Captures what \p link takes from the server and brings there, where that is wanted.
    void CaptureAt(MessageLink& link) const
    {
        if (m_capture)
        {
            link.atServer = [file = m_capture](Direction direction, const ConnectionId& connection, Ptr<const Packet> bytes) {
                CaptureMessage(*file, direction, connection, bytes);
            };
        }
    }

    /// Lets \p user connect to \p server by \p connect, as often as it has to.
    static void ConnectBy(std::function<PortPair()> connect, Ptr<UserDevice> user, Ptr<ServerApplication> server)
    {
        user->SetConnector([connect = std::move(connect), server](Api api) {
            PortPair ports = connect();
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

/// What \p links carried together.
template <typename MessageLinks>
std::array<std::uint64_t, kDirections>
BytesOver(const MessageLinks& links)
{
    std::array<std::uint64_t, kDirections> bytes{};
    for (const auto& link : links)
    {
        bytes[0] += link->BytesSent(Direction::Up);
        bytes[1] += link->BytesSent(Direction::Down);
    }
    return bytes;
}

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
        CaptureAt(link);
        ConnectBy([&link] { return link.Connect(); }, user, server);
    }

    std::array<std::uint64_t, kDirections> BytesSent() const override
    {
        return BytesOver(m_links);
    }

    void Collect(RunRecords& records) const override
    {
        records.links[m_spec.name] = m_attempts;
    }

  private:
    LinkSpec m_spec;
    LinkEnds m_ends;
    Recorder& m_recorder;
    std::vector<std::unique_ptr<FadingLink>> m_links; //!< one a user
    LinkAttempts m_attempts;
};

/// The figures of \p spec with the outages of this run. \param stream that they are drawn from
ServiceLinkConfig
DrawnConfigOf(const LinkSpec& spec, std::int64_t stream)
{
    ServiceLinkConfig config = ServiceConfigOf(spec);
    config.outages = OutageSchedule(DrawOutages(spec.outages, stream));
    return config;
}

/// An ideal link with whole messages over it.
class CalibratedLink final : public WholeMessageLink
{
  public:
    explicit CalibratedLink(const LinkSpec& spec)
        : m_name(spec.name),
          m_config(DrawnConfigOf(spec, kOutageStreams))
    {
    }

    void Attach(Ptr<UserDevice> user, Ptr<ServerApplication> server) override
    {
        ServiceLink& link = *m_links.emplace_back(std::make_unique<ServiceLink>(m_config));
        CaptureAt(link);
        ConnectBy([&link] { return link.Connect(); }, user, server);
    }

    std::array<std::uint64_t, kDirections> BytesSent() const override
    {
        return BytesOver(m_links);
    }

    std::vector<OutageRow> Outages() const override
    {
        return OutagesOf(m_name, m_config.outages);
    }

  private:
    std::string m_name;
    ServiceLinkConfig m_config;
    std::vector<std::unique_ptr<ServiceLink>> m_links; //!< one a user
};

/// An ideal link from each user to a gateway, and one from there to the server. Messages are stored and forwarded.
class CalibratedLinksThroughGateway final : public WholeMessageLink
{
  public:
    CalibratedLinksThroughGateway(const LinkSpec& access, const LinkSpec& backhaul)
        : m_names{access.name, backhaul.name},
          m_access(DrawnConfigOf(access, kOutageStreams)),
          m_backhaulConfig(DrawnConfigOf(backhaul, kBackhaulOutageStreams)),
          m_backhaul(m_backhaulConfig)
    {
    }

    void Attach(Ptr<UserDevice> user, Ptr<ServerApplication> server) override
    {
        ServiceLink& link = *m_links.emplace_back(std::make_unique<ServiceLink>(m_access));
        CaptureAt(m_backhaul);
        ConnectBy([this, &link] { return link.ConnectThrough(m_backhaul); }, user, server);
    }

    std::array<std::uint64_t, kDirections> BytesSent() const override
    {
        return BytesOver(m_links);
    }

    std::vector<OutageRow> Outages() const override
    {
        std::vector<OutageRow> rows = OutagesOf(m_names[0], m_access.outages);
        std::ranges::move(OutagesOf(m_names[1], m_backhaulConfig.outages), std::back_inserter(rows));
        return rows;
    }

    void Collect(RunRecords& records) const override
    {
        records.linkBytes[m_names[0]] = BytesSent();
        records.linkBytes[m_names[1]] = BytesOver(std::array{&m_backhaul});
    }

  private:
    std::array<std::string, 2> m_names;
    ServiceLinkConfig m_access;
    ServiceLinkConfig m_backhaulConfig;
    ServiceLink m_backhaul;
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

std::unique_ptr<Link>
Link::MakeThroughGateway(const LinkSpec& access,
                         const LinkSpec& backhaul,
                         const std::string& gateway,
                         const LinkEnds& ends,
                         Recorder& recorder)
{
    if (access.type == LinkType::Wired)
    {
        return std::make_unique<WiresThroughGateway>(access, backhaul, gateway, ends, recorder);
    }
    return std::make_unique<CalibratedLinksThroughGateway>(access, backhaul);
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

std::vector<OutageRow>
Link::Outages() const
{
    return {};
}

void
Link::Collect(RunRecords&) const
{
}

} // namespace splitllm
