// SPDX-License-Identifier: GPL-2.0-only

// One user, one server: LLaMA-7B on the edge, its LoRA adapter on the user's device.
//
//     device ---------- edge
//     adapter  1 Gbps   LLaMA-7B
//              100 us
//
// In scheme LInfer the adapter never leaves the device, so every layer sends its input down and its correction up. A
// token crosses the link twice a layer, and that, not the arithmetic, is most of its latency: try --delay=1ms.
//
// The model is a shape without weights ("shape mode"): tensors have their true sizes and no contents, so the program
// takes a fraction of a second and needs no model file.
//
//     ./ns3 run "split-llm-linfer --rate=100Mbps --tokens=16"

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

/// Prints the latency of a token and the components that it is the exact sum of, in milliseconds.
void
PrintToken(const TokenRecord& record)
{
    std::printf("%5u %11.3f", record.position, record.latency.GetSeconds() * 1e3);
    for (const Time& component : record.components)
    {
        std::printf(" %10.3f", component.GetSeconds() * 1e3);
    }
    const auto [up, down] = record.payloadBytes;
    std::printf(" %9llu %9llu\n", static_cast<unsigned long long>(up), static_cast<unsigned long long>(down));
}

/// Messages that arrived, by direction.
struct Arrived
{
    std::array<unsigned, kDirections> messages{};

    void Count(const MessageRecord& record)
    {
        if (record.received)
        {
            messages[static_cast<std::size_t>(record.direction)]++;
        }
    }
};

} // namespace

int
main(int argc, char* argv[])
{
    std::string rate = "1Gbps";
    std::string delay = "100us";
    std::string model = "llama-7b";
    uint32_t prompt = 20;
    uint32_t tokens = 8;

    CommandLine cmd(__FILE__);
    cmd.AddValue("rate", "Data rate of the link", rate);
    cmd.AddValue("delay", "One-way delay of the link", delay);
    cmd.AddValue("model", "Shape of the model: llama-7b, llama-2-13b, opt-13b, ...", model);
    cmd.AddValue("prompt", "Tokens of the prompt", prompt);
    cmd.AddValue("tokens", "Tokens to generate", tokens);
    cmd.Parse(argc, argv);

    // The network: two nodes, a link between them, IP on both.
    NodeContainer nodes(2);
    PointToPointHelper link;
    link.SetDeviceAttribute("DataRate", StringValue(rate));
    link.SetChannelAttribute("Delay", StringValue(delay));
    NetDeviceContainer devices = link.Install(nodes);
    InternetStackHelper().Install(nodes);
    Ipv4InterfaceContainer interfaces = Ipv4AddressHelper("10.0.0.0", "255.255.255.0").Assign(devices);

    Arrived arrived;
    try
    {
        // The model, and who computes which part of it on what.
        SplitLlmHelper llm;
        llm.SetScheme("linfer");
        llm.SetShape(model, "fp16");
        llm.SetAdapterShape(16, "fp16");
        llm.InstallEdgeServer(nodes.Get(1), "a800-80gb");
        Ptr<UserDevice> user =
            llm.InstallUserDevice(nodes.Get(0), "device-13tflops", InetSocketAddress(interfaces.GetAddress(1), 9000));

        // What the user asks for. Without weights the ids mean nothing, only their number counts.
        user->AddRequest({.index = 0, .prompt = std::vector<uint32_t>(prompt, 1), .newTokens = tokens});

        // What to watch: each token, and each message that reaches one of the two applications.
        Config::ConnectWithoutContext("/NodeList/*/ApplicationList/*/$splitllm::UserDevice/Token",
                                      MakeCallback(&PrintToken));
        Config::ConnectWithoutContext("/NodeList/*/ApplicationList/*/$splitllm::SplitLlmApplication/Message",
                                      MakeCallback(&Arrived::Count, &arrived));

        std::printf("%5s %11s", "token", "latency ms");
        for (std::size_t i = 0; i < kComponents; i++)
        {
            std::printf(" %10s", NameOf(static_cast<Component>(i)));
        }
        std::printf(" %9s %9s\n", "bytes up", "down");
        Simulator::Run();
    }
    catch (const std::exception& error)
    {
        // A name that nobody knows, or a model that does not fit into a node's memory.
        std::cerr << error.what() << '\n';
        Simulator::Destroy();
        return 1;
    }
    std::printf("%u messages up, %u down\n", arrived.messages[0], arrived.messages[1]);
    Simulator::Destroy();
    return 0;
}
