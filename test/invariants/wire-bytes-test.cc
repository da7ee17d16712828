// SPDX-License-Identifier: GPL-2.0-only

// Invariant 5: payload + message headers + transport overhead is what the network devices count.

#include "block-fading-helper.h"
#include "net/block-fading-net-device.h"
#include "net/journey-log.h"
#include "split-llm-helper.h"
#include "support/catch.h"
#include "support/frame-bytes.h"
#include "support/tcp-pair.h"

#include "ns3/ipv4-header.h"
#include "ns3/ipv4-l3-protocol.h"
#include "ns3/simulation-singleton.h"
#include "ns3/tcp-header.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>

using namespace splitllm;
using namespace ns3;
using test::Endpoint;
using test::PatternBytes;
using test::TcpPair;

namespace
{

constexpr std::uint64_t kPppBytes = 2;

/// Stretches of a sequence space.
class Coverage
{
  public:
    /// Adds [\p first, \p last). \return how much of it was new
    std::uint64_t Add(std::uint64_t first, std::uint64_t last)
    {
        std::uint64_t fresh = last - first;
        auto it = m_stretches.upper_bound(first);
        if (it != m_stretches.begin() && std::prev(it)->second >= first)
        {
            --it;
        }
        std::uint64_t low = first;
        std::uint64_t high = last;
        while (it != m_stretches.end() && it->first <= last)
        {
            const std::uint64_t from = std::max(it->first, first);
            const std::uint64_t to = std::min(it->second, last);
            fresh -= to > from ? to - from : 0;
            low = std::min(low, it->first);
            high = std::max(high, it->second);
            it = m_stretches.erase(it);
        }
        m_stretches[low] = high;
        return fresh;
    }

  private:
    std::map<std::uint64_t, std::uint64_t> m_stretches;
};

/// What leaves one node: counted as bytes at its device, and once more from the headers of its IP packets.
class WireMeter
{
  public:
    WireMeter(Ptr<Node> node, Ptr<NetDevice> device)
    {
        device->TraceConnectWithoutContext(
            "PhyTxEnd", Callback<void, Ptr<const Packet>>([this](Ptr<const Packet> packet) {
                deviceBytes += packet->GetSize();
            }));
        if (DynamicCast<BlockFadingNetDevice>(device))
        {
            device->TraceConnectWithoutContext(
                "Attempt", Callback<void, const AttemptRecord&>([this](const AttemptRecord& record) {
                    repeatedBytes += record.number > 1 ? record.bytes : 0;
                }));
        }
        node->GetObject<Ipv4L3Protocol>()->TraceConnectWithoutContext(
            "Tx",
            Callback<void, Ptr<const Packet>, Ptr<Ipv4>, std::uint32_t>(
                [this](Ptr<const Packet> packet, Ptr<Ipv4>, std::uint32_t) { Count(*packet); }));
    }

    WireMeter(const WireMeter&) = delete;
    WireMeter& operator=(const WireMeter&) = delete;

    std::uint64_t deviceBytes = 0;
    std::uint64_t repeatedBytes = 0; //!< by a device that sends a frame more than once
    std::uint64_t packets = 0;
    std::uint64_t dataSegments = 0;
    std::uint64_t pureAcknowledgements = 0;
    std::uint64_t headerBytes = 0;        //!< PPP, IPv4 and TCP, options included
    std::uint64_t streamBytes = 0;        //!< of TCP payload, each counted once
    std::uint64_t retransmittedBytes = 0; //!< of TCP payload
    std::uint32_t largestPacket = 0;      //!< IPv4 and up

  private:
    void Count(const Packet& packet)
    {
        const Ptr<Packet> copy = packet.Copy();
        largestPacket = std::max(largestPacket, copy->GetSize());
        Ipv4Header ip;
        headerBytes += kPppBytes + copy->RemoveHeader(ip);
        TcpHeader tcp;
        headerBytes += copy->RemoveHeader(tcp);
        packets++;
        const std::uint64_t payload = copy->GetSize();
        const bool connects = (tcp.GetFlags() & TcpHeader::SYN) != 0;
        const bool closes = (tcp.GetFlags() & TcpHeader::FIN) != 0;
        if (payload > 0)
        {
            dataSegments++;
            const std::uint64_t first = tcp.GetSequenceNumber().GetValue();
            const std::uint64_t fresh = m_sent.Add(first, first + payload);
            streamBytes += fresh;
            retransmittedBytes += payload - fresh;
        }
        else if (!connects && !closes)
        {
            pureAcknowledgements++;
        }
    }

    Coverage m_sent;
};

void
CheckBytes(const WireMeter& meter, std::uint64_t messageHeaders, std::uint64_t messagePayload)
{
    CHECK(meter.streamBytes == messageHeaders + messagePayload);
    CHECK(meter.deviceBytes == messagePayload + messageHeaders + meter.headerBytes + meter.retransmittedBytes +
                                   meter.repeatedBytes);
    CHECK(meter.largestPacket <= 1500); // nothing is fragmented
}

/// A LLaMA-7B LInfer session of three tokens, byte for byte. \param lossy whether TCP has to repeat something
void
CheckSession(TcpPair& pair, bool lossy)
{
    const WireMeter up(pair.nodes.Get(0), pair.devices.Get(0));
    const WireMeter down(pair.nodes.Get(1), pair.devices.Get(1));

    SplitLlmHelper llm;
    llm.SetShape("llama-7b", "fp16");
    llm.SetAdapterShape(16, "fp16");
    llm.SetScheme("linfer");
    const auto edge = llm.InstallEdgeServer(pair.nodes.Get(1), "a800-80gb");
    const auto user = llm.InstallUserDevice(pair.nodes.Get(0), "device-13tflops", pair.ServerAddress());
    user->AddRequest({.index = 0, .prompt = {1, 2, 3, 4, 5, 6, 7}, .newTokens = 3});
    std::map<Direction, std::uint64_t> headers;
    std::map<Direction, std::uint64_t> payload;
    std::uint64_t sent = 0;
    std::uint64_t received = 0;
    for (const Ptr<SplitLlmApplication>& application :
         {Ptr<SplitLlmApplication>(edge), Ptr<SplitLlmApplication>(user)})
    {
        application->TraceConnectWithoutContext(
            "Message", Callback<void, const MessageRecord&>([&](const MessageRecord& record) {
                (record.received ? received : sent)++;
                if (!record.received)
                {
                    headers[record.direction] += record.headerBytes;
                    payload[record.direction] += record.payloadBytes;
                }
            }));
    }
    Simulator::Run();
    CHECK(user->RequestsFinished() == 1);
    CHECK(sent == 3 * 66 + 1); // 32 layers there and back, h0, hL; and the end
    CHECK(received == sent);
    CHECK(SimulationSingleton<JourneyLog>::Get()->UnderWay() == 0);
    // A row is 4096 fp16 values, its deltas three times that. 7 rows, then one at a time.
    CHECK(payload[Direction::Up] == (7 + 1 + 1) * (8192 + 32 * 3 * 8192));
    CHECK(payload[Direction::Down] == (7 + 1 + 1) * 32 * 8192 + 3 * 8192);
    CheckBytes(up, headers[Direction::Up], payload[Direction::Up]);
    CheckBytes(down, headers[Direction::Down], payload[Direction::Down]);
    CHECK((up.retransmittedBytes + down.retransmittedBytes > 0) == lossy);
}

} // namespace

TEST_CASE("Without loss, device bytes are those of a calculation by hand", "[invariant-5]")
{
    TcpPair pair{DataRate("1Gbps"), MicroSeconds(100)};
    const WireMeter up(pair.nodes.Get(0), pair.devices.Get(0));
    const WireMeter down(pair.nodes.Get(1), pair.devices.Get(1));
    pair.Listen();
    Endpoint& client = pair.Connect();
    std::uint64_t upBytes = 0;
    std::uint64_t segments = 0;
    std::uint64_t messages = 0;
    for (const std::uint64_t size : {0, 1, 1412, 1413, 8192, 24'576, 100'000})
    {
        upBytes += size;
        segments += (kHeaderBytes + size + 1447) / 1448;
        messages++;
        // One after the other, so that no segment holds parts of two.
        Simulator::Schedule(Seconds(messages), [&client, size] { client.Send(0, Payload::Of(PatternBytes(size))); });
    }
    Simulator::Run();
    CheckBytes(up, messages * kHeaderBytes, upBytes);
    CheckBytes(down, 0, 0);
    CHECK(up.retransmittedBytes == 0);
    CHECK(up.dataSegments == segments);
    CHECK(down.pureAcknowledgements == segments); // each at once
    // PPP, IPv4, TCP and its options: always timestamps (10 bytes, padded to 12); SYN and SYN+ACK further offer window
    // scaling (3) and SACK (2), together padded to 16.
    const std::uint64_t segmentOverhead = 2 + 20 + 20 + 12;
    const std::uint64_t synchronise = 2 + 20 + 20 + 16;
    CHECK(up.deviceBytes == upBytes + messages * kHeaderBytes + (segments + 1) * segmentOverhead + synchronise);
    CHECK(down.deviceBytes == segments * segmentOverhead + synchronise);
}

TEST_CASE("Payload, headers and transport overhead sum to the device's bytes, without loss", "[invariant-5]")
{
    TcpPair pair{DataRate("1Gbps"), MicroSeconds(100)};
    CheckSession(pair, false);
}

TEST_CASE("Payload, headers and transport overhead sum to the device's bytes, with loss", "[invariant-5]")
{
    TcpPair pair{DataRate("1Gbps"), MicroSeconds(100)};
    pair.Lose(0.01);
    CheckSession(pair, true);
}

TEST_CASE("Payload, headers, transport overhead and repeated frames sum to a fading device's bytes", "[invariant-5]")
{
    // One in ten attempts fails. Ten attempts lose nothing that TCP would see, two lose one frame in a hundred.
    for (const std::uint32_t attempts : {10, 2})
    {
        TcpPair pair{[attempts](const NodeContainer& nodes) {
            BlockFadingHelper helper;
            helper.SetChannelAttribute("MeanSnr", DoubleValue(-1.0 / std::log(0.9)));
            helper.SetChannelAttribute("Bandwidth", DoubleValue(100e6));
            helper.SetDeviceAttribute("Rate", DataRateValue(DataRate("100Mbps"))); // the threshold is 1
            helper.SetDeviceAttribute("Attempts", UintegerValue(attempts));
            helper.SetQueue("ns3::DropTailQueue<Packet>", "MaxSize", QueueSizeValue(QueueSize("64MB")));
            const NetDeviceContainer devices = helper.Install(nodes.Get(0), nodes.Get(1));
            helper.AssignStreams(devices, 50);
            return devices;
        }};
        CheckSession(pair, attempts == 2);
    }
}
