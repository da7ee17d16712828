// SPDX-License-Identifier: GPL-2.0-only

// Links of studies: what can be written, and what they do to a run.

#include "support/catch.h"
#include "support/error-of.h"
#include "support/study-fixture.h"

#include "metrics.h"
#include "simulation.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

using namespace splitllm;
using splitllm::test::ErrorOf;
using splitllm::test::Folders;

namespace
{

/// A study of \p users with one request each, of one prompt token and \p tokens more, whose nodes compute in no time.
Json
LinkStudy(const std::string& link, std::uint32_t users, std::uint32_t tokens)
{
    Json json = test::TinyStudy();
    json["mode"] = "shape";
    json["model"] = Json::parse(R"({"path": "tiny-llama", "dtype": "bf16", "adapter": {"rank": 4}})");
    json["nodes"]["device"]["count"] = users;
    json["nodes"]["device"]["hardware"] =
        Json::parse(R"({"profile": "device-13tflops", "timing": {"table": {}, "otherwise": "free"}})");
    json["nodes"]["edge"]["hardware"] = json["nodes"]["device"]["hardware"];
    json["links"]["device-edge"] = Json::parse(link);
    json["workload"] = {{"prompt_tokens", Json::array({{{"tokens", 1}, {"requests", users}}})},
                        {"new_tokens", tokens + 1}};
    return json;
}

std::pair<RunRecords, Metrics>
Run(Json json)
{
    const Study study = ReadStudy(json, "test", Folders());
    RunRecords records = Simulate(study, 0, 1, [] {});
    Metrics metrics = ComputeMetrics(study, {records});
    return {std::move(records), std::move(metrics)};
}

double
Latency(const Json& json)
{
    return *Find(Run(json).second, "token_latency_ms.mean");
}

std::string
ErrorOfLink(const std::string& link)
{
    Json json = LinkStudy(link, 3, 1);
    return ErrorOf([&] { ReadStudy(json, "test", Folders()); });
}

bool
IsNear(double value, double expected, double relative)
{
    return std::abs(value - expected) <= relative * std::abs(expected);
}

} // namespace

TEST_CASE("A fading link takes its rate and attempts from the outage formulas", "[fading]")
{
    Json json = LinkStudy(R"({"type": "fading", "bandwidth": "10MHz", "snr": 10})", 1, 1);
    const auto link = [&json] { return ReadStudy(json, "test", Folders()).links.at(0); };
    CHECK(link().rate.GetBitRate() == 19'607'644); // 19.6076 Mbps, rounded down to a whole bit/s
    CHECK(link().fading.attempts == 5);
    CHECK(json["links"]["device-edge"]["attempts"] == 5); // defaults are written down
    json["links"]["device-edge"] = Json::parse(R"({"type": "fading", "bandwidth": "10MHz", "snr": 10, "rate": "20Mbps"})");
    CHECK(link().fading.attempts == 6); // ln(1e-3) / ln(1 - e^-0.3) = 5.12
    json["links"]["device-edge"] =
        Json::parse(R"({"type": "fading", "bandwidth": "10MHz", "snr": 10, "rate": "20Mbps", "epsilon": 0.5})");
    CHECK(link().fading.attempts == 1); // 0.51
    json["links"]["device-edge"] = Json::parse(R"({"type": "fading", "bandwidth": "10MHz", "snr": 10, "rate": "relaxed"})");
    CHECK(link().rate.GetBitRate() != 19'607'644);
}

TEST_CASE("Bad fading and Wi-Fi links are refused with the path of what is wrong", "[fading][wifi]")
{
    const std::string at = "test: links.device-edge.";
    CHECK(ErrorOfLink(R"({"type": "fading", "bandwidth": "10MHz", "snr": 0})") ==
          at + "snr: must be above 0: a mean signal-to-noise ratio, linear and not in dB");
    CHECK(ErrorOfLink(R"({"type": "fading", "bandwidth": "10MHz", "snr": -3})").starts_with(at + "snr: is -3"));
    CHECK(ErrorOfLink(R"({"type": "fading", "bandwidth": "0Hz", "snr": 1})").starts_with(at + "bandwidth: \"0Hz\" is not"));
    CHECK(ErrorOfLink(R"({"type": "fading", "bandwidth": "2000GHz", "snr": 1})").starts_with(at + "bandwidth: must be"));
    for (const char* epsilon : {"0", "1"})
    {
        CHECK(ErrorOfLink(R"({"type": "fading", "bandwidth": "10MHz", "snr": 1, "epsilon": )" + std::string(epsilon) +
                          "}") == at + "epsilon: must be above 0 and below 1");
    }
    CHECK(ErrorOfLink(R"({"type": "fading", "bandwidth": "10MHz", "snr": 1, "epsilon": 1.5})")
              .starts_with(at + "epsilon: is 1.5"));
    CHECK(ErrorOfLink(R"({"type": "fading", "bandwidth": "10MHz", "snr": 1, "rate": "1Gbps"})")
              .starts_with(at + "rate: so many attempts fail"));
    CHECK(ErrorOfLink(R"({"type": "fading", "bandwidth": "10MHz", "snr": 1, "rate": "best"})")
              .starts_with(at + "rate: \"best\" is not a data rate"));
    CHECK(ErrorOfLink(R"({"type": "fading", "bandwidth": "10Hz", "snr": 1})").starts_with(at + "rate: at this bandwidth"));
    CHECK(ErrorOfLink(R"({"type": "fading", "bandwidth": "10MHz", "snr": 1, "mtu": 1500})")
              .starts_with(at + "mtu: unknown key"));
    CHECK(ErrorOfLink(R"({"type": "fading", "bandwidth": "10MHz", "snr": 1, "transport": "tcp", "on_loss": "fail"})")
              .starts_with(at + "on_loss: unknown key"));
    CHECK(ErrorOfLink(R"({"type": "wifi", "distance": 10})").starts_with(at + "distance: must be a length"));
    CHECK(ErrorOfLink(R"({"type": "wifi", "distance": "10"})").starts_with(at + "distance: \"10\" is not"));
    CHECK(ErrorOfLink(R"({"type": "wifi", "distance": ["1m", "2m"]})")
              .starts_with(at + "distance: lists 2 lengths for 3 user devices"));
    CHECK(ErrorOfLink(R"({"type": "wifi", "distance": "1m", "channel_width": "30MHz"})")
              .starts_with(at + "channel_width: is \"30MHz\""));
    CHECK(ErrorOfLink(R"({"type": "wifi", "distance": "1m", "rate_control": "constant"})").starts_with(at + "mcs:"));
    CHECK(ErrorOfLink(R"({"type": "wifi", "distance": "1m", "rate": "1Mbps"})").starts_with(at + "rate: unknown key"));
}

TEST_CASE("A fading link's metrics are those of the formulas", "[fading]")
{
    // Threshold 3 of a mean of 10: Po = 1 - e^-0.3. A token is 10 messages of 128 or 256 bytes.
    const double outage = -std::expm1(-0.3);
    Json json = LinkStudy(R"({"type": "fading", "bandwidth": "10MHz", "snr": 10, "rate": "20Mbps"})", 2, 100);
    json["workload"]["prompt_tokens"][0]["requests"] = 20;
    const auto [records, metrics] = Run(json);
    const auto of = [&metrics = metrics](const char* name) { return *Find(metrics, std::string("link.device-edge.") + name); };
    CHECK(of("rate_mbps") == 20.0);
    // Six attempts of the largest message.
    CHECK(IsNear(of("worst_case_ms"), 6.0 * 256 * 8 / 20e3, 1e-12));
    // 20,200 messages: four standard errors are 2 % of the mean attempts.
    CHECK(IsNear(of("attempts_mean"), 1.0 / (1.0 - outage), 0.02));
    CHECK(std::abs(of("outage_ratio") - outage) < 4.0 * std::sqrt(outage * (1.0 - outage) / 27e3));
    CHECK(IsNear(of("goodput_mbps"), 20.0 * (1.0 - outage), 0.02));
    CHECK(of("attempts_max") > 5.0);
    // 20,200 messages whose six first attempts fail with probability 3.03e-4: 6.1 of them, here between 0 and 16.
    CHECK(of("messages_lost") <= 16.0);
    // Attempts come one after the other, so the latency is that of the bits at the mean number of attempts.
    CHECK(IsNear(*Find(metrics, "token_latency_ms.mean"),
                 (128.0 + 4 * (128 + 256) + 128) * 8 / 20e3 / (1.0 - outage),
                 0.02));
    CHECK(records.messagesUnderWay == 0);
}

TEST_CASE("Attempts appear in the timeline with their outcome", "[fading]")
{
    const auto [records, metrics] =
        Run(LinkStudy(R"({"type": "fading", "bandwidth": "10MHz", "snr": 10, "rate": "20Mbps"})", 1, 5));
    std::size_t failed = 0;
    std::size_t delivered = 0;
    for (const TimelineSpan& span : records.timeline)
    {
        if (span.lane == Lane::Packets)
        {
            failed += span.details.find("\"outcome\":\"outage\"") != std::string::npos ? 1 : 0;
            delivered += span.details.find("\"outcome\":\"delivered\"") != std::string::npos ? 1 : 0;
            CHECK((span.name.find("outage") != std::string::npos) ==
                  (span.details.find("\"outcome\":\"outage\"") != std::string::npos));
        }
    }
    CHECK(failed > 0);
    CHECK(delivered > 20);
}

TEST_CASE("TCP over a fading link takes longer than whole messages, and delivers all", "[fading]")
{
    const std::string link = R"({"type": "fading", "bandwidth": "10MHz", "snr": 10, "rate": "20Mbps", "delay": "1ms")";
    const auto message = Run(LinkStudy(link + "}", 1, 100));
    const auto tcp = Run(LinkStudy(link + R"(, "transport": "tcp", "attempts": 20})", 1, 100));
    CHECK(tcp.first.messagesUnderWay == 0);
    CHECK(tcp.first.tokens.size() == 101);
    // 52 bytes of IP and TCP, 2 of PPP and 36 of the message's header are charged with every packet, and acknowledgements
    // share the way: at least the bytes that one message at a time takes.
    const double more = (36 + 52 + 2) * 8 * 10 / 20e3 / std::exp(-0.3);
    CHECK(*Find(tcp.second, "token_latency_ms.mean") > *Find(message.second, "token_latency_ms.mean") + 0.8 * more);
    CHECK(*Find(tcp.second, "token_latency_ms.mean") < *Find(message.second, "token_latency_ms.mean") + 2.0 * more);
    CHECK(*Find(tcp.second, "link.device-edge.messages_lost") == 0.0);
    CHECK(*Find(tcp.second, "wire_bytes.up") > *Find(message.second, "wire_bytes.up"));
}

TEST_CASE("A fading run repeats itself, and another seed makes a difference", "[fading][invariant-4]")
{
    for (const char* transport : {"message", "tcp"})
    {
        Json json = LinkStudy(R"({"type": "fading", "bandwidth": "10MHz", "snr": 2, "delay": "1ms", "transport": ")" +
                                  std::string(transport) + "\"}",
                              2,
                              20);
        const double latency = Latency(json);
        CHECK(Latency(json) == latency);
        json["seed"] = 2;
        CHECK(Latency(json) != latency);
    }
}

TEST_CASE("Wi-Fi stations share the medium, and their distance lowers their rate", "[wifi]")
{
    const auto latency = [](std::uint32_t users, const char* distance, const char* width) {
        Json json = LinkStudy(R"({"type": "wifi", "distance": ")" + std::string(distance) + R"(", "channel_width": ")" +
                                  width + R"(", "rate_control": "ideal"})",
                              users,
                              30);
        const auto [records, metrics] = Run(json);
        CHECK(records.sessionsLost.empty());
        CHECK(records.messagesUnderWay == 0);
        CHECK(records.tokens.size() == std::size_t{users} * 31);
        return *Find(metrics, "token_latency_ms.mean");
    };
    const double alone = latency(1, "5m", "20MHz");
    CHECK(latency(2, "5m", "20MHz") > 1.2 * alone);
    CHECK(latency(6, "5m", "20MHz") > 2.0 * alone);
    CHECK(latency(1, "25m", "20MHz") > 1.05 * alone);
    CHECK(latency(1, "5m", "80MHz") < alone);
}

TEST_CASE("A Wi-Fi run repeats itself, and one out of reach ends as lost", "[wifi][invariant-4][invariant-12]")
{
    Json json = LinkStudy(R"({"type": "wifi", "distance": ["3m", "12m"]})", 2, 10);
    const auto [first, metrics] = Run(json);
    Run(LinkStudy(R"({"type": "fading", "bandwidth": "10MHz", "snr": 2, "transport": "tcp"})", 2, 20));
    const auto [again, sameMetrics] = Run(json);
    CHECK(sameMetrics == metrics);
    CHECK(first.wireBytes == again.wireBytes);
    CHECK(first.events == again.events);
    json["seed"] = 2;
    CHECK(Run(json).second != metrics);

    const auto [records, lostMetrics] = Run(LinkStudy(R"({"type": "wifi", "distance": ["3m", "2km"]})", 2, 10));
    CHECK(records.sessionsLost.size() == 1);
    CHECK(records.tokens.size() == 11);
    CHECK(*Find(lostMetrics, "sessions_lost") == 1.0);
}

TEST_CASE("A service link's outage holds up what it meets, for all users, and nothing else", "[outages]")
{
    const auto run = [](const std::string& outages) {
        return Run(LinkStudy(R"({"type": "service", "rate": "1Gbps", "delay": "1ms")" + outages + "}", 2, 30)).first;
    };
    const RunRecords without = run("");
    const RunRecords with = run(R"(, "outages": [{"at": "55ms", "for": "2s"}])");
    REQUIRE(without.tokens.size() == 62);
    REQUIRE(with.tokens.size() == 62);
    CHECK(with.messagesUnderWay == 0);
    std::size_t delayed = 0;
    for (std::size_t i = 0; i < 62; i++)
    {
        const TokenRecord& token = with.tokens[i].token;
        const TokenRecord& before = without.tokens[i].token;
        CHECK(token.token == before.token);
        const ns3::Time late = token.latency - before.latency;
        const ns3::Time begin = ns3::MilliSeconds(55);
        const bool meets = before.start < begin && before.start + before.latency > begin;
        delayed += late.IsZero() ? 0 : 1;
        // A message that has left by 55 ms still arrives, so the answer to it loses less than the outage takes.
        CHECK((late.IsZero() || (meets && late > ns3::MilliSeconds(1998) && late <= ns3::Seconds(2))));
    }
    CHECK(delayed == 2);
    CHECK(with.wireBytes == without.wireBytes);

    const RunRecords never = run(R"(, "outages": [{"at": "55ms"}])");
    CHECK(never.tokens.size() < 62);
    CHECK(never.messagesUnderWay == 2);
}

TEST_CASE("A wired link's outage loses packets, and what was sent in it arrives after it", "[outages]")
{
    const auto run = [](const std::string& more) {
        return Run(LinkStudy(R"({"type": "wired", "rate": "1Gbps", "delay": "1ms")" + more + "}", 2, 30)).first;
    };
    const std::string outage = R"(, "outages": [{"at": "55ms", "for": "500ms"}])";
    const RunRecords without = run("");
    const RunRecords with = run(outage);
    CHECK(with.sessionsLost.empty());
    CHECK(with.tokens.size() == 62);
    CHECK(with.messagesUnderWay == 0);
    CHECK(with.wireBytes[0] > without.wireBytes[0]); // sent again
    for (const TokenRow& row : with.tokens)
    {
        const ns3::Time end = row.token.start + row.token.latency;
        // What had arrived by 55 ms may still become a token; the tokens that come next come after the outage.
        CHECK((end < ns3::MilliSeconds(56) || end > ns3::MilliSeconds(555)));
    }
    // Beside losses, which an outage that meets nothing does not change.
    const RunRecords lossy = run(R"(, "loss": 0.05)");
    const RunRecords later = run(R"(, "loss": 0.05, "outages": [{"at": "1000s", "for": "1s"}])");
    CHECK(lossy.wireBytes == later.wireBytes);
    CHECK(lossy.wireBytes != without.wireBytes);
    const RunRecords atOnce = run(R"(, "loss": 0.05, "outages": [{"at": "0s", "for": "500ms"}])");
    CHECK(atOnce.wireBytes != lossy.wireBytes);
    CHECK(atOnce.tokens.front().token.start > lossy.tokens.front().token.start);
}

TEST_CASE("An outage may begin at random, at another time in each repetition", "[outages][invariant-4]")
{
    const std::vector<OutageSpec> specs{{.at = ns3::Seconds(4), .isDrawn = true, .duration = ns3::Seconds(1)},
                                        {.at = ns3::NanoSeconds(1), .isDrawn = true, .duration = {}},
                                        {.at = ns3::Seconds(7), .isDrawn = false, .duration = ns3::Time::Max()}};
    double sum = 0.0;
    constexpr int kDraws = 2000;
    for (int stream = 0; stream < kDraws; stream++)
    {
        const std::vector<Outage> outages = DrawOutages(specs, stream);
        REQUIRE(outages.size() == 3);
        CHECK(!outages[0].begin.IsNegative());
        CHECK(outages[0].begin < ns3::Seconds(4));
        CHECK(outages[0].end == outages[0].begin + ns3::Seconds(1));
        CHECK(outages[1].begin.IsZero());
        CHECK(outages[1].end == ns3::Time::Max());
        CHECK(outages[2].begin == ns3::Seconds(7));
        CHECK(outages[2].end == ns3::Time::Max()); // and no overflow
        sum += outages[0].begin.GetSeconds();
    }
    CHECK(std::abs(sum / kDraws - 2.0) < 4.0 * 4.0 / std::sqrt(12.0 * kDraws)); // four standard errors

    const std::string outages = R"([{"within": "100ms", "for": "3ms"}])";
    Json json =
        LinkStudy(R"({"type": "service", "rate": "1Gbps", "delay": "1ms", "outages": )" + outages + "}", 1, 30);
    const Study study = ReadStudy(json, "test", Folders());
    const auto latencies = [&study](std::uint32_t repetition) {
        std::vector<std::int64_t> all;
        for (const TokenRow& row : Simulate(study, repetition, 1, [] {}).tokens)
        {
            all.push_back(row.token.latency.GetNanoSeconds());
        }
        return all;
    };
    CHECK(latencies(0) == latencies(0));
    CHECK(latencies(0) != latencies(1));
}

TEST_CASE("Bad outages are refused with the path of what is wrong", "[outages]")
{
    const std::string at = "test: links.device-edge.outages";
    const auto error = [](const std::string& outages) {
        return ErrorOfLink(R"({"type": "service", "rate": "1Gbps", "outages": )" + outages + "}");
    };
    CHECK(error("[]").empty());
    CHECK(error(R"([{"at": "0ns"}, {"within": "1ns", "for": "1ns"}])").empty());
    CHECK(error(R"([{"for": "1s"}])") == at + "[0].at: missing; accepted: either \"at\", when the outage begins, or "
                                              "\"within\", before when it does");
    CHECK(error(R"([{"at": "1s"}, {"at": "1s", "within": "2s"}])")
              .starts_with(at + "[1].at: stands beside \"within\""));
    CHECK(error(R"([{"within": "0s"}])") == at + "[0].within: must be above 0");
    CHECK(error(R"([{"at": "1s", "for": "0s"}])") == at + "[0].for: must be above 0");
    CHECK(error(R"([{"at": "-1s"}])").starts_with(at + "[0].at: \"-1s\" is not"));
    CHECK(error(R"([{"at": 1}])").starts_with(at + "[0].at: is 1"));
    CHECK(error(R"([{"at": "1s", "until": "2s"}])").starts_with(at + "[0].until: unknown key"));
    CHECK(error(R"({"at": "1s"})").starts_with(at + ": "));
    for (const char* link : {R"({"type": "fading", "bandwidth": "10MHz", "snr": 1, "outages": []})",
                             R"({"type": "wifi", "distance": "1m", "outages": []})"})
    {
        CHECK(ErrorOfLink(link).find("link has none; accepted on types wired, service") != std::string::npos);
    }
    CHECK(ErrorOfLink(R"({"type": "wired", "rate": "1Gbps", "outages": [{"at": "1s"}]})").empty());
}
