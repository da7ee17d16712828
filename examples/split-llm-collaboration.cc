// SPDX-License-Identifier: GPL-2.0-only

// CE-CoLLM: an edge that answers by itself where it can, and asks a cloud where it cannot, which dies and comes back.
//
//     edge ------------ cloud
//     layers 1 to 16    layers 17 to 32 of LLaMA-7B
//     and two exits
//
// Which tokens an exit is sure of is given here: a shape has no numbers to be sure by. While the cloud is down, the last
// exit's token stands in its place. The edge notices that its connections closed, tries again after --retry, and uploads
// what the cloud has forgotten.
//
//     ./ns3 run "split-llm-collaboration --restart=300ms --tokens=96"

#include "llm/exits.h"
#include "policy/exit-policy.h"
#include "schemes/ce-collm/ce-collm-options.h"

#include "ns3/core-module.h"
#include "ns3/internet-module.h"
#include "ns3/network-module.h"
#include "ns3/point-to-point-module.h"
#include "ns3/split-llm-module.h"

#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

using namespace ns3;
using namespace splitllm;

namespace
{

/// Prints the latency of the tokens, and where each came from, which is known just before it is there.
struct Tokens
{
    ExitRecord newest;

    void OnExit(const ExitRecord& record)
    {
        newest = record;
    }

    void OnToken(const TokenRecord& record)
    {
        const double end = (record.start + record.latency).GetSeconds() * 1e3;
        const std::string layer = newest.source == TokenSource::Cloud ? "" : " after layer " + std::to_string(newest.layer);
        const auto up = static_cast<unsigned long long>(record.payloadBytes.front());
        std::printf("%9.3f %5u %10.3f %9llu  %s%s\n",
                    end,
                    record.position,
                    record.latency.GetSeconds() * 1e3,
                    up,
                    NameOf(newest.source),
                    layer.c_str());
    }
};

/// Prints a stretch during which the edge went on alone, when it is over.
void
PrintStandalone(const StandaloneRecord& record)
{
    std::printf("%9.3f       alone since %.3f ms: %s\n",
                record.end.GetSeconds() * 1e3,
                record.start.GetSeconds() * 1e3,
                record.reason.c_str());
}

} // namespace

int
main(int argc, char* argv[])
{
    std::string rate = "100Mbps";
    Time crash = MilliSeconds(150);
    Time restart = MilliSeconds(200);
    Time retry = MilliSeconds(60);
    uint32_t tokens = 48;

    CommandLine cmd(__FILE__);
    cmd.AddValue("rate", "Data rate of the link", rate);
    cmd.AddValue("crash", "When the cloud dies", crash);
    cmd.AddValue("restart", "When it is back", restart);
    cmd.AddValue("retry", "After what time the edge tries again", retry);
    cmd.AddValue("tokens", "Tokens to generate", tokens);
    cmd.Parse(argc, argv);

    NodeContainer nodes(2);
    PointToPointHelper link;
    link.SetDeviceAttribute("DataRate", StringValue(rate));
    link.SetChannelAttribute("Delay", StringValue("5ms"));
    NetDeviceContainer devices = link.Install(nodes);
    InternetStackHelper().Install(nodes);
    Ipv4InterfaceContainer interfaces = Ipv4AddressHelper("10.0.0.0", "255.255.255.0").Assign(devices);

    Tokens printed;
    try
    {
        // Exits after layers 8 and 16: of five tokens the first has one, the one after layer 16 has two.
        const auto exits = std::make_shared<Exits>();
        exits->layers = {8, 16};
        CeCollmOptions options;
        options.policy = ExitAsListed({0, 8, 16, 0, 16});
        options.uploadLayer = 16;
        options.timeout = MilliSeconds(150);
        options.retry = retry;

        SplitLlmHelper llm;
        llm.SetScheme("ce-collm");
        llm.SetShape("llama-7b", "fp16");
        llm.SetCeCollm(options, exits);
        Ptr<Cloud> cloud = llm.InstallCloud(nodes.Get(1), "a100-80gb");
        Ptr<UserDevice> edge =
            llm.InstallUserDevice(nodes.Get(0), "a100-80gb", InetSocketAddress(interfaces.GetAddress(1), 9000));
        edge->AddRequest({.index = 0, .prompt = std::vector<uint32_t>(20, 1), .newTokens = tokens});
        edge->TraceConnectWithoutContext("Exit", MakeCallback(&Tokens::OnExit, &printed));
        edge->TraceConnectWithoutContext("Token", MakeCallback(&Tokens::OnToken, &printed));
        edge->TraceConnectWithoutContext("Standalone", MakeCallback(&PrintStandalone));

        Simulator::Schedule(crash, &Cloud::Crash, cloud);
        Simulator::Schedule(restart, &Cloud::Restart, cloud);

        std::printf("%9s %5s %10s %9s  %s\n", "time ms", "token", "latency ms", "bytes up", "from");
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
