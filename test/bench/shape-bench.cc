// SPDX-License-Identifier: GPL-2.0-only
#include "split-llm-helper.h"
#include "support/bare-end.h"
#include "support/tcp-pair.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <functional>
#include <utility>
#include <vector>

// Time of a token of LLaMA-7B in LInfer, in shape mode: h0, 32 layers there and back, hL. 1 Gbps, 0.1 ms, segments
// of 1448 bytes. Beside it, what the same messages take on bare ns-3 sockets, whose application does nothing.

using namespace splitllm;
using namespace ns3;
using test::BareEnd;
using test::TcpPair;

namespace
{

constexpr std::uint32_t kTokens = 33; // the first is a prefill
constexpr std::uint32_t kRow = 8192;  // 4096 fp16 values
constexpr std::uint32_t kLayers = 32;

/// Processor time since \p start: the simulation has one thread, and the machine may have other things to do.
double
SecondsSince(std::clock_t start)
{
    return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

/// Seconds a token takes, the median of those after the first.
double
ModelToken()
{
    TcpPair pair{DataRate("1Gbps"), MicroSeconds(100)};
    SplitLlmHelper llm;
    llm.SetShape("llama-7b", "fp16");
    llm.SetAdapterShape(16, "fp16");
    llm.SetScheme("linfer");
    llm.InstallEdgeServer(pair.nodes.Get(1), "a800-80gb");
    const auto user = llm.InstallUserDevice(pair.nodes.Get(0), "device-13tflops", pair.ServerAddress());
    user->AddRequest({.index = 0, .prompt = {1}, .newTokens = kTokens});
    std::vector<double> seconds;
    auto last = std::clock();
    user->TraceConnectWithoutContext("Token", Callback<void, const TokenRecord&>([&](const TokenRecord&) {
                                         seconds.push_back(SecondsSince(last));
                                         last = std::clock();
                                     }));
    Simulator::Run();
    seconds.erase(seconds.begin());
    std::nth_element(seconds.begin(), seconds.begin() + kTokens / 2, seconds.end());
    return seconds[kTokens / 2];
}

/// Seconds that the messages of a token take without anything else.
double
BareToken()
{
    TcpPair pair{DataRate("1Gbps"), MicroSeconds(100)};
    BareEnd user;
    BareEnd edge;
    const Ptr<Socket> listener = pair.NewSocket(1);
    listener->Bind(InetSocketAddress(Ipv4Address::GetAny(), TcpPair::kPort));
    listener->Listen();
    listener->SetAcceptCallback(MakeNullCallback<bool, Ptr<Socket>, const Address&>(),
                                Callback<void, Ptr<Socket>, const Address&>(
                                    [&edge](Ptr<Socket> socket, const Address&) { edge.Attach(socket); }));
    user.Attach(pair.NewSocket(0));
    user.socket->Bind();
    user.socket->Connect(pair.ServerAddress());
    std::uint32_t layer = 0;
    std::uint32_t tokens = 0;
    std::vector<double> seconds;
    auto last = std::clock();
    edge.onMessage = [&] { edge.Send(kRow, user); };
    user.onMessage = [&] {
        if (layer++ < kLayers)
        {
            user.Send(3 * kRow, edge);
            return;
        }
        seconds.push_back(SecondsSince(last));
        last = std::clock();
        if (++tokens < kTokens)
        {
            layer = 0;
            user.Send(kRow, edge);
        }
    };
    Simulator::Schedule(Seconds(1), [&] { user.Send(kRow, edge); });
    Simulator::Run();
    seconds.erase(seconds.begin());
    std::nth_element(seconds.begin(), seconds.begin() + kTokens / 2, seconds.end());
    return seconds[kTokens / 2];
}

void
ShapeToken(benchmark::State& state)
{
    double model = 1e9;
    double bare = 1e9;
    for (auto _ : state)
    {
        bare = std::min(bare, BareToken());
        model = std::min(model, ModelToken());
    }
    state.counters["ms_per_token"] = model * 1e3;
    state.counters["bare_ms_per_token"] = bare * 1e3;
    state.counters["ratio"] = model / bare;
}

BENCHMARK(ShapeToken)->Iterations(5)->Unit(benchmark::kMillisecond);

} // namespace
