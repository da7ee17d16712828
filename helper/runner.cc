// SPDX-License-Identifier: GPL-2.0-only
#include "runner.h"

#include "answers.h"
#include "base/input-error.h"
#include "confidence.h"
#include "recording.h"
#include "replay.h"
#include "results.h"
#include "run-options.h"
#include "simulation.h"
#include "study.h"

#include "apps/split-llm-application.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
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

/// What differs between two runs of the same study, and what it takes to run it again.
Json
RunInformation(const RunOptions& options, const Json& study, const std::vector<PointResult>& points, double seconds)
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
    std::error_code gone; // the folder that the program was started in may be there no more
    return {{"study_file", options.study},
            {"command", options.command},
            {"folder", std::filesystem::current_path(gone).string()},
            {"study", study},
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
CheckCaptures(const Study& study, const std::string& origin, const RunOptions& options)
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

/// The expectations of \p file about \p set.
Json
ExpectationsOf(const StudyFile& file, const PointSet& set)
{
    Json list = Json::array();
    for (const Expectation& expectation : file.expectations)
    {
        if (Selects(expectation, set))
        {
            list.push_back({{"metric", expectation.metric},
                            {"value", expectation.value},
                            {"abs", expectation.tolerance},
                            {"source", expectation.source}});
        }
    }
    return list;
}

/**
 * Prints what each point is: the values that it sets, its repetitions, its expectations, and the study that it runs
 * with all defaults, which together say whether a result of an earlier run is still that of this point.
 */
void
PrintPoints(std::ostream& stream, const RunOptions& options, const StudyFile& file)
{
    Json points = Json::array();
    std::string name;
    for (const PointSet& set : file.points)
    {
        Json json = PointOf(file, set);
        const Study study = ReadStudy(json, file.origin, options.folders);
        name = study.name;
        Json swept = Json::object();
        for (const auto& [key, value] : set)
        {
            swept[key] = value;
        }
        points.push_back({{"title", TitleOf(set)},
                          {"set", std::move(swept)},
                          {"repeat", study.repeat},
                          {"expect", ExpectationsOf(file, set)},
                          {"study", std::move(json)}});
    }
    const StudyFolders& folders = options.folders;
    Json places{{"models", folders.models.string()},
                {"adapters", folders.adapters.string()},
                {"profiles", folders.profiles.string()},
                {"prompts", folders.prompts.string()},
                {"calibrators", folders.calibrators.string()},
                {"calibrations", folders.calibrations.string()},
                {"exits", folders.exits.string()},
                {"side-networks", folders.sideNetworks.string()}};
    stream << Json{{"study", name}, {"folders", std::move(places)}, {"points", std::move(points)}}.dump(2) << '\n';
}

/// The numbers of the points to run: all, or the one that --point names.
std::vector<std::size_t>
ChosenPoints(const RunOptions& options, const StudyFile& file)
{
    std::vector<std::size_t> numbers(file.points.size());
    std::iota(numbers.begin(), numbers.end(), std::size_t{0});
    if (options.point == "all")
    {
        return numbers;
    }
    std::size_t number = 0;
    const char* end = options.point.data() + options.point.size();
    const auto [stop, error] = std::from_chars(options.point.data(), end, number);
    if (error != std::errc() || stop != end || number >= file.points.size())
    {
        throw InputError("--point=" + options.point + ": no such point; accepted: all, or 0 to " +
                         std::to_string(file.points.size() - 1));
    }
    return {number};
}

/// A point of the study, before and after it runs.
struct Point
{
    std::size_t number;
    Json json; //!< of the study, with every key
    PointResult result;
};

/// The points to run. All are read before the first one runs, so a mistake in the last costs no time.
std::vector<Point>
ReadPoints(const RunOptions& options, const StudyFile& file)
{
    std::vector<Point> points;
    for (const std::size_t number : ChosenPoints(options, file))
    {
        const PointSet& set = file.points[number];
        Json json = PointOf(file, set);
        PointResult result{.set = set, .study = ReadStudy(json, file.origin, options.folders), .runs = {}, .metrics = {}};
        CheckCaptures(result.study, file.origin, options);
        if (!options.record.empty())
        {
            RejectUnrecordable(result.study);
        }
        points.push_back({number, std::move(json), std::move(result)});
    }
    return points;
}

/// One repetition of \p point, captured into \p folder and recorded by \p outcomes where there are such.
RunRecords
RunOnce(const Point& point,
        std::uint32_t repetition,
        std::uint32_t threads,
        const std::function<void()>& onToken,
        const std::optional<ResultsFolder>& folder,
        std::shared_ptr<OutcomeRecorder> outcomes)
{
    const Study& study = point.result.study;
    const bool isCaptured = std::ranges::any_of(study.links, &LinkSpec::pcap);
    const std::string captures = isCaptured ? folder->Captures(point.number, repetition) : "";
    RunRecords run = Simulate(study, repetition, threads, onToken, std::move(outcomes), captures);
    if (study.quality && run.outOfMemory.empty())
    {
        run.quality = study.Replays() ? ReplayedQuality(study, repetition)
                                      : JudgeQuality(study, repetition, threads, run.requests, onToken);
    }
    return run;
}

/// The metrics of all repetitions together, and where there are several of each alone, with the intervals they give.
void
Evaluate(PointResult& result)
{
    result.metrics = ComputeMetrics(result.study, result.runs);
    if (result.runs.size() < 2)
    {
        return;
    }
    std::vector<RunRecords> alone(1);
    for (RunRecords& run : result.runs)
    {
        std::swap(alone.front(), run);
        result.repetitions.push_back(ComputeMetrics(result.study, alone));
        std::swap(alone.front(), run);
    }
    result.halfWidths = ConfidenceIntervals(result.repetitions);
}

int
RunStudy(const RunOptions& options)
{
    const StudyFile file = LoadStudyFile(options.study, options.overrides);
    if (options.listPoints)
    {
        PrintPoints(std::cout, options, file);
        return 0;
    }
    std::vector<Point> points = ReadPoints(options, file);
    std::size_t tokens = 0;
    for (const Point& point : points)
    {
        tokens += TokensOf(point.result.study) * point.result.study.repeat;
    }
    std::optional<ResultsFolder> folder;
    if (!options.out.empty())
    {
        folder.emplace(options.out);
    }

    RecordingWriter recording;
    if (!options.record.empty())
    {
        RecordingWriter::CheckWritable(options.record);
    }
    std::vector<PointResult> results;
    const auto start = std::chrono::steady_clock::now();
    {
        Progress progress(1, tokens);
        const auto onToken = [&progress] { progress.Token(); };
        for (Point& point : points)
        {
            for (std::uint32_t repetition = 0; repetition < point.result.study.repeat; repetition++)
            {
                const auto outcomes = options.record.empty() ? nullptr : std::make_shared<OutcomeRecorder>();
                RunRecords run = RunOnce(point, repetition, options.threads, onToken, folder, outcomes);
                if (outcomes)
                {
                    recording.Add(point.result.study, point.json, repetition, run, outcomes->Outcomes());
                }
                point.result.runs.push_back(std::move(run));
            }
            Evaluate(point.result);
            results.push_back(std::move(point.result));
        }
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

    PrintTable(std::cout, results);
    if (folder)
    {
        folder->Write(results.front().study.name, results, RunInformation(options, file.study, results, seconds));
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
        return RunStudy(ParseRunOptions(argc, argv));
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
