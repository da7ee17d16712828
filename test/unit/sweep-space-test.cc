// SPDX-License-Identifier: GPL-2.0-only

// What a study sweeps: listed points and samples. (Grids and cases: spa-spec-test, runner-test.)

#include "sweep-space.h"

#include "support/catch.h"
#include "support/error-of.h"
#include "support/temporary-folder.h"

#include "study.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

using namespace splitllm;
using splitllm::test::ErrorOf;

namespace
{

std::vector<PointSet>
PointsOf(const std::string& text)
{
    Json sweep = Json::parse(text);
    return ReadSweep(sweep, "s.json");
}

std::string
ErrorIn(const std::string& text)
{
    const std::string error = ErrorOf([&] { PointsOf(text); });
    CHECK(error.find('\n') == std::string::npos);
    return error;
}

/// The values of one key in every point.
Json
Column(const std::vector<PointSet>& points, const std::string& path)
{
    Json values = Json::array();
    for (const PointSet& point : points)
    {
        const auto found = std::ranges::find(point, path, &PointSet::value_type::first);
        REQUIRE(found != point.end());
        values.push_back(found->second);
    }
    return values;
}

constexpr const char* kOver = R"("over": {"links.device-edge.rate": {"from": "100Mbps", "to": "1Gbps", "scale": "log"},
    "workload.new_tokens": {"from": 2, "to": 8}, "x.y": {"from": 0.25, "to": 0.75},
    "scheme.codec": ["fp32", "fp16", "tab-q"]})";

/// The study file \p study with overrides.
StudyFile
Load(const Json& study, const std::vector<std::pair<std::string, std::string>>& overrides)
{
    const test::TemporaryFolder folder;
    return LoadStudyFile(folder.Write("s.json", study.dump()), overrides);
}

} // namespace

TEST_CASE("A random sample has the values that its generators' definition gives", "[sweep]")
{
    // From an implementation of MT19937-64, FNV-1a and the two formulas in another language.
    const auto points = PointsOf(std::string(R"({"sample": {"method": "random", "size": 4, "seed": 7, )") + kOver + "}}");
    REQUIRE(points.size() == 4);
    CHECK(Column(points, "links.device-edge.rate") ==
          Json({"299.033384Mbps", "839.399044Mbps", "536.731359Mbps", "177.140267Mbps"}));
    CHECK(Column(points, "workload.new_tokens") == Json({7, 4, 7, 6}));
    CHECK(Column(points, "x.y") ==
          Json({0.33301736005655797, 0.621260793713901, 0.27794693032088663, 0.26115023259761516}));
    CHECK(Column(points, "scheme.codec") == Json({"tab-q", "tab-q", "tab-q", "tab-q"}));
}

TEST_CASE("A Latin hypercube has one point in each part of every range", "[sweep]")
{
    const auto points =
        PointsOf(std::string(R"({"sample": {"method": "latin-hypercube", "size": 4, "seed": 7, )") + kOver + "}}");
    CHECK(Column(points, "links.device-edge.rate") ==
          Json({"364.820575Mbps", "800.794425Mbps", "241.42933Mbps", "126.070288Mbps"}));
    CHECK(Column(points, "workload.new_tokens") == Json({6, 5, 7, 3}));
    CHECK(Column(points, "scheme.codec") == Json({"fp16", "tab-q", "tab-q", "fp32"}));

    const auto many = PointsOf(R"({"sample": {"method": "latin-hypercube", "size": 37, "over": {
        "a": {"from": 1, "to": 37}, "b": {"from": -1.5, "to": 2}, "c": {"from": 1.0, "to": 1024.5, "scale": "log"},
        "d": ["x", "y"]}}})");
    REQUIRE(many.size() == 37);
    std::set<int> integers;
    std::set<int> linear;
    std::set<int> log;
    int x = 0;
    for (const PointSet& point : many)
    {
        integers.insert(point[0].second.get<int>());
        const double b = point[1].second;
        linear.insert(static_cast<int>((b + 1.5) / 3.5 * 37));
        log.insert(static_cast<int>(std::log(point[2].second.get<double>()) / std::log(1024.5) * 37));
        x += point[3].second == "x" ? 1 : 0;
    }
    CHECK(integers.size() == 37);
    CHECK(linear.size() == 37);
    CHECK(log.size() == 37);
    CHECK((x == 18 || x == 19));
    // The order of one key says nothing of that of another.
    CHECK(Column(many, "a")[0] != Column(many, "a")[1]);
    double correlation = 0.0;
    for (const PointSet& point : many)
    {
        correlation += (point[0].second.get<double>() - 19.0) * (point[1].second.get<double>() - 0.25);
    }
    CHECK(std::abs(correlation / (37 * 10.68 * 1.01)) < 0.4);
}

TEST_CASE("A path less or a larger random sample moves no other value", "[sweep]")
{
    const auto large = PointsOf(R"({"sample": {"method": "random", "size": 9, "over": {
        "a": {"from": 1, "to": 1000}, "b": {"from": 1, "to": 1000}}}})");
    const auto small = PointsOf(R"({"sample": {"method": "random", "size": 5, "over": {"b": {"from": 1, "to": 1000}}}})");
    Json first = Column(large, "b");
    CHECK(Column(large, "a") != first);
    first.erase(first.begin() + 5, first.end());
    CHECK(Column(small, "b") == first);
    const auto other = PointsOf(
        R"({"sample": {"method": "random", "size": 5, "seed": 2, "over": {"b": {"from": 1, "to": 1000}}}})");
    CHECK(Column(other, "b") != first);
}

TEST_CASE("Quantities keep their kind, are whole, and stay inside their range", "[sweep]")
{
    struct Row
    {
        const char* from;
        const char* to;
        std::vector<std::string> accepted;
    };
    // Ranges of two or three of the smallest unit: all of their values, and no others.
    for (const Row& row : {Row{"999bps", "1001bps", {"999bps", "1kbps", "1.001kbps"}},
                           Row{"1ms", "1000001ns", {"1ms", "1.000001ms"}},
                           Row{"64KiB", "65537B", {"65.536kB", "65.537kB"}},
                           Row{"2.4GHz", "2400000001Hz", {"2.4GHz", "2.400000001GHz"}},
                           Row{"999mm", "1m", {"999mm", "1m"}},
                           Row{"0ns", "1ns", {"0ns", "1ns"}}})
    {
        const auto points = PointsOf(R"({"sample": {"method": "random", "size": 60, "over": {"k": {"from": ")" +
                                     std::string(row.from) + R"(", "to": ")" + row.to + "\"}}}}");
        std::set<std::string> seen;
        for (const PointSet& point : points)
        {
            seen.insert(point.front().second.get<std::string>());
        }
        CHECK(seen == std::set<std::string>(row.accepted.begin(), row.accepted.end()));
    }
}

TEST_CASE("Listed points and samples are each one axis of the grid", "[sweep]")
{
    const auto listed = PointsOf(R"({"scheme.name": ["server", "linfer"],
        "points": [{"a.b": 1, "c": "x"}, {"c": "y", "a.b": 2}], "d": [true, false]})");
    REQUIRE(listed.size() == 8);
    CHECK(listed[0] == PointSet{{"scheme.name", "server"}, {"a.b", 1}, {"c", "x"}, {"d", true}});
    CHECK(listed[3] == PointSet{{"scheme.name", "server"}, {"c", "y"}, {"a.b", 2}, {"d", false}});
    CHECK(listed[7] == PointSet{{"scheme.name", "linfer"}, {"c", "y"}, {"a.b", 2}, {"d", false}});

    const auto sampled = PointsOf(R"({"scheme.name": ["server", "linfer"],
        "sample": {"method": "random", "size": 3, "over": {"a.b": {"from": 1, "to": 9999}}}})");
    REQUIRE(sampled.size() == 6);
    for (std::size_t i = 0; i < 3; i++)
    {
        CHECK(sampled[i][1] == sampled[i + 3][1]);
    }
}

TEST_CASE("Overrides reach a sample, and leave one value of what it draws", "[sweep]")
{
    const Json study = Json::parse(std::string(R"({"links": {}, "sweep": {"sample": {"method": "random", "size": 4, "seed": 7, )") +
                                   kOver + "}}}");
    CHECK(Load(study, {{"sweep.sample.size", "9"}}).points.size() == 9);
    CHECK(Load(study, {{"sweep.sample.seed", "8"}}).points != Load(study, {}).points);
    CHECK(Column(Load(study, {{"sweep.sample.over.links.device-edge.rate", "[\"7Mbps\"]"}}).points, "links.device-edge.rate") ==
          Json({"7Mbps", "7Mbps", "7Mbps", "7Mbps"}));
    const StudyFile one = Load(study, {{"links.device-edge.rate", "1Gbps"}});
    CHECK(Column(one.points, "links.device-edge.rate") == Json({"1Gbps", "1Gbps", "1Gbps", "1Gbps"}));
    CHECK(Column(one.points, "workload.new_tokens") == Json({7, 4, 7, 6}));
    CHECK(PointOf(one, one.points[1])["workload"]["new_tokens"] == 4);

    const Json listed = Json::parse(R"({"sweep": {"points": [{"a.b": 1}, {"a.b": 2}]}})");
    CHECK(ErrorOf([&] { Load(listed, {{"a.b", "3"}}); }) ==
          "--set: a.b: the points of the sweep set a.b; accepted: sweep.points with other points, or a key that they leave "
          "alone");
    CHECK(Load(listed, {{"sweep.points", R"([{"a.b": 3}])"}}).points.size() == 1);
    CHECK(Load(listed, {{"a.c", "3"}}).points.size() == 2);
}

TEST_CASE("A space that cannot be is told so in one line", "[sweep][bad-input]")
{
    const auto sample = [](const std::string& rest) {
        return ErrorIn(R"({"sample": {"method": "random", "size": 2, )" + rest + "}}");
    };
    const auto range = [&](const std::string& text) { return sample(R"("over": {"a.b": )" + text + "}"); };
    CHECK(ErrorIn(R"({"sample": {"method": "sobol", "size": 2, "over": {"a": [1]}}})") ==
          "s.json: sweep.sample.method: is \"sobol\"; accepted: random, latin-hypercube");
    CHECK(ErrorIn(R"({"sample": {"method": "random", "size": 0, "over": {"a": [1]}}})").starts_with("s.json: sweep.sample.size: is 0"));
    CHECK(ErrorIn(R"({"sample": [1]})").starts_with("s.json: sweep.sample: "));
    CHECK(sample(R"("over": {})") == "s.json: sweep.sample.over: must name at least one key of the study");
    CHECK(sample(R"("over": {"a": [1]}, "sede": 1)").starts_with("s.json: sweep.sample.sede: unknown key"));
    CHECK(range("[]").starts_with("s.json: sweep.sample.over.a.b: must be a list of at least one value, or a range"));
    CHECK(range("5").starts_with("s.json: sweep.sample.over.a.b: must be a list"));
    CHECK(range(R"({"from": 5, "to": 5})") == "s.json: sweep.sample.over.a.b.to: must exceed from");
    CHECK(range(R"({"from": 5})").starts_with("s.json: sweep.sample.over.a.b.to: "));
    CHECK(range(R"({"from": 0, "to": 5, "scale": "log"})") ==
          "s.json: sweep.sample.over.a.b.from: must be above 0 for scale \"log\"");
    CHECK(range(R"({"from": "0ns", "to": "5ms", "scale": "log"})").starts_with("s.json: sweep.sample.over.a.b.from: must be above 0"));
    CHECK(range(R"({"from": 1, "to": "5ms"})").starts_with("s.json: sweep.sample.over.a.b.from: and to must be alike"));
    CHECK(range(R"({"from": "1Mbps", "to": "5ms"})")
              .starts_with("s.json: sweep.sample.over.a.b.from: is \"1Mbps\" and to is \"5ms\"; accepted: two quantities"));
    CHECK(range(R"({"from": "1Gbps", "to": "9100000000Gbps"})").starts_with("s.json: sweep.sample.over.a.b.from: is"));
    CHECK(range(R"({"from": 1, "to": 18446744073709551615})")
              .starts_with("s.json: sweep.sample.over.a.b.to: is 18446744073709551615; accepted: an integer"));
    CHECK(range(R"({"from": 1, "to": 2, "step": 1})").starts_with("s.json: sweep.sample.over.a.b.step: unknown key"));

    CHECK(ErrorIn(R"({"points": [{"a": 1}, {"b": 1}]})") ==
          "s.json: sweep.points: every point must set the same keys, at least one; the first sets a, one sets b");
    CHECK(ErrorIn(R"({"points": [{}]})").starts_with("s.json: sweep.points: every point must set"));
    CHECK(ErrorIn(R"({"points": [1]})").starts_with("s.json: sweep.points"));
    CHECK(ErrorIn(R"({"points": []})") == "s.json: sweep.points: must be a list of at least one value");
    CHECK(ErrorIn(R"({"points": [{"a": 1}], "a": [2]})") == "s.json: sweep.a: a is swept twice; accepted: each key once");
    std::string list = "[0";
    for (int i = 1; i < 1000; i++)
    {
        list += "," + std::to_string(i);
    }
    list += "]";
    CHECK(ErrorIn("{\"a\": " + list + ", \"b\": " + list + ", \"c\": [1, 2]}") ==
          "s.json: sweep.c: makes more points than 1000000");
}
