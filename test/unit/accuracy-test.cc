// SPDX-License-Identifier: GPL-2.0-only
#include "accuracy.h"
#include "llm/model.h"
#include "support/catch.h"
#include "support/error-of.h"
#include "support/random-model.h"
#include "support/reference-transformer.h"
#include "support/safetensors-file.h"
#include "support/temporary-folder.h"
#include "support/test-models.h"

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

using namespace splitllm;
using splitllm::test::ErrorOf;
using splitllm::test::Random;
using splitllm::test::ReferenceTransformer;
using splitllm::test::TemporaryFolder;
using splitllm::test::TestModel;

namespace
{

constexpr std::size_t kVocab = 256;

/// Writes a LLaMA model of four layers whose rows are whole groups of quantised weights, as tiny-llama's are not.
void
WriteModel(const std::filesystem::path& folder)
{
    std::filesystem::create_directory(folder);
    std::ofstream(folder / "config.json") << R"({"model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 256,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true})";
    Random random(1);
    Json header = Json::object();
    std::string data;
    const auto add = [&](const std::string& name, std::vector<std::size_t> shape, float spread, float centre = 0.0F) {
        const std::size_t begin = data.size();
        for (std::size_t i = 0; i < (shape.size() == 1 ? shape[0] : shape[0] * shape[1]); i++)
        {
            const std::uint16_t bits = ToBf16(centre + spread * random.Uniform());
            data.append(reinterpret_cast<const char*>(&bits), 2);
        }
        header[name] = {{"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {begin, data.size()}}};
    };
    add("model.embed_tokens.weight", {256, 32}, 1.0F);
    add("model.norm.weight", {32}, 0.5F, 1.0F);
    for (int layer = 0; layer < 4; layer++)
    {
        const std::string at = "model.layers." + std::to_string(layer) + ".";
        add(at + "input_layernorm.weight", {32}, 0.5F, 1.0F);
        add(at + "post_attention_layernorm.weight", {32}, 0.5F, 1.0F);
        add(at + "self_attn.q_proj.weight", {32, 32}, 0.3F);
        add(at + "self_attn.k_proj.weight", {16, 32}, 0.3F);
        add(at + "self_attn.v_proj.weight", {16, 32}, 0.3F);
        add(at + "self_attn.o_proj.weight", {32, 32}, 0.3F);
        add(at + "mlp.gate_proj.weight", {64, 32}, 0.3F);
        add(at + "mlp.up_proj.weight", {64, 32}, 0.3F);
        add(at + "mlp.down_proj.weight", {32, 64}, 0.3F);
    }
    std::ofstream(folder / "model.safetensors", std::ios::binary) << test::SafetensorsFile(header.dump(), data);
}

/// Two documents; of windows of 11 tokens the first has two and the second one.
struct Text
{
    Text()
    {
        Json one{{"id", "a"}, {"source", "a test"}, {"tokens", Json::array()}};
        Json two = one;
        two["id"] = "b";
        for (std::size_t i = 0; i < 25; i++)
        {
            one["tokens"].push_back((i * i * 7 + 3) % kVocab);
        }
        for (std::size_t i = 0; i < 12; i++)
        {
            two["tokens"].push_back((i * 31 + 90) % kVocab);
        }
        folder.Write("text.jsonl", one.dump() + "\n" + two.dump() + "\n");
        std::filesystem::copy(TestModel("tiny-llama"), folder.Path() / "tiny-llama");
        WriteModel(folder.Path() / "whole-groups");
    }

    AccuracyStudy Study(const std::string& configurations,
                        std::size_t tokens = 33,
                        const std::string& model = "tiny-llama") const
    {
        json = ParseStrictJson(R"({"model": ")" + model +
                                   R"(", "text": "text", "window": 11, "weight_group": 32, "tokens": )" +
                                   std::to_string(tokens) + R"(, "configurations": [)" + configurations + "]}",
                               "study");
        return ReadAccuracyStudy(json,
                                 "study",
                                 {.models = folder.Path(), .texts = folder.Path(), .calibrations = folder.Path()});
    }

    TemporaryFolder folder;
    mutable Json json;
};

AccuracyResult
Measure(const AccuracyStudy& study, std::size_t threads = 1)
{
    return MeasureAccuracy(study, threads, [](std::size_t) {});
}

} // namespace

TEST_CASE("Perplexity and agreement are those of the model by its definition")
{
    const Text text;
    const AccuracyStudy study = text.Study(R"({"split": [1, 4], "codec": "fp32"})");
    REQUIRE(study.windows.size() == 3);
    const AccuracyResult result = Measure(study);
    CHECK(result.tokens == 30);

    const auto model = Model::Load(TestModel("tiny-llama"));
    double nll = 0.0;
    for (const std::vector<TokenId>& window : study.windows)
    {
        const ReferenceTransformer::Matrix logits = ReferenceTransformer(*model).Logits(window);
        for (std::size_t t = 0; t + 1 < window.size(); t++)
        {
            const auto row = logits.row(static_cast<Eigen::Index>(t)).array();
            nll += std::log((row - row.maxCoeff()).exp().sum()) + row.maxCoeff() - row(window[t + 1]);
        }
    }
    CHECK(result.base.perplexity == Approx(std::exp(nll / 30.0)).epsilon(1e-5));
    CHECK(result.base.bytesPerToken == 0.0);
    // nothing is lost on the way: not a bit differs
    for (const Accuracy& split : result.configurations)
    {
        CHECK(split.perplexity == result.base.perplexity);
        CHECK(split.klNats == 0.0);
        CHECK(split.top1Agreement == 1.0);
        CHECK(split.meanSquaredError == 0.0);
        CHECK(split.bytesPerToken == 4.0 * 64);
    }
}

TEST_CASE("A model that is told nothing after its last layer knows nothing")
{
    const Text text;
    const AccuracyResult result =
        Measure(text.Study(R"({"split": 4, "codec": {"name": "clamp", "limit": 0, "dtype": "fp16"}})"));
    // all logits are 0, so every token is as likely as any other; token 0 is the first among equals
    CHECK(result.configurations[0].perplexity == Approx(kVocab).epsilon(1e-12));
    CHECK(result.configurations[0].klNats > 0.0);
    CHECK(result.configurations[0].top1Agreement < 0.5);
    CHECK(result.configurations[0].bytesPerToken == 128.0);
}

TEST_CASE("Fewer bits on the wire and in the weights cost accuracy")
{
    const Text text;
    const AccuracyStudy study = text.Study(R"({"split": 2, "codec": [{"name": "round-to-nearest", "bits": 8},
        {"name": "round-to-nearest", "bits": 4}, {"name": "round-to-nearest", "bits": 2}]},
        {"split": [1, 4], "front_bits": [8, 4], "codec": "fp32"}, {"split": [1, 4], "back_bits": 4, "codec": "fp32"})",
                                           33,
                                           "whole-groups");
    REQUIRE(study.configurations.size() == 9);
    const AccuracyResult result = Measure(study);
    const auto kl = [&](std::size_t i) { return result.configurations[i].klNats; };
    CHECK((kl(0) > 0.0 && kl(0) < kl(1) && kl(1) < kl(2)));
    CHECK(result.configurations[1].bytesPerToken == 2.0 + 32 * 4 / 8);
    // in the order of the study: front bits 8 at 1 and 4, then 4
    CHECK((study.configurations[4].frontBits == 8 && study.configurations[4].split == 4));
    CHECK((study.configurations[5].frontBits == 4 && study.configurations[5].split == 1));
    CHECK((kl(3) > 0.0 && kl(3) < kl(5) && kl(4) < kl(6)));
    CHECK(result.configurations[5].meanSquaredError == 0.0); // the codec's, not the weights'
    CHECK(kl(7) > 0.0);
    CHECK(kl(8) == 0.0); // no layer is behind layer 4
}

TEST_CASE("TAB-Q says what travels exactly")
{
    const Text text;
    const AccuracyResult result = Measure(text.Study(
        R"({"split": 2, "codec": [{"name": "tab-q", "bits": 4, "delta": 0},
                                  {"name": "tab-q", "bits": 4, "tau": 1e-30, "delta": 0}]})"));
    CHECK(result.configurations[0].aboveShare == 0.0);
    CHECK(result.configurations[0].aboveBytesShare == 0.0);
    CHECK(result.configurations[0].meanBits == 3.0);
    CHECK(result.configurations[1].aboveShare == 1.0); // everything does
    CHECK(result.configurations[1].aboveBytesShare > 0.5);
    CHECK(result.configurations[1].meanSquaredError < result.configurations[0].meanSquaredError);
}

TEST_CASE("Accuracy does not depend on the number of threads")
{
    const Text text;
    const AccuracyStudy study = text.Study(
        R"({"split": [1, 3], "front_bits": [4, 16], "codec": ["bf16", {"name": "round-to-nearest", "bits": 3}]})",
        33,
        "whole-groups");
    const auto report = [&](std::size_t threads) { return AccuracyReport(study, Measure(study, threads), "").dump(); };
    CHECK(report(1) == report(3));
}

TEST_CASE("A report names what its rows were measured with")
{
    const Text text;
    const AccuracyStudy study =
        text.Study(R"({"split": 3, "front_bits": 8, "codec": {"name": "round-to-nearest", "bits": 3}})",
                   22,
                   "whole-groups");
    const Json report = AccuracyReport(study, Measure(study), "the command");
    CHECK(report.at("command") == "the command");
    CHECK(report.at("tokens") == 20);
    const Json& row = report.at("rows").at(1);
    CHECK((row.at("split") == 3 && row.at("front_bits") == 8 && row.at("back_bits") == 16));
    CHECK((row.at("activation_bits") == 3 && row.at("codec") == "round-to-nearest"));
    CHECK(row.at("payload_bytes_per_token") == 14.0);
    CHECK(report.at("rows").at(0).at("codec") == "none");
}

TEST_CASE("What is wrong with an accuracy study is said with its place")
{
    const Text text;
    const auto error = [&](const std::string& configurations, std::size_t tokens = 33) {
        return ErrorOf([&] { text.Study(configurations, tokens); });
    };
    CHECK(error(R"({"codec": "fp32"})").find("study: configurations[0].split: ") == 0);
    CHECK(error(R"({"split": 5})").find("study: configurations[0].split: ") == 0);
    CHECK(error(R"({"split": 1}, {"split": 1, "front_bits": 5})").find("study: configurations[1].front_bits: 5 bits") ==
          0);
    CHECK(error(R"({"split": 1, "back_bits": 4})").find("study: configurations[0].back_bits: 4 bits; one of 16 is") ==
          0);
    CHECK(error(R"({"split": []})").find("study: configurations[0].split: an empty list") == 0);
    CHECK(error(R"({"split": 1, "codec": {"name": "atom", "bits": 3}})")
              .find("study: configurations[0].codec.statistics: ") == 0);
    CHECK(error(R"({"split": 1, "codecs": "fp32"})").find("study: configurations[0].codecs: ") == 0);
    CHECK(error(R"({"split": 1})", 44).find("study: tokens: 44; the text has 3 windows") == 0);
    text.folder.Write("text.jsonl", R"({"id": "a", "source": "s", "tokens": [1, 256]})");
    CHECK(error(R"({"split": 1})").find("text.jsonl:1: tokens: 256 is no token id below 256") != std::string::npos);
}

TEST_CASE("Of several models those that are not there are named")
{
    const Text text;
    text.Study(R"({"split": 1, "codec": "fp16"})");
    Json one = text.json;
    Json other = one;
    other["model"] = "elsewhere";
    Json both{{"models", {other, one}}};
    const AccuracyFolders folders{.models = text.folder.Path(),
                                  .texts = text.folder.Path(),
                                  .calibrations = text.folder.Path()};
    std::vector<std::string> lines;
    const auto say = [&](const std::string& line) { lines.push_back(line); };
    const Json alone = MeasureStudies(one, "study", folders, 1, say);
    CHECK(lines == std::vector<std::string>{"tiny-llama: 1 configurations",
                                            "window 1 of 3",
                                            "window 2 of 3",
                                            "window 3 of 3"});
    CHECK(alone["model"] == "tiny-llama");
    lines.clear();
    const Json report = MeasureStudies(both, "study", folders, 1, say);
    CHECK(lines.front() == "elsewhere: not run, there is no such model folder");
    CHECK(report["models"] == Json::array({alone}));
    CHECK(report["not_run"] == Json::parse(R"([{"model": "elsewhere", "why": "there is no such model folder"}])"));
    Json none{{"models", Json::array()}};
    CHECK(ErrorOf([&] { MeasureStudies(none, "study", folders, 1, say); }) ==
          "study: models: must be a list of at least one accuracy study");
}

TEST_CASE("Every accuracy study that comes with the module can be read", "[scenarios][smollm2]")
{
    const char* models = std::getenv("SPLITLLM_MODELS");
    if (models == nullptr || !std::filesystem::exists(std::filesystem::path(models) / "smollm2-135m-instruct"))
    {
        WARN("skipped: no SPLITLLM_MODELS with the model of scripts/setup.sh");
        return;
    }
    const std::filesystem::path scenarios = std::filesystem::path(SPLITLLM_SOURCE_DIR) / "scenarios";
    std::size_t read = 0;
    for (const auto& entry : std::filesystem::directory_iterator(scenarios / "opsc" / "accuracy"))
    {
        if (entry.path().extension() == ".json")
        {
            CAPTURE(entry.path().string());
            Json json = LoadStrictJson(entry.path());
            // of several models the first is the one that is there
            Json& study = json.contains("models") ? json["models"].front() : json;
            CHECK(!ReadAccuracyStudy(
                       study,
                       entry.path().string(),
                       {.models = models, .texts = scenarios / "texts", .calibrations = scenarios / "calibrations"})
                       .configurations.empty());
            read++;
        }
    }
    CHECK(read >= 8);
}
