// SPDX-License-Identifier: GPL-2.0-only
#include "sweep-space.h"

#include "base/deterministic-math.h"
#include "base/input-error.h"
#include "base/units.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <random>
#include <span>
#include <string_view>

namespace splitllm
{

namespace
{

constexpr const char* kPoints = "points";
constexpr const char* kSample = "sample";

constexpr std::size_t kMostPoints = 1'000'000;

/// Whole numbers that a double holds exactly, and so what a draw can tell apart.
constexpr std::int64_t kMostWhole = std::int64_t{1} << 53;

/// A unit's name and its size in the smallest one of its kind.
struct Unit
{
    const char* name;
    std::int64_t size;
};

/// A kind of quantity: how it is read, and the units in which it is written, the largest first.
struct Kind
{
    std::int64_t (*parse)(std::string_view text);
    std::vector<Unit> units;
};

/// \p value of any integer type, at most kMostWhole.
std::int64_t
Whole(auto value)
{
    if (value > decltype(value){kMostWhole})
    {
        throw InputError("exceeds 2^53 of the smallest unit");
    }
    return static_cast<std::int64_t>(value);
}

const std::vector<Kind>&
Kinds()
{
    static const std::vector<Kind> kinds{
        {[](std::string_view text) { return Whole(ParseBitRate(text)); },
         {{"Gbps", 1'000'000'000}, {"Mbps", 1'000'000}, {"kbps", 1000}, {"bps", 1}}},
        {[](std::string_view text) { return Whole(ParseDuration(text).count()); },
         {{"s", 1'000'000'000}, {"ms", 1'000'000}, {"us", 1000}, {"ns", 1}}},
        {[](std::string_view text) { return Whole(ParseBytes(text)); },
         {{"TB", 1'000'000'000'000}, {"GB", 1'000'000'000}, {"MB", 1'000'000}, {"kB", 1000}, {"B", 1}}},
        {[](std::string_view text) { return Whole(ParseFrequency(text)); },
         {{"GHz", 1'000'000'000}, {"MHz", 1'000'000}, {"kHz", 1000}, {"Hz", 1}}},
        {[](std::string_view text) { return Whole(ParseLength(text)); }, {{"km", 1'000'000}, {"m", 1000}, {"mm", 1}}}};
    return kinds;
}

/// \p value exactly, in the largest unit that it fills: "347.215Mbps".
std::string
Written(std::int64_t value, const Kind& kind)
{
    const auto fits = [value](const Unit& unit) { return unit.size <= value; };
    const auto found = std::ranges::find_if(kind.units, fits);
    const Unit& unit = found == kind.units.end() ? kind.units.back() : *found;
    std::string text = std::to_string(value / unit.size);
    if (std::int64_t rest = value % unit.size; rest != 0)
    {
        text += '.';
        for (std::int64_t digit = unit.size / 10; rest != 0; rest %= digit, digit /= 10)
        {
            text += static_cast<char>('0' + rest / digit);
            if (rest % digit == 0)
            {
                break;
            }
        }
    }
    return text + unit.name;
}

/// A path of a sample: what numbers in [0, 1) become.
class Dimension
{
  public:
    Dimension(StrictObject& over, const std::string& path)
    {
        Json& json = over.Raw(path);
        if (json.is_array() && !json.empty())
        {
            m_list = json;
            return;
        }
        if (!json.is_object())
        {
            over.Fail(path, "must be a list of at least one value, or a range such as {\"from\": 1, \"to\": 8}");
        }
        StrictObject range = over.Object(path);
        m_log = range.Choice("scale", {"linear", "log"}, "linear") == "log";
        const Json from = range.Raw("from");
        const Json to = range.Raw("to");
        range.Finish();
        if (from.is_string() && to.is_string())
        {
            ReadQuantities(range, from.get<std::string>(), to.get<std::string>());
        }
        else if (from.is_number_integer() && to.is_number_integer())
        {
            m_wholeFrom = ReadWhole(range, "from", from);
            m_wholeTo = ReadWhole(range, "to", to);
        }
        else if (from.is_number() && to.is_number())
        {
            m_real = true;
            m_from = from.get<double>();
            m_to = to.get<double>();
        }
        else
        {
            range.Fail("from", "and to must be alike; accepted: two integers, two numbers, or two quantities with units");
        }
        if (m_real ? m_from >= m_to : m_wholeFrom >= m_wholeTo)
        {
            range.Fail("to", "must exceed from");
        }
        if (m_log && (m_real ? m_from <= 0.0 : m_wholeFrom <= 0))
        {
            range.Fail("from", "must be above 0 for scale \"log\"");
        }
    }

    /// The value for a uniform \p u in [0, 1).
    Json At(double u) const
    {
        if (!m_list.empty())
        {
            return m_list[std::min(static_cast<std::size_t>(u * static_cast<double>(m_list.size())), m_list.size() - 1)];
        }
        if (m_real)
        {
            return std::clamp(Between(m_from, m_to, u), m_from, m_to);
        }
        // Every whole number from the first to the last has the part of the range up to the next.
        const double drawn = Between(static_cast<double>(m_wholeFrom), static_cast<double>(m_wholeTo) + 1.0, u);
        const std::int64_t whole = std::clamp(static_cast<std::int64_t>(std::floor(drawn)), m_wholeFrom, m_wholeTo);
        return m_kind != nullptr ? Json(Written(whole, *m_kind)) : Json(whole);
    }

  private:
    double Between(double from, double to, double u) const
    {
        if (!m_log)
        {
            return (1.0 - u) * from + u * to;
        }
        const double low = deterministic::Log(from);
        return deterministic::Exp((1.0 - u) * low + u * deterministic::Log(to));
    }

    static std::int64_t ReadWhole(const StrictObject& range, const std::string& key, const Json& json)
    {
        const bool tooLarge = json.is_number_unsigned() && json.get<std::uint64_t>() > std::uint64_t{kMostWhole};
        const std::int64_t value = tooLarge ? kMostWhole + 1 : json.get<std::int64_t>();
        if (value > kMostWhole || value < -kMostWhole)
        {
            range.Fail(key, "is " + json.dump() + "; accepted: an integer from -2^53 to 2^53");
        }
        return value;
    }

    void ReadQuantities(const StrictObject& range, const std::string& from, const std::string& to)
    {
        const auto parse = [](const Kind& kind, const std::string& text) -> std::optional<std::int64_t> {
            try
            {
                return kind.parse(text);
            }
            catch (const InputError&)
            {
                return std::nullopt;
            }
        };
        for (const Kind& kind : Kinds())
        {
            const std::optional<std::int64_t> low = parse(kind, from);
            const std::optional<std::int64_t> high = parse(kind, to);
            if (low && high)
            {
                m_kind = &kind;
                m_wholeFrom = *low;
                m_wholeTo = *high;
                return;
            }
        }
        range.Fail("from",
                   "is \"" + from + "\" and to is \"" + to +
                       "\"; accepted: two quantities of one kind below 2^53 of its smallest unit, such as \"100Mbps\" and "
                       "\"1Gbps\"");
    }

    Json m_list = Json::array();
    bool m_log = false;
    bool m_real = false;
    double m_from = 0.0;
    double m_to = 0.0;
    std::int64_t m_wholeFrom = 0;
    std::int64_t m_wholeTo = 0;
    const Kind* m_kind = nullptr; //!< of what the whole numbers are the smallest unit; none for plain integers
};

/// The random numbers of one path of a sample. The standard's distributions differ between libraries; these do not.
class Draws
{
  public:
    Draws(std::uint64_t seed, std::string_view path)
        : m_generator(Mixed(seed, path))
    {
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    double Uniform()
    {
        return static_cast<double>(m_generator() >> 11) * 0x1p-53;
    }

    /// 0 to \p size - 1 in a random order.
    std::vector<std::size_t> Permutation(std::size_t size)
    {
        std::vector<std::size_t> order(size);
        std::iota(order.begin(), order.end(), 0);
        for (std::size_t left = size; left > 1; left--)
        {
            std::swap(order[left - 1], order[Below(left)]);
        }
        return order;
    }

  private:
    /// FNV-1a of the path, from a start that the seed gives.
    static std::uint64_t Mixed(std::uint64_t seed, std::string_view path)
    {
        std::uint64_t hash = 0xcbf29ce484222325ULL ^ (seed * 0x9e3779b97f4a7c15ULL);
        for (const char c : path)
        {
            hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
        }
        return hash;
    }

    /// Uniform among 0 to \p count - 1: what lies beyond the last multiple of it is drawn again.
    std::uint64_t Below(std::uint64_t count)
    {
        const std::uint64_t most = std::numeric_limits<std::uint64_t>::max() / count * count;
        std::uint64_t drawn = m_generator();
        while (drawn >= most)
        {
            drawn = m_generator();
        }
        return drawn % count;
    }

    std::mt19937_64 m_generator;
};

std::vector<PointSet>
ReadSample(StrictObject sample)
{
    const std::string method = sample.Choice("method", {"random", "latin-hypercube"});
    const std::size_t size = sample.Integer("size", 1, kMostPoints);
    const std::uint64_t seed = sample.Integer("seed", 1, std::numeric_limits<std::uint32_t>::max(), 1);
    StrictObject over = sample.Object("over");
    sample.Finish();
    if (over.Keys().empty())
    {
        sample.Fail("over", "must name at least one key of the study");
    }
    std::vector<PointSet> points(size);
    for (const std::string& path : over.Keys())
    {
        const Dimension dimension(over, path);
        Draws draws(seed, path);
        if (method == "random")
        {
            for (PointSet& point : points)
            {
                point.emplace_back(path, dimension.At(draws.Uniform()));
            }
            continue;
        }
        // One point in each of as many equal parts as there are points.
        const std::vector<std::size_t> order = draws.Permutation(size);
        for (std::size_t i = 0; i < size; i++)
        {
            const double u = (static_cast<double>(order[i]) + draws.Uniform()) / static_cast<double>(size);
            points[i].emplace_back(path, dimension.At(u));
        }
    }
    return points;
}

std::vector<PointSet>
ReadPoints(StrictObject& sweep)
{
    std::vector<PointSet> points;
    std::vector<std::string> paths;
    for (StrictObject& entry : sweep.Objects(kPoints))
    {
        PointSet& point = points.emplace_back();
        for (const std::string& path : entry.Keys())
        {
            point.emplace_back(path, entry.Raw(path));
        }
        std::vector<std::string> own = entry.Keys();
        std::ranges::sort(own);
        if (points.size() == 1)
        {
            paths = own;
        }
        if (own.empty() || own != paths)
        {
            sweep.Fail(kPoints, "every point must set the same keys, at least one; the first sets " + Joined(paths) +
                                    ", one sets " + Joined(own));
        }
    }
    return points;
}

void
CheckCases(StrictObject& sweep)
{
    for (StrictObject& entry : sweep.Objects(kSweepCase))
    {
        entry.String("label");
        if (entry.Keys().size() < 2)
        {
            entry.Fail("label", "is alone; accepted: beside it, the keys of the study that the case sets");
        }
    }
}

/// One axis of the grid: sets of keys that change together.
std::vector<PointSet>
ReadAxis(StrictObject& sweep, const std::string& key)
{
    if (key == kSample)
    {
        return ReadSample(sweep.Object(kSample));
    }
    const Json& values = sweep.Raw(key);
    if (!values.is_array() || values.empty())
    {
        sweep.Fail(key, "must be a list of at least one value");
    }
    if (key == kPoints)
    {
        return ReadPoints(sweep);
    }
    if (key == kSweepCase)
    {
        CheckCases(sweep);
    }
    std::vector<PointSet> axis;
    for (const Json& value : values)
    {
        axis.push_back({{key, value}});
    }
    return axis;
}

/// Whether one of the paths leads to the other, or through it.
bool
Overlap(const std::string& a, const std::string& b)
{
    return (a + ".").starts_with(b + ".") || (b + ".").starts_with(a + ".");
}

/// \throws InputError if an entry of the list \p name of \p sweep sets what lies at \p path
void
RejectListed(const Json& sweep, const std::string& name, const std::string& what, const std::string& path)
{
    if (!sweep.contains(name) || !sweep[name].is_array())
    {
        return;
    }
    for (const Json& one : sweep[name])
    {
        for (const auto& [key, value] : one.items())
        {
            if (key != "label" && Overlap(key, path))
            {
                throw InputError("--set: " + path + ": the " + what + " of the sweep set " + key + "; accepted: sweep." +
                                 name + " with other " + what + ", or a key that they leave alone");
            }
        }
    }
}

} // namespace

std::string
SweptText(const Json& value)
{
    for (const char* key : {"label", "name", "shape", "path"})
    {
        if (value.is_object() && value.contains(key) && value[key].is_string())
        {
            return value[key].get<std::string>();
        }
    }
    return value.is_string() ? value.get<std::string>() : value.dump();
}

std::vector<PointSet>
ReadSweep(Json& json, const std::string& origin)
{
    std::vector<PointSet> points{{}};
    StrictObject sweep(json, origin, "sweep");
    for (const std::string& key : sweep.Keys())
    {
        const std::vector<PointSet> axis = ReadAxis(sweep, key);
        for (const auto& [path, value] : axis.front())
        {
            if (std::ranges::find(points.front(), path, &PointSet::value_type::first) != points.front().end())
            {
                sweep.Fail(key, path + " is swept twice; accepted: each key once");
            }
        }
        if (axis.size() > kMostPoints / points.size())
        {
            sweep.Fail(key, "makes more points than " + std::to_string(kMostPoints));
        }
        std::vector<PointSet> grid;
        for (const PointSet& point : points)
        {
            for (const PointSet& step : axis)
            {
                grid.push_back(point);
                grid.back().insert(grid.back().end(), step.begin(), step.end());
            }
        }
        points = std::move(grid);
    }
    return points;
}

void
OverrideSwept(Json& study, const std::string& path, const Json& value)
{
    if (!study.contains("sweep") || !study["sweep"].is_object())
    {
        return;
    }
    Json& sweep = study["sweep"];
    RejectListed(sweep, kSweepCase, "cases", path);
    RejectListed(sweep, kPoints, "points", path);
    if (sweep.contains(path))
    {
        sweep[path] = Json::array({value});
    }
    if (sweep.contains(kSample) && sweep[kSample].is_object() && sweep[kSample].contains("over") &&
        sweep[kSample]["over"].is_object() && sweep[kSample]["over"].contains(path))
    {
        sweep[kSample]["over"][path] = Json::array({value});
    }
}

} // namespace splitllm
