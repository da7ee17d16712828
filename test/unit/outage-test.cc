// SPDX-License-Identifier: GPL-2.0-only
#include "policy/outage.h"

#include "support/catch.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>

using namespace splitllm;

namespace
{

/// Eq 9's latency of one bit, with libm in long double.
long double
WorstCaseOfABit(const RayleighChannel& channel, long double rate, long double epsilon)
{
    const long double success = std::exp(-std::expm1(rate / channel.bandwidth * std::log(2.0L)) / channel.snr);
    return std::max(1.0L, std::ceil(std::log(epsilon) / std::log1p(-success))) / rate;
}

/// R ln(1/Po(R)), likewise.
long double
RelaxedGain(const RayleighChannel& channel, long double rate)
{
    return -rate * std::log1p(-std::exp(-std::expm1(rate / channel.bandwidth * std::log(2.0L)) / channel.snr));
}

bool
IsNear(double value, double expected, double relative)
{
    return std::abs(value - expected) <= relative * std::abs(expected);
}

const RayleighChannel kTenMegahertz{.bandwidth = 10e6, .snr = 10.0};

} // namespace

TEST_CASE("The outage probability is that of an exponential SNR below the threshold", "[outage]")
{
    // R = W: threshold 1; R = 2 W: threshold 3.
    CHECK(IsNear(ThresholdSnr(kTenMegahertz, 10e6), 1.0, 1e-15));
    CHECK(IsNear(ThresholdSnr(kTenMegahertz, 20e6), 3.0, 1e-14));
    CHECK(IsNear(OutageProbability(kTenMegahertz, 10e6), 1.0 - std::exp(-0.1), 1e-14));
    CHECK(IsNear(OutageProbability({.bandwidth = 5e3, .snr = 0.5}, 10e3), 1.0 - std::exp(-6.0), 1e-14));
    CHECK(OutageProbability(kTenMegahertz, 0.0) == 0.0);
    CHECK(OutageProbability(kTenMegahertz, 1e12) == 1.0);
    // A slow rate keeps its digits: Po is close to R ln 2 / (W snr).
    CHECK(IsNear(OutageProbability(kTenMegahertz, 1e-3), 1e-3 * std::log(2.0) / 1e8, 1e-9));
}

TEST_CASE("At 10 MHz and an SNR of 10 the optimal rate is 19.6076 Mbps in 5 attempts", "[outage]")
{
    const double rate = OptimalRate(kTenMegahertz, 1e-3);
    CHECK(IsNear(rate, 19.6076e6, 3e-6)); // given to six digits
    const double whole = std::floor(rate);
    CHECK(OutageAttempts(kTenMegahertz, whole, 1e-3) == 5);
    CHECK(IsNear(OutageProbability(kTenMegahertz, rate), std::pow(1e-3, 0.2), 1e-12));
    CHECK(IsNear(WorstCaseLatency(kTenMegahertz, whole, 1e-3, 65'536), 16.712e-3, 3e-5));
    CHECK(IsNear(WorstCaseLatency(kTenMegahertz, whole, 1e-3, 81'920), 20.890e-3, 3e-5));
    // A little faster takes a sixth attempt.
    CHECK(OutageAttempts(kTenMegahertz, 1.0001 * rate, 1e-3) == 6);
}

TEST_CASE("No other rate has a smaller worst case than the optimal one", "[outage]")
{
    for (const double snr : {1e-3, 0.3, 1.0, 10.0, 316.0, 1e5})
    {
        for (const double epsilon : {0.9, 0.3, 1e-2, 1e-3, 1e-9, 1e-200})
        {
            CAPTURE(snr, epsilon);
            const RayleighChannel channel{.bandwidth = 3e6, .snr = snr};
            const double rate = OptimalRate(channel, epsilon);
            // Just below, so that rounding does not take another attempt.
            const long double best = WorstCaseOfABit(channel, rate * (1.0L - 1e-12L), epsilon);
            long double least = std::numeric_limits<long double>::infinity();
            const double most = 3e6 * std::log2(1.0 + 50.0 * snr);
            constexpr int kSteps = 20'000;
            for (int i = 1; i <= kSteps; i++)
            {
                least = std::min(least, WorstCaseOfABit(channel, most * i / kSteps, epsilon));
            }
            CHECK(best <= least * (1.0L + 1e-11L));
            CHECK(best >= least * 0.995L); // the search comes as near as its step
        }
    }
}

TEST_CASE("No other rate gains more per attempt than the relaxed one", "[outage]")
{
    for (const double snr : {1e-3, 0.3, 1.0, 10.0, 316.0, 1e5})
    {
        CAPTURE(snr);
        const RayleighChannel channel{.bandwidth = 3e6, .snr = snr};
        const double rate = RelaxedRate(channel);
        const long double best = RelaxedGain(channel, rate);
        const double most = 3e6 * std::log2(1.0 + 50.0 * snr);
        constexpr int kSteps = 20'000;
        for (int i = 1; i <= kSteps; i++)
        {
            CHECK(RelaxedGain(channel, most * i / kSteps) <= best * (1.0L + 1e-12L));
        }
        // A maximum, not a plateau: a per cent aside is worse.
        CHECK(RelaxedGain(channel, 1.01 * rate) < best);
        CHECK(RelaxedGain(channel, 0.99 * rate) < best);
    }
    // Where the SNR is small, half of the attempts fail at the best rate.
    const RayleighChannel faint{.bandwidth = 3e6, .snr = 1e-6};
    CHECK(IsNear(OutageProbability(faint, RelaxedRate(faint)), 0.5, 1e-5));
}

TEST_CASE("Attempts are at least one and never overflow", "[outage]")
{
    CHECK(OutageAttempts(kTenMegahertz, 1e-9, 0.5) == 1);
    CHECK(OutageAttempts(kTenMegahertz, 1e9, 1e-3) == std::uint64_t{1} << 53);
    CHECK(OutageAttempts(kTenMegahertz, std::numeric_limits<double>::max(), 1e-3) == std::uint64_t{1} << 53);
    // Po = 1 - e^-20: ln(1e-3) / -e^-20 = 3.35e9.
    const double rate = 10e6 * std::log2(1.0 + 200.0);
    CHECK(IsNear(static_cast<double>(OutageAttempts(kTenMegahertz, rate, 1e-3)), std::log(1e3) * std::exp(20.0), 1e-6));
}

TEST_CASE("Channels, rates and targets out of range are refused", "[outage]")
{
    for (const double bad : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    {
        CHECK_THROWS_AS(OptimalRate({.bandwidth = bad, .snr = 1.0}, 0.1), std::invalid_argument);
        CHECK_THROWS_AS(RelaxedRate({.bandwidth = 1.0, .snr = bad}), std::invalid_argument);
        CHECK_THROWS_AS(OutageAttempts(kTenMegahertz, bad, 0.1), std::invalid_argument);
        CHECK_THROWS_AS(OptimalRate(kTenMegahertz, bad), std::invalid_argument);
        CHECK_THROWS_AS(WorstCaseLatency(kTenMegahertz, 1e6, bad, 8.0), std::invalid_argument);
    }
    CHECK_THROWS_AS(OptimalRate(kTenMegahertz, 1.0), std::invalid_argument);
    CHECK_THROWS_AS(OutageProbability(kTenMegahertz, -1.0), std::invalid_argument);
}
