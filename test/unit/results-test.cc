// SPDX-License-Identifier: GPL-2.0-only
#include "results.h"

#include "support/catch.h"
#include "support/temporary-folder.h"

#include <fstream>
#include <iterator>
#include <limits>
#include <sstream>

using namespace splitllm;
using ns3::NanoSeconds;

namespace
{

std::string
Content(const std::filesystem::path& file)
{
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

/// A point without requests, so that tables have what a test puts into \p run.
PointResult
Point(RunRecords run)
{
    PointResult point;
    point.runs.push_back(std::move(run));
    return point;
}

} // namespace

TEST_CASE("Early exits have tables where there are any, and none from an earlier study", "[results]")
{
    const double none = std::numeric_limits<double>::quiet_NaN();
    RunRecords run;
    run.exits = {{.session = 1,
                  .request = 3,
                  .position = 41,
                  .source = TokenSource::Exit,
                  .layer = 8,
                  .confidence = 0.8125,
                  .asked = {}},
                 {.session = 1,
                  .request = 3,
                  .position = 42,
                  .source = TokenSource::Cloud,
                  .layer = 0,
                  .confidence = none,
                  .asked = NanoSeconds(123456789)}};
    run.standalone = {{.session = 1, .start = NanoSeconds(5), .end = NanoSeconds(70), .reason = "timeout"}};
    run.outages = {{.name = "edge-cloud", .start = NanoSeconds(4), .end = NanoSeconds(60)},
                   {.name = "cloud", .start = NanoSeconds(80), .end = ns3::Time::Max()}};
    QualityRow judged{};
    judged.request = 3;
    judged.position = 41;
    judged.layer = 8;
    judged.confidence = 0.8125;
    judged.agrees = true;
    QualityRow byCloud{};
    byCloud.confidence = none;
    run.quality = {judged, byCloud};

    const test::TemporaryFolder temporary;
    const ResultsFolder folder(temporary.Path());
    folder.Write("exits", {Point(RunRecords()), Point(run)}, Json::object());
    CHECK(Content(temporary.Path() / "exits.csv") == "point,repetition,session,request,position,source,layer,confidence,"
                                                     "asked_ns\n"
                                                     "1,0,1,3,41,exit,8,0.8125,\n"
                                                     "1,0,1,3,42,cloud,0,,123456789\n");
    CHECK(Content(temporary.Path() / "standalone.csv") == "point,repetition,session,start_ns,end_ns,reason\n"
                                                          "1,0,1,5,70,timeout\n");
    CHECK(Content(temporary.Path() / "outages.csv") == "point,repetition,name,start_ns,end_ns\n"
                                                       "1,0,edge-cloud,4,60\n"
                                                       "1,0,cloud,80,\n");
    CHECK(Content(temporary.Path() / "confidence.csv") == "point,repetition,request,position,layer,confidence,agrees\n"
                                                          "1,0,3,41,8,0.8125,1\n");

    folder.Write("none", {Point(RunRecords())}, Json::object());
    for (const char* name : {"exits.csv", "standalone.csv", "outages.csv", "confidence.csv"})
    {
        CHECK_FALSE(std::filesystem::exists(temporary.Path() / name));
    }
    CHECK(std::filesystem::exists(temporary.Path() / "tokens.csv"));
}

TEST_CASE("A gate's decisions have a table where there is a gate", "[results]")
{
    RunRecords run;
    run.gates.push_back({.session = 1, .request = 3, .position = 41, .open = true, .probability = 0.8125});
    run.gates.push_back({.session = 1, .request = 3, .position = 42, .open = false, .probability = std::numeric_limits<double>::quiet_NaN()});
    const test::TemporaryFolder temporary;
    const ResultsFolder folder(temporary.Path());
    folder.Write("gates", {Point(RunRecords()), Point(run)}, Json::object());
    CHECK(Content(temporary.Path() / "gates.csv") == "point,repetition,session,request,position,open,probability\n"
                                                     "1,0,1,3,41,1,0.8125\n"
                                                     "1,0,1,3,42,0,\n");
    folder.Write("none", {Point(RunRecords())}, Json::object());
    CHECK_FALSE(std::filesystem::exists(temporary.Path() / "gates.csv"));
}

TEST_CASE("A token's row says what of its time was the server's", "[results]")
{
    TokenRow row{};
    row.token.latency = NanoSeconds(1000);
    for (std::size_t c = 0; c < kComponents; c++)
    {
        row.token.components[c] = NanoSeconds(static_cast<std::int64_t>(c) + 1);
    }
    row.token.server = NanoSeconds(7);
    row.token.payloadBytes = {8, 9};
    RunRecords run;
    run.tokens.push_back(row);
    const test::TemporaryFolder temporary;
    ResultsFolder(temporary.Path()).Write("tokens", {Point(run)}, Json::object());
    CHECK(Content(temporary.Path() / "tokens.csv") ==
          "point,repetition,session,request,position,token,start_ns,latency_ns,base_ns,adapter_ns,calibrator_ns,codec_ns,"
          "network_ns,queue_ns,server_ns,payload_bytes_up,payload_bytes_down,messages_up,messages_down,offloaded,returned,exchanges\n"
          "0,0,0,0,0,0,0,1000,1,2,3,4,5,6,7,8,9,0,0,0,0,0\n");
}

TEST_CASE("The table says how many tokens came from exits and the cloud where there are exits", "[results]")
{
    PointResult point;
    point.metrics = {{"early_exit_ratio", 0.625}, {"cloud_request_ratio", 0.375}, {"quality.rouge_l", 0.2275}};
    std::ostringstream table;
    PrintTable(table, {point});
    CHECK(table.str().find("ROUGE-L %  exit %  cloud %\n") != std::string::npos);
    CHECK(table.str().find("     22.8    62.5     37.5\n") != std::string::npos);
}
