// SPDX-License-Identifier: GPL-2.0-only
#include "policy/outage.h"

#include "base/deterministic-math.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace splitllm
{

namespace
{

using deterministic::Exp;
using deterministic::Expm1;
using deterministic::Log;
using deterministic::Log1p;

constexpr double kLn2 = 0x1.62e42fefa39efp-1;
constexpr double kMostAttempts = 0x1p53;

void
Check(const RayleighChannel& channel)
{
    if (!(channel.bandwidth > 0.0 && std::isfinite(channel.bandwidth)))
    {
        throw std::invalid_argument("a channel's bandwidth must be above 0");
    }
    if (!(channel.snr > 0.0 && std::isfinite(channel.snr)))
    {
        throw std::invalid_argument("a channel's mean SNR must be above 0");
    }
}

void
CheckRate(double rate)
{
    if (!(rate > 0.0 && std::isfinite(rate)))
    {
        throw std::invalid_argument("a rate must be above 0");
    }
}

void
CheckEpsilon(double epsilon)
{
    if (!(epsilon > 0.0 && epsilon < 1.0))
    {
        throw std::invalid_argument("an outage target must be above 0 and below 1");
    }
}

/// The rate in units of W / ln 2 whose attempts fail with probability e^-\p a.
double
RateOf(double snr, double a)
{
    return Log1p(-snr * Log1p(-Exp(-a)));
}

} // namespace

double
ThresholdSnr(const RayleighChannel& channel, double rate)
{
    Check(channel);
    if (!(rate >= 0.0))
    {
        throw std::invalid_argument("a rate must not be below 0");
    }
    return Expm1(rate / channel.bandwidth * kLn2);
}

double
OutageProbability(const RayleighChannel& channel, double rate)
{
    return -Expm1(-ThresholdSnr(channel, rate) / channel.snr);
}

std::uint64_t
OutageAttempts(const RayleighChannel& channel, double rate, double epsilon)
{
    CheckRate(rate);
    CheckEpsilon(epsilon);
    // ln(Po) from 1 - Po, which keeps its digits where nearly every attempt fails.
    const double logOutage = Log(OutageProbability(channel, rate));
    const double exact = Log1p(-Exp(-ThresholdSnr(channel, rate) / channel.snr));
    const double attempts = Log(epsilon) / (logOutage > -0.5 ? exact : logOutage);
    return attempts < kMostAttempts ? std::max<std::uint64_t>(1, static_cast<std::uint64_t>(std::ceil(attempts)))
                                    : static_cast<std::uint64_t>(kMostAttempts);
}

double
WorstCaseLatency(const RayleighChannel& channel, double rate, double epsilon, double bits)
{
    return bits / rate * static_cast<double>(OutageAttempts(channel, rate, epsilon));
}

double
RelaxedRate(const RayleighChannel& channel)
{
    Check(channel);
    // Golden-section search over a = ln(1/Po). Below ln 2 the product only grows with a, whatever the SNR, and above
    // the other end the rate falls faster than a grows.
    const double golden = 0.5 * (std::sqrt(5.0) - 1.0);
    const auto product = [&channel](double a) { return a * RateOf(channel.snr, a); };
    double low = 0.5 * kLn2;
    double high = Log1p(channel.snr) + 4.0;
    for (int i = 0; i < 100; i++)
    {
        const double left = high - golden * (high - low);
        const double right = low + golden * (high - low);
        if (product(left) < product(right))
        {
            low = left;
        }
        else
        {
            high = right;
        }
    }
    return channel.bandwidth / kLn2 * RateOf(channel.snr, 0.5 * (low + high));
}

double
OptimalRate(const RayleighChannel& channel, double epsilon)
{
    Check(channel);
    CheckEpsilon(epsilon);
    // R_N is concave in the SNR that it needs, so R_N / N only falls once epsilon^(1/N) is above 1/2.
    const double exponent = -Log(epsilon);
    const auto most = static_cast<std::uint64_t>(std::ceil(exponent / kLn2));
    double best = 0.0;
    double rate = 0.0;
    for (std::uint64_t n = 1; n <= most; n++)
    {
        const auto attempts = static_cast<double>(n);
        const double candidate = RateOf(channel.snr, exponent / attempts);
        if (candidate / attempts > best)
        {
            best = candidate / attempts;
            rate = candidate;
        }
    }
    return channel.bandwidth / kLn2 * rate;
}

} // namespace splitllm
