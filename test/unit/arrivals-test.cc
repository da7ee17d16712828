// SPDX-License-Identifier: GPL-2.0-only
#include "arrivals.h"

#include "support/catch.h"
#include "support/error-of.h"
#include "support/temporary-folder.h"

#include "ns3/rng-seed-manager.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

using namespace splitllm;
using namespace ns3;
using splitllm::test::ErrorOf;
using splitllm::test::TemporaryFolder;

namespace
{

constexpr std::int64_t kStream = 77;

ArrivalSpec
Read(const std::string& arrival, const std::filesystem::path& folder = ".", std::uint32_t requests = 3)
{
    Json json = Json::parse(R"({"arrival": )" + arrival + "}");
    StrictObject workload(json, "test", "workload");
    return ReadArrivals(workload, requests, 5, folder);
}

/// What is said about a trace with this content.
std::string
TraceError(const std::string& content, std::uint32_t requests = 1)
{
    const TemporaryFolder folder;
    std::ofstream(folder.Path() / "a.csv") << content;
    return ErrorOf([&] { Read(R"({"process": "trace", "file": "a.csv"})", folder.Path(), requests); });
}

} // namespace

TEST_CASE("Poisson's intervals are exponentially distributed, and independent", "[arrivals]")
{
    constexpr std::uint32_t kRequests = 50'000;
    constexpr double kRate = 250.0;
    const ArrivalSpec spec = Read(R"({"process": "poisson", "rate_per_s": 250})");
    CHECK(spec.IsOpen());
    const std::vector<RequestArrival> arrivals = DrawArrivals(spec, kRequests, 7, kStream);
    REQUIRE(arrivals.size() == kRequests);
    double sum = 0.0;
    double squares = 0.0;
    double products = 0.0;
    double longest = 0.0; // share of the intervals above twice the mean
    double last = 0.0;
    bool isDealt = true; // to the users in turn
    for (std::uint32_t r = 0; r < kRequests; r++)
    {
        isDealt = isDealt && arrivals[r].user == r % 7;
        const Time interval = arrivals[r].time - (r > 0 ? arrivals[r - 1].time : Time());
        const double x = kRate * interval.GetSeconds(); // of mean 1
        sum += x;
        squares += x * x;
        products += (x - 1.0) * (last - 1.0);
        longest += x > 2.0 ? 1.0 : 0.0;
        last = x;
    }
    CHECK(isDealt);
    const double error = 4.0 / std::sqrt(kRequests); // four standard errors of a mean of variables of variance 1
    CHECK(std::abs(sum / kRequests - 1.0) < error);
    CHECK(std::abs(squares / kRequests - 2.0) < std::sqrt(20.0) * error); // x^2 has variance 24 - 4
    CHECK(std::abs(products / kRequests) < error);
    const double tail = std::exp(-2.0);
    CHECK(std::abs(longest / kRequests - tail) < std::sqrt(tail * (1.0 - tail)) * error);
}

TEST_CASE("Arrivals depend on the stream and the run alone", "[arrivals]")
{
    const ArrivalSpec spec = Read(R"({"process": "poisson", "rate_per_s": 3.5})");
    const auto draw = [&spec](std::uint32_t requests, std::int64_t stream, std::uint64_t run) {
        const std::uint64_t before = RngSeedManager::GetRun();
        RngSeedManager::SetRun(run);
        std::vector<Time> times;
        for (const RequestArrival& arrival : DrawArrivals(spec, requests, 1, stream))
        {
            times.push_back(arrival.time);
        }
        RngSeedManager::SetRun(before);
        return times;
    };
    const std::vector<Time> times = draw(9, kStream, 1);
    CHECK(draw(9, kStream, 1) == times);
    CHECK(draw(9, kStream, 2) != times);
    CHECK(draw(9, kStream + 1, 1) != times);
    const std::vector<Time> more = draw(10, kStream, 1);
    CHECK(std::equal(times.begin(), times.end(), more.begin()));
}

TEST_CASE("A trace says when requests come, and where", "[arrivals]")
{
    const TemporaryFolder folder;
    std::ofstream(folder.Path() / "users.csv") << "time_s,user\n0,4\r\n0.000000001,4\n1.25,0\n9,1\n";
    const ArrivalSpec spec = Read(R"({"process": "trace", "file": "users.csv"})", folder.Path());
    const std::vector<RequestArrival> arrivals = DrawArrivals(spec, 3, 5, kStream);
    REQUIRE(arrivals.size() == 3); // of four
    CHECK(arrivals[0].time == NanoSeconds(0));
    CHECK(arrivals[1].time == NanoSeconds(1));
    CHECK(arrivals[2].time == MilliSeconds(1250));
    CHECK(arrivals[0].user == 4);
    CHECK(arrivals[1].user == 4);
    CHECK(arrivals[2].user == 0);

    std::ofstream(folder.Path() / "times.csv") << "time_s\n0.5\n0.5\n2\n3\n4\n4.5\n";
    const ArrivalSpec dealt = Read(R"({"process": "trace", "file": "times.csv"})", folder.Path(), 6);
    const std::vector<RequestArrival> all = DrawArrivals(dealt, 6, 5, kStream);
    CHECK(all[4].user == 4);
    CHECK(all[5].user == 0);
    CHECK(all[5].time == MilliSeconds(4500));
}

TEST_CASE("A trace that makes no sense is refused with its line", "[arrivals]")
{
    const auto says = [](const std::string& content, const std::string& expected, std::uint32_t requests = 1) {
        const std::string error = TraceError(content, requests);
        CAPTURE(content, error, expected);
        CHECK(error.starts_with("test: workload.arrival.file: "));
        CHECK(error.find(expected) != std::string::npos);
        CHECK(error.find('\n') == std::string::npos);
    };
    says("", "no trace ");
    says("time\n1\n", "a.csv:1: is \"time\"; accepted: the columns \"time_s,user\" or \"time_s\"");
    says("time_s\n1,2\n", "a.csv:2: is \"1,2\"; accepted: a time alone");
    says("time_s,user\n1\n", "a.csv:2: is \"1\"; accepted: a time and a user");
    says("time_s,user\n1,2,3\n", "a.csv:2: is \"1,2,3\"; accepted: a time and a user");
    for (const char* time : {"", "x", "-1", "1e3", "5m", "1.0000000001", "1.2.3", "1000000000.1", "99999999999999999999"})
    {
        says(std::string("time_s\n") + time + "\n",
             "a.csv:2: time_s: \"" + std::string(time) + "\"; accepted: seconds up to 1000000000 with at most 9 decimals");
    }
    for (const char* user : {"", "5", "-1", "1.0", "99999999999", "a\x01"})
    {
        says(std::string("time_s,user\n1,") + user + "\n", "; accepted: an integer from 0 to 4");
    }
    says("time_s\n2\n1.5\n", "a.csv:3: time_s: is earlier than the one before");
    says("time_s\n1\n2\n", "has 2 arrivals for 3 requests; accepted: at least one for each", 3);
    CHECK(TraceError("time_s\n1\n2\n", 2).empty());
}

TEST_CASE("Arrival processes say what they accept", "[arrivals][study]")
{
    const auto error = [](const std::string& arrival) { return ErrorOf([&] { Read(arrival); }); };
    CHECK(error(R"({"process": "uniform"})").find("workload.arrival.process: is \"uniform\"; accepted: closed, poisson, trace") !=
          std::string::npos);
    CHECK(error(R"({"process": "poisson"})").find("workload.arrival.rate_per_s") != std::string::npos);
    CHECK_FALSE(error(R"({"process": "poisson", "rate_per_s": 0})").empty());
    CHECK_FALSE(error(R"({"process": "poisson", "rate_per_s": 1e10})").empty());
    CHECK(error(R"({"process": "closed", "rate_per_s": 1})").find("workload.arrival.rate_per_s: unknown key") !=
          std::string::npos);
    CHECK(error(R"({"process": "closed", "think_time": "601s"})").find("workload.arrival.think_time: must be at most 600s") !=
          std::string::npos);
    CHECK(error(R"({"process": "trace", "file": "none.csv"})").find("workload.arrival.file: no trace ./none.csv") !=
          std::string::npos);
    const ArrivalSpec closed = Read(R"({"process": "closed", "think_time": "1.5s"})");
    CHECK_FALSE(closed.IsOpen());
    CHECK(closed.thinkTime == MilliSeconds(1500));
    for (const RequestArrival& arrival : DrawArrivals(closed, 3, 2, kStream))
    {
        CHECK(arrival.time.IsZero());
    }
}
