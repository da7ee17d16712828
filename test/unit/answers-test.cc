// SPDX-License-Identifier: GPL-2.0-only
#include "support/catch.h"
#include "support/study-fixture.h"
#include "support/temporary-folder.h"

#include "answers.h"
#include "metrics.h"
#include "simulation.h"

#include <cmath>

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
    for (const QualityRow& row : whole.quality)
    {
        CHECK(row.klNats == 0.0);
        CHECK(row.agrees);
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
    ReferenceModel base(bare, 1);
    ReferenceModel full(study.model, 1);
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
