// SPDX-License-Identifier: GPL-2.0-only
#include "results.h"

#include "support/catch.h"
#include "support/temporary-folder.h"

#include <fstream>
#include <iterator>
#include <limits>
#include <set>
#include <sstream>
#include <string>

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

TEST_CASE("Captures are moved into place with the results, or not at all", "[results]")
{
    const test::TemporaryFolder temporary;
    const auto names = [&] {
        std::set<std::string> found;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(temporary.Path()))
        {
            found.insert(entry.path().lexically_relative(temporary.Path()).string());
        }
        return found;
    };
    const auto capture = [](const ResultsFolder& folder, std::size_t point, std::size_t repetition) {
        std::ofstream(folder.Captures(point, repetition) + "a-b.pcap") << point << repetition;
    };
    {
        const ResultsFolder failed(temporary.Path());
        capture(failed, 0, 0);
        CHECK(names().size() == 2); // aside
    }
    CHECK(names().empty());
    {
        const ResultsFolder folder(temporary.Path());
        capture(folder, 0, 1);
        capture(folder, 12, 0);
        folder.Write("captures", {Point(RunRecords())}, Json::object());
        CHECK(Content(temporary.Path() / "pcap" / "point-0-repetition-1-a-b.pcap") == "01");
        CHECK(Content(temporary.Path() / "pcap" / "point-12-repetition-0-a-b.pcap") == "120");
    }
    const std::set<std::string> before = names();
    {
        const ResultsFolder failed(temporary.Path());
        capture(failed, 0, 1);
    }
    CHECK(names() == before); // those of an earlier study stay until there are others
    ResultsFolder(temporary.Path()).Write("none", {Point(RunRecords())}, Json::object());
    CHECK(std::filesystem::is_empty(temporary.Path() / "pcap"));
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
