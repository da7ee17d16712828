// SPDX-License-Identifier: GPL-2.0-only
#include "arrivals.h"

#include "base/deterministic-math.h"
#include "base/input-error.h"
#include "base/units.h"

#include "ns3/ptr.h"
#include "ns3/random-variable-stream.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>

namespace splitllm
{

using namespace ns3;

namespace
{

/// One request in a thousand seconds: so the arrivals of the largest workload end long before simulated time does.
constexpr double kLeastRate = 1e-3;
constexpr double kMostRate = 1e9; // one a nanosecond
constexpr std::int64_t kLatestSeconds = 1'000'000'000; // of a trace, likewise
constexpr std::int64_t kMostThinkSeconds = 600; // a run in which nothing happens for longer may be given up

/// The start of \p text on one line, escaped and in quotes.
std::string
Quoted(std::string_view text)
{
    return Json(std::string(text.substr(0, 40))).dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// Seconds without a unit. \throws InputError
Time
ParseSeconds(std::string_view text)
{
    const bool isNumber = text.find_first_not_of("0123456789.") == std::string_view::npos;
    try
    {
        const Time time = NanoSeconds(isNumber ? ParseDuration(std::string(text) + "s").count() : -1);
        if (time.IsPositive() && time <= Seconds(kLatestSeconds))
        {
            return time;
        }
    }
    catch (const InputError&)
    {
        // "1.2.3", a tenth decimal: said below.
    }
    throw InputError("time_s: " + Quoted(text) +
                     "; accepted: seconds up to 1000000000 with at most 9 decimals, such as 1.25");
}

/// A line of a trace: the time in seconds, and the user where there is such a column.
RequestArrival
ParseArrival(std::string_view line, bool hasUser, std::uint32_t row, std::uint32_t users)
{
    const std::size_t comma = line.find(',');
    if (std::ranges::count(line, ',') != (hasUser ? 1 : 0))
    {
        throw InputError("is " + Quoted(line) + "; accepted: " + (hasUser ? "a time and a user" : "a time alone"));
    }
    RequestArrival arrival{.time = ParseSeconds(line.substr(0, comma)), .user = row % users};
    if (hasUser)
    {
        const std::string_view user = line.substr(comma + 1);
        const auto [end, error] = std::from_chars(user.data(), user.data() + user.size(), arrival.user);
        if (error != std::errc() || end != user.data() + user.size() || arrival.user >= users)
        {
            throw InputError("user: " + Quoted(user) + "; accepted: an integer from 0 to " + std::to_string(users - 1));
        }
    }
    return arrival;
}

/// A CSV file whose first line is "time_s" or "time_s,user". \throws InputError "FILE:LINE: what is wrong; accepted: ..."
std::vector<RequestArrival>
LoadTrace(const std::filesystem::path& file, std::uint32_t users)
{
    std::ifstream stream(file);
    std::string line;
    const auto next = [&] {
        const bool is = static_cast<bool>(std::getline(stream, line));
        if (line.ends_with('\r'))
        {
            line.pop_back();
        }
        return is;
    };
    if (!next())
    {
        throw InputError("no trace " + file.string() + "; accepted: comma-separated values with columns time_s and user");
    }
    const bool hasUser = line == "time_s,user";
    if (!hasUser && line != "time_s")
    {
        throw InputError(file.string() + ":1: is " + Quoted(line) + "; accepted: the columns \"time_s,user\" or \"time_s\"");
    }
    std::vector<RequestArrival> arrivals;
    for (std::uint32_t row = 0; next(); row++)
    {
        const std::string origin = file.string() + ":" + std::to_string(row + 2) + ": ";
        try
        {
            arrivals.push_back(ParseArrival(line, hasUser, row, users));
        }
        catch (const InputError& error)
        {
            throw InputError(origin + error.what());
        }
        if (row > 0 && arrivals[row].time < arrivals[row - 1].time)
        {
            throw InputError(origin + "time_s: is earlier than the one before; accepted: times in their order");
        }
    }
    return arrivals;
}

} // namespace

ArrivalSpec
ReadArrivals(StrictObject& workload, std::uint32_t requests, std::uint32_t users, const std::filesystem::path& folder)
{
    ArrivalSpec spec;
    if (!workload.Has("arrival"))
    {
        return spec;
    }
    StrictObject arrival = workload.Object("arrival");
    const std::string process = arrival.Choice("process", {"closed", "poisson", "trace"});
    if (process == "closed")
    {
        spec.thinkTime = NanoSeconds(ReadDuration(arrival, "think_time", "0ns").count());
        if (spec.thinkTime > Seconds(kMostThinkSeconds))
        {
            arrival.Fail("think_time", "must be at most 600s");
        }
    }
    else if (process == "poisson")
    {
        spec.process = ArrivalSpec::Process::Poisson;
        spec.ratePerSecond = arrival.Number("rate_per_s", kLeastRate, kMostRate);
    }
    else
    {
        spec.process = ArrivalSpec::Process::Trace;
        try
        {
            spec.trace = LoadTrace(folder / arrival.String("file"), users);
        }
        catch (const InputError& error)
        {
            arrival.Fail("file", error.what());
        }
        if (spec.trace.size() < requests)
        {
            arrival.Fail("file",
                         "has " + std::to_string(spec.trace.size()) + " arrivals for " + std::to_string(requests) +
                             " requests; accepted: at least one for each");
        }
    }
    arrival.Finish();
    return spec;
}

std::vector<RequestArrival>
DrawArrivals(const ArrivalSpec& spec, std::uint32_t requests, std::uint32_t users, std::int64_t stream)
{
    if (spec.process == ArrivalSpec::Process::Trace)
    {
        return {spec.trace.begin(), spec.trace.begin() + requests};
    }
    const auto uniform = CreateObject<UniformRandomVariable>();
    uniform->SetStream(stream);
    std::vector<RequestArrival> arrivals;
    Time time;
    for (std::uint32_t r = 0; r < requests; r++)
    {
        if (spec.process == ArrivalSpec::Process::Poisson)
        {
            const double draw = 1.0 - uniform->GetValue(0.0, 1.0); // above 0
            time += NanoSeconds(static_cast<std::int64_t>(-deterministic::Log(draw) / spec.ratePerSecond * 1e9));
        }
        arrivals.push_back({.time = time, .user = r % users});
    }
    return arrivals;
}

} // namespace splitllm
