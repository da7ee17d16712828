// SPDX-License-Identifier: GPL-2.0-only

// split-llm-run as its users meet it: exit status, one line of error, and what is left in the output folder.

#include "support/catch.h"
#include "support/study-fixture.h"
#include "support/temporary-folder.h"

#include "base/strict-json.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

using namespace splitllm;
using splitllm::test::TemporaryFolder;
using splitllm::test::TestModel;
using splitllm::test::TinyStudy;

namespace
{

std::string
Content(const std::filesystem::path& file)
{
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

/// A scratch folder with copies of the tiny models, a study and an output folder.
struct Workplace
{
    TemporaryFolder folder;
    std::filesystem::path models = folder.Path() / "models";
    std::filesystem::path out = folder.Path() / "out";
    Json study = TinyStudy();
    std::string outOption = "--out=out";
    int status = -1;
    std::string output;
    std::string error;

    Workplace()
    {
        std::filesystem::create_directory(models);
        for (const char* name : {"tiny-llama", "tiny-llama-lora", "tiny-opt", "tiny-opt-lora"})
        {
            std::filesystem::copy(TestModel(name), models / name);
        }
    }

    /// Replaces the first \p from in a file of the tiny model.
    void Edit(const std::string& file, const std::string& from, const std::string& to) const
    {
        std::string content = Content(models / file);
        const std::size_t at = content.find(from);
        REQUIRE(at != std::string::npos);
        content.replace(at, from.size(), to);
        std::ofstream(models / file, std::ios::binary) << content;
    }

    void Run(const std::string& options = "", const std::string& text = "")
    {
        std::ofstream(folder.Path() / "study.json") << (text.empty() ? study.dump() : text);
        const std::string at = folder.Path().string();
        const std::string command = "cd " + at + " && '" SPLITLLM_TEST_RUNNER "' --study=study.json " + outOption + " --models=" +
                                    models.string() + " --prompts='" SPLITLLM_SOURCE_DIR "/test/data' --threads=1 " +
                                    options + " >stdout 2>stderr";
        const int result = std::system(command.c_str());
        status = WIFEXITED(result) ? WEXITSTATUS(result) : -1;
        output = Content(folder.Path() / "stdout");
        error = Content(folder.Path() / "stderr");
    }

    /// Runs what is wrong, and checks what every mistake has in common. \return the message
    std::string Mistake(const std::string& options = "", const std::string& text = "")
    {
        Run(options, text);
        CHECK(status == 2);
        CHECK(output.empty());
        CHECK(std::count(error.begin(), error.end(), '\n') == 1);
        CHECK((!std::filesystem::exists(out) || std::filesystem::is_empty(out)));
        const std::string prefix = "split-llm-run: ";
        REQUIRE(error.starts_with(prefix));
        std::string message = error.substr(prefix.size(), error.size() - prefix.size() - 1);
        // The scratch folder has a new name each time.
        for (std::size_t p; (p = message.find(folder.Path().string() + "/")) != std::string::npos;)
        {
            message.erase(p, folder.Path().string().size() + 1);
        }
        return message;
    }
};

} // namespace

TEST_CASE("a run writes every result file and ends with status 0", "[runner]")
{
    Workplace place;
    place.Run();
    CHECK(place.error.empty());
    CHECK(place.status == 0);
    for (const char* file : {"summary.json", "tokens.csv", "decisions.csv", "requests.csv", "timeline.json", "run.json"})
    {
        CHECK(std::filesystem::file_size(place.out / file) > 0);
    }
    const Json summary = LoadStrictJson(place.out / "summary.json");
    CHECK(summary["study"] == "tiny");
    CHECK(summary["points"].size() == 1);
    CHECK(summary["points"][0]["metrics"]["tokens"] == 16.0);
    const Json timeline = LoadStrictJson(place.out / "timeline.json")["traceEvents"];
    REQUIRE_FALSE(timeline.empty());
    CHECK(timeline[0]["name"] == "process_name");
    CHECK(timeline[0]["args"]["point"] == 0);

    // Again, over the results that are there: the same bytes.
    const std::string first = Content(place.out / "summary.json");
    place.Run();
    CHECK(Content(place.out / "summary.json") == first);
}

TEST_CASE("a recorded study runs again when its model is gone", "[runner][replay]")
{
    Workplace place;
    place.Run("--record=recording");
    REQUIRE(place.status == 0);
    const std::string summary = Content(place.out / "summary.json");
    std::filesystem::remove_all(place.models);
    place.study = Json{{"study", "tiny"}, {"mode", "replay"}, {"recording", "recording"}};
    place.Run();
    CHECK(place.status == 0);
    CHECK(Content(place.out / "summary.json") == summary);
    // The same by the command line, over a study that says everything.
    place.study = TinyStudy();
    place.Run("--set=mode=replay --set=recording=recording");
    CHECK(place.status == 0);
    CHECK(Content(place.out / "summary.json") == summary);
}

TEST_CASE("what cannot be recorded is said before anything runs", "[runner][replay]")
{
    Workplace place;
    CHECK(place.Mistake("--record=nowhere/recording") ==
          "--record=nowhere/recording: cannot be written; accepted: a file in a folder that exists");
    CHECK(place.Mistake("--record=models") ==
          "--record=models: cannot be written; accepted: a file in a folder that exists");
    place.study["mode"] = "shape";
    place.study["model"] = Json::parse(R"({"shape": "llama-7b", "adapter": {"rank": 4}})");
    place.study["workload"] = Json::parse(R"({"prompt_tokens": [{"tokens": 3, "requests": 1}], "new_tokens": 2})");
    CHECK(place.Mistake("--record=recording") == "--record: the study computes no numbers; accepted: mode \"numeric\"");
    CHECK_FALSE(std::filesystem::exists(place.folder.Path() / "recording"));
}

TEST_CASE("a path may have blanks", "[runner]")
{
    Workplace place;
    place.outOption = "--out='o u t'";
    place.Run();
    CHECK(place.status == 0);
    CHECK(std::filesystem::exists(place.folder.Path() / "o u t" / "summary.json"));
    CHECK_FALSE(std::filesystem::exists(place.folder.Path() / "o"));
}

TEST_CASE("run.json has the command line, where it was given, and the study with its overrides", "[runner]")
{
    Workplace place;
    place.study["sweep"] = Json::parse(R"({"seed": [1, 2]})");
    place.Run("--set=workload.new_tokens=3 '--set=scheme={\"name\": \"server\"}'");
    REQUIRE(place.status == 0);
    const Json run = LoadStrictJson(place.out / "run.json");
    const Json& command = run["command"];
    REQUIRE(command.size() == 8);
    CHECK(command[0] == SPLITLLM_TEST_RUNNER);
    CHECK(command[1] == "--study=study.json");
    CHECK(command[6] == "--set=workload.new_tokens=3");
    CHECK(command[7] == "--set=scheme={\"name\": \"server\"}");
    CHECK(std::filesystem::equivalent(run["folder"].get<std::string>(), place.folder.Path()));
    CHECK(run["study"]["workload"]["new_tokens"] == 3);
    CHECK(run["study"]["scheme"] == Json::parse(R"({"name": "server"})"));
    CHECK(run["study"]["nodes"] == place.study["nodes"]);
    CHECK_FALSE(run["study"].contains("sweep"));

    // Which of the points a node belongs to is said beside its name.
    std::vector<int> points;
    const Json timeline = LoadStrictJson(place.out / "timeline.json");
    for (const Json& event : timeline["traceEvents"])
    {
        if (event["name"] == "process_name")
        {
            const bool second = event["args"]["name"].get<std::string>().find("(seed = 2)") != std::string::npos;
            CHECK(event["args"]["point"] == (second ? 1 : 0));
            points.push_back(event["args"]["point"]);
        }
    }
    CHECK(std::find(points.begin(), points.end(), 1) != points.end());
}

TEST_CASE("an expectation that fails gives status 1 and keeps the results", "[runner]")
{
    Workplace place;
    place.study["expect"] = Json::parse(R"([{"metric": "messages_per_token.up", "value": 5, "abs": 0},
                                            {"metric": "messages_per_token.up", "value": 6, "abs": 0.5}])");
    place.Run();
    CHECK(place.status == 1);
    CHECK(place.output.find("ok      messages_per_token.up: 5, expected 5 +- 0") != std::string::npos);
    CHECK(place.output.find("FAILED  messages_per_token.up: 5, expected 6 +- 0.5") != std::string::npos);
    CHECK(std::filesystem::exists(place.out / "summary.json"));

    place.study["expect"] = Json::parse(R"([{"metric": "no_such_metric", "value": 5, "rel": 10}])");
    place.Run();
    CHECK(place.status == 1);
    CHECK(place.output.find("FAILED  no_such_metric: not measured") != std::string::npos);
}

TEST_CASE("every key of the study is an option, and --set reaches any key", "[runner]")
{
    Workplace place;
    place.Run("--links.device-edge.rate=100Mbps --set=workload.new_tokens=2");
    CHECK(place.status == 0);
    const Json metrics = LoadStrictJson(place.out / "summary.json")["points"][0]["metrics"];
    CHECK(metrics["tokens"] == 8.0);
    const double slow = metrics["token_latency_ms.mean"];
    place.Run("--set=workload.new_tokens=2");
    CHECK(LoadStrictJson(place.out / "summary.json")["points"][0]["metrics"]["token_latency_ms.mean"] < slow);

    place.study["sweep"] = {{"links.device-edge.rate", {"100Mbps", "1Gbps"}}};
    place.Run("--set=workload.new_tokens=2");
    const Json points = LoadStrictJson(place.out / "summary.json")["points"];
    REQUIRE(points.size() == 2);
    CHECK(points[0]["metrics"]["token_latency_ms.mean"] == slow);
    CHECK(points[0]["set"]["links.device-edge.rate"] == "100Mbps");
    // An override of what is swept is the only value left.
    place.Run("--set=workload.new_tokens=2 --links.device-edge.rate=100Mbps");
    CHECK(LoadStrictJson(place.out / "summary.json")["points"] == Json::array({points[0]}));
}

TEST_CASE("--points lists what --point runs, and a point run alone is that of the study", "[runner][sweep]")
{
    Workplace place;
    place.study["sweep"] = {{"links.device-edge.rate", {"100Mbps", "1Gbps"}}, {"workload.new_tokens", {2, 3}}};
    place.study["expect"] = Json::parse(
        R"([{"where": {"workload.new_tokens": 3}, "metric": "tokens", "value": 12, "abs": 0},
            {"where": {"workload.new_tokens": 2}, "metric": "tokens", "value": 9, "abs": 0}])");
    place.outOption.clear();
    place.Run("--points");
    place.outOption = "--out=out";
    CHECK(place.status == 0);
    CHECK(place.error.empty());
    CHECK_FALSE(std::filesystem::exists(place.out));
    const Json listed = Json::parse(place.output);
    CHECK(listed["study"] == "tiny");
    CHECK(listed["folders"]["models"] == place.models.string());
    REQUIRE(listed["points"].size() == 4);
    const Json third = listed["points"][2];
    CHECK(third["title"] == "rate = 1Gbps, new_tokens = 2");
    CHECK(third["set"] == Json{{"links.device-edge.rate", "1Gbps"}, {"workload.new_tokens", 2}});
    CHECK(third["repeat"] == 1);
    CHECK(third["expect"] == Json::parse(R"([{"metric": "tokens", "value": 9.0, "abs": 0.0, "source": ""}])"));
    CHECK(third["study"]["workload"]["new_tokens"] == 2);
    CHECK(third["study"]["links"]["device-edge"]["mtu"] == 1500); // a default
    CHECK_FALSE(third["study"].contains("sweep"));

    place.Run();
    CHECK(place.status == 1);
    const Json all = LoadStrictJson(place.out / "summary.json")["points"];
    REQUIRE(all.size() == 4);
    for (std::size_t i = 0; i < 4; i++)
    {
        place.Run("--point=" + std::to_string(i));
        CHECK(place.status == (i % 2 == 0 ? 1 : 0)); // only expectations about this point
        CHECK(LoadStrictJson(place.out / "summary.json")["points"] == Json::array({all[i]}));
        CHECK(all[i]["set"] == listed["points"][i]["set"]);
    }
}

TEST_CASE("Repetitions are reported each alone, with their confidence intervals", "[runner][sweep]")
{
    Workplace place;
    place.study["links"]["device-edge"]["loss"] = 0.05;
    place.study["repeat"] = 3;
    place.Run();
    REQUIRE(place.status == 0);
    const Json point = LoadStrictJson(place.out / "summary.json")["points"][0];
    REQUIRE(point["repetitions"].size() == 3);
    std::vector<double> means;
    double tokens = 0.0;
    for (const Json& repetition : point["repetitions"])
    {
        means.push_back(repetition["token_latency_ms.mean"]);
        tokens += repetition["tokens"].get<double>();
    }
    CHECK(tokens == point["metrics"]["tokens"].get<double>());
    CHECK((means[0] != means[1] && means[1] != means[2]));
    const double mean = (means[0] + means[1] + means[2]) / 3.0; // of equally many tokens, so that of all together
    CHECK(std::abs(point["metrics"]["token_latency_ms.mean"].get<double>() / mean - 1.0) < 1e-12);
    double squares = 0.0;
    for (const double value : means)
    {
        squares += (value - mean) * (value - mean);
    }
    const double half = 4.302652729749462 * std::sqrt(squares / 2.0 / 3.0);
    CHECK(std::abs(point["ci95"]["token_latency_ms.mean"].get<double>() / half - 1.0) < 1e-9);
    CHECK(point["ci95"]["tokens"] == 0.0);
    char text[64];
    std::snprintf(text, sizeof(text), "%.3f +- %.3f", mean, half);
    CHECK(place.output.find(text) != std::string::npos);
    CHECK(place.output.find("+- is half the 95 % confidence interval") != std::string::npos);

    // The second repetition run alone is the first of the run number after.
    place.study["repeat"] = 1;
    place.Run("--RngRun=2");
    const Json alone = LoadStrictJson(place.out / "summary.json")["points"][0];
    CHECK(alone["metrics"] == point["repetitions"][1]);
    CHECK_FALSE(alone.contains("repetitions"));
    CHECK_FALSE(alone.contains("ci95"));
    CHECK(place.output.find("+-") == std::string::npos);
}

TEST_CASE("a mistake in the study is one line with the path and what is accepted", "[runner][bad-input]")
{
    Workplace place;
    CHECK(place.Mistake("", "{ \"study\": ").find("study.json:1:") == 0);
    CHECK(place.Mistake("", R"({"study": "a", "study": "b"})") == "study.json: study: repeated key; accepted: each key once");
    CHECK(place.Mistake("--set=links.device-edge.rate=1Gps") ==
          "study.json: links.device-edge.rate: \"1Gps\" is not a data rate; write a number and one of bps, kbps, Mbps, "
          "Gbps, such as \"1Gbps\"");
    CHECK(place.Mistake("--set=links.device-edge.speed=1Gbps") ==
          "study.json: links.device-edge.speed: unknown key; accepted: delay, loss, mtu, pcap, queue, rate, type");
    CHECK(place.Mistake("--set=nodes.device.count=-1").find("study.json: nodes.device.count: ") == 0);
    CHECK(place.Mistake("--set=workload.requests=1.5").find("study.json: workload.requests: ") == 0);
    CHECK(place.Mistake("--set=nodes.edge.hardware=a900").find("study.json: nodes.edge.hardware: ") == 0);
    CHECK(place.Mistake("--set=mode=dream") ==
          "study.json: mode: is \"dream\"; accepted: numeric, shape, replay");
    CHECK(place.Mistake("--set=scheme.name=tcl") ==
          "study.json: scheme.name: is \"tcl\"; accepted: server, local, mlora, linfer, dlora, tlc, opsc, naive-split, ce-collm, spa, lst, adapter-split");
    CHECK(place.Mistake("--set=workload.new_tokens=600") ==
          "study.json: workload: prompt \"seven\" of 7 tokens and 600 new ones exceed the context of tiny-llama, 512 "
          "positions");
    CHECK(place.Mistake("--set=workload.prompts=nothing").find("study.json: workload.prompts: no prompt file ") == 0);
    CHECK(place.Mistake("--point=1") == "--point=1: no such point; accepted: all, or 0 to 0");
    CHECK(place.Mistake("--point=-1") == "--point=-1: no such point; accepted: all, or 0 to 0");
    CHECK(place.Mistake("--point=0x").find("--point=0x: no such point") == 0);
    CHECK(place.Mistake("--points") == "--points: runs nothing; accepted: without --point and --out");
    place.outOption.clear();
    CHECK(place.Mistake("--points --point=0") == "--points: runs nothing; accepted: without --point and --out");
    place.outOption = "--out=out";
    CHECK(place.Mistake("--speed=1").find("\"--speed=1\": unknown option; accepted: --study, ") == 0);

    place.study["model"].erase("adapter");
    CHECK(place.Mistake() == "study.json: model.adapter: scheme \"linfer\" needs a LoRA adapter; give its path");
    place.study["scheme"]["name"] = "server";
    place.study.erase("links");
    CHECK(place.Mistake() == "study.json: links: no link \"device-edge\", which scheme \"server\" needs");
}

TEST_CASE("a model that cannot be used is one line with the file and what is wrong", "[runner][bad-input]")
{
    const std::string weights = "tiny-llama/model.safetensors";
    SECTION("truncated weights")
    {
        Workplace place;
        std::filesystem::resize_file(place.models / weights, 100'000);
        CHECK(place.Mistake().find("models/" + weights + ": ") == 0);
    }
    SECTION("truncated header")
    {
        Workplace place;
        std::filesystem::resize_file(place.models / weights, 7);
        CHECK(place.Mistake().find("models/" + weights + ": ") == 0);
    }
    SECTION("a header that lies about its length")
    {
        Workplace place;
        const std::string header = Content(place.models / weights).substr(0, 8);
        place.Edit(weights, header, std::string(8, '\xff'));
        CHECK(place.Mistake().find("models/" + weights + ": ") == 0);
    }
    SECTION("a missing tensor")
    {
        Workplace place;
        place.Edit(weights, "model.layers.2.mlp.up_proj.weight", "model.layers.2.mlp.xx_proj.weight");
        CHECK(place.Mistake().find("model.layers.2.mlp.up_proj.weight") != std::string::npos);
    }
    SECTION("a wrong shape")
    {
        Workplace place;
        place.Edit("tiny-llama/config.json", "176", "177");
        const std::string message = place.Mistake();
        CHECK(message.find("177") != std::string::npos);
        CHECK(message.find("176") != std::string::npos);
    }
    SECTION("an unknown model type")
    {
        Workplace place;
        place.Edit("tiny-llama/config.json", "\"model_type\": \"llama\"", "\"model_type\": \"mamba\"");
        CHECK(place.Mistake().find("accepted: llama, opt") != std::string::npos);
    }
    SECTION("no model there")
    {
        Workplace place;
        CHECK(place.Mistake("--set=model.path=big-llama").find("models/big-llama") == 0);
    }
    SECTION("an adapter for another model")
    {
        Workplace place;
        CHECK(place.Mistake("--set=model.adapter.path=tiny-opt-lora").find("models/tiny-opt-lora/") == 0);
    }
}

TEST_CASE("an output folder that cannot be written is one line, and nothing runs", "[runner][bad-input]")
{
    Workplace place;
    std::ofstream(place.folder.Path() / "file") << "not a folder";
    CHECK(place.Mistake("--out=file/results") ==
          "--out=file/results: this folder cannot be created or written; give one that can");
}
