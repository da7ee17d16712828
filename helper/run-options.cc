// SPDX-License-Identifier: GPL-2.0-only
#include "run-options.h"

#include "base/input-error.h"

#include "ns3/command-line.h"
#include "ns3/global-value.h"
#include "ns3/priority-queue-scheduler.h"
#include "ns3/type-id.h"

#include <algorithm>
#include <cstdlib>
#include <optional>

namespace splitllm
{

namespace
{

/// Every leaf of \p json by its dotted path.
void
Flatten(const Json& json, const std::string& path, std::vector<std::pair<std::string, std::string>>& leaves)
{
    if (json.is_object() && !json.empty())
    {
        for (const auto& [key, value] : json.items())
        {
            Flatten(value, path.empty() ? key : path + "." + key, leaves);
        }
        return;
    }
    leaves.emplace_back(path, json.is_string() ? json.get<std::string>() : json.dump());
}

/// The value of the last --NAME=VALUE among \p args.
std::optional<std::string>
Peek(const std::vector<std::string>& args, const std::string& name)
{
    std::optional<std::string> value;
    for (const std::string& arg : args)
    {
        if (arg.starts_with("--" + name + "="))
        {
            value = arg.substr(name.size() + 3);
        }
    }
    return value;
}

/// The keys of a study and their values, with defaults where it says nothing: what the command line can change.
std::vector<std::pair<std::string, std::string>>
Knobs(const std::string& file, const StudyFolders& folders)
{
    Json json = LoadStrictJson(file);
    if (json.is_object())
    {
        json.erase("sweep");
        json.erase("expect");
    }
    try
    {
        Json complete = json;
        ReadStudy(complete, file, folders);
        json = std::move(complete);
    }
    catch (const InputError&)
    {
        // What is wrong may be what the command line puts right; if not, it is reported when the study is read.
    }
    std::vector<std::pair<std::string, std::string>> knobs;
    Flatten(json, "", knobs);
    return knobs;
}

/// ns-3's CommandLine ends the program with status 1 on an option that it does not know; here that is bad input.
void
RejectUnknown(const std::vector<std::string>& args, const std::vector<std::string>& known)
{
    for (const std::string& arg : args)
    {
        const std::string name = arg.starts_with("--") ? arg.substr(2, arg.find('=') - 2) : "";
        const auto isGlobal = [&name] {
            for (auto i = ns3::GlobalValue::Begin(); i != ns3::GlobalValue::End(); ++i)
            {
                if ((*i)->GetName() == name)
                {
                    return true;
                }
            }
            return false;
        };
        const bool accepted = std::find(known.begin(), known.end(), name) != known.end() ||
                              name.starts_with("Print") || name == "help" || name == "version" ||
                              name.starts_with("ns3::") || isGlobal();
        if (name.empty() || !accepted)
        {
            throw InputError("\"" + arg +
                             "\": unknown option; accepted: --study, --out, --points, --point, --record, --set=PATH=VALUE, --models, --adapters, --profiles, "
                             "--prompts, --calibrators, --calibrations, --exits, --side-networks, --threads, --KEY=VALUE for a key of the study, and ns-3's own (--help)");
        }
    }
}

} // namespace

RunOptions
ParseRunOptions(int argc, char* argv[])
{
    RunOptions options;
    options.command.assign(argv, argv + argc);
    const std::vector<std::string> args(argv + 1, argv + argc);
    // Which options there are depends on the study, so where it lies is needed before the others are parsed.
    const char* environment = std::getenv("SPLITLLM_MODELS");
    options.study = Peek(args, "study").value_or("");
    std::string models = Peek(args, "models").value_or(environment != nullptr ? environment : SPLITLLM_MODEL_DIR);
    std::string adapters = Peek(args, "adapters").value_or(SPLITLLM_ADAPTER_DIR);
    std::string profiles = Peek(args, "profiles").value_or(SPLITLLM_PROFILE_DIR);
    std::string prompts = Peek(args, "prompts").value_or(SPLITLLM_PROMPT_DIR);
    std::string calibrators = Peek(args, "calibrators").value_or(SPLITLLM_CALIBRATOR_DIR);
    std::string calibrations = Peek(args, "calibrations").value_or(SPLITLLM_CALIBRATION_DIR);
    std::string exits = Peek(args, "exits").value_or(SPLITLLM_EXIT_DIR);
    std::string sideNetworks = Peek(args, "side-networks").value_or(SPLITLLM_SIDE_NETWORK_DIR);
    options.folders = {models, adapters, profiles, prompts, calibrators, calibrations, exits, sideNetworks};
    const auto knobs = options.study.empty() ? std::vector<std::pair<std::string, std::string>>{}
                                             : Knobs(options.study, options.folders);

    // All schedulers run the same events in the same order; of ns-3's this one takes the least time. --SchedulerType
    // chooses another.
    ns3::GlobalValue::Bind("SchedulerType", ns3::TypeIdValue(ns3::PriorityQueueScheduler::GetTypeId()));
    ns3::CommandLine cmd("split-llm-run");
    cmd.Usage("Runs a split-LLM study: --study=FILE, results into --out=DIR.");
    std::vector<std::string> known{
        "study", "out", "points", "point", "record", "models", "adapters", "profiles", "prompts", "calibrators", "calibrations", "exits",
        "side-networks", "threads", "set"};
    // ns-3 would cut a plain string at its first blank.
    const auto whole = [](std::string& target) {
        return ns3::Callback<bool, const std::string&>([&target](const std::string& text) {
            target = text;
            return true;
        });
    };
    cmd.AddValue("study", "the study, a JSON file", whole(options.study));
    cmd.AddValue("out", "folder for the results; without it only the table is printed", whole(options.out));
    cmd.AddValue("points", "prints the study's points as JSON and runs none", options.listPoints);
    cmd.AddValue("point", "number of the only point to run, from 0", whole(options.point), options.point);
    cmd.AddValue("record", "file for a recording, which mode \"replay\" repeats without the model", whole(options.record));
    cmd.AddValue("models", "folder with model and adapter folders", models);
    cmd.AddValue("adapters", "folder with adapter folders that are not among the models", adapters);
    cmd.AddValue("profiles", "folder with hardware profiles", profiles);
    cmd.AddValue("prompts", "folder with prompt sets", prompts);
    cmd.AddValue("calibrators", "folder with calibrators", calibrators);
    cmd.AddValue("calibrations", "folder with activation statistics", calibrations);
    cmd.AddValue("exits", "folder with trained early exits", exits);
    cmd.AddValue("side-networks", "folder with trained side networks", sideNetworks);
    cmd.AddValue("threads", "threads of the CPU backend, 0 for all cores; never changes a result", options.threads);
    const auto override = [&options](const std::string& path, const std::string& value) {
        options.overrides.emplace_back(path, value);
        return true;
    };
    cmd.AddValue("set",
                 "PATH=VALUE: any key of the study; may be repeated",
                 ns3::Callback<bool, const std::string&>([&](const std::string& text) {
                     const std::size_t equals = text.find('=');
                     if (equals == std::string::npos || equals == 0)
                     {
                         throw InputError("--set=" + text + ": write --set=PATH=VALUE");
                     }
                     return override(text.substr(0, equals), text.substr(equals + 1));
                 }));
    for (const auto& [path, value] : knobs)
    {
        if (std::find(known.begin(), known.end(), path) != known.end())
        {
            continue; // "study", the study's own name
        }
        known.push_back(path);
        cmd.AddValue(path,
                     "of the study",
                     ns3::Callback<bool, const std::string&>(
                         [&override, path](const std::string& text) { return override(path, text); }),
                     value);
    }
    RejectUnknown(args, known);
    cmd.Parse(argc, argv);
    if (options.listPoints && !(options.point == "all" && options.out.empty()))
    {
        throw InputError("--points: runs nothing; accepted: without --point and --out");
    }
    if (options.study.empty())
    {
        throw InputError("no study: give --study=FILE, for instance --study=scenarios/default.json");
    }
    return options;
}

} // namespace splitllm
