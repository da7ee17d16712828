// SPDX-License-Identifier: GPL-2.0-only
#include "support/catch.h"
#include "support/side-folder.h"
#include "support/study-fixture.h"
#include "support/temporary-folder.h"

#include "answers.h"
#include "metrics.h"
#include "simulation.h"

#include <cmath>
#include <limits>
#include <stdexcept>

using namespace splitllm;

namespace
{

using Ids = std::vector<TokenId>;

/// The tiny study with reference answers: four prompts of the fixture's lengths.
Study
Judged(const std::string& scheme, const test::TemporaryFolder& folder)
{
    std::string lines;
    for (int i = 0; i < 4; i++)
    {
        Json line = {{"id", "q" + std::to_string(i)},
                     {"group", i % 2 == 0 ? "even" : "odd"},
                     {"text", ""},
                     {"tokens", {5 + i, 17, 40, 41 + i}},
                     {"answer_text", ""},
                     {"answer", {60 + i, 61, 62}}};
        lines += line.dump() + "\n";
    }
    const auto file = folder.Write("judged.jsonl", lines);
    Json json = test::TinyStudy();
    json["scheme"] = Json::parse(scheme);
    json["workload"] = {{"prompts", file.string()}, {"requests", 4}, {"new_tokens", 3}, {"quality", true}};
    return ReadStudy(json, "test", test::Folders());
}

RunRecords
Judge(const Study& study)
{
    RunRecords run = Simulate(study, 0, 1, [] {});
    run.quality = JudgeQuality(study, 0, 1, run.requests, [] {});
    return run;
}

} // namespace

TEST_CASE("answers are compared up to the token that ends them", "[quality]")
{
    const Ids stop{2};
    CHECK(ExactMatch(Ids{7, 8, 2}, Ids{7, 8, 2}, stop));
    CHECK(ExactMatch(Ids{7, 8, 2, 9}, Ids{7, 8}, stop));
    CHECK_FALSE(ExactMatch(Ids{7, 8, 9}, Ids{7, 8, 2}, stop));
    CHECK_FALSE(ExactMatch(Ids{7, 2}, Ids{7, 8, 2}, stop));
    CHECK(ExactMatch(Ids{}, Ids{2}, stop));

    CHECK(TokenF1(Ids{7, 8, 2}, Ids{7, 8, 2}, stop) == 1.0);
    CHECK(TokenF1(Ids{8, 7, 2}, Ids{7, 8, 2}, stop) == 1.0); // a bag of tokens
    CHECK(TokenF1(Ids{7, 7, 7, 2}, Ids{7, 8, 2}, stop) == 2.0 * 1 / 5); // each occurrence counts once
    CHECK(TokenF1(Ids{1, 3}, Ids{7, 8, 2}, stop) == 0.0);
    CHECK(TokenF1(Ids{2}, Ids{2}, stop) == 1.0);
}

TEST_CASE("ROUGE-L counts what both have in common in the same order", "[quality]")
{
    // Lin and Och's example: police killed the gunman / police kill the gunman / the gunman kill police.
    const Ids stop{2};
    CHECK(RougeL(Ids{10, 12, 13, 14}, Ids{10, 11, 13, 14}, stop) == 0.75); // police ... the gunman: 3 of 4
    CHECK(RougeL(Ids{13, 14, 12, 10}, Ids{10, 11, 13, 14}, stop) == 0.5);  // the gunman: 2 of 4
    // Twice the common 7 9 11 over the lengths 5 and 3 before the stop token.
    CHECK(RougeL(Ids{7, 8, 9, 10, 11, 2, 12}, Ids{7, 9, 11, 2}, stop) == 2.0 * 3 / 8);
    CHECK(RougeL(Ids{7, 9, 11}, Ids{7, 8, 9, 10, 11}, stop) == 2.0 * 3 / 8);
    CHECK(RougeL(Ids{7, 7, 7}, Ids{7}, stop) == 2.0 * 1 / 4); // each token of either counts once
    CHECK(RougeL(Ids{7}, Ids{7, 7, 7}, stop) == 2.0 * 1 / 4);
    CHECK(RougeL(Ids{1, 5, 3, 4, 5}, Ids{5, 1, 3, 5, 4, 1, 5}, stop) == 2.0 * 4 / 12); // 1 3 4 5, or 5 3 4 5
    CHECK(RougeL(Ids{1, 3}, Ids{7, 8}, stop) == 0.0);
    CHECK(RougeL(Ids{2, 7}, Ids{7}, stop) == 0.0);
    CHECK(RougeL(Ids{2}, Ids{}, stop) == 1.0);
}

TEST_CASE("calibration compares confidence with agreement bin by bin", "[quality]")
{
    const auto row = [](double confidence, bool agrees) {
        QualityRow made{};
        made.confidence = confidence;
        made.agrees = agrees;
        return made;
    };
    const double none = std::numeric_limits<double>::quiet_NaN();
    CHECK_FALSE(ExpectedCalibrationError({}));
    CHECK_FALSE(ExpectedCalibrationError({row(none, true), row(none, false)}));
    CHECK(std::abs(*ExpectedCalibrationError({row(1.0, true), row(1.0, true)})) < 1e-15);
    CHECK(std::abs(*ExpectedCalibrationError({row(1.0, true), row(1.0, false), row(none, false)}) - 0.5) < 1e-15);
    // Two rows of a bin average out: 0.61 and 0.69, one of two agrees. 0.25 is in another, and never agrees.
    const std::vector<QualityRow> rows{row(0.61, true), row(0.69, false), row(0.25, false), row(0.25, false)};
    CHECK(std::abs(*ExpectedCalibrationError(rows) - (2.0 / 4 * 0.15 + 2.0 / 4 * 0.25)) < 1e-12);
    // A bin has its right end: 0.5 is with 0.45, not with 0.55.
    const std::vector<QualityRow> edge{row(0.5, true), row(0.45, false), row(0.55, true)};
    CHECK(std::abs(*ExpectedCalibrationError(edge) - (2.0 / 3 * 0.025 + 1.0 / 3 * 0.45)) < 1e-12);
    CHECK(std::abs(*ExpectedCalibrationError({row(0.0, false), row(0.1, true)}) - 0.45) < 1e-12);
}

TEST_CASE("a token is judged by the logits that it was chosen from", "[quality]")
{
    ChosenLogits chosen;
    const auto report = [&](std::uint32_t request, std::uint32_t position, Place place, float mark) {
        const std::vector<float> logits{mark, 0.0F};
        chosen.OnLogits({.session = 0,
                         .request = request,
                         .position = position,
                         .place = place,
                         .values = logits.data(),
                         .vocab = logits.size()});
    };
    const auto exit = [&](std::uint32_t request, std::uint32_t position, TokenSource source, std::uint16_t layer) {
        chosen.OnExit({.session = 0,
                       .request = request,
                       .position = position,
                       .source = source,
                       .layer = layer,
                       .confidence = 0.25,
                       .asked = {}});
    };

    SECTION("the only ones that were reported")
    {
        report(3, 9, Place::Server, 1);
        const ChosenLogits::Choice choice = chosen.OnToken(3, 9);
        CHECK(choice.logits == std::vector<float>{1, 0});
        CHECK(choice.layer == 0);
        CHECK(std::isnan(choice.confidence));
    }
    SECTION("the latest of several on the same node")
    {
        report(3, 9, Place::User, 1);
        report(3, 9, Place::User, 2);
        exit(3, 9, TokenSource::Exit, 16);
        const ChosenLogits::Choice choice = chosen.OnToken(3, 9);
        CHECK(choice.logits.front() == 2);
        CHECK(choice.layer == 16);
        CHECK(choice.confidence == 0.25);
    }
    SECTION("the cloud's where it was asked, whatever the exits thought afterwards")
    {
        report(3, 9, Place::Server, 2);
        report(3, 9, Place::User, 1);
        exit(3, 9, TokenSource::Cloud, 0);
        const ChosenLogits::Choice choice = chosen.OnToken(3, 9);
        CHECK(choice.logits.front() == 2);
        CHECK(choice.layer == 0);
        CHECK(std::isnan(choice.confidence)); // of an exit that was not taken
    }
    SECTION("the exit's where the cloud's answer was too late")
    {
        report(3, 9, Place::User, 1);
        report(3, 9, Place::Server, 2);
        exit(3, 9, TokenSource::Fallback, 8);
        const ChosenLogits::Choice choice = chosen.OnToken(3, 9);
        CHECK(choice.logits.front() == 1);
        CHECK(choice.layer == 8);
        CHECK(choice.confidence == 0.25);
        report(3, 9, Place::Server, 3); // later still: of a token that came
        report(3, 10, Place::User, 4);
        CHECK(chosen.OnToken(3, 10).logits.front() == 4);
    }
    SECTION("of its own request and row, though a server be ahead")
    {
        report(3, 9, Place::Server, 1);
        report(3, 10, Place::Server, 2);
        report(4, 9, Place::Server, 3);
        CHECK(chosen.OnToken(3, 9).logits.front() == 1);
        CHECK(chosen.OnToken(4, 9).logits.front() == 3);
        CHECK(chosen.OnToken(3, 10).logits.front() == 2);
    }
    SECTION("none: that is an error")
    {
        report(3, 9, Place::User, 1);
        exit(3, 9, TokenSource::Cloud, 0);
        CHECK_THROWS_AS(chosen.OnToken(3, 9), std::logic_error);
        CHECK_THROWS_AS(chosen.OnToken(5, 9), std::logic_error);
    }
}

TEST_CASE("a distribution is compared by KL divergence, its top token and the answer's likelihood", "[quality]")
{
    // Reference (1/2, 1/4, 1/4), scheme (1/8, 5/8, 1/4), logits shifted by any constant.
    const std::vector<float> reference{std::log(0.5F) + 3, std::log(0.25F) + 3, std::log(0.25F) + 3};
    const std::vector<float> scheme{std::log(0.125F) - 1, std::log(0.625F) - 1, std::log(0.25F) - 1};
    const QualityRow row = Compare(scheme, reference, 1);
    CHECK(std::abs(row.klNats - (0.5 * std::log(4.0) + 0.25 * std::log(0.4))) < 1e-6);
    CHECK_FALSE(row.agrees);
    CHECK(std::abs(row.nll - std::log(1.6)) < 1e-6);
    const QualityRow same = Compare(reference, reference, 0);
    CHECK(same.klNats == 0.0);
    CHECK(same.agrees);
}

TEST_CASE("along the reference answers LInfer over fp32 is the full model, and leaving LoRA out is not", "[quality]")
{
    const test::TemporaryFolder folder;
    const RunRecords whole = Judge(Judged(R"({"name": "linfer", "codec": "fp32"})", folder));
    REQUIRE(whole.quality.size() == 4 * 3);
    std::map<std::uint32_t, std::vector<std::uint32_t>> positions;
    for (const QualityRow& row : whole.quality)
    {
        CHECK(row.klNats == 0.0);
        CHECK(row.agrees);
        positions[row.request].push_back(row.position);
    }
    for (std::uint32_t request = 0; request < 4; request++)
    {
        CHECK(positions[request] == std::vector<std::uint32_t>{3, 4, 5}); // after a prompt of 4 tokens
    }
    const RunRecords none = Judge(Judged(R"({"name": "tlc", "codec": "fp32", "policy": {"name": "never"}})", folder));
    REQUIRE(none.quality.size() == 4 * 3);
    double divergence = 0.0;
    for (const QualityRow& row : none.quality)
    {
        CHECK(row.klNats >= 0.0);
        divergence += row.klNats;
    }
    CHECK(divergence > 0.01);

    // By hand: the base model along the same answers.
    const Study study = Judged(R"({"name": "tlc", "codec": "fp32", "policy": {"name": "never"}})", folder);
    ModelSpec bare = study.model;
    bare.adapterFolder.clear();
    ReferenceModel base(bare, nullptr, {.threads = 1});
    ReferenceModel full(study.model, nullptr, {.threads = 1});
    for (std::uint32_t request = 0; request < 4; request++)
    {
        const RequestSpec& spec = study.requests[request];
        const Tensor p = full.Logits(spec.prompt, spec.answer);
        const Tensor q = base.Logits(spec.prompt, spec.answer);
        std::size_t token = 0;
        for (const QualityRow& row : none.quality)
        {
            if (row.request == request)
            {
                const QualityRow expected = Compare(q.Row(token), p.Row(token), spec.answer[token]);
                CHECK(row.klNats == expected.klNats);
                CHECK(row.nll == expected.nll);
                token++;
            }
        }
        CHECK(token == spec.answer.size());
    }
}

TEST_CASE("SPA is judged against its side network at every token", "[quality][spa]")
{
    const test::TemporaryFolder folder;
    const test::TemporaryFolder side;
    test::WriteSideNetwork(side, LoadConfig(test::TestModel("tiny-llama")), 5, 7);
    const auto judge = [&](const Json& policy) {
        Study study = Judged(R"({"name": "linfer", "codec": "fp32"})", folder);
        study.model.adapterFolder.clear();
        study.scheme.name = "spa";
        study.scheme.side = SideNetwork::Load(side.Path(), study.config);
        Json scheme{{"policy", policy}};
        StrictObject object(scheme, "test");
        study.scheme.spa.policy = ReadGatePolicy(object, false);
        return Judge(study);
    };
    const RunRecords open = judge({{"name", "always"}});
    REQUIRE(open.quality.size() == 4 * 3);
    for (const QualityRow& row : open.quality)
    {
        CHECK(row.klNats == 0.0);
        CHECK(row.agrees);
    }
    double divergence = 0.0;
    for (const QualityRow& row : judge({{"name", "never"}}).quality)
    {
        divergence += row.klNats;
    }
    CHECK(divergence > 0.01);
}

TEST_CASE("the whole model is judged row by row wherever it runs", "[quality]")
{
    const test::TemporaryFolder folder;
    std::vector<RunRecords> runs;
    for (const char* scheme : {R"({"name": "server"})", R"({"name": "local"})"})
    {
        runs.push_back(Judge(Judged(scheme, folder)));
    }
    // OPSC has no adapter and a cloud; its device sends states in fp32, so that nothing is lost.
    Json json = test::TinyStudy();
    json["model"].erase("adapter");
    json["nodes"].erase("edge");
    json["nodes"]["cloud"] = {{"role", "cloud"}, {"hardware", "a800-80gb"}};
    json["links"] = {{"device-cloud", {{"type", "service"}, {"rate", "100Mbps"}}}};
    json["scheme"] = {{"name", "opsc"}, {"split", 2}, {"codec", "fp32"}};
    json["workload"] = {{"prompts", (folder.Path() / "judged.jsonl").string()},
                        {"requests", 4},
                        {"new_tokens", 3},
                        {"quality", true}};
    runs.push_back(Judge(ReadStudy(json, "test", test::Folders())));
    for (const RunRecords& run : runs)
    {
        REQUIRE(run.quality.size() == 4 * 3);
        for (const QualityRow& row : run.quality)
        {
            CHECK(row.klNats == 0.0);
            CHECK(row.layer == 0);
            CHECK(std::isnan(row.confidence));
        }
    }
}

TEST_CASE("judging does not change what is measured", "[quality]")
{
    const test::TemporaryFolder folder;
    const Study study = Judged(R"({"name": "tlc", "policy": {"name": "random", "offload": 0.5}})", folder);
    const RunRecords judged = Judge(study);
    const RunRecords again = Simulate(study, 0, 1, [] {});
    CHECK(judged.payloadBytes == again.payloadBytes);
    CHECK(judged.tokens.size() == again.tokens.size());
    CHECK(judged.requests.size() == 4);
    const Metrics metrics = ComputeMetrics(study, {judged});
    CHECK(*Find(metrics, "tokens") == 12.0);
    CHECK(Find(metrics, "quality.kl_nats"));
    CHECK(*Find(metrics, "quality.exact_match") == 0.0);
    CHECK(Find(metrics, "quality.rouge_l"));
    CHECK_FALSE(Find(metrics, "quality.ece")); // nobody was confident of anything
}

TEST_CASE("a drawn order asks every prompt once, another one with another seed", "[study]")
{
    const test::TemporaryFolder folder;
    const auto order = [&](std::uint32_t seed) {
        Study study = Judged(R"({"name": "local"})", folder);
        study.shuffled = true;
        study.seed = seed;
        std::vector<std::size_t> prompts;
        for (const RequestRow& row : Simulate(study, 0, 1, [] {}).requests)
        {
            prompts.push_back(row.prompt);
        }
        return prompts;
    };
    std::vector<std::size_t> first = order(1);
    CHECK(first == order(1));
    bool differs = false;
    for (std::uint32_t seed = 2; seed < 8; seed++)
    {
        differs = differs || order(seed) != first;
    }
    CHECK(differs);
    std::ranges::sort(first);
    CHECK(first == std::vector<std::size_t>{0, 1, 2, 3});
}
