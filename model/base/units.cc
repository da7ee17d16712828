// SPDX-License-Identifier: GPL-2.0-only
#include "base/units.h"

#include "base/input-error.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <span>
#include <utility>

namespace splitllm
{

namespace
{

/// A unit's name and its size in the smallest one.
struct Unit
{
    std::string_view name;
    std::uint64_t size;
};

constexpr Unit kByteUnits[] = {{"B", 1},
                               {"kB", 1'000},
                               {"KB", 1'000},
                               {"MB", 1'000'000},
                               {"GB", 1'000'000'000},
                               {"TB", 1'000'000'000'000},
                               {"KiB", 1ULL << 10},
                               {"MiB", 1ULL << 20},
                               {"GiB", 1ULL << 30},
                               {"TiB", 1ULL << 40}};

constexpr Unit kTimeUnits[] = {{"ns", 1}, {"us", 1'000}, {"ms", 1'000'000}, {"s", 1'000'000'000}};

constexpr Unit kRateUnits[] = {{"bps", 1}, {"kbps", 1'000}, {"Mbps", 1'000'000}, {"Gbps", 1'000'000'000}};

constexpr Unit kFrequencyUnits[] = {{"Hz", 1}, {"kHz", 1'000}, {"MHz", 1'000'000}, {"GHz", 1'000'000'000}};

constexpr Unit kLengthUnits[] = {{"mm", 1}, {"m", 1'000}, {"km", 1'000'000}};

constexpr const char* kBytesWanted =
    "a whole number of bytes below 2^64; write a number and one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB, such as "
    "\"80GB\"";

constexpr const char* kTimeWanted =
    "a whole number of nanoseconds below 2^63; write a number and one of ns, us, ms, s, such as \"100us\"";

constexpr const char* kRateWanted = "a data rate; write a number and one of bps, kbps, Mbps, Gbps, such as \"1Gbps\"";

constexpr const char* kFrequencyWanted = "a frequency; write a number and one of Hz, kHz, MHz, GHz, such as \"10MHz\"";

constexpr const char* kLengthWanted =
    "a whole number of millimetres below 1000km; write a number and one of mm, m, km, such as \"10m\"";

/// The start of \p text on one line, escaped and in quotes.
std::string
Quoted(std::string_view text)
{
    return Json(std::string(text.substr(0, 40))).dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// The digits that \p text begins with, cut off from it.
std::string_view
TakeDigits(std::string_view& text)
{
    const auto isDigit = [](char c) { return c >= '0' && c <= '9'; };
    const auto count = static_cast<std::size_t>(std::ranges::find_if_not(text, isDigit) - text.begin());
    const std::string_view digits = text.substr(0, count);
    text.remove_prefix(count);
    return digits;
}

/// \p digits as a number; nothing if it does not fit.
std::optional<std::uint64_t>
ToInteger(std::string_view digits)
{
    std::uint64_t value = 0;
    for (const char c : digits)
    {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, static_cast<std::uint64_t>(c - '0'), &value))
        {
            return std::nullopt;
        }
    }
    return value;
}

/// \p text in the smallest of \p units; nothing if it is malformed, no whole number of them, or too large.
std::optional<std::uint64_t>
Parse(std::string_view text, std::span<const Unit> units)
{
    const std::string_view wholeDigits = TakeDigits(text);
    std::string_view decimals;
    if (text.starts_with('.'))
    {
        text.remove_prefix(1);
        decimals = TakeDigits(text);
        if (decimals.empty())
        {
            return std::nullopt;
        }
        decimals = decimals.substr(0, decimals.find_last_not_of('0') + 1);
    }
    const auto unit = std::ranges::find(units, text, &Unit::name);
    if (wholeDigits.empty() || decimals.size() > 19 || unit == units.end())
    {
        return std::nullopt;
    }

    const std::optional<std::uint64_t> whole = ToInteger(wholeDigits);
    std::uint64_t numerator = ToInteger(decimals).value_or(0); // below 10^19, so it fits
    std::uint64_t denominator = 1;
    for (std::size_t i = 0; i < decimals.size(); ++i)
    {
        denominator *= 10;
    }
    const std::uint64_t common = std::gcd(numerator, denominator);
    numerator /= common;
    denominator /= common;

    // In lowest terms the fraction is a whole number of the smallest unit only if the denominator divides the unit, and
    // its product is then below the unit.
    std::uint64_t value = 0;
    if (!whole || unit->size % denominator != 0 || __builtin_mul_overflow(*whole, unit->size, &value) ||
        __builtin_add_overflow(value, numerator * (unit->size / denominator), &value))
    {
        return std::nullopt;
    }
    return value;
}

/// Parse with \p least and \p most. \throws InputError "TEXT is not WANTED"
std::uint64_t
ParseWithin(std::string_view text,
            std::span<const Unit> units,
            std::uint64_t least,
            std::uint64_t most,
            const char* wanted)
{
    const std::optional<std::uint64_t> value = Parse(text, units);
    if (!value || *value < least || *value > most)
    {
        throw InputError(Quoted(text) + " is not " + wanted);
    }
    return *value;
}

/// What \p parse makes of the string under \p key.
template <typename Parser>
auto
ReadText(StrictObject& object, const std::string& key, std::optional<std::string> fallback, Parser parse)
{
    const std::string text = object.String(key, std::move(fallback));
    try
    {
        return parse(text);
    }
    catch (const InputError& error)
    {
        object.Fail(key, error.what());
    }
}

} // namespace

std::uint64_t
ParseBytes(std::string_view text)
{
    return ParseWithin(text, kByteUnits, 0, std::numeric_limits<std::uint64_t>::max(), kBytesWanted);
}

std::chrono::nanoseconds
ParseDuration(std::string_view text)
{
    constexpr std::int64_t most = std::chrono::nanoseconds::max().count();
    return std::chrono::nanoseconds(static_cast<std::int64_t>(ParseWithin(text, kTimeUnits, 0, most, kTimeWanted)));
}

std::uint64_t
ParseBitRate(std::string_view text)
{
    return ParseWithin(text, kRateUnits, 1, std::numeric_limits<std::uint64_t>::max(), kRateWanted);
}

std::uint64_t
ParseFrequency(std::string_view text)
{
    return ParseWithin(text, kFrequencyUnits, 1, std::numeric_limits<std::uint64_t>::max(), kFrequencyWanted);
}

std::uint64_t
ParseLength(std::string_view text)
{
    return ParseWithin(text, kLengthUnits, 0, 999'999'999, kLengthWanted);
}

std::uint64_t
ReadBytes(StrictObject& object, const std::string& key, std::optional<std::uint64_t> fallback)
{
    if (!object.Has(key) || object.Raw(key).is_number())
    {
        return object.Integer(key, 0, std::numeric_limits<std::uint64_t>::max(), fallback);
    }
    if (!object.Raw(key).is_string())
    {
        object.Fail(key, std::string("is not ") + kBytesWanted);
    }
    return ReadText(object, key, std::nullopt, ParseBytes);
}

std::chrono::nanoseconds
ReadDuration(StrictObject& object, const std::string& key, std::optional<std::string> fallback)
{
    return ReadText(object, key, std::move(fallback), ParseDuration);
}

std::uint64_t
ReadBitRate(StrictObject& object, const std::string& key, std::optional<std::string> fallback)
{
    return ReadText(object, key, std::move(fallback), ParseBitRate);
}

std::uint64_t
ReadFrequency(StrictObject& object, const std::string& key, std::optional<std::string> fallback)
{
    return ReadText(object, key, std::move(fallback), ParseFrequency);
}

} // namespace splitllm
