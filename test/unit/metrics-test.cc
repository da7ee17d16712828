// SPDX-License-Identifier: GPL-2.0-only
#include "metrics.h"

#include "support/catch.h"
#include "support/study-fixture.h"

#include "simulation.h"

#include <cmath>
#include <limits>

using namespace splitllm;
using ns3::MilliSeconds;
using ns3::Time;

namespace
{

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

/// A study with a device and nothing more than \p server.
Study
StudyWith(std::optional<NodeRole> server)
{
    Study study;
    study.nodes.resize(server ? 2 : 1);
    if (server)
    {
        study.nodes[1].role = *server;
    }
    return study;
}

/// A token of \p latency milliseconds, of which the network and the server take some.
TokenRow
Token(std::uint32_t session, std::uint32_t position, bool last, int latency, int network, int server)
{
    TokenRow row{};
    row.token.session = session;
    row.token.request = session;
    row.token.position = position;
    row.token.last = last;
    row.token.latency = MilliSeconds(latency);
    row.token.components[static_cast<std::size_t>(Component::Network)] = MilliSeconds(network);
    row.token.components[static_cast<std::size_t>(Component::Base)] = MilliSeconds(latency - network);
    row.token.server = MilliSeconds(server);
    return row;
}

ExitRecord
Exit(TokenSource source, std::uint16_t layer, double confidence, Time asked = {})
{
    return {.session = 0,
            .request = 0,
            .position = 0,
            .source = source,
            .layer = layer,
            .confidence = confidence,
            .asked = asked};
}

bool
Near(std::optional<double> value, double expected)
{
    return value && std::abs(*value - expected) < 1e-12;
}

} // namespace

TEST_CASE("A response's time is that at the edge, in the cloud and on the network", "[metrics]")
{
    RunRecords run;
    run.tokens = {Token(0, 1, false, 100, 20, 30),
                  Token(1, 1, true, 50, 0, 0),
                  Token(0, 2, true, 10, 1, 2),
                  Token(2, 1, false, 999, 333, 222)}; // of a response that never ended
    const Metrics metrics = ComputeMetrics(StudyWith(NodeRole::Cloud), {run, RunRecords()});
    CHECK(Near(Find(metrics, "component_s_per_response.edge"), (50 + 50 + 7) / 2e3));
    CHECK(Near(Find(metrics, "component_s_per_response.cloud"), (30 + 2) / 2e3));
    CHECK(Near(Find(metrics, "component_s_per_response.network"), (20 + 1) / 2e3));
    CHECK(Near(Find(metrics, "response_s.mean"), (100 + 50 + 10) / 2e3));

    CHECK(Find(ComputeMetrics(StudyWith({}), {run}), "component_s_per_response.edge"));
    CHECK_FALSE(Find(ComputeMetrics(StudyWith(NodeRole::EdgeServer), {run}), "component_s_per_response.edge"));
    CHECK_FALSE(Find(ComputeMetrics(StudyWith(NodeRole::Cloud), {RunRecords()}), "component_s_per_response.edge"));
}

TEST_CASE("Tokens are counted by what they were chosen by", "[metrics]")
{
    RunRecords run;
    run.tokens = {Token(0, 1, false, 1, 0, 0), Token(0, 2, false, 1, 0, 0), Token(0, 3, false, 1, 0, 0),
                  Token(0, 4, false, 1, 0, 0), Token(0, 5, true, 1, 0, 0),  Token(1, 1, false, 1, 0, 0),
                  Token(1, 2, false, 1, 0, 0), Token(1, 3, true, 1, 0, 0)};
    run.exits = {Exit(TokenSource::Cloud, 0, 0.5, MilliSeconds(3)),
                 Exit(TokenSource::Exit, 8, 0.9),
                 Exit(TokenSource::Exit, 16, 0.9),
                 Exit(TokenSource::Exit, 8, 0.9),
                 Exit(TokenSource::Fallback, 16, 0.5, MilliSeconds(5)), // asked, and not answered
                 Exit(TokenSource::Fallback, 16, kNone),               // on its own already
                 Exit(TokenSource::Exit, 8, 1.0),
                 Exit(TokenSource::Cloud, 0, kNone, MilliSeconds(9))};
    run.standalone = {{.session = 0, .start = MilliSeconds(5), .end = MilliSeconds(25), .reason = "timeout"},
                      {.session = 1, .start = MilliSeconds(7), .end = MilliSeconds(17), .reason = "timeout"}};
    const Metrics metrics = ComputeMetrics(StudyWith(NodeRole::Cloud), {run});
    CHECK(Near(Find(metrics, "cloud_request_ratio"), 3.0 / 8));
    CHECK(Near(Find(metrics, "early_exit_ratio"), 4.0 / 8));
    CHECK(Near(Find(metrics, "exit_ratio.layer_8"), 3.0 / 8));
    CHECK(Near(Find(metrics, "exit_ratio.layer_16"), 1.0 / 8));
    CHECK_FALSE(Find(metrics, "exit_ratio.layer_0"));
    CHECK(Near(Find(metrics, "fallback_ratio"), 2.0 / 8));
    CHECK(Near(Find(metrics, "standalone_s_per_response"), 0.030 / 2));

    run.exits.clear();
    const Metrics none = ComputeMetrics(StudyWith(NodeRole::Cloud), {run});
    for (const char* name : {"cloud_request_ratio", "early_exit_ratio", "fallback_ratio", "standalone_s_per_response"})
    {
        CHECK_FALSE(Find(none, name));
    }
}

TEST_CASE("Calibration is measured over all repetitions together", "[metrics]")
{
    const auto judged = [](double confidence, bool agrees) {
        RunRecords run;
        QualityRow row{};
        row.confidence = confidence;
        row.agrees = agrees;
        run.quality.push_back(row);
        return run;
    };
    // Apart their errors would be 0.25 and 0.75.
    const Metrics metrics = ComputeMetrics(StudyWith(NodeRole::Cloud), {judged(0.75, true), judged(0.75, false)});
    CHECK(Near(Find(metrics, "quality.ece"), 0.25));
}

TEST_CASE("With one user and a split that waits for every reply, the server's time is what its device was busy",
          "[metrics]")
{
    Json json = test::TinyStudy();
    json["model"].erase("adapter");
    json["nodes"]["device"]["count"] = 1;
    json["nodes"].erase("edge");
    json["nodes"]["cloud"] = {{"role", "cloud"}, {"hardware", "a800-80gb"}};
    json["links"] = {{"device-cloud", {{"type", "wired"}, {"rate", "100Mbps"}, {"delay", "3ms"}}}};
    json["scheme"] = {{"name", "opsc"}, {"split", 2}, {"codec", "fp16"}};
    const Study study = ReadStudy(json, "test", test::Folders());
    const RunRecords run = Simulate(study, 0, 1, [] {});
    REQUIRE(run.tokens.size() == 16);
    Time server;
    for (const TokenRow& row : run.tokens)
    {
        const Time network = row.token.components[static_cast<std::size_t>(Component::Network)];
        CHECK(row.token.server > Time());
        CHECK(row.token.server < row.token.latency - network); // the device has its layers, too
        server += row.token.server;
    }
    CHECK(server.GetSeconds() == run.serverBusySeconds);

    const Metrics metrics = ComputeMetrics(study, {run});
    const double edge = *Find(metrics, "component_s_per_response.edge");
    const double cloud = *Find(metrics, "component_s_per_response.cloud");
    const double network = *Find(metrics, "component_s_per_response.network");
    CHECK(std::abs(edge + cloud + network - *Find(metrics, "response_s.mean")) < 1e-12);
    CHECK(std::abs(cloud - run.serverBusySeconds / 4) < 1e-12);
    CHECK(network > 4 * 2 * 3e-3); // there and back, for each of four tokens
}
