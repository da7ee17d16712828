// SPDX-License-Identifier: GPL-2.0-only
#include "compute/measured-times.h"

#include "base/input-error.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <tuple>

namespace splitllm
{

namespace
{

constexpr double kMostTime = 1e12;                           // milliseconds, within 292 years
constexpr std::uint64_t kMostCount = std::uint64_t{1} << 53; // what a double holds exactly
constexpr double kSame = 1e-9;                               // FLOPs of a row, relative: rounding and no other call

double
Between(double from, double to, double share)
{
    return from + (to - from) * share;
}

std::chrono::nanoseconds
ReadTime(StrictObject& sample, const std::string& key)
{
    return std::chrono::nanoseconds(std::llround(sample.Number(key, 0.0, kMostTime) * 1e6));
}

TimeSample
ReadSample(StrictObject& object)
{
    TimeSample sample;
    sample.rows = object.Integer("rows", 1, kMostCount);
    sample.work.caches = object.Integer("caches", 0, sample.rows, 0);
    if (sample.work.caches > 1 && sample.work.caches != sample.rows)
    {
        object.Fail("caches",
                    "is " + std::to_string(sample.work.caches) +
                        "; accepted: 1 where all rows are of one sequence, or " + std::to_string(sample.rows) +
                        " where each is of its own");
    }
    sample.work.flops = object.Integer("flops", 0, kMostCount);
    sample.work.bytesRead = object.Integer("bytes_read", 0, kMostCount);
    sample.work.bytesWritten = object.Integer("bytes_written", 0, kMostCount);
    sample.work.weightBytes = object.Integer("weight_bytes", 0, sample.work.bytesRead);
    sample.median = ReadTime(object, "ms");
    sample.p10 = ReadTime(object, "p10");
    sample.p90 = ReadTime(object, "p90");
    if (sample.p10 > sample.median || sample.median > sample.p90)
    {
        object.Fail("ms", "is not between p10 and p90; accepted: the median, in order with the percentiles around it");
    }
    sample.repeats = object.Integer("repeats", 1, kMostCount);
    object.Finish();
    return sample;
}

std::string
Rounded(double value)
{
    return std::to_string(std::llround(value));
}

} // namespace

MeasuredTimes
MeasuredTimes::Read(StrictObject& object, const std::string& key)
{
    MeasuredTimes times;
    std::set<std::array<std::uint64_t, 4>> calls;
    for (StrictObject& each : object.Objects(key))
    {
        const TimeSample sample = ReadSample(each);
        const Work& work = sample.work;
        const bool ownCaches = work.caches > 1;
        if (!calls.insert({work.weightBytes, ownCaches, sample.rows, work.flops}).second)
        {
            each.Fail("rows", "the same call as one before it; accepted: each once");
        }
        Kinds& kinds = times.m_byWeights[work.weightBytes];
        const auto rows = static_cast<double>(sample.rows);
        (ownCaches ? kinds.each : kinds.one)
            .Add(rows, {static_cast<double>(work.flops) / rows, static_cast<double>(sample.median.count())});
    }
    if (calls.empty())
    {
        object.Fail(key, "is empty; accepted: a list of at least one call that was measured");
    }
    return times;
}

Json
MeasuredTimes::Written(const TimeSample& sample)
{
    const auto milliseconds = [](std::chrono::nanoseconds time) { return static_cast<double>(time.count()) / 1e6; };
    Json json{{"rows", sample.rows}};
    if (sample.work.caches > 0)
    {
        json["caches"] = sample.work.caches;
    }
    json["flops"] = sample.work.flops;
    json["weight_bytes"] = sample.work.weightBytes;
    json["bytes_read"] = sample.work.bytesRead;
    json["bytes_written"] = sample.work.bytesWritten;
    json["ms"] = milliseconds(sample.median);
    json["p10"] = milliseconds(sample.p10);
    json["p90"] = milliseconds(sample.p90);
    json["repeats"] = sample.repeats;
    return json;
}

std::chrono::nanoseconds
MeasuredTimes::TimeOf(std::size_t rows, const Work& work) const
{
    if (work == Work{})
    {
        return std::chrono::nanoseconds(0);
    }
    const auto kinds = m_byWeights.find(work.weightBytes);
    if (kinds == m_byWeights.end())
    {
        std::vector<std::uint64_t> measured;
        for (const auto& [bytes, unused] : m_byWeights)
        {
            measured.push_back(bytes);
        }
        throw InputError(std::to_string(work.weightBytes) + " bytes of weights were not measured; accepted: " +
                         Joined(measured) + "; another model or precision needs a measurement of its own");
    }
    // A batch of prompts and tokens is between a sequence and a batch of tokens: as many caches are read.
    const auto& [one, each] = kinds->second;
    const auto count = static_cast<double>(rows);
    const double flops = static_cast<double>(work.flops) / count;
    const double share = rows > 1 && work.caches > 1
                             ? static_cast<double>(work.caches - 1) / static_cast<double>(rows - 1)
                             : 0.0;
    const bool mixed = share > 0.0 && share < 1.0;
    const auto asOne = share < 1.0 ? one.At(count, flops, mixed) : std::nullopt;
    const auto asEach = share > 0.0 ? each.At(count, flops, mixed) : std::nullopt;
    if (!asOne && !asEach)
    {
        throw InputError("a call with rows " + std::to_string(rows) + ", FLOPs a row " + Rounded(flops) +
                         ", sequences " + std::to_string(std::max<std::uint64_t>(work.caches, 1)) +
                         " was not measured; accepted: with one sequence " + one.Extent() +
                         "; with a sequence for each row " + each.Extent());
    }
    const double time = asOne && asEach ? Between(*asOne, *asEach, share) : (asOne ? *asOne : *asEach);
    return std::chrono::nanoseconds(std::llround(time));
}

double
MeasuredTimes::Level::At(double share) const
{
    const double flops = Between(points.front().flops, points.back().flops, share);
    const auto above = std::ranges::lower_bound(points, flops, {}, &Point::flops);
    if (above == points.begin() || above == points.end())
    {
        return (above == points.end() ? points.back() : points.front()).time;
    }
    const Point& below = *(above - 1);
    return Between(below.time, above->time, (flops - below.flops) / (above->flops - below.flops));
}

void
MeasuredTimes::Surface::Add(double rows, const Level::Point& point)
{
    auto level = std::ranges::lower_bound(levels, rows, {}, &Level::rows);
    if (level == levels.end() || level->rows != rows)
    {
        level = levels.insert(level, {rows, {}});
    }
    level->points.insert(std::ranges::lower_bound(level->points, point.flops, {}, &Level::Point::flops), point);
}

std::optional<double>
MeasuredTimes::Surface::At(double rows, double flops, bool orFewer) const
{
    const auto above = std::ranges::lower_bound(levels, rows, {}, &Level::rows);
    if (above == levels.end() || (above == levels.begin() && above->rows != rows))
    {
        return std::nullopt;
    }
    const Level& high = *above;
    const Level& low = high.rows == rows ? high : *(above - 1);
    const double way = high.rows == rows ? 0.0 : (rows - low.rows) / (high.rows - low.rows);
    const double least = Between(low.points.front().flops, high.points.front().flops, way);
    const double most = Between(low.points.back().flops, high.points.back().flops, way);
    const double rounding = kSame * most;
    if ((flops < least - rounding && !orFewer) || flops > most + rounding)
    {
        return std::nullopt;
    }
    const double share = most - least > rounding ? std::clamp((flops - least) / (most - least), 0.0, 1.0) : 0.0;
    return Between(low.At(share), high.At(share), way);
}

std::string
MeasuredTimes::Surface::Extent() const
{
    if (levels.empty())
    {
        return "none";
    }
    const auto describe = [](const Level& level) {
        const std::string least = Rounded(level.points.front().flops);
        const std::string most = Rounded(level.points.back().flops);
        return Rounded(level.rows) + " (FLOPs a row " + (least == most ? least : least + " to " + most) + ")";
    };
    const std::string first = "rows " + describe(levels.front());
    return levels.size() == 1 ? first : first + " to " + describe(levels.back());
}

} // namespace splitllm
