// SPDX-License-Identifier: GPL-2.0-only

// Invariant 9: a replay on the recorded link is the recorded run. And: what a replay refuses.

#include "support/catch.h"
#include "support/bottleneck-folder.h"
#include "support/error-of.h"
#include "support/side-folder.h"
#include "support/study-fixture.h"
#include "support/temporary-folder.h"

#include "answers.h"
#include "llm/config.h"
#include "recording.h"
#include "replay.h"
#include "results.h"
#include "simulation.h"

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

using namespace splitllm;
using splitllm::test::ErrorOf;
using splitllm::test::Folders;
using splitllm::test::TemporaryFolder;
using splitllm::test::TestModel;
using splitllm::test::TinyStudy;
using splitllm::test::WriteSideNetwork;

namespace
{

/// The result files of \p json by name, but run.json. \param writer adds the runs to a recording; may be null
std::map<std::string, std::string>
Results(Json json, RecordingWriter* writer = nullptr)
{
    const Study study = ReadStudy(json, "test", Folders());
    PointResult result{.set = {}, .study = study, .runs = {}, .metrics = {}};
    for (std::uint32_t repetition = 0; repetition < study.repeat; repetition++)
    {
        const auto outcomes = std::make_shared<OutcomeRecorder>();
        RunRecords& run = result.runs.emplace_back(Simulate(study, repetition, 1, [] {}, outcomes));
        if (study.quality)
        {
            run.quality = study.Replays() ? ReplayedQuality(study, repetition)
                                          : JudgeQuality(study, repetition, 1, run.requests, [] {});
        }
        if (writer != nullptr)
        {
            writer->Add(study, json, repetition, run, outcomes->Outcomes());
        }
    }
    result.metrics = ComputeMetrics(study, result.runs);
    const TemporaryFolder folder;
    ResultsFolder(folder.Path()).Write(study.name, {result}, Json::object());
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder.Path()))
    {
        std::ostringstream text;
        text << std::ifstream(entry.path(), std::ios::binary).rdbuf();
        files[entry.path().filename().string()] = text.str();
    }
    files.erase("run.json");
    return files;
}

/// A recording of studies in a file.
class Recorded
{
  public:
    void Add(const Json& json)
    {
        m_results = Results(json, &m_writer);
        m_writer.Write(m_file);
    }

    /// Those of the last study that was added.
    const std::map<std::string, std::string>& ItsResults() const
    {
        return m_results;
    }

    const std::filesystem::path& File() const
    {
        return m_file;
    }

    /// The replay that changes nothing but what \p changes says.
    Json Replay(const Json& changes = Json::object()) const
    {
        Json json{{"study", "tiny"}, {"mode", "replay"}, {"recording", m_file.string()}};
        json.update(changes);
        return json;
    }

    /// The one line that a replay is refused with.
    std::string Error(const Json& changes) const
    {
        Json json = Replay(changes);
        const std::string error = ErrorOf([&] { ReadStudy(json, "test", Folders()); });
        CHECK(error.find('\n') == std::string::npos);
        return error;
    }

  private:
    TemporaryFolder m_folder;
    std::filesystem::path m_file = m_folder.Path() / "recording";
    RecordingWriter m_writer;
    std::map<std::string, std::string> m_results;
};

Json
OnCloud(const char* link = R"({"type": "service", "rate": "100Mbps", "delay": "1ms"})")
{
    Json json = TinyStudy();
    json["model"].erase("adapter");
    json["nodes"].erase("edge");
    json["nodes"]["cloud"] = {{"role", "cloud"}, {"hardware", "a800-80gb"}};
    json["links"] = {{"device-cloud", Json::parse(link)}};
    return json;
}

/// Studies of every scheme and of everything that numbers decide, by what they are about.
class Studies
{
  public:
    Studies()
        : m_bottlenecks(LoadConfig(TestModel("tiny-llama")), 6)
    {
        const ModelConfig config = LoadConfig(TestModel("tiny-llama"));
        Json& adapters = m_all["adapter-split"] = TinyStudy();
        adapters["model"]["adapter"]["path"] = m_bottlenecks.Write().string();
        adapters["scheme"]["name"] = "adapter-split";
        const std::string side = WriteSideNetwork(m_side, config, 5, 7).string();
        for (const char* scheme : {R"({"name": "linfer", "codec": "fp16"})",
                                   R"({"name": "linfer", "codec": {"name": "tab-q", "bits": 4, "tau": 0.6}})",
                                   R"({"name": "linfer", "codec": {"name": "round-to-nearest", "bits": 4}})",
                                   R"({"name": "server", "stream": true})",
                                   R"({"name": "server"})",
                                   R"({"name": "local"})",
                                   R"({"name": "mlora", "keep": 0.5})",
                                   R"({"name": "dlora", "keep": 0.5, "importance": "random"})",
                                   R"({"name": "tlc", "policy": {"name": "calibrator", "path": "tiny-calibrator/narrow",
                                                                 "tau1": 0.5, "tau2": 0.5}})",
                                   R"({"name": "tlc", "first_layer": true, "codec": {"name": "tab-q", "bits": 5},
                                       "policy": {"name": "random", "offload": 0.7, "return": 0.5}})"})
        {
            Json json = TinyStudy();
            json["scheme"] = Json::parse(scheme);
            m_all[scheme] = json;
        }
        for (const char* scheme :
             {R"({"name": "opsc", "split": 2, "codec": {"name": "tab-q", "bits": 4, "tau": 0.6}})",
              R"({"name": "opsc", "split": 2, "context": "stateless-kv", "codec": {"name": "tab-q", "bits": 6}})",
              R"({"name": "opsc", "split": 2, "context": "stateless"})",
              R"({"name": "opsc", "split": 2, "deadline": "1s", "control": "none"})",
              R"({"name": "opsc", "split": 2, "placement": "device-first", "device_tokens": 2})",
              R"({"name": "naive-split", "split": 3})",
              R"({"name": "ce-collm", "exits": {"layers": [1, 3]}, "policy": {"name": "confidence", "threshold": 0.45}})",
              R"({"name": "ce-collm", "exits": {"layers": [1, 3]}, "upload_below": 0.4, "codec": {"name": "tab-q", "bits": 4},
                  "policy": {"name": "random", "shares": [0.3, 0.4]}})"})
        {
            Json json = OnCloud();
            json["scheme"] = Json::parse(scheme);
            m_all[scheme] = json;
        }
        for (const char* name : {"spa", "lst"})
        {
            Json json = OnCloud();
            json["scheme"] = {{"name", name}, {"side", {{"path", side}}}};
            m_all[name] = json;
        }
        Json& search = m_all["spa with beams"] = m_all["spa"];
        search["workload"]["beams"] = 3U;
        search["scheme"]["policy"] = {{"name", "random"}, {"open", 0.5}};
        Json& linferSearch = m_all["linfer with beams"] = TinyStudy();
        linferSearch["workload"]["beams"] = 2U;
        Json& drawn = m_all["drawn tokens in a drawn order, three times"] = TinyStudy();
        drawn["workload"].update({{"temperature", 1.3}, {"top_p", 0.9}, {"order", "random"}});
        drawn["repeat"] = 3U;
        Json& batched = m_all["batches and fading"] = TinyStudy();
        batched["nodes"]["edge"]["batch"] = 4U;
        batched["nodes"]["device"]["count"] = 3U;
        batched["links"]["device-edge"] = Json::parse(R"({"type": "fading", "bandwidth": "20MHz", "snr": 20,
            "rate": "optimal", "epsilon": 0.1})");
        batched["workload"]["per_user"] = true;
        Json& wire = m_all["a wire that loses packets"] = TinyStudy();
        wire["links"]["device-edge"]["loss"] = 0.05;
    }

    const std::map<std::string, Json>& All() const
    {
        return m_all;
    }

  private:
    TemporaryFolder m_side;
    test::BottleneckFolder m_bottlenecks;
    std::map<std::string, Json> m_all;
};

} // namespace

TEST_CASE("a replay on the recorded link is the recorded run, file by file", "[invariant-9][replay]")
{
    const Studies studies;
    for (const auto& [about, json] : studies.All())
    {
        CAPTURE(about);
        Recorded recorded;
        recorded.Add(json);
        const auto replayed = Results(recorded.Replay());
        REQUIRE(replayed.size() == recorded.ItsResults().size());
        for (const auto& [file, content] : recorded.ItsResults())
        {
            CAPTURE(file);
            CHECK(replayed.at(file) == content);
        }
    }
}

TEST_CASE("what a replay says on other links and hardware is what a run with numbers says there", "[invariant-9][replay]")
{
    const Studies studies;
    const Json edge = Json::parse(R"({"profile": "a800-80gb", "timing": {"table": {"layer": {"ms": 1.5}}, "otherwise": "roofline"}})");
    for (const char* about :
         {R"({"name": "tlc", "policy": {"name": "calibrator", "path": "tiny-calibrator/narrow",
                                                                 "tau1": 0.5, "tau2": 0.5}})",
          R"({"name": "opsc", "split": 2, "codec": {"name": "tab-q", "bits": 4, "tau": 0.6}})",
          R"({"name": "ce-collm", "exits": {"layers": [1, 3]}, "policy": {"name": "confidence", "threshold": 0.45}})"})
    {
        CAPTURE(about);
        Json json = studies.All().at(about);
        Recorded recorded;
        recorded.Add(json);
        const std::string link = json["links"].begin().key();
        for (const char* other : {R"({"type": "wired", "rate": "10Mbps", "delay": "20ms"})",
                                  R"({"type": "service", "rate": "1Gbps", "startup": "3ms"})",
                                  R"({"type": "fading", "bandwidth": "20MHz", "snr": 10, "rate": "relaxed", "epsilon": 0.01})"})
        {
            CAPTURE(other);
            json["links"][link] = Json::parse(other);
            json["nodes"].back()["hardware"] = edge;
            const Json changes{{"links", {{link, json["links"][link]}}}, {"nodes", json["nodes"]}};
            CHECK(Results(recorded.Replay(changes)) == Results(json));
        }
    }
}

TEST_CASE("a replay goes on with the recorded requests from the beginning, for as many users as it is asked", "[replay]")
{
    Json json = TinyStudy();
    Recorded recorded;
    recorded.Add(json);
    // All 4 recorded requests come from 2 prompts in turn, so 10 of the study itself are the same as 10 of the replay.
    json["workload"]["requests"] = 10U;
    json["nodes"]["device"]["count"] = 5U;
    CHECK(Results(recorded.Replay({{"workload", {{"requests", 10U}}}, {"nodes", {{"device", {{"count", 5U}}}}}})) ==
          Results(json));
}

TEST_CASE("the quality of the answers is that of the recorded run", "[replay]")
{
    Json json = TinyStudy();
    json["scheme"] = Json::parse(R"({"name": "tlc", "policy": {"name": "random", "offload": 0.5, "return": 0.5}})");
    json["workload"]["quality"] = true;
    Recorded recorded;
    const TemporaryFolder prompts;
    prompts.Write("answered.jsonl", R"({"id": "a", "text": "x", "tokens": [1, 2, 3], "answer": [5, 6], "answer_text": "y"})");
    json["workload"]["prompts"] = (prompts.Path() / "answered").string();
    recorded.Add(json);
    const auto replayed = Results(recorded.Replay());
    CHECK(replayed == recorded.ItsResults());
    CHECK(replayed.at("summary.json").find("quality.kl_nats") != std::string::npos);
    // Asked once more; a calibrator decides the same whenever it is asked, which a draw would not.
    json["scheme"]["policy"] =
        Json::parse(R"({"name": "calibrator", "path": "tiny-calibrator/narrow", "tau1": 0.5, "tau2": 0.5})");
    Recorded twice;
    twice.Add(json);
    json["workload"]["requests"] = 8U;
    CHECK(Results(twice.Replay({{"workload", {{"requests", 8U}}}})) == Results(json));
}

TEST_CASE("a replay needs no model", "[replay]")
{
    Recorded recorded;
    recorded.Add(TinyStudy());
    Json json = recorded.Replay();
    StudyFolders folders = Folders();
    folders.models = "nowhere";
    folders.prompts = "nowhere";
    const Study study = ReadStudy(json, "test", folders);
    CHECK(Simulate(study, 0, 1, [] {}).tokens.size() == 16);
}

TEST_CASE("of several recorded points a replay takes the one that it describes", "[replay]")
{
    Recorded recorded;
    Json json = OnCloud();
    json["scheme"] = Json::parse(R"({"name": "opsc", "split": 1, "codec": {"name": "tab-q", "bits": 4}})");
    recorded.Add(json);
    json["scheme"]["split"] = 3U;
    recorded.Add(json);
    // The same at another rate is no other recorded point: its numbers decide the same.
    json["links"]["device-cloud"]["rate"] = "10Mbps";
    recorded.Add(json);
    CHECK(Results(recorded.Replay({{"scheme", {{"split", 3U}}}, {"links", {{"device-cloud", {{"rate", "10Mbps"}}}}}})) ==
          recorded.ItsResults());
    CHECK(recorded.Error(Json::object()) ==
          "test: recording: points that differ in scheme.split were recorded; accepted: a study that says which: 1, 3");
    CHECK(recorded.Error({{"scheme", {{"split", 2U}}}}).find("test: scheme.split: was recorded as ") == 0);
}

TEST_CASE("a replay refuses in one line what was not recorded", "[replay]")
{
    Recorded recorded;
    recorded.Add(TinyStudy());
    struct Case
    {
        Json changes;
        std::string message;
    };
    for (const auto& [changes, message] : std::vector<Case>{
             {{{"scheme", {{"codec", "fp32"}}}}, "test: scheme.codec: was recorded as \"fp16\"; a replay takes other links"},
             {{{"workload", {{"new_tokens", 5U}}}}, "test: workload.new_tokens: was recorded as 4;"},
             {{{"workload", {{"temperature", 0.5}}}}, "test: workload.temperature: was recorded as 0.0;"},
             {{{"model", {{"path", "tiny-opt"}}}}, "test: model.path: was recorded as \"tiny-llama\";"},
             {{{"scheme", nullptr}}, "test: scheme.codec: was recorded as \"fp16\";"},
             {{{"workload", "default"}}, "test: workload."},
             {{{"backend", "cpu"}}, "test: backend: a replay computes nothing"},
             {{{"recording", "nowhere"}}, "nowhere: cannot be read; accepted: a recording"},
             {{{"links", {{"device-edge", nullptr}}}}, "test: links: no link \"device-edge\", which scheme \"linfer\" needs"},
             {{{"nodes", {{"edge", {{"hardware", Json::parse(R"({"profile": "a800-80gb", "timing": "measured"})")}}}}}},
              "test: nodes.edge.hardware: times what kernels take, and a replay runs none"}})
    {
        CAPTURE(changes.dump());
        CHECK(recorded.Error(changes).find(message) == 0);
    }
}

TEST_CASE("decisions that depend on the network are not recorded", "[replay]")
{
    const auto error = [](const Json& json) {
        return ErrorOf([&] { Recorded().Add(json); });
    };
    Json deadline = OnCloud();
    deadline["scheme"] = Json::parse(R"({"name": "opsc", "split": 2, "deadline": "1s", "compressed": {"name": "tab-q", "bits": 4}})");
    Json copy = deadline;
    CHECK(WhyNoReplay(ReadStudy(copy, "test", Folders())).find("scheme.control: Algorithm 2 decides by the time") == 0);

    Json timeout = OnCloud();
    timeout["scheme"] = Json::parse(R"({"name": "ce-collm", "exits": {"layers": [1]}, "timeout": "1ms",
                                        "policy": {"name": "confidence", "threshold": 2.0}})");
    CHECK(error(timeout).find("--record: the run had an edge go on without its cloud: no answer within 1 ms") == 0);
}

TEST_CASE("two points that differ in the network alone and decided otherwise are no recording", "[replay]")
{
    Json json = TinyStudy();
    const Study study = ReadStudy(json, "test", Folders());
    const auto noted = std::make_shared<OutcomeRecorder>();
    const RunRecords run = Simulate(study, 0, 1, [] {}, noted);
    RunOutcomes outcomes = noted->Outcomes();
    RecordingWriter writer;
    writer.Add(study, json, 0, run, outcomes);
    json["links"]["device-edge"]["rate"] = "10Mbps";
    writer.Add(study, json, 0, run, outcomes);
    CHECK(ParseRecording(writer.Bytes(), "r").size() == 1);
    std::get<std::vector<Outcome<TokenId>>>(outcomes[3][0]).back().value++;
    CHECK(ErrorOf([&] { writer.Add(study, json, 0, run, outcomes); }).find("--record: two points that differ in network") == 0);
    // Another repetition may decide otherwise.
    writer.Add(study, json, 1, run, outcomes);
    CHECK(ParseRecording(writer.Bytes(), "r").size() == 2);
}

TEST_CASE("a replay ends where somebody gives up waiting who did not when it was recorded", "[replay]")
{
    Json json = OnCloud();
    json["scheme"] = Json::parse(R"({"name": "ce-collm", "exits": {"layers": [1]}, "timeout": "100ms",
                                     "policy": {"name": "confidence", "threshold": 2.0}})");
    Recorded recorded;
    recorded.Add(json);
    const std::string error =
        ErrorOf([&] { Results(recorded.Replay({{"links", {{"device-cloud", {{"delay", "80ms"}}}}}})); });
    CHECK(error.find("depends on the network") != std::string::npos);
    CHECK(error.find("device-0 at +") == 0);
}

TEST_CASE("a recording that is damaged, or of another version, is refused in one line", "[replay]")
{
    RecordingWriter writer;
    Results(TinyStudy(), &writer);
    const std::vector<std::byte> bytes = writer.Bytes();
    CHECK(ParseRecording(bytes, "r").size() == 1);
    const auto error = [](std::vector<std::byte> some) {
        const std::string message = ErrorOf([&] { ParseRecording(some, "r"); });
        CHECK(message.find('\n') == std::string::npos);
        return message;
    };
    std::vector<std::byte> other = bytes;
    other[0] = std::byte{'X'};
    CHECK(error(other) == "r: is no recording; accepted: a file made by split-llm-run --record=FILE");
    other = bytes;
    other[8] = std::byte{9};
    CHECK(error(other) == "r: is a recording of version 9; accepted: 1; record the study again");
    CHECK(error({}).find("r: is no recording") == 0);
    for (const std::size_t at : {std::size_t{24}, bytes.size() / 2, bytes.size() - 1})
    {
        other = bytes;
        other[at] ^= std::byte{4};
        CHECK(error(other).find("r: is damaged: ") == 0);
    }
    other = bytes;
    other.pop_back();
    CHECK(error(other).find("r: is damaged: ") == 0);
}
