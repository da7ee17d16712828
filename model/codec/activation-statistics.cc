// SPDX-License-Identifier: GPL-2.0-only
#include "codec/activation-statistics.h"

#include "base/input-error.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace splitllm
{

namespace
{

constexpr std::size_t kAnyCount = 0;

/// The list of finite numbers in [least, most] under \p key. \param count how many; kAnyCount: at least one
std::vector<double>
Numbers(StrictObject& object, const std::string& key, std::size_t count, double least, double most)
{
    const std::string accepted = "a list of " + (count == kAnyCount ? "" : std::to_string(count) + " ") + "numbers";
    const Json& list = object.Raw(key);
    if (!list.is_array() || list.empty() || (count != kAnyCount && list.size() != count))
    {
        object.Fail(key, accepted + " is expected");
    }
    std::vector<double> numbers;
    numbers.reserve(list.size());
    for (const Json& entry : list)
    {
        const double number = entry.is_number() ? entry.get<double>() : std::nan("");
        if (!(number >= least && number <= most))
        {
            object.Fail(key,
                        "entry " + std::to_string(numbers.size()) + " is " + entry.dump() + "; " + accepted + " in [" +
                            Json(least).dump() + ", " + Json(most).dump() + "] is expected");
        }
        numbers.push_back(number);
    }
    return numbers;
}

std::vector<float>
Floats(StrictObject& object, const std::string& key, std::size_t count, double least, double most)
{
    const std::vector<double> numbers = Numbers(object, key, count, least, most);
    return {numbers.begin(), numbers.end()};
}

constexpr double kLargest = std::numeric_limits<float>::max();
constexpr double kLeastScale = 1e-30; // a channel is divided by it

ChannelStatistics
ReadChannels(StrictObject& site, std::size_t cols)
{
    ChannelStatistics channels{.largest = Floats(site, "channel_max", cols, 0.0, kLargest),
                               .rms = Floats(site, "channel_rms", cols, 0.0, kLargest),
                               .shift = Floats(site, "shift", cols, -kLargest, kLargest),
                               .scale = Floats(site, "scale", cols, kLeastScale, kLargest),
                               .clip = {}};
    StrictObject clip = site.Object("clip");
    for (unsigned bits = 2; bits <= 8; bits++)
    {
        const std::string key = std::to_string(bits);
        if (clip.Has(key))
        {
            const std::vector<float> factors = Floats(clip, key, 2, 0.0, 1.0);
            channels.clip[bits] = {factors[0], factors[1]};
        }
    }
    clip.Finish();
    return channels;
}

void
RequireShape(StrictObject model, const ModelConfig& config)
{
    const auto require = [&](const std::string& key, std::size_t expected) {
        const std::uint64_t found = model.Integer(key, 1, 1U << 30);
        if (found != expected)
        {
            model.Fail(key,
                       std::to_string(found) + " does not fit the model " + config.name + ", which has " +
                           std::to_string(expected));
        }
    };
    require("layers", config.layers);
    require("hidden", config.hidden);
    require("query", config.QueryWidth());
    require("kv", config.KvWidth());
    model.Finish();
}

} // namespace

std::size_t
IndexOf(const CodecSite& site)
{
    return site.layer == 0 ? 0 : site.layer - 1;
}

ActivationStatistics
ActivationStatistics::Load(const std::filesystem::path& file, const ModelConfig& config)
{
    return Read(LoadStrictJson(file), file.string(), config);
}

ActivationStatistics
ActivationStatistics::Read(Json json, const std::string& origin, const ModelConfig& config)
{
    StrictObject object(json, origin);
    object.Choice("format", {"split-llm-activation-statistics"});
    object.Integer("version", 1, 1);
    RequireShape(object.Object("model"), config);
    object.Raw("made_by");

    ActivationStatistics statistics;
    statistics.m_levels = Numbers(object, "levels", kAnyCount, 0.0, 1.0);
    for (std::size_t i = 1; i < statistics.m_levels.size(); i++)
    {
        if (statistics.m_levels[i] <= statistics.m_levels[i - 1])
        {
            object.Fail("levels", "shares that rise are expected");
        }
    }
    StrictObject sites = object.Object("sites");
    for (const std::string& kind : sites.Keys())
    {
        std::vector<StrictObject> entries = sites.Objects(kind);
        if (entries.size() != config.layers && entries.size() != 1)
        {
            sites.Fail(kind,
                       std::to_string(entries.size()) + " entries; one for each of the " +
                           std::to_string(config.layers) + " layers is expected, or one in all");
        }
        for (StrictObject& entry : entries)
        {
            SiteStatistics& site = statistics.m_sites[kind].emplace_back();
            site.quantiles = Floats(entry, "quantiles", statistics.m_levels.size(), 0.0, kLargest);
            if (entry.Has("channel_max"))
            {
                site.channels = ReadChannels(entry, config.hidden);
            }
            entry.Finish();
        }
    }
    object.Finish();
    return statistics;
}

const SiteStatistics*
ActivationStatistics::Find(const CodecSite& site) const
{
    // TLC-Calibrator's name for the state behind the last layer.
    const auto kind = m_sites.find(site.kind == "final-state" ? "hidden-state" : site.kind);
    if (kind == m_sites.end() || IndexOf(site) >= kind->second.size())
    {
        return nullptr;
    }
    return &kind->second[IndexOf(site)];
}

float
ActivationStatistics::Quantile(const CodecSite& site, double level) const
{
    const SiteStatistics* found = Find(site);
    if (found == nullptr)
    {
        throw InputError("codec: the activation statistics have no " + std::string(site.kind) + ", layer " +
                         std::to_string(site.layer));
    }
    return found->quantiles.at(static_cast<std::size_t>(std::ranges::find(m_levels, level) - m_levels.begin()));
}

ActivationStatistics
ReadStatistics(StrictObject& parameters, const CodecContext& context)
{
    if (context.shapeMode)
    {
        if (parameters.Has("statistics"))
        {
            parameters.String("statistics");
        }
        return {};
    }
    return ActivationStatistics::Load(context.calibrations / parameters.String("statistics"), context.config);
}

} // namespace splitllm
