// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_SPLIT_RUN_H
#define SPLITLLM_TEST_SPLIT_RUN_H

#include "support/monolithic.h"

#include "net/message-port.h"
#include "schemes/scheme.h"
#include "split-llm-helper.h"

#include "ns3/inet-socket-address.h"
#include "ns3/internet-stack-helper.h"
#include "ns3/ipv4-address-generator.h"
#include "ns3/ipv4-address-helper.h"
#include "ns3/node-container.h"
#include "ns3/point-to-point-helper.h"
#include "ns3/simulator.h"
#include "ns3/string.h"

#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace splitllm::test
{

/**
 * One user and one edge server over a point-to-point link, or over a pair of ports that the test brings. Takes the
 * simulation down when it goes out of scope.
 */
class SplitRun
{
  public:
    using Ports = std::pair<std::unique_ptr<MessagePort>, std::unique_ptr<MessagePort>>;

    /// \param llm with model, adapter and scheme set
    explicit SplitRun(SplitLlmHelper llm, Ports ports = {})
        : m_llm(std::move(llm))
    {
        using namespace ns3;
        NodeContainer nodes;
        nodes.Create(2);
        Address server;
        if (!ports.first)
        {
            PointToPointHelper link;
            link.SetDeviceAttribute("DataRate", StringValue("1Gbps"));
            link.SetChannelAttribute("Delay", StringValue("100us"));
            const NetDeviceContainer devices = link.Install(nodes);
            InternetStackHelper internet;
            internet.Install(nodes);
            Ipv4AddressHelper addresses("10.0.0.0", "255.255.255.252");
            server = InetSocketAddress(addresses.Assign(devices).GetAddress(1), 9000);
        }
        else
        {
            InternetStackHelper().Install(nodes.Get(1));
        }
        if (m_llm.GetScheme()->HasServer())
        {
            m_edge = m_llm.InstallEdgeServer(nodes.Get(1), "a800-80gb");
            Watch(m_edge);
        }
        m_user = m_llm.InstallUserDevice(nodes.Get(0), "device-13tflops", server);
        Watch(m_user);
        if (ports.first)
        {
            m_edge->Attach(std::move(ports.second), Api::Inference);
            m_user->SetConnector([port = std::make_shared<std::unique_ptr<MessagePort>>(std::move(ports.first))](Api) {
                return std::move(*port);
            });
        }
        m_user->TraceConnectWithoutContext(
            "Token", Callback<void, const TokenRecord&>([this](const TokenRecord& record) { tokens.push_back(record); }));
        m_user->TraceConnectWithoutContext(
            "Searched",
            Callback<void, const SearchRecord&>([this](const SearchRecord& record) { searched.push_back(record); }));
    }

    ~SplitRun()
    {
        m_user = nullptr;
        m_edge = nullptr;
        ns3::Simulator::Destroy();
        ns3::Ipv4AddressGenerator::Reset();
    }

    SplitRun(const SplitRun&) = delete;
    SplitRun& operator=(const SplitRun&) = delete;

    /// Asks one prompt and returns what came back.
    Answer Ask(const std::vector<TokenId>& prompt, std::uint32_t newTokens, const std::vector<TokenId>& stop = {})
    {
        m_user->AddRequest({.index = 0, .prompt = prompt, .newTokens = newTokens, .stop = stop});
        ns3::Simulator::Run();
        Answer answer;
        for (const TokenRecord& token : tokens)
        {
            answer.tokens.push_back(token.token);
        }
        answer.logits = logits;
        return answer;
    }

    std::vector<TokenRecord> tokens;
    std::vector<SearchRecord> searched;
    std::vector<DecisionRecord> decisions;
    std::vector<std::vector<float>> logits;
    std::vector<std::string> lost; //!< reasons of sessions that ended early
    std::vector<MessageRecord> messages; //!< as sent

  private:
    void Watch(ns3::Ptr<SplitLlmApplication> application)
    {
        using namespace ns3;
        application->TraceConnectWithoutContext(
            "Logits", Callback<void, const LogitsRecord&>([this](const LogitsRecord& record) {
                logits.emplace_back(record.values, record.values + record.vocab);
            }));
        application->TraceConnectWithoutContext(
            "Decision",
            Callback<void, const DecisionRecord&>([this](const DecisionRecord& record) { decisions.push_back(record); }));
        application->TraceConnectWithoutContext(
            "Message", Callback<void, const MessageRecord&>([this](const MessageRecord& record) {
                if (!record.received)
                {
                    messages.push_back(record);
                }
            }));
        application->TraceConnectWithoutContext(
            "SessionEnd", Callback<void, std::uint32_t, const std::string&>([this](std::uint32_t, const std::string& reason) {
                lost.push_back(reason);
            }));
    }

    SplitLlmHelper m_llm;
    ns3::Ptr<EdgeServer> m_edge;
    ns3::Ptr<UserDevice> m_user;
};

} // namespace splitllm::test

#endif // SPLITLLM_TEST_SPLIT_RUN_H
