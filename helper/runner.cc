// SPDX-License-Identifier: GPL-2.0-only
#include "runner.h"

#include "answers.h"
#include "base/input-error.h"
#include "recording.h"
#include "results.h"
#include "simulation.h"
#include "study.h"

#include "apps/split-llm-application.h"

#include "ns3/command-line.h"
#include "ns3/global-value.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include <unistd.h>

namespace splitllm
{

namespace
{

constexpr int kExpectationFailed = 1;
constexpr int kBadInput = 2;
constexpr int kInternalError = 3;

/// A line on standard error that is drawn again as tokens come in; nothing where that is no terminal.
class Progress
{
  public:
    Progress(std::size_t points, std::size_t tokensAPoint)
        : m_total(points * tokensAPoint),
          m_visible(::isatty(STDERR_FILENO) != 0)
    {
    }

    ~Progress()
    {
        if (m_visible)
        {
            std::fputs("\r\033[K", stderr);
        }
    }

    void Token()
    {
        m_done++;
        const auto now = std::chrono::steady_clock::now();
        if (!m_visible || now - m_drawn < std::chrono::milliseconds(100))
        {
            return;
        }
        m_drawn = now;
        constexpr int kWidth = 30;
        const double fraction = static_cast<double>(m_done) / static_cast<double>(m_total);
        const int filled = static_cast<int>(fraction * kWidth);
        const double elapsed = std::chrono::duration<double>(now - m_start).count();
        std::fprintf(stderr,
                     "\r\033[K[%s%s] %3.0f %%  %zu of %zu tokens, %.0f s left",
                     std::string(filled, '#').c_str(),
                     std::string(kWidth - filled, '.').c_str(),
                     100.0 * fraction,
                     m_done,
                     m_total,
                     elapsed * (1.0 - fraction) / fraction);
    }

  private:
    std::size_t m_total;
    std::size_t m_done = 0;
    bool m_visible;
    std::chrono::steady_clock::time_point m_start = std::chrono::steady_clock::now();
    std::chrono::steady_clock::time_point m_drawn{};
};

/// What the command line says, before the study is known.
struct Options
{
    std::string study;
    std::string out;
    std::string record;
    std::uint32_t threads = 0;
    StudyFolders folders;
    std::vector<std::pair<std::string, std::string>> overrides; //!< study keys, in the order given
};

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
                             "\": unknown option; accepted: --study, --out, --record, --set=PATH=VALUE, --models, --adapters, --profiles, "
                             "--prompts, --calibrators, --calibrations, --exits, --side-networks, --threads, --KEY=VALUE for a key of the study, and ns-3's own (--help)");
        }
    }
}

Options
ParseOptions(int argc, char* argv[])
{
    Options options;
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

    ns3::CommandLine cmd(__FILE__);
    cmd.Usage("Runs a split-LLM study: --study=FILE, results into --out=DIR.");
    std::vector<std::string> known{
        "study", "out", "models", "adapters", "profiles", "prompts", "calibrators", "calibrations", "exits",
        "side-networks", "threads", "set", "record"};
    cmd.AddValue("study", "the study, a JSON file", options.study);
    cmd.AddValue("out", "folder for the results; without it only the table is printed", options.out);
    cmd.AddValue("record", "file for a recording, which mode \"replay\" repeats without the model", options.record);
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
    if (options.study.empty())
    {
        throw InputError("no study: give --study=FILE, for instance --study=scenarios/default.json");
    }
    return options;
}

/// What differs between two runs of the same study.
Json
RunInformation(const Options& options, const std::vector<PointResult>& points, double seconds)
{
    std::uint64_t events = 0;
    Json lost = Json::array();
    Json memory = Json::array();
    for (const PointResult& point : points)
    {
        for (const RunRecords& run : point.runs)
        {
            events += run.events;
            for (const std::string& reason : run.sessionsLost)
            {
                lost.push_back(reason);
            }
            if (!run.outOfMemory.empty())
            {
                memory.push_back(run.outOfMemoryReason);
            }
        }
    }
    const bool onGpu = std::ranges::any_of(
        points, [](const PointResult& point) { return point.study.backend.name == BackendName::Cuda; });
    char host[256] = "";
    ::gethostname(host, sizeof(host) - 1);
    return {{"study_file", options.study},
            {"wall_s", seconds},
            {"events", events},
            {"sessions_lost", lost},
            {"out_of_memory", memory},
            {"ns3", SPLITLLM_NS3_VERSION},
            {"split_llm", SPLITLLM_VERSION},
            {"compiler", __VERSION__},
            {"gpu", onGpu ? Json(CudaDeviceName()) : Json()},
            {"host", host}};
}

/// Tokens that one run of \p study takes at most: those generated, and those that quality is judged by.
std::size_t
TokensOf(const Study& study)
{
    std::size_t tokens = std::size_t{study.requestCount} * study.newTokens;
    for (std::size_t r = 0; r < study.requestCount && study.quality; r++)
    {
        tokens += study.requests[r].answer.size();
    }
    return tokens;
}

/// \throws InputError if a link of \p study, which is in \p origin, is captured and there is no folder for that
void
CheckCaptures(const Study& study, const std::string& origin, const Options& options)
{
    const auto link = std::ranges::find_if(study.links, &LinkSpec::pcap);
    if (link != study.links.end() && options.out.empty())
    {
        throw InputError(origin + ": links." + link->name +
                         ".pcap: captures go to the results, which have no folder; give one with --out=DIR");
    }
}

/// \throws InputError if \p study cannot be recorded
void
RejectUnrecordable(const Study& study)
{
    const bool numbers = !study.shapeMode && !study.Replays();
    const std::string why = numbers ? WhyNoReplay(study) : "the study computes no numbers; accepted: mode \"numeric\"";
    if (!why.empty())
    {
        throw InputError("--record: " + why);
    }
}

int
RunStudy(const Options& options)
{
    const StudyFile file = LoadStudyFile(options.study, options.overrides);
    // Every point is read before the first one runs, so a mistake in the last costs no time.
    std::vector<PointResult> results;
    std::vector<Json> studies; // of each point, with every key
    std::size_t tokens = 0;
    for (const PointSet& set : file.points)
    {
        Json json = PointOf(file, set);
        PointResult result{.set = set, .study = ReadStudy(json, file.origin, options.folders), .runs = {}, .metrics = {}};
        tokens += TokensOf(result.study) * result.study.repeat;
        CheckCaptures(result.study, file.origin, options);
        if (!options.record.empty())
        {
            RejectUnrecordable(result.study);
        }
        results.push_back(std::move(result));
        studies.push_back(std::move(json));
    }
    std::optional<ResultsFolder> folder;
    if (!options.out.empty())
    {
        folder.emplace(options.out);
    }

    RecordingWriter recording;
    const auto start = std::chrono::steady_clock::now();
    {
        Progress progress(1, tokens);
        for (std::size_t p = 0; p < results.size(); p++)
        {
            PointResult& result = results[p];
            const bool isCaptured = std::ranges::any_of(result.study.links, &LinkSpec::pcap);
            for (std::uint32_t repetition = 0; repetition < result.study.repeat; repetition++)
            {
                const auto onToken = [&progress] { progress.Token(); };
                const auto outcomes = options.record.empty() ? nullptr : std::make_shared<OutcomeRecorder>();
                const std::string captures = isCaptured ? folder->Captures(p, repetition) : "";
                RunRecords& run = result.runs.emplace_back(
                    Simulate(result.study, repetition, options.threads, onToken, outcomes, captures));
                if (result.study.quality && run.outOfMemory.empty())
                {
                    run.quality = result.study.Replays()
                                      ? ReplayedQuality(result.study, repetition)
                                      : JudgeQuality(result.study, repetition, options.threads, run.requests, onToken);
                }
                if (outcomes)
                {
                    recording.Add(result.study, studies[p], repetition, run, outcomes->Outcomes());
                }
            }
            result.metrics = ComputeMetrics(result.study, result.runs);
        }
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

    PrintTable(std::cout, results);
    if (folder)
    {
        folder->Write(results.front().study.name, results, RunInformation(options, results, seconds));
    }
    if (!options.record.empty())
    {
        recording.Write(options.record);
    }
    const std::size_t failed = CheckExpectations(std::cout, file.expectations, results);
    return failed > 0 ? kExpectationFailed : 0;
}

} // namespace

int
RunStudies(int argc, char* argv[])
{
    try
    {
        return RunStudy(ParseOptions(argc, argv));
    }
    catch (const InputError& error)
    {
        std::cerr << "split-llm-run: " << error.what() << '\n';
        return kBadInput;
    }
    catch (const std::exception& error)
    {
        std::cerr << "split-llm-run: internal error: " << error.what() << '\n';
        return kInternalError;
    }
}

} // namespace splitllm
