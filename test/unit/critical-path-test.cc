// SPDX-License-Identifier: GPL-2.0-only
#include "sim/critical-path.h"

#include "support/catch.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <set>
#include <string>

using namespace splitllm;
using ns3::NanoSeconds;
using ns3::Time;

namespace
{

Time
SumOf(const CriticalPath& path)
{
    Time sum;
    for (std::size_t c = 0; c < kComponents; c++)
    {
        sum += path.Of(static_cast<Component>(c));
    }
    return sum;
}

} // namespace

TEST_CASE("A path starts empty and grows by what it is charged", "[critical-path]")
{
    CriticalPath path;
    path.Start(NanoSeconds(100));
    CHECK(path.Started() == NanoSeconds(100));
    CHECK(path.Until() == NanoSeconds(100));
    CHECK(SumOf(path) == Time());

    path.Charge(Component::Base, NanoSeconds(30));
    path.Charge(Component::Queue, NanoSeconds(0));
    path.Charge(Component::Base, NanoSeconds(5));
    path.Charge(Component::Codec, NanoSeconds(7));
    CHECK(path.Of(Component::Base) == NanoSeconds(35));
    CHECK(path.Of(Component::Codec) == NanoSeconds(7));
    CHECK(path.Until() == NanoSeconds(142));

    path.Start(NanoSeconds(200));
    CHECK(path.Until() == NanoSeconds(200));
    CHECK(SumOf(path) == Time());
}

TEST_CASE("A receiver that waited goes on where the sender was, plus the network", "[critical-path]")
{
    CriticalPath sender;
    sender.Start(NanoSeconds(0));
    sender.Charge(Component::Base, NanoSeconds(40));
    CriticalPath receiver;
    receiver.Start(NanoSeconds(0));
    receiver.Charge(Component::Adapter, NanoSeconds(10)); // and waits from 10 on

    receiver.Receive(sender, NanoSeconds(40), NanoSeconds(55), NanoSeconds(55));
    CHECK(receiver.Of(Component::Base) == NanoSeconds(40));
    CHECK(receiver.Of(Component::Network) == NanoSeconds(15));
    CHECK(receiver.Of(Component::Adapter) == Time()); // overlapped, so not on the chain
    CHECK(receiver.Of(Component::Queue) == Time());
    CHECK(receiver.Until() == NanoSeconds(55));
    CHECK(SumOf(receiver) == NanoSeconds(55));
}

TEST_CASE("A receiver that was busy with the token keeps its own path", "[critical-path]")
{
    CriticalPath sender;
    sender.Start(NanoSeconds(0));
    sender.Charge(Component::Base, NanoSeconds(4));
    CriticalPath receiver;
    receiver.Start(NanoSeconds(0));
    receiver.Charge(Component::Adapter, NanoSeconds(30));

    receiver.Receive(sender, NanoSeconds(4), NanoSeconds(29), NanoSeconds(30)); // there 1 ns before it was needed
    CHECK(receiver.Of(Component::Adapter) == NanoSeconds(30));
    CHECK(receiver.Of(Component::Network) == Time());
    CHECK(receiver.Until() == NanoSeconds(30));

    receiver.Receive(sender, NanoSeconds(4), NanoSeconds(31), NanoSeconds(31)); // this one was waited for
    CHECK(receiver.Of(Component::Adapter) == Time());
    CHECK(receiver.Of(Component::Network) == NanoSeconds(27));
    CHECK(receiver.Until() == NanoSeconds(31));
}

TEST_CASE("A message of another token brings its path along, and time in the inbox is queueing", "[critical-path]")
{
    CriticalPath sender;
    sender.Start(NanoSeconds(1000));
    sender.Charge(Component::Calibrator, NanoSeconds(10));
    CriticalPath server;
    server.Start(NanoSeconds(500)); // of the token before
    server.Charge(Component::Base, NanoSeconds(700));

    server.Receive(sender, NanoSeconds(1010), NanoSeconds(1100), NanoSeconds(1200));
    CHECK(server.Started() == NanoSeconds(1000));
    CHECK(server.Of(Component::Base) == Time());
    CHECK(server.Of(Component::Calibrator) == NanoSeconds(10));
    CHECK(server.Of(Component::Network) == NanoSeconds(90));
    CHECK(server.Of(Component::Queue) == NanoSeconds(100));
    CHECK(server.Until() == NanoSeconds(1200));
}

TEST_CASE("Over any exchange the components sum to the time since the start", "[critical-path]")
{
    std::mt19937_64 random(11);
    const auto upTo = [&random](std::int64_t most) {
        return NanoSeconds(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(most + 1)));
    };
    for (int run = 0; run < 200; run++)
    {
        // Two roles compute on their own for a while, send each other a message, and then take what has come.
        std::array<CriticalPath, 2> roles;
        const Time start = upTo(1'000'000);
        roles[0].Start(start);
        roles[1].Start(start);
        std::array<Time, 2> now{start, start};
        for (int step = 0; step < 50; step++)
        {
            for (std::size_t r = 0; r < 2; r++)
            {
                const Time duration = upTo(1000);
                roles[r].Charge(static_cast<Component>(random() % kComponents), duration);
                now[r] += duration;
            }
            const std::array<CriticalPath, 2> sent = roles;
            const std::array<Time, 2> departed = now;
            for (std::size_t r = 0; r < 2; r++)
            {
                const Time arrived = departed[1 - r] + upTo(700);
                now[r] = ns3::Max(now[r], arrived);
                roles[r].Receive(sent[1 - r], departed[1 - r], arrived, now[r]);
                CHECK(roles[r].Until() == now[r]);
                CHECK(SumOf(roles[r]) == now[r] - start);
            }
        }
    }
}

TEST_CASE("What is charged at the server is told apart, and the network is neither's", "[critical-path]")
{
    CriticalPath user(Place::User);
    user.Start(NanoSeconds(1000));
    user.Charge(Component::Base, NanoSeconds(17));
    CHECK(user.AtServer() == Time());

    // The request takes 5 ns, waits 3 in the inbox and 11 for the device, computes 23 and is coded in 2.
    CriticalPath server(Place::Server);
    server.Receive(user, NanoSeconds(1017), NanoSeconds(1022), NanoSeconds(1025));
    server.Charge(Component::Queue, NanoSeconds(11));
    server.Charge(Component::Base, NanoSeconds(23));
    server.Charge(Component::Codec, NanoSeconds(2));
    CHECK(server.At() == Place::Server);
    CHECK(server.AtServer() == NanoSeconds(3 + 11 + 23 + 2));

    // The reply takes 7 ns and waits 1 ns in the user's inbox.
    user.Receive(server, NanoSeconds(1061), NanoSeconds(1068), NanoSeconds(1069));
    user.Charge(Component::Base, NanoSeconds(4));
    CHECK(user.At() == Place::User);
    CHECK(user.AtServer() == NanoSeconds(39));
    CHECK(user.Of(Component::Network) == NanoSeconds(5 + 7));
    CHECK(user.Until() - user.Started() == NanoSeconds(17 + 39 + 12 + 1 + 4));

    user.Start(user.Until());
    CHECK(user.AtServer() == Time());
}

TEST_CASE("A server's answer that the user did not wait for leaves the token's time with the user", "[critical-path]")
{
    CriticalPath user(Place::User);
    user.Start(NanoSeconds(0));
    CriticalPath server(Place::Server);
    server.Receive(user, NanoSeconds(0), NanoSeconds(2), NanoSeconds(2));
    server.Charge(Component::Base, NanoSeconds(10));
    user.Charge(Component::Base, NanoSeconds(20)); // busy beyond the answer's arrival

    user.Receive(server, NanoSeconds(12), NanoSeconds(14), NanoSeconds(20));
    CHECK(user.AtServer() == Time());
    CHECK(user.Of(Component::Network) == Time());
}

TEST_CASE("Every component has a name of its own", "[critical-path]")
{
    std::set<std::string> names;
    for (std::size_t c = 0; c < kComponents; c++)
    {
        names.insert(NameOf(static_cast<Component>(c)));
    }
    CHECK(names == std::set<std::string>{"adapter", "base", "calibrator", "codec", "network", "queue"});
    CHECK(std::string(NameOf(TokenSource::Exit)) == "exit");
    CHECK(std::string(NameOf(TokenSource::Cloud)) == "cloud");
    CHECK(std::string(NameOf(TokenSource::Fallback)) == "fallback");
}
