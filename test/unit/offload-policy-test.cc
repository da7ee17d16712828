// SPDX-License-Identifier: GPL-2.0-only
#include "support/catch.h"
#include "support/error-of.h"
#include "support/temporary-folder.h"

#include "codec/dense-codec.h"
#include "llm/config.h"
#include "policy/offload-policies.h"
#include "schemes/tlc/selected-rows.h"

#include <cmath>

using namespace splitllm;
using splitllm::test::ErrorOf;

namespace
{

PolicyContext
Context()
{
    return {.config = NamedShape("smollm2-135m", DType::BF16),
            .shapeMode = false,
            .positions = {2},
            .calibrators = std::filesystem::path(SPLITLLM_SOURCE_DIR) / "test/data",
            .study = {}};
}

std::shared_ptr<const OffloadPolicy>
Make(const std::string& json, const PolicyContext& context = Context())
{
    Json parsed = Json::parse(json);
    StrictObject parameters(parsed, "study.json", "scheme.policy");
    return MakeOffloadPolicy(parameters, context);
}

std::string
Mistake(const std::string& json, const PolicyContext& context = Context())
{
    return ErrorOf([&] { Make(json, context); });
}

EdgeView
At(std::size_t layer, double draw = 0.0)
{
    return {.cell = {0, 0, layer}, .embedding = {}, .hidden = {}, .draw = draw, .tokenDraw = draw};
}

} // namespace

TEST_CASE("simple policies decide as their names say", "[policy]")
{
    CHECK(Make(R"({"name": "always"})")->Offload(At(1)).yes);
    CHECK_FALSE(Make(R"({"name": "never"})")->Offload(At(2)).yes);
    const auto fixed = Make(R"({"name": "fixed", "layers": [3, 30]})");
    CHECK(fixed->Offload(At(3)).yes);
    CHECK(fixed->Offload(At(30)).yes);
    CHECK_FALSE(fixed->Offload(At(4)).yes);
    CHECK(fixed->Return({}).yes);
    const auto random = Make(R"({"name": "random", "offload": 0.25, "return": 0.5})");
    CHECK(random->Offload(At(2, 0.2499)).yes);
    CHECK_FALSE(random->Offload(At(2, 0.25)).yes);
    CHECK(random->Return({.cell = {}, .update = {}, .previous = {}, .baseNorms = {}, .draw = 0.4999}).yes);
    CHECK_FALSE(random->Return({.cell = {}, .update = {}, .previous = {}, .baseNorms = {}, .draw = 0.5}).yes);
}

TEST_CASE("DLoRA keeps the tokens with the largest embeddings", "[policy]")
{
    std::vector<float> quantiles(101);
    for (std::size_t i = 0; i < quantiles.size(); i++)
    {
        quantiles[i] = 10.0F + static_cast<float>(i); // norms from 10 to 110
    }
    const auto policy = KeepLargeTokens(0.3, quantiles);
    const auto score = [&](float norm) {
        const std::vector<float> embedding{0.6F * norm, 0.8F * norm};
        EdgeView view = At(5);
        view.embedding = embedding;
        return policy->Offload(view);
    };
    CHECK(std::abs(*score(79.5F).score - 0.695) < 1e-6);
    CHECK_FALSE(score(79.5F).yes);
    CHECK(score(80.5F).yes);
    CHECK(score(1.0F).score == 0.0);
    CHECK(score(1000.0F).score == 1.0);
}

TEST_CASE("scores of a file are held against thresholds", "[policy]")
{
    const test::TemporaryFolder folder;
    PolicyContext context = Context();
    context.config.layers = 2;
    context.study = folder.Path();
    folder.Write("s.csv",
                 "request,position,layer,score_1,score_2\n0,0,1,,\n0,0,2,0.7,0.3\n0,1,1,,\n0,1,2,0.6,\n");
    const auto policy = Make(R"({"name": "scores", "file": "s.csv", "tau1": 0.6, "tau2": 0.2})", context);
    CHECK(policy->Offload(At(2)).yes);
    CHECK(policy->Offload(At(2)).score == 0.7);
    EdgeView second = At(2);
    second.cell.position = 1;
    CHECK_FALSE(policy->Offload(second).yes); // not above the threshold
    CHECK(policy->Return({.cell = {0, 0, 2}, .update = {}, .previous = {}, .baseNorms = {}, .draw = 0}).yes);

    folder.Write("s.csv", "request,position,layer,score_1\n0,0,1,\n0,0,2,0.7\n0,1,1,\n0,1,2,\n");
    CHECK(Mistake(R"({"name": "scores", "file": "s.csv"})", context)
              .ends_with("s.csv: no score_1 for request 0, position 1, layer 2"));
    folder.Write("s.csv", "request,position,layer,score_1\n0,0,1,\n0,0,2,1.5\n");
    CHECK(Mistake(R"({"name": "scores", "file": "s.csv"})", context)
              .ends_with("s.csv:3: score_1: \"1.5\"; a number from 0 to 1, or nothing, is expected"));
}

TEST_CASE("a decision list that is too short or malformed is refused", "[policy][input]")
{
    const test::TemporaryFolder folder;
    PolicyContext context = Context();
    context.config.layers = 2;
    context.study = folder.Path();
    const std::string listed = R"({"name": "listed", "file": "d.csv"})";
    CHECK(Mistake(listed, context).ends_with("d.csv: cannot be read; decisions as comma-separated values are expected"));
    folder.Write("d.csv", "request,position,layer,offloaded,returned\n0,0,1,0,0\n0,0,2,1,1\n0,1,1,0,0\n");
    CHECK(Mistake(listed, context).ends_with("d.csv: the list is too short: nothing for request 0, position 1, layer 2"));
    folder.Write("d.csv", "request,position,layer,offloaded,returned\n0,0,1,0,2\n");
    CHECK(Mistake(listed, context).ends_with("d.csv:2: returned: \"2\"; a whole number from 0 to 1 is expected"));
    folder.Write("d.csv", "request,position,layer,offloaded,returned\n0,0,0,0,0\n");
    CHECK(Mistake(listed, context).ends_with("d.csv:2: layer: layers count from 1"));
    folder.Write("d.csv", "request,position,offloaded\n0,0,0\n");
    CHECK(Mistake(listed, context).ends_with("d.csv:2: no layer"));
}

TEST_CASE("a policy's mistakes name the key and what is accepted", "[policy][input]")
{
    CHECK(Mistake(R"({"name": "sometimes"})") ==
          "study.json: scheme.policy.name: is \"sometimes\"; accepted: always, calibrator, fixed, listed, never, random, "
          "scores");
    CHECK(Mistake(R"({"name": "random", "offload": 1.5})").find("scheme.policy.offload: ") != std::string::npos);
    CHECK(Mistake(R"({"name": "never", "tau1": 0.5})").find("scheme.policy.tau1: unknown key") != std::string::npos);
    CHECK(Mistake(R"({"name": "fixed", "layers": [31]})") ==
          "study.json: scheme.policy.layers: must be a list of layers from 1 to 30");
    // The tiny calibrator belongs to another model.
    CHECK(Mistake(R"({"name": "calibrator", "path": "tiny-calibrator/narrow"})")
              .find("model.layers: made for a model with 4, but smollm2-135m has 30") != std::string::npos);
    PolicyContext shape = Context();
    shape.shapeMode = true;
    CHECK(Mistake(R"({"name": "calibrator", "path": "x"})", shape).find("shape mode") != std::string::npos);
    for (const char* key : {"tau1", "tau2"})
    {
        CAPTURE(key);
        PolicyContext tiny = Context();
        tiny.config.layers = 4;
        tiny.config.hidden = 64;
        tiny.config.heads = 4;
        tiny.config.kvHeads = 2;
        tiny.config.headDim = 16;
        const std::string json =
            std::string(R"({"name": "calibrator", "path": "tiny-calibrator/narrow", ")") + key + "\": ";
        CHECK(Mistake(json + "1.01}", tiny).find(std::string("scheme.policy.") + key) != std::string::npos);
        CHECK(Mistake(json + "-0.01}", tiny).find(std::string("scheme.policy.") + key) != std::string::npos);
        CHECK(Mistake(json + "1}", tiny).empty());
    }
}

TEST_CASE("a policy of one's own has a name in studies", "[policy]")
{
    class EveryThird final : public OffloadPolicy
    {
      public:
        Verdict Offload(const EdgeView& view) const override
        {
            return {view.cell.layer % 3 == 0, {}};
        }
    };
    RegisterOffloadPolicy("every-third", [](StrictObject&, const PolicyContext&) {
        return std::make_shared<const EveryThird>();
    });
    const auto policy = Make(R"({"name": "every-third"})");
    CHECK(policy->Offload(At(3)).yes);
    CHECK_FALSE(policy->Offload(At(4)).yes);
}

TEST_CASE("a selection of rows travels in front of them and comes back", "[wire]")
{
    for (const std::size_t of : {2U, 7U, 8U, 9U, 64U, 65U})
    {
        for (const Rows& rows : {Rows{0}, Rows{of - 1}, Rows{0, of - 1}, AllRows(of)})
        {
            for (const bool phantom : {false, true})
            {
                CAPTURE(of, rows.size(), phantom);
                const std::vector<std::byte> content(rows.size() * 4, std::byte{0xAB});
                Payload payload = WithSelection(
                    rows, of, phantom ? Payload::Phantom(content.size()) : Payload::Of(content));
                CHECK(payload.size == content.size() + (of + 7) / 8);
                CHECK(TakeSelection(payload, of) == rows);
                CHECK(payload.size == content.size());
                CHECK(payload.bytes == (phantom ? std::vector<std::byte>() : content));
            }
        }
    }
    Payload one = WithSelection({0}, 1, Payload::Phantom(10));
    CHECK(one.size == 10);
    CHECK(TakeSelection(one, 1) == Rows{0});
}

TEST_CASE("a selection of nothing, of too much or of too few bytes is an error", "[wire]")
{
    const auto reason = [](std::vector<std::byte> bytes, std::size_t of) -> std::string {
        Payload payload = Payload::Of(std::move(bytes));
        try
        {
            TakeSelection(payload, of);
        }
        catch (const DecodeError& error)
        {
            return error.what();
        }
        return "";
    };
    CHECK(reason({std::byte{0}}, 8) == "a selection of no row, or of one beyond 8");
    CHECK(reason({std::byte{0x80}}, 7) == "a selection of no row, or of one beyond 7");
    CHECK(reason({std::byte{1}}, 9) == "payload of 1 bytes holds no selection of 9 rows");
    CHECK(reason({std::byte{1}}, 8).empty());
}
