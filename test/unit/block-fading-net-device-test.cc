// SPDX-License-Identifier: GPL-2.0-only
#include "net/block-fading-net-device.h"

#include "block-fading-helper.h"
#include "net/block-fading-channel.h"
#include "support/catch.h"

#include "ns3/double.h"
#include "ns3/node-container.h"
#include "ns3/pointer.h"
#include "ns3/queue-size.h"
#include "ns3/simulator.h"
#include "ns3/uinteger.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

using namespace splitllm;
using namespace ns3;

namespace
{

constexpr std::uint16_t kIpv4 = 0x0800;

/// Two nodes on a channel of 10 MHz and an SNR of 10, and what their devices report.
struct Pair
{
    explicit Pair(BlockFadingHelper& helper)
    {
        nodes.Create(2);
        helper.SetDeviceAttribute("Rate", DataRateValue(DataRate("20Mbps"))); // fails with probability 1 - e^-0.3
        devices = helper.Install(nodes.Get(0), nodes.Get(1));
        CHECK(BlockFadingHelper::AssignStreams(devices, 10) == 2);
        for (std::uint32_t end = 0; end < 2; end++)
        {
            devices.Get(end)->SetReceiveCallback(NetDevice::ReceiveCallback(
                [this, end](Ptr<NetDevice>, Ptr<const Packet> packet, std::uint16_t protocol, const Address& from) {
                    CHECK(from == devices.Get(1 - end)->GetAddress());
                    received[end].push_back({Simulator::Now(), packet->GetSize(), protocol});
                    return true;
                }));
        }
        devices.Get(0)->TraceConnectWithoutContext(
            "Attempt", Callback<void, const AttemptRecord&>([this](const AttemptRecord& record) {
                attempts.push_back(record);
            }));
        const auto counts = [this](const char* trace, std::uint32_t& count) {
            devices.Get(0)->TraceConnectWithoutContext(
                trace, Callback<void, Ptr<const Packet>>([&count](Ptr<const Packet>) { count++; }));
        };
        for (std::uint32_t end = 0; end < 2; end++)
        {
            devices.Get(end)->TraceConnectWithoutContext(
                "PromiscSniffer", Callback<void, Ptr<const Packet>>([this, end](Ptr<const Packet> packet) {
                    captured[end].emplace_back(Simulator::Now(), packet->GetSize());
                }));
        }
        counts("MacTxDrop", queueDrops);
        counts("PhyTxDrop", lost);
    }

    ~Pair()
    {
        Simulator::Destroy();
    }

    bool Send(std::uint32_t end, std::uint32_t bytes, std::uint16_t protocol = kIpv4)
    {
        return devices.Get(end)->Send(Create<Packet>(bytes), devices.Get(1 - end)->GetAddress(), protocol);
    }

    struct Reception
    {
        Time time;
        std::uint32_t bytes;
        std::uint16_t protocol;
    };

    NodeContainer nodes;
    NetDeviceContainer devices;
    std::array<std::vector<Reception>, 2> received;
    std::array<std::vector<std::pair<Time, std::uint32_t>>, 2> captured; //!< by the sniffer of each end
    std::vector<AttemptRecord> attempts;
    std::uint32_t queueDrops = 0;
    std::uint32_t lost = 0;
};

} // namespace

TEST_CASE("Packets take their attempts and the delay, with a header of two bytes", "[fading]")
{
    BlockFadingHelper helper;
    helper.SetDeviceAttribute("Attempts", UintegerValue(1000));
    helper.SetDeviceAttribute("Feedback", TimeValue(MicroSeconds(9)));
    helper.SetChannelAttribute("Delay", TimeValue(MilliSeconds(3)));
    Pair pair(helper);
    constexpr std::uint32_t kPackets = 60;
    for (std::uint32_t i = 0; i < kPackets; i++)
    {
        CHECK(pair.Send(0, 248, i % 2 == 0 ? kIpv4 : 0x86DD)); // 100 us with its header
    }
    CHECK(pair.Send(1, 1));
    Simulator::Run();
    REQUIRE(pair.received[1].size() == kPackets);
    CHECK(pair.received[0].size() == 1);
    CHECK(pair.lost == 0);
    std::size_t next = 0;
    for (std::size_t i = 0; i < pair.attempts.size(); i++)
    {
        const AttemptRecord& record = pair.attempts[i];
        CHECK(record.bytes == 250);
        CHECK(record.start == static_cast<std::int64_t>(i) * MicroSeconds(109));
        CHECK(record.end == record.start + MicroSeconds(100));
        if (record.success)
        {
            CHECK(pair.received[1][next].time == record.end + MilliSeconds(3));
            CHECK(pair.received[1][next].bytes == 248);
            CHECK(pair.received[1][next].protocol == (next % 2 == 0 ? kIpv4 : 0x86DD));
            next++;
        }
    }
    CHECK(pair.attempts.size() > kPackets);
}

TEST_CASE("A capture has each frame once where it is sent, when its attempts begin, and once where it comes across",
          "[fading]")
{
    BlockFadingHelper helper;
    helper.SetDeviceAttribute("Attempts", UintegerValue(2));
    helper.SetChannelAttribute("Delay", TimeValue(MilliSeconds(3)));
    Pair pair(helper);
    for (std::uint32_t i = 0; i < 60; i++)
    {
        CHECK(pair.Send(0, 248));
    }
    Simulator::Run();
    std::vector<std::pair<Time, std::uint32_t>> begun;
    std::vector<std::pair<Time, std::uint32_t>> arrived;
    for (const AttemptRecord& attempt : pair.attempts)
    {
        if (attempt.number == 1)
        {
            begun.emplace_back(attempt.start, 250);
        }
        if (attempt.success)
        {
            arrived.emplace_back(attempt.end + MilliSeconds(3), 250);
        }
    }
    CHECK((begun.size() == 60 && arrived.size() < 60 && pair.attempts.size() > 60));
    CHECK((pair.captured[0] == begun));
    CHECK((pair.captured[1] == arrived));
}

TEST_CASE("After N attempts a packet is dropped; the mean of the attempts is that of a truncated geometric", "[fading]")
{
    BlockFadingHelper helper;
    helper.SetDeviceAttribute("Attempts", UintegerValue(2));
    helper.SetQueue("ns3::DropTailQueue<Packet>", "MaxSize", QueueSizeValue(QueueSize("100000p")));
    Pair pair(helper);
    constexpr std::uint32_t kPackets = 40'000;
    for (std::uint32_t i = 0; i < kPackets; i++)
    {
        pair.Send(0, 48);
    }
    Simulator::Run();
    const double outage = -std::expm1(-0.3);
    const double loss = outage * outage;
    CHECK(pair.received[1].size() + pair.lost == kPackets);
    CHECK(std::abs(static_cast<double>(pair.lost) / kPackets - loss) < 4.0 * std::sqrt(loss * (1.0 - loss) / kPackets));
    // Attempts are 1, or 2 with probability Po.
    CHECK(std::abs(static_cast<double>(pair.attempts.size()) / kPackets - (1.0 + outage)) <
          4.0 * std::sqrt(outage * (1.0 - outage) / kPackets));
}

TEST_CASE("A full queue drops at the tail", "[fading]")
{
    BlockFadingHelper helper;
    helper.SetQueue("ns3::DropTailQueue<Packet>", "MaxSize", QueueSizeValue(QueueSize("3p")));
    Pair pair(helper);
    for (std::uint32_t i = 0; i < 6; i++)
    {
        CHECK(pair.Send(0, 100 + i) == (i < 4)); // one under way and three that wait
    }
    CHECK(pair.queueDrops == 2);
    Simulator::Run();
    REQUIRE(pair.received[1].size() == 4);
    CHECK(pair.received[1][3].bytes == 103);
}

TEST_CASE("Fading channels have a bandwidth and an SNR above 0", "[fading]")
{
    const auto channel = CreateObject<BlockFadingChannel>();
    CHECK_FALSE(channel->SetAttributeFailSafe("Bandwidth", DoubleValue(0.0)));
    CHECK_FALSE(channel->SetAttributeFailSafe("MeanSnr", DoubleValue(-1.0)));
    CHECK_FALSE(channel->SetAttributeFailSafe("Coherence", TimeValue(NanoSeconds(-1))));
    CHECK_FALSE(CreateObject<BlockFadingNetDevice>()->SetAttributeFailSafe("Attempts", UintegerValue(0)));
    Simulator::Destroy();
}
