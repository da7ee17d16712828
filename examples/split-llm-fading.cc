// SPDX-License-Identifier: GPL-2.0-only

// A fading channel in an ns-3 program of one's own: TCP over BlockFadingNetDevices, and every attempt to send a frame.
//
// A file crosses a channel of 10 MHz whose SNR is 10 on average. The device sends at a fixed rate, repeats what an outage
// has hit, and gives up after some attempts; TCP brings what was given up once more.
//
//     ./ns3 run "split-llm-fading --rate=26Mbps --attempts=3"

#include "ns3/applications-module.h"
#include "ns3/core-module.h"
#include "ns3/internet-module.h"
#include "ns3/network-module.h"
#include "ns3/split-llm-module.h"

#include <cstdint>
#include <iostream>
#include <string>

using namespace ns3;
using namespace splitllm;

namespace
{

/// What became of the attempts of one device.
struct Counts
{
    void Add(const AttemptRecord& record)
    {
        attempts++;
        failed += record.success ? 0 : 1;
        frames += record.number == 1 ? 1 : 0;
        busy += record.end - record.start;
    }

    std::uint64_t attempts = 0;
    std::uint64_t failed = 0;
    std::uint64_t frames = 0;
    Time busy;
};

} // namespace

int
main(int argc, char* argv[])
{
    std::string rate = "20Mbps";
    std::uint32_t attempts = 3;
    std::uint64_t bytes = 5'000'000;
    CommandLine cmd(__FILE__);
    cmd.AddValue("rate", "at which frames are sent", rate);
    cmd.AddValue("attempts", "at a frame, before the device gives up", attempts);
    cmd.AddValue("bytes", "of the file", bytes);
    cmd.Parse(argc, argv);

    NodeContainer nodes(2);
    InternetStackHelper().Install(nodes);

    BlockFadingHelper fading;
    fading.SetChannelAttribute("Bandwidth", DoubleValue(10e6));
    fading.SetChannelAttribute("MeanSnr", DoubleValue(10.0));
    fading.SetChannelAttribute("Delay", TimeValue(MicroSeconds(1)));
    fading.SetDeviceAttribute("Rate", StringValue(rate));
    fading.SetDeviceAttribute("Attempts", UintegerValue(attempts));
    fading.SetQueue("ns3::DropTailQueue<Packet>", "MaxSize", StringValue("100p"));
    const NetDeviceContainer devices = fading.Install(nodes.Get(0), nodes.Get(1));
    BlockFadingHelper::AssignStreams(devices, 1);
    const Ipv4InterfaceContainer interfaces = Ipv4AddressHelper("10.0.0.0", "255.255.255.0").Assign(devices);

    Counts counts;
    devices.Get(0)->TraceConnectWithoutContext("Attempt", MakeCallback(&Counts::Add, &counts));

    const InetSocketAddress server(interfaces.GetAddress(1), 9);
    PacketSinkHelper sink("ns3::TcpSocketFactory", server);
    const ApplicationContainer sinks = sink.Install(nodes.Get(1));
    Time arrived;
    sinks.Get(0)->TraceConnectWithoutContext("Rx", Callback<void, Ptr<const Packet>, const Address&>(
                                                       [&arrived](Ptr<const Packet>, const Address&) {
                                                           arrived = Simulator::Now();
                                                       }));
    BulkSendHelper source("ns3::TcpSocketFactory", server);
    source.SetAttribute("MaxBytes", UintegerValue(bytes));
    source.Install(nodes.Get(0));

    Simulator::Run();
    const double failed = static_cast<double>(counts.failed) / static_cast<double>(counts.attempts);
    std::cout << DynamicCast<PacketSink>(sinks.Get(0))->GetTotalRx() << " bytes arrived within " << arrived.As(Time::S)
              << ": " << 8e-6 * static_cast<double>(bytes) / arrived.GetSeconds() << " Mbit/s\n"
              << counts.frames << " frames in " << counts.attempts << " attempts, of which "
              << 100.0 * failed << " % failed; the channel was busy for " << counts.busy.As(Time::S) << "\n";
    Simulator::Destroy();
    return 0;
}
