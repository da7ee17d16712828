// SPDX-License-Identifier: GPL-2.0-only
#include "net/fading-link.h"

#include "net/journey-log.h"
#include "support/catch.h"
#include "support/endpoint.h"
#include "support/frame-bytes.h"
#include "support/teardown.h"

#include "ns3/simulation-singleton.h"
#include "ns3/simulator.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

using namespace splitllm;
using namespace ns3;
using test::Endpoint;
using test::Inbox;
using test::PatternBytes;
using test::Teardown;

namespace
{

/// 10 MHz and an SNR of 10 at 20 Mbps: threshold 3, so an attempt fails with probability 1 - e^-0.3 = 0.2592.
FadingLinkConfig
TwentyMegabits()
{
    return {.channel = {.bandwidth = 10e6, .snr = 10.0},
            .coherence = Time(0),
            .arq = {.rate = DataRate("20Mbps"), .attempts = 5, .feedback = Time(0)},
            .delay = Time(0),
            .onLoss = OnLoss::Resend,
            .epsilon = 1e-3};
}

const double kOutage = -std::expm1(-0.3);

/// A fading link with both its ends, and the attempts made on it.
struct Link
{
    explicit Link(const FadingLinkConfig& config, std::int64_t stream = 1000)
        : fading(config),
          ports(fading.Connect()),
          user(std::move(ports.user)),
          server(std::move(ports.server))
    {
        fading.AssignStreams(stream);
        fading.onAttempt = [this](Direction sends, const AttemptRecord& record) {
            attempts[static_cast<std::size_t>(sends)].push_back(record);
        };
    }

    Teardown teardown; // destroyed last
    FadingLink fading;
    PortPair ports; // which both endpoints take
    Endpoint user;
    Endpoint server;
    std::array<std::vector<AttemptRecord>, kDirections> attempts;
};

/// Sends \p count messages of \p bytes up at once and runs. \return attempts at each, in order
std::vector<std::uint32_t>
AttemptsOf(Link& link, std::size_t count, std::size_t bytes)
{
    for (std::size_t i = 0; i < count; i++)
    {
        link.user.Send(0, Payload::Phantom(bytes));
    }
    Simulator::Run();
    std::vector<std::uint32_t> numbers;
    for (const AttemptRecord& record : link.attempts[0])
    {
        if (record.number == 1)
        {
            numbers.push_back(0);
        }
        numbers.back()++;
    }
    return numbers;
}

} // namespace

TEST_CASE("Attempts are geometric: they fail with the outage probability, and fail again likewise", "[fading]")
{
    Link link(TwentyMegabits());
    constexpr std::size_t kMessages = 40'000;
    const std::vector<std::uint32_t> numbers = AttemptsOf(link, kMessages, 25);
    REQUIRE(numbers.size() == kMessages);
    REQUIRE(link.server.inbox.arrivals.size() == kMessages);

    // Four standard errors of each estimate: 0.0075 of the outage ratio, 0.0137 of the mean.
    const auto attempts = static_cast<double>(link.attempts[0].size());
    const double outage = (attempts - kMessages) / attempts;
    CHECK(std::abs(outage - kOutage) < 4.0 * std::sqrt(kOutage * (1.0 - kOutage) / attempts));
    const double mean = attempts / kMessages;
    const double deviation = std::sqrt(kOutage) / (1.0 - kOutage);
    CHECK(std::abs(mean - 1.0 / (1.0 - kOutage)) < 4.0 * deviation / std::sqrt(kMessages));
    for (std::uint32_t most = 1; most <= 4; most++)
    {
        std::size_t more = 0;
        for (const std::uint32_t number : numbers)
        {
            more += number > most ? 1 : 0;
        }
        const double expected = std::pow(kOutage, most);
        CAPTURE(most, more);
        CHECK(std::abs(static_cast<double>(more) / kMessages - expected) <
              4.0 * std::sqrt(expected * (1.0 - expected) / kMessages));
    }
}

TEST_CASE("The SNR is exponential with the channel's mean, and an attempt fails just where it is below the threshold",
          "[fading]")
{
    Link link(TwentyMegabits());
    AttemptsOf(link, 20'000, 1);
    double sum = 0.0;
    std::size_t above = 0;
    for (const AttemptRecord& record : link.attempts[0])
    {
        sum += record.snr;
        above += record.snr > 23.0 ? 1 : 0;
        CHECK(record.success == (std::log2(1.0 + record.snr) >= 2.0));
    }
    const auto count = static_cast<double>(link.attempts[0].size());
    CHECK(std::abs(sum / count - 10.0) < 4.0 * 10.0 / std::sqrt(count));
    const double tail = std::exp(-2.3);
    CHECK(std::abs(static_cast<double>(above) / count - tail) < 4.0 * std::sqrt(tail * (1.0 - tail) / count));
}

TEST_CASE("A message takes its attempts, the feedback after each, and the delay", "[fading]")
{
    FadingLinkConfig config = TwentyMegabits();
    config.arq.feedback = MicroSeconds(7);
    config.delay = MicroSeconds(300);
    Link link(config);
    constexpr std::size_t kMessages = 50;
    const std::vector<std::uint32_t> numbers = AttemptsOf(link, kMessages, 1250); // 500 us at 20 Mbps
    Time start;
    bool repeated = false;
    REQUIRE(link.server.inbox.arrivals.size() == kMessages);
    for (std::size_t i = 0; i < kMessages; i++)
    {
        const Time end = start + numbers[i] * MicroSeconds(507);
        CHECK(link.server.inbox.arrivals[i].arrived == end - MicroSeconds(7) + MicroSeconds(300));
        repeated = repeated || numbers[i] > 1;
        start = end;
    }
    CHECK(repeated);
    // 36 bytes of header are counted at every attempt and take no time.
    CHECK(link.fading.BytesSent(Direction::Up) == link.attempts[0].size() * (36 + 1250));
    CHECK(link.fading.BytesSent(Direction::Down) == 0);
}

TEST_CASE("A message without payload needs no attempt and keeps its place", "[fading]")
{
    FadingLinkConfig config = TwentyMegabits();
    config.channel.snr = 1e-300; // nothing else would get across
    config.delay = MicroSeconds(300);
    {
        Link link(config);
        link.user.Send(0, Payload());
        Simulator::Run();
        REQUIRE(link.server.inbox.arrivals.size() == 1);
        CHECK(link.server.inbox.arrivals[0].arrived == MicroSeconds(300));
        CHECK(link.attempts[0].empty());
        CHECK(link.fading.BytesSent(Direction::Up) == 36);
    }
    Link link(TwentyMegabits());
    for (const std::size_t size : {5000, 0, 1, 0, 0, 777})
    {
        link.user.Send(0, Payload::Of(PatternBytes(size)));
    }
    Simulator::Run();
    REQUIRE(link.server.inbox.arrivals.size() == 6);
    for (std::uint32_t i = 0; i < 6; i++)
    {
        CHECK(link.server.inbox.arrivals[i].message.sequence == i);
    }
    CHECK((link.server.inbox.arrivals[5].message.payload.bytes == PatternBytes(777)));
    CHECK(link.server.inbox.arrivals[1].arrived == link.server.inbox.arrivals[0].arrived);
}

TEST_CASE("Resending goes on after a round of N attempts, failing ends both sides", "[fading]")
{
    FadingLinkConfig config = TwentyMegabits();
    config.arq.attempts = 2;
    config.channel.snr = 0.5; // 1 - e^-6: one in 403 attempts gets across
    config.delay = MicroSeconds(40);
    {
        Link link(config);
        const std::vector<std::uint32_t> numbers = AttemptsOf(link, 10, 100);
        CHECK(link.server.inbox.arrivals.size() == 10);
        CHECK(link.attempts[0].size() > 500);
        CHECK(SimulationSingleton<JourneyLog>::Get()->UnderWay() == 0);
    }
    config.onLoss = OnLoss::Fail;
    Link link(config);
    link.user.Send(0, Payload());
    AttemptsOf(link, 3, 100);
    CHECK(link.attempts[0].size() == 2);
    CHECK(link.server.inbox.arrivals.size() == 1);
    for (const Inbox* inbox : {&link.user.inbox, &link.server.inbox})
    {
        CHECK(inbox->end == Inbox::End::Lost);
        CHECK(inbox->reason == "message 1 lost after 2 attempts");
    }
    CHECK(SimulationSingleton<JourneyLog>::Get()->UnderWay() == 3);
    CHECK(Simulator::Now() == MicroSeconds(2 * 40 + 40));
    CHECK_THROWS_AS(link.user.Send(0, Payload()), ConnectionLost);
    CHECK_THROWS_AS(link.server.Send(0, Payload()), ConnectionLost);
}

TEST_CASE("Within a block all attempts end alike; each block has an SNR of its own", "[fading]")
{
    FadingLinkConfig config = TwentyMegabits();
    config.coherence = MilliSeconds(1);
    Link link(config);
    AttemptsOf(link, 4000, 125); // 50 us
    std::int64_t block = -1;
    double snr = 0.0;
    std::size_t blocks = 0;
    std::size_t failed = 0;
    for (const AttemptRecord& record : link.attempts[0])
    {
        const std::int64_t its = record.start.GetMicroSeconds() / 1000;
        if (its == block)
        {
            CHECK(record.snr == snr);
            continue;
        }
        CHECK(record.snr != snr);
        block = its;
        snr = record.snr;
        blocks++;
        failed += record.success ? 0 : 1;
    }
    CHECK(blocks > 200);
    const auto count = static_cast<double>(blocks);
    CHECK(std::abs(static_cast<double>(failed) / count - kOutage) < 4.0 * std::sqrt(kOutage * (1.0 - kOutage) / count));
}

TEST_CASE("Directions fade independently, and each by its stream alone", "[fading]")
{
    const auto snrs = [](bool both, std::int64_t stream) {
        Link link(TwentyMegabits(), stream);
        for (int i = 0; i < 20; i++)
        {
            link.user.Send(0, Payload::Phantom(10));
            if (both)
            {
                link.server.Send(0, Payload::Phantom(1000));
            }
        }
        Simulator::Run();
        std::array<std::vector<double>, kDirections> values;
        for (std::size_t d = 0; d < kDirections; d++)
        {
            for (const AttemptRecord& record : link.attempts[d])
            {
                values[d].push_back(record.snr);
            }
        }
        return values;
    };
    const auto both = snrs(true, 70);
    const auto alone = snrs(false, 70);
    CHECK(both[0] == alone[0]);
    CHECK(both[0] != both[1]);
    CHECK(snrs(true, 70) == both);
    CHECK(snrs(true, 71)[0] == both[1]);
}

TEST_CASE("A fading link closes after what was sent, and survives an end that goes away", "[fading]")
{
    FadingLinkConfig config = TwentyMegabits();
    config.delay = MicroSeconds(40);
    {
        Link link(config);
        link.user.Send(0, Payload::Phantom(12'345));
        link.user.port->Close();
        Simulator::Run();
        CHECK(link.server.inbox.arrivals.size() == 1);
        CHECK(link.server.inbox.end == Inbox::End::Closed);
    }
    Link link(config);
    link.user.Send(0, Payload::Phantom(12'345));
    Simulator::Schedule(MicroSeconds(1), [&link] {
        link.user.port->Abandon();
        link.user.Destroy();
    });
    Simulator::Run();
    CHECK(link.server.inbox.arrivals.empty());
    CHECK(link.server.inbox.end == Inbox::End::Closed);
    link.server.Send(0, Payload::Phantom(10));
    Simulator::Run(); // into the void
}

TEST_CASE("The worst arrival is Eq 9 with feedback and delay, behind what waits", "[fading]")
{
    FadingLinkConfig config = TwentyMegabits();
    config.arq.feedback = MicroSeconds(7);
    config.arq.attempts = 2; // of a round; 6 are needed at 0.001: ln(0.001) / ln(0.2592) = 5.12
    config.delay = MicroSeconds(300);
    {
        Link link(config);
        const auto worst = [&link](std::size_t bytes) {
            return link.user.port->WorstArrival(MessageKind::Embedding, bytes).value_or(Time(-1));
        };
        CHECK(worst(1250) == MicroSeconds(6 * 500 + 5 * 7 + 300));
        CHECK(worst(0) == MicroSeconds(300));
        link.user.Send(0, Payload::Phantom(25));
        link.user.Send(0, Payload());
        CHECK(worst(1250) == MicroSeconds(6 * (10 + 7) + 6 * 500 + 5 * 7 + 300));
        CHECK(worst(0) == MicroSeconds(6 * (10 + 7) + 300));
    }

    // Of 20,000 messages sent alone, 0.2592^6 = 0.0303 % are later: 6.1, and more than 20 hardly ever.
    Link alone(config, 77);
    const Time bound = alone.user.port->WorstArrival(MessageKind::Embedding, 25).value();
    for (int i = 0; i < 20'000; i++)
    {
        Simulator::Schedule(MilliSeconds(i), [&alone] { alone.user.Send(0, Payload::Phantom(25)); });
    }
    Simulator::Run();
    REQUIRE(alone.server.inbox.arrivals.size() == 20'000);
    std::size_t late = 0;
    for (const Arrival& arrival : alone.server.inbox.arrivals)
    {
        late += arrival.arrived - arrival.sent > bound ? 1 : 0;
    }
    CHECK(late > 0);
    CHECK(late <= 20);
}

TEST_CASE("A sender that measures its channel goes by the SNRs of its attempts", "[fading]")
{
    FadingLinkConfig config = TwentyMegabits();
    config.measuresSnr = true;
    Link link(config);
    double known = config.channel.snr;
    link.fading.onAttempt = [&known](Direction, const AttemptRecord& record) { known = 0.875 * known + 0.125 * record.snr; };
    const double threshold = std::pow(2.0, 2e7 / config.channel.bandwidth) - 1.0;
    std::set<std::int64_t> seen;
    for (int i = 0; i < 40; i++)
    {
        link.user.Send(0, Payload::Phantom(2500)); // 1 ms an attempt
        Simulator::Run();
        const double outage = 1.0 - std::exp(-threshold / known);
        const double attempts = std::ceil(std::log(config.epsilon) / std::log(outage));
        const Time worst = link.user.port->WorstArrival(MessageKind::Embedding, 2500).value();
        CHECK(worst - config.delay == MilliSeconds(static_cast<std::int64_t>(attempts)));
        CHECK(link.server.port->WorstArrival(MessageKind::Embedding, 2500).value() - config.delay == MilliSeconds(6));
        seen.insert(worst.GetNanoSeconds());
    }
    CHECK(seen.size() > 1); // it does change
}

TEST_CASE("Fading links without bandwidth, SNR, rate or attempts are refused", "[fading]")
{
    FadingLinkConfig config = TwentyMegabits();
    config.channel.bandwidth = 0.0;
    CHECK_THROWS_AS(FadingLink(config), std::invalid_argument);
    config = TwentyMegabits();
    config.channel.snr = -1.0;
    CHECK_THROWS_AS(FadingLink(config), std::invalid_argument);
    config = TwentyMegabits();
    config.arq.rate = DataRate(0);
    CHECK_THROWS_AS(FadingLink(config), std::invalid_argument);
    config = TwentyMegabits();
    config.arq.attempts = 0;
    CHECK_THROWS_AS(FadingLink(config), std::invalid_argument);
}
