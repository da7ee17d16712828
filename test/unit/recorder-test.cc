// SPDX-License-Identifier: GPL-2.0-only
#include "recorder.h"

#include "support/catch.h"

#include <algorithm>
#include <cmath>

using namespace splitllm;
using ns3::MilliSeconds;
using ns3::Time;

namespace
{

/// Token \p position of user 0, from \p start for \p latency milliseconds.
TokenRecord
Token(std::uint32_t position, int start, int latency)
{
    TokenRecord token{};
    token.position = position;
    token.start = MilliSeconds(start);
    token.latency = MilliSeconds(latency);
    return token;
}

StandaloneRecord
Alone(int start, int end)
{
    return {.session = 0, .start = MilliSeconds(start), .end = MilliSeconds(end), .reason = "timeout"};
}

std::vector<TimelineSpan>
ModesOf(const Recorder& recorder)
{
    std::vector<TimelineSpan> modes;
    std::ranges::copy_if(recorder.Records().timeline, std::back_inserter(modes), [](const TimelineSpan& span) {
        return span.lane == Lane::Mode;
    });
    return modes;
}

} // namespace

TEST_CASE("Exits and stretches of an edge on its own are kept as they come", "[recorder]")
{
    Recorder recorder(0, [] {});
    recorder.OnExit({.session = 2,
                     .request = 7,
                     .position = 19,
                     .source = TokenSource::Fallback,
                     .layer = 16,
                     .confidence = 0.125,
                     .asked = MilliSeconds(3)});
    recorder.OnStandalone("edge-2", Alone(4, 9));
    recorder.OnOutage({"edge-cloud", MilliSeconds(3), Time::Max()});
    REQUIRE(recorder.Records().exits.size() == 1);
    CHECK(recorder.Records().exits[0].request == 7);
    CHECK(recorder.Records().exits[0].layer == 16);
    REQUIRE(recorder.Records().standalone.size() == 1);
    CHECK(recorder.Records().standalone[0].end == MilliSeconds(9));
    REQUIRE(recorder.Records().outages.size() == 1);
    CHECK(recorder.Records().outages[0].name == "edge-cloud");
    CHECK(recorder.Records().outages[0].end == Time::Max());
    CHECK(recorder.Records().timeline.empty()); // of no token
}

TEST_CASE("The timeline shows the stretches that began before its last token came", "[recorder]")
{
    Recorder recorder(2, [] {});
    recorder.Records().requests.resize(1);
    recorder.OnToken(Token(1, 0, 10));
    recorder.OnStandalone("edge", Alone(2, 12));
    recorder.OnToken(Token(2, 10, 7));
    recorder.OnStandalone("edge", Alone(16, 40)); // open when the second token came, at 17 ms
    recorder.OnStandalone("edge", Alone(17, 50));
    const std::vector<TimelineSpan> modes = ModesOf(recorder);
    REQUIRE(modes.size() == 2);
    CHECK(modes[0].node == "edge");
    CHECK(modes[0].name == "standalone: timeout");
    CHECK(modes[0].start == MilliSeconds(2));
    CHECK(modes[1].start == MilliSeconds(16));
    CHECK(modes[1].end == MilliSeconds(40));
    CHECK(recorder.Records().standalone.size() == 3);
}
