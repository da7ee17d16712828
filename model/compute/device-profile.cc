// SPDX-License-Identifier: GPL-2.0-only
#include "compute/device-profile.h"

#include "base/input-error.h"
#include "base/units.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <system_error>
#include <vector>

namespace splitllm
{

namespace
{

constexpr std::array kOperations{Operation::Embed,
                                 Operation::Project,
                                 Operation::Adapt,
                                 Operation::Merge,
                                 Operation::FinishLayer,
                                 Operation::Prune,
                                 Operation::Snapshot,
                                 Operation::Restore,
                                 Operation::Head,
                                 Operation::Sample,
                                 Operation::Exit,
                                 Operation::Attend,
                                 Operation::FeedForward,
                                 Operation::Bottleneck,
                                 Operation::SideInput,
                                 Operation::Side,
                                 Operation::Combine,
                                 Operation::Gate,
                                 Operation::Search,
                                 Operation::Fork,
                                 Operation::Calibrate,
                                 Operation::Encode,
                                 Operation::Decode};

constexpr std::array kRated{DType::F32, DType::F16, DType::BF16, DType::I8};

constexpr double kMostRate = 1e6;  // TFLOPS and GB/s: a thousand times today's largest accelerator
constexpr double kMostTime = 1e12; // of a table's milliseconds and a launch's microseconds: within 292 years

void
RejectUnknown(const StrictObject& object, const std::vector<std::string>& accepted)
{
    for (const std::string& key : object.Keys())
    {
        if (std::ranges::find(accepted, key) == accepted.end())
        {
            object.Fail(key, "unknown key; accepted: " + Joined(accepted));
        }
    }
}

/// A number in (0, \p most].
double
ReadPositive(StrictObject& object, const std::string& key, double most, std::optional<double> fallback = std::nullopt)
{
    const double value = object.Number(key, 0.0, most, fallback);
    if (value == 0.0)
    {
        object.Fail(key, "is 0; accepted: a number above 0");
    }
    return value;
}

std::string
ReadText(StrictObject& object, const std::string& key, const std::string& base)
{
    const std::string text = object.String(key, base.empty() ? std::nullopt : std::optional(base));
    if (text.empty())
    {
        object.Fail(key, "is empty; accepted: a text");
    }
    return text;
}

TableEntry
ReadEntry(StrictObject entry, bool mayBeMeasured)
{
    std::vector<std::string> accepted{"ms", "ms_per_row"};
    if (mayBeMeasured)
    {
        accepted.emplace_back("samples");
    }
    RejectUnknown(entry, accepted);
    const std::vector<std::string> given = entry.Keys();
    if (given.empty())
    {
        entry.Fail("ms",
                   "missing; accepted: ms, the time of a call, or ms_per_row, the time of each of its rows" +
                       std::string(mayBeMeasured ? ", or samples, calls that were measured" : ""));
    }
    if (given.size() > 1)
    {
        entry.Fail(given.back(), "stands beside " + given.front() + "; accepted: one of " + Joined(accepted));
    }
    TableEntry read;
    if (entry.Has("samples"))
    {
        read.measured = std::make_shared<const MeasuredTimes>(MeasuredTimes::Read(entry, "samples"));
        return read;
    }
    read.perRow = entry.Has("ms_per_row");
    const double milliseconds = entry.Number(given.front(), 0.0, kMostTime);
    read.time = std::chrono::nanoseconds(std::llround(milliseconds * 1e6));
    return read;
}

std::filesystem::path
FileOf(const std::string& name, const std::filesystem::path& folder)
{
    return folder / (name + ".json");
}

/// The names of the profiles in \p folder, sorted.
std::vector<std::string>
NamesIn(const std::filesystem::path& folder)
{
    std::vector<std::string> names;
    std::error_code ignored;
    for (const auto& file : std::filesystem::directory_iterator(folder, ignored))
    {
        if (file.path().extension() == ".json")
        {
            names.push_back(file.path().stem().string());
        }
    }
    std::ranges::sort(names);
    return names;
}

/// Why \p name cannot be loaded; nothing if it is there. A name is never taken for a path.
std::optional<std::string>
WhyMissing(const std::string& name, const std::filesystem::path& folder)
{
    const std::vector<std::string> names = NamesIn(folder);
    if (std::ranges::find(names, name) != names.end())
    {
        return std::nullopt;
    }
    return "no hardware profile has the name " + Json(name).dump(-1, ' ', false, Json::error_handler_t::replace) +
           "; accepted: " + Joined(names) + " (the files of " + folder.string() + ")";
}

} // namespace

DeviceProfile
DeviceProfile::Read(StrictObject& object, const std::filesystem::path& folder)
{
    DeviceProfile profile;
    if (object.Has("profile"))
    {
        const std::string base = object.String("profile");
        if (const auto why = WhyMissing(base, folder))
        {
            object.Fail("profile", *why);
        }
        profile = Load(base, folder);
    }
    RejectUnknown(object,
                  {"profile",
                   "name",
                   "source",
                   "memory",
                   "tflops",
                   "bandwidth_gb_per_s",
                   "launch_us",
                   "efficiency",
                   "timing",
                   "measured_on"});
    profile.Override(object);
    return profile;
}

DeviceProfile
DeviceProfile::Load(const std::string& name, const std::filesystem::path& folder)
{
    if (const auto why = WhyMissing(name, folder))
    {
        throw InputError(*why);
    }
    const std::filesystem::path file = FileOf(name, folder);
    Json json = LoadStrictJson(file);
    StrictObject object(json, file.string());
    if (object.Has("profile"))
    {
        object.Fail("profile", "a file cannot have a base; accepted: the keys themselves");
    }
    DeviceProfile profile = Read(object, folder);
    if (profile.m_name != name)
    {
        object.Fail("name", "is \"" + profile.m_name + "\"; accepted: \"" + name + "\", as the file is called");
    }
    return profile;
}

void
DeviceProfile::Override(StrictObject& object)
{
    m_name = ReadText(object, "name", m_name);
    m_source = ReadText(object, "source", m_source);
    m_memory = ReadBytes(object, "memory", m_memory);
    if (object.Has("tflops"))
    {
        StrictObject rates = object.Object("tflops");
        std::vector<std::string> accepted;
        for (const DType dtype : kRated)
        {
            const std::string& key = accepted.emplace_back(NameOf(dtype));
            if (rates.Has(key))
            {
                m_flopsPerNs[dtype] = ReadPositive(rates, key, kMostRate) * 1e3;
            }
        }
        RejectUnknown(rates, accepted);
    }
    if (object.Has("bandwidth_gb_per_s"))
    {
        m_bytesPerNs = ReadPositive(object, "bandwidth_gb_per_s", kMostRate);
    }
    const double launch = object.Number("launch_us", 0.0, kMostTime, static_cast<double>(m_launch.count()) / 1e3);
    m_launch = std::chrono::nanoseconds(std::llround(launch * 1e3));
    if (object.Has("efficiency"))
    {
        StrictObject efficiency = object.Object("efficiency");
        m_computeEfficiency = ReadPositive(efficiency, "compute", 1.0, m_computeEfficiency);
        m_bandwidthEfficiency = ReadPositive(efficiency, "bandwidth", 1.0, m_bandwidthEfficiency);
        efficiency.Finish();
    }
    if (object.Has("timing"))
    {
        ReadTiming(object);
    }
    ReadMeasuredOn(object);
    if (m_timing == Timing::Roofline || (m_timing == Timing::Table && m_otherwise == "roofline"))
    {
        if (m_flopsPerNs.empty())
        {
            object.Fail("tflops",
                        R"(missing; accepted: an object such as {"fp16": 312}, because the roofline needs it)");
        }
        if (m_bytesPerNs == 0.0)
        {
            object.Fail("bandwidth_gb_per_s", "missing; accepted: a number above 0, because the roofline needs it");
        }
    }
}

void
DeviceProfile::ReadTiming(StrictObject& object)
{
    const Json& value = object.Raw("timing");
    m_table.clear();
    m_otherwise.clear();
    if (value.is_object())
    {
        StrictObject timing = object.Object("timing");
        StrictObject table = timing.Object("table");
        ReadTable(table);
        m_otherwise = timing.Choice("otherwise", {"free", "roofline", "error"});
        timing.Finish();
        m_timing = Timing::Table;
    }
    else if (value == "roofline")
    {
        m_timing = Timing::Roofline;
    }
    else if (value == "measured")
    {
        m_timing = Timing::Measured;
    }
    else
    {
        object.Fail("timing",
                    R"(is no timing; accepted: "roofline", "measured", or {"table": {OPERATION: {"ms": 1.5}}, )"
                    R"("otherwise": "free", "roofline" or "error"})");
    }
}

void
DeviceProfile::ReadMeasuredOn(StrictObject& object)
{
    if (object.Has("measured_on"))
    {
        StrictObject measured = object.Object("measured_on");
        for (const std::string key : {"device", "software", "model", "command"})
        {
            ReadText(measured, key, "");
        }
        if (measured.Has("date"))
        {
            ReadText(measured, "date", "");
        }
        measured.Finish();
    }
    else if (object.Has("timing") &&
             std::ranges::any_of(m_table, [](const auto& entry) { return entry.second.measured != nullptr; }))
    {
        object.Fail("measured_on",
                    "missing; accepted: an object with device, software, model and command, because the table has "
                    "samples");
    }
}

void
DeviceProfile::ReadTable(StrictObject& table)
{
    std::vector<std::string> accepted;
    for (const Operation operation : kOperations)
    {
        const std::string& key = accepted.emplace_back(NameOf(operation));
        if (table.Has(key))
        {
            m_table[operation] = ReadEntry(table.Object(key), true);
        }
    }
    accepted.emplace_back("layer");
    RejectUnknown(table, accepted);
    if (table.Has("layer"))
    {
        const auto parts = {Operation::Project, Operation::FinishLayer, Operation::Attend, Operation::FeedForward};
        if (std::ranges::any_of(parts, [&](Operation part) { return m_table.contains(part); }))
        {
            table.Fail("layer",
                       "stands beside its parts; accepted: layer alone, or project and finish-layer (with bottleneck "
                       "adapters project, attend and feed-forward)");
        }
        m_table[Operation::Project] = {};
        m_table[Operation::Attend] = {};
        m_table[Operation::FinishLayer] = ReadEntry(table.Object("layer"), false);
        m_table[Operation::FeedForward] = m_table[Operation::FinishLayer];
    }
}

std::chrono::nanoseconds
DeviceProfile::TimeOf(Operation operation,
                      std::size_t rows,
                      const Work& work,
                      DType dtype,
                      std::chrono::nanoseconds measured) const
{
    if (m_timing == Timing::Measured)
    {
        return measured;
    }
    if (m_timing == Timing::Roofline)
    {
        return Roofline(work, dtype);
    }
    const auto entry = m_table.find(operation);
    if (entry == m_table.end())
    {
        if (m_otherwise == "error")
        {
            throw InputError("hardware profile " + m_name + ": timing.table." + std::string(NameOf(operation)) +
                             R"(: missing; accepted: its time, or another "otherwise" than "error")");
        }
        return m_otherwise == "roofline" ? Roofline(work, dtype) : std::chrono::nanoseconds(0);
    }
    if (entry->second.measured)
    {
        try
        {
            return entry->second.measured->TimeOf(rows, work);
        }
        catch (const InputError& error)
        {
            throw InputError("hardware profile " + m_name + ": timing.table." + std::string(NameOf(operation)) +
                             ".samples: " + error.what());
        }
    }
    std::int64_t time = entry->second.time.count();
    if (entry->second.perRow && __builtin_mul_overflow(time, rows, &time))
    {
        FailTooLong();
    }
    return std::chrono::nanoseconds(time);
}

bool
DeviceProfile::RunsAsOne(Operation operation, const Work& work) const
{
    const auto entry = m_table.find(operation);
    return m_timing != Timing::Table || entry == m_table.end() || !entry->second.measured || work.weightBytes > 0;
}

std::chrono::nanoseconds
DeviceProfile::Roofline(const Work& work, DType dtype) const
{
    const double bytes = static_cast<double>(work.bytesRead) + static_cast<double>(work.bytesWritten);
    const double compute = static_cast<double>(work.flops) / (FlopsPerNs(dtype) * m_computeEfficiency);
    const double transfer = bytes / (m_bytesPerNs * m_bandwidthEfficiency);
    const double busy = std::ceil(std::max(compute, transfer));
    std::int64_t time = 0;
    if (!(busy < static_cast<double>(std::numeric_limits<std::int64_t>::max())) ||
        __builtin_mul_overflow(work.launches, m_launch.count(), &time) ||
        __builtin_add_overflow(time, static_cast<std::int64_t>(busy), &time))
    {
        FailTooLong();
    }
    return std::chrono::nanoseconds(time);
}

double
DeviceProfile::FlopsPerNs(DType dtype) const
{
    auto rate = m_flopsPerNs.find(dtype);
    if (rate == m_flopsPerNs.end() && (dtype == DType::F16 || dtype == DType::BF16))
    {
        rate = m_flopsPerNs.find(dtype == DType::F16 ? DType::BF16 : DType::F16);
    }
    if (rate == m_flopsPerNs.end())
    {
        std::vector<std::string> given;
        for (const auto& [type, unused] : m_flopsPerNs)
        {
            given.emplace_back(NameOf(type));
        }
        throw InputError("hardware profile " + m_name + ": tflops." + std::string(NameOf(dtype)) +
                         ": missing, and the weights are of this type; accepted: a number above 0 (given: " +
                         Joined(given) + ")");
    }
    return rate->second;
}

void
DeviceProfile::FailTooLong() const
{
    throw InputError("hardware profile " + m_name +
                     ": one operation takes more than 292 years; accepted: higher rates");
}

const std::string&
DeviceProfile::Name() const
{
    return m_name;
}

const std::string&
DeviceProfile::Source() const
{
    return m_source;
}

Timing
DeviceProfile::Mode() const
{
    return m_timing;
}

std::uint64_t
DeviceProfile::Memory() const
{
    return m_memory;
}

} // namespace splitllm
