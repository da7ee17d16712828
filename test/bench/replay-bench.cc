// SPDX-License-Identifier: GPL-2.0-only
#include "recording.h"
#include "simulation.h"
#include "study.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

// The default study at 1 Gbps with numbers, on all cores, and its replay, which has one thread; in turn, the fastest of
// each. Needs the model: SPLITLLM_MODELS, or models/.

using namespace splitllm;

namespace
{

double
Seconds(const Study& study)
{
    const auto start = std::chrono::steady_clock::now();
    Simulate(study, 0, 0, [] {});
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void
Replayed(benchmark::State& state, const std::string& link)
{
    const std::filesystem::path scenarios = std::filesystem::path(SPLITLLM_PROFILE_DIR).parent_path();
    const char* models = std::getenv("SPLITLLM_MODELS");
    StudyFolders folders;
    folders.models = models != nullptr ? models : SPLITLLM_MODEL_DIR;
    folders.profiles = SPLITLLM_PROFILE_DIR;
    folders.prompts = SPLITLLM_PROMPT_DIR;
    const StudyFile file = LoadStudyFile(scenarios / "default.json", {{"links.device-edge", link}, {"sweep", "{}"}});
    Json json = PointOf(file, {});
    const Study numeric = ReadStudy(json, file.origin, folders);

    RecordingWriter writer;
    const auto outcomes = std::make_shared<OutcomeRecorder>();
    const RunRecords run = Simulate(numeric, 0, 0, [] {}, outcomes);
    writer.Add(numeric, json, 0, run, outcomes->Outcomes());
    const std::filesystem::path recording = std::filesystem::temp_directory_path() / "split-llm-replay-bench";
    writer.Write(recording);
    Json replay{{"study", "replay"}, {"mode", "replay"}, {"recording", recording.string()}};
    const Study replayed = ReadStudy(replay, "bench", folders);
    std::filesystem::remove(recording);

    double with = 1e9;
    double without = 1e9;
    for (auto _ : state)
    {
        with = std::min(with, Seconds(numeric));
        without = std::min(without, Seconds(replayed));
    }
    state.counters["numeric_ms_per_token"] = with * 1e3 / static_cast<double>(run.tokens.size());
    state.counters["replay_ms_per_token"] = without * 1e3 / static_cast<double>(run.tokens.size());
    state.counters["ratio"] = with / without;
}

BENCHMARK_CAPTURE(Replayed, service, R"({"type": "service", "rate": "1Gbps", "delay": "100us"})")
    ->Iterations(3)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Replayed, wired, R"({"type": "wired", "rate": "1Gbps", "delay": "100us"})")
    ->Iterations(3)
    ->Unit(benchmark::kMillisecond);

} // namespace
