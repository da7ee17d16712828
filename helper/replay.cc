// SPDX-License-Identifier: GPL-2.0-only
#include "replay.h"

#include "base/input-error.h"

#include <filesystem>
#include <set>
#include <utility>

namespace splitllm
{

namespace
{

/// Keys of the workload that are about load.
const std::set<std::string> kLoadKeys{"requests", "per_user", "arrival"};

/// Keys of a scheme that are about time, accounting or names.
const std::set<std::string> kFreeSchemeKeys{
    "label", "skip_notice", "notice", "reply", "timeout", "retry", "context_timeout", "context_memory"};

Json
Without(const Json& object, const std::set<std::string>& keys)
{
    Json rest = Json::object();
    for (const auto& [key, value] : object.items())
    {
        if (!keys.contains(key))
        {
            rest[key] = value;
        }
    }
    return rest;
}

/// The value under a dotted path of two keys, as a message shows it.
std::string
Shown(const Json& study, const std::string& path)
{
    const std::size_t dot = path.find('.');
    const Json& part = study[path.substr(0, dot)];
    const std::string key = path.substr(dot + 1);
    return part.contains(key) ? part[key].dump() : "absent";
}

/// \p study over \p recorded: objects key by key, of which null takes one away; a link whose type is given, hardware
/// and lists as a whole.
Json
Over(const Json& recorded, const Json& study, const std::string& path = "")
{
    const bool whole = !recorded.is_object() || !study.is_object() || path.ends_with(".hardware") ||
                       (path.starts_with("links.") && study.contains("type"));
    if (whole)
    {
        return study;
    }
    Json merged = recorded;
    for (const auto& [key, value] : study.items())
    {
        const std::string at = path.empty() ? key : path + "." + key;
        if (value.is_null())
        {
            merged.erase(key);
            continue;
        }
        merged[key] = recorded.contains(key) ? Over(recorded[key], value, at) : value;
    }
    return merged;
}

} // namespace

Json
Decisive(const Json& study)
{
    const auto part = [&study](const char* key, const std::set<std::string>& free) {
        const bool isThere = study.contains(key) && study[key].is_object();
        return isThere ? Without(study[key], free) : Json::object();
    };
    return {{"model", part("model", {})},
            {"scheme", part("scheme", kFreeSchemeKeys)},
            {"workload", part("workload", kLoadKeys)}};
}

std::string
Difference(const Json& a, const Json& b)
{
    for (const auto& [part, keys] : a.items())
    {
        std::set<std::string> all;
        for (const Json* side : {&keys, &b[part]})
        {
            for (const auto& [key, value] : side->items())
            {
                all.insert(key);
            }
        }
        for (const std::string& key : all)
        {
            if (!keys.contains(key) || !b[part].contains(key) || keys[key] != b[part][key])
            {
                return part + "." + key;
            }
        }
    }
    return {};
}

std::string
WhyNoReplay(const Study& study)
{
    if (study.scheme.opsc.deadline && study.scheme.opsc.controlled)
    {
        return "scheme.control: Algorithm 2 decides by the time that is left, which depends on the network; accepted: "
               "\"none\", or no deadline";
    }
    return {};
}

std::vector<QualityRow>
ReplayedQuality(const Study& study, std::uint32_t repetition)
{
    const RecordedRun& run = study.ReplayedRun(repetition);
    const auto recorded = static_cast<std::uint32_t>(run.requests.size());
    std::vector<QualityRow> rows;
    for (std::uint32_t first = 0; first < study.requestCount; first += recorded)
    {
        for (QualityRow row : run.quality)
        {
            row.request += first;
            if (row.request < study.requestCount)
            {
                rows.push_back(row);
            }
        }
    }
    return rows;
}

Replay
FindReplay(const Json& study, const std::string& origin)
{
    Json json = study;
    StrictObject object(json, origin);
    const std::string name = object.String("recording");
    const std::filesystem::path beside = std::filesystem::path(origin).parent_path() / name;
    const std::filesystem::path file = std::filesystem::exists(beside) ? beside : std::filesystem::path(name);
    if (object.Has("backend"))
    {
        object.Fail("backend", "a replay computes nothing; accepted: no backend");
    }
    Json changes = Without(study, {"recording"});
    Replay replay;
    std::string difference;
    std::string otherwise;
    for (const std::shared_ptr<const RecordedRun>& run : LoadRecording(file))
    {
        Json merged = Over(Without(run->study, {"backend"}), changes);
        const std::string at = Difference(Decisive(run->study), Decisive(merged));
        if (!at.empty())
        {
            difference = at;
            otherwise = Shown(run->study, at);
            continue;
        }
        if (replay.runs.empty())
        {
            replay.study = std::move(merged);
        }
        else if (const std::string two = Difference(Decisive(replay.study), Decisive(merged)); !two.empty())
        {
            object.Fail("recording",
                        "points that differ in " + two + " were recorded; accepted: a study that says which: " +
                            Shown(replay.study, two) + ", " + Shown(merged, two));
        }
        replay.runs.push_back(run);
    }
    if (replay.runs.empty())
    {
        throw InputError(origin + ": " + difference + ": was recorded as " + otherwise +
                         "; a replay takes other links, nodes, seeds and loads, everything else as it was recorded");
    }
    replay.study["recording"] = name;
    return replay;
}

} // namespace splitllm
