// SPDX-License-Identifier: GPL-2.0-only
#include "confidence.h"

#include "base/deterministic-math.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace splitllm
{

namespace
{

/// P(|T| <= sqrt(degrees) tan(angle)), a finite sum for whole degrees (Abramowitz and Stegun, 26.7.3 and 26.7.4).
double
ProbabilityWithin(std::uint32_t degrees, double angle)
{
    double sine = 0.0;
    double cosine = 0.0;
    deterministic::SinCos(angle, sine, cosine);
    const bool odd = degrees % 2 == 1;
    double term = odd ? cosine : 1.0;
    double sum = 0.0;
    for (std::uint32_t power = odd ? 1 : 0; power + 2 <= degrees; power += 2)
    {
        sum += term;
        term *= cosine * cosine * (power + 1.0) / (power + 2.0);
    }
    return odd ? (angle + sine * sum) * 2.0 / std::numbers::pi : sine * sum;
}

} // namespace

double
StudentT95(std::uint32_t degrees)
{
    double low = 0.0;
    double high = std::numbers::pi / 2.0;
    for (double middle = high / 2.0; low < middle && middle < high; middle = low + (high - low) / 2.0)
    {
        (ProbabilityWithin(degrees, middle) < 0.95 ? low : high) = middle;
    }
    double sine = 0.0;
    double cosine = 0.0;
    deterministic::SinCos(low, sine, cosine);
    return std::sqrt(static_cast<double>(degrees)) * sine / cosine;
}

double
HalfWidth95(const std::vector<double>& values)
{
    // Of differences to the first value: exactly 0 where all are equal.
    const auto count = static_cast<double>(values.size());
    double mean = 0.0;
    for (const double value : values)
    {
        mean += (value - values.front()) / count;
    }
    double squares = 0.0;
    for (const double value : values)
    {
        const double deviation = value - values.front() - mean;
        squares += deviation * deviation;
    }
    const auto degrees = static_cast<std::uint32_t>(values.size() - 1);
    return squares > 0.0 ? StudentT95(degrees) * std::sqrt(squares / (count - 1.0) / count) : 0.0;
}

Metrics
ConfidenceIntervals(const std::vector<Metrics>& repetitions)
{
    std::vector<std::pair<std::string, std::vector<double>>> values;
    for (const Metrics& metrics : repetitions)
    {
        for (const auto& [name, value] : metrics)
        {
            auto found = std::ranges::find(values, name, &std::pair<std::string, std::vector<double>>::first);
            if (found == values.end())
            {
                found = values.insert(values.end(), {name, {}});
            }
            found->second.push_back(value);
        }
    }
    Metrics halves;
    for (const auto& [name, measured] : values)
    {
        if (measured.size() >= 2)
        {
            halves.emplace_back(name, HalfWidth95(measured));
        }
    }
    return halves;
}

} // namespace splitllm
