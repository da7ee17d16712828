// SPDX-License-Identifier: GPL-2.0-only
#include "confidence.h"

#include "support/catch.h"

#include <cmath>
#include <utility>
#include <vector>

using namespace splitllm;

TEST_CASE("Quantiles of Student's t are those of the tables", "[confidence]")
{
    // scipy 1.17.1: scipy.stats.t.ppf(0.975, degrees)
    const std::vector<std::pair<std::uint32_t, double>> quantiles{
        {1, 12.706204736174694}, {2, 4.302652729749462},   {3, 3.1824463052837078},   {4, 2.7764451051977934},
        {5, 2.5705818356363146}, {9, 2.262157162798205},   {10, 2.228138851986274},   {29, 2.045229642132703},
        {30, 2.0422724563012378}, {99, 1.9842169515864174}, {100, 1.9839715185235518}, {999, 1.9623414611334493},
        {99999, 1.9599877077718442}};
    for (const auto& [degrees, quantile] : quantiles)
    {
        INFO(degrees << " degrees of freedom: " << StudentT95(degrees));
        CHECK(std::abs(StudentT95(degrees) / quantile - 1.0) < 1e-11);
    }
}

TEST_CASE("Half an interval is t s / sqrt(n), and exactly 0 where all values are equal", "[confidence]")
{
    // Two values: s = |a - b| / sqrt(2), so half of it is t |a - b| / 2.
    CHECK(std::abs(HalfWidth95({10.0, 13.0}) / (12.706204736174694 * 1.5) - 1.0) < 1e-11);
    // 2, 4, 4, 4, 5, 5, 7, 9: squares of deviations 32, n = 8, t = 2.3646242515927844 of 7 degrees of freedom.
    const double expected = 2.3646242515927844 * std::sqrt(32.0 / 7.0 / 8.0);
    CHECK(std::abs(HalfWidth95({2, 4, 4, 4, 5, 5, 7, 9}) / expected - 1.0) < 1e-11);
    CHECK(HalfWidth95({0.1, 0.1, 0.1}) == 0.0);
}

TEST_CASE("Intervals are of the repetitions that have a metric", "[confidence]")
{
    const std::vector<Metrics> repetitions{{{"a", 1.0}, {"once", 5.0}},
                                           {{"later", 2.0}, {"a", 3.0}},
                                           {{"a", 2.0}, {"later", 2.0}}};
    const Metrics halves = ConfidenceIntervals(repetitions);
    REQUIRE(halves.size() == 2);
    CHECK(halves[0].first == "a");
    CHECK(std::abs(halves[0].second / (4.302652729749462 / std::sqrt(3.0)) - 1.0) < 1e-11);
    CHECK(halves[1] == Metrics::value_type{"later", 0.0});
}
