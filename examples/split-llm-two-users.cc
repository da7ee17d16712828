// SPDX-License-Identifier: GPL-2.0-only

// Several users share one edge server, which computes for one of them at a time.
//
//     device 0 ----------+
//                        edge
//     device 1 ----------+
//
// Each has a link of its own, so what they share is the server's compute device. Where a user's operation finds it
// busy, the wait is the component "queue" of that token's latency. Compare --users=1, 2 and 4.
//
//     ./ns3 run "split-llm-two-users --users=4"

#include "ns3/core-module.h"
#include "ns3/internet-module.h"
#include "ns3/network-module.h"
#include "ns3/point-to-point-module.h"
#include "ns3/split-llm-module.h"

#include <cstdio>
#include <iostream>
#include <vector>

using namespace ns3;
using namespace splitllm;

namespace
{

/// Prints when a token came, whose it is, and how much of its latency was waiting for a compute device.
void
PrintToken(const TokenRecord& record)
{
    const auto milliseconds = [&record](Component component) {
        return record.components[static_cast<std::size_t>(component)].GetSeconds() * 1e3;
    };
    std::printf("%11.3f %5u %6u %11.3f %10.3f %10.3f %10.3f\n",
                (record.start + record.latency).GetSeconds() * 1e3,
                record.session,
                record.position,
                record.latency.GetSeconds() * 1e3,
                milliseconds(Component::Base),
                milliseconds(Component::Network),
                milliseconds(Component::Queue));
}

} // namespace

int
main(int argc, char* argv[])
{
    uint32_t users = 2;
    uint32_t tokens = 6;
    std::string rate = "1Gbps";

    CommandLine cmd(__FILE__);
    cmd.AddValue("users", "Number of users", users);
    cmd.AddValue("tokens", "Tokens that each of them asks for", tokens);
    cmd.AddValue("rate", "Data rate of every user's link", rate);
    cmd.Parse(argc, argv);

    Ptr<Node> edge = CreateObject<Node>();
    NodeContainer devices(users);
    InternetStackHelper internet;
    internet.Install(edge);
    internet.Install(devices);

    PointToPointHelper link;
    link.SetDeviceAttribute("DataRate", StringValue(rate));
    link.SetChannelAttribute("Delay", StringValue("100us"));
    Ipv4AddressHelper addresses("10.0.0.0", "255.255.255.0");

    try
    {
        // The users run parts of the same model, so one helper installs them all.
        SplitLlmHelper llm;
        llm.SetScheme("linfer");
        llm.SetShape("llama-7b", "fp16");
        llm.SetAdapterShape(16, "fp16");
        llm.InstallEdgeServer(edge, "a800-80gb");

        for (uint32_t i = 0; i < users; i++)
        {
            Ipv4InterfaceContainer ends = addresses.Assign(link.Install(devices.Get(i), edge));
            addresses.NewNetwork();
            Ptr<UserDevice> user =
                llm.InstallUserDevice(devices.Get(i), "device-13tflops", InetSocketAddress(ends.GetAddress(1), 9000));
            user->AddRequest({.index = i, .prompt = std::vector<uint32_t>(20, 1), .newTokens = tokens});
            user->SetStartTime(MilliSeconds(50) * i);
        }
        Config::ConnectWithoutContext("/NodeList/*/ApplicationList/*/$splitllm::UserDevice/Token",
                                      MakeCallback(&PrintToken));

        std::printf("%11s %5s %6s %11s %10s %10s %10s\n",
                    "time ms",
                    "user",
                    "token",
                    "latency ms",
                    "base",
                    "network",
                    "queue");
        Simulator::Run();
    }
    catch (const std::exception& error)
    {
        std::cerr << error.what() << '\n';
        Simulator::Destroy();
        return 1;
    }
    Simulator::Destroy();
    return 0;
}
