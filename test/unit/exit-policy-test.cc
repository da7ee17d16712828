// SPDX-License-Identifier: GPL-2.0-only
#include "policy/exit-policy.h"

#include "support/catch.h"
#include "support/error-of.h"

#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

using namespace splitllm;
using splitllm::test::ErrorOf;

namespace
{

/// Makes the policy that a study's scheme describes, for exits after layers 8 and 16.
std::shared_ptr<const ExitPolicy>
Make(const std::string& policy, bool shapeMode = false)
{
    Json scheme = Json::parse(R"({"policy": )" + policy + "}");
    StrictObject object(scheme, "study.json", "scheme");
    return ReadExitPolicy(object, {8, 16}, shapeMode);
}

std::string
Mistake(const std::string& policy, bool shapeMode = false)
{
    return ErrorOf([&] { Make(policy, shapeMode); });
}

double
NeverDrawn()
{
    throw std::logic_error("this policy does not draw");
}

/// The decision about an exit, from 0, of token 1 with these logits.
Verdict
Decision(const ExitPolicy& policy, std::size_t exit, const std::vector<float>& logits)
{
    return policy.Decide({.request = 0, .token = 1, .exit = exit, .layer = 8 + 8 * exit, .logits = logits},
                         NeverDrawn);
}

/// Logits whose largest softmax probability is \p share: ln(share / (1 - share)) beside 0.
std::vector<float>
WithConfidence(double share)
{
    return {0.0F, static_cast<float>(std::log(share / (1.0 - share)))};
}

} // namespace

TEST_CASE("Confidence is the largest softmax probability", "[policy][exits]")
{
    CHECK(Confidence(std::vector<float>{3.5F}) == 1.0);
    CHECK(Confidence(std::vector<float>{-7.0F, -7.0F, -7.0F, -7.0F}) == 0.25);
    CHECK(Confidence(std::vector<float>(49152, 1e30F)) == 1.0 / 49152.0);
    // softmax of 0, 1, 2, 3
    const double expected = std::exp(3.0) / (1.0 + std::exp(1.0) + std::exp(2.0) + std::exp(3.0));
    CHECK(std::abs(Confidence(std::vector<float>{0.0F, 3.0F, 1.0F, 2.0F}) - expected) < 1e-14);
    CHECK(std::abs(Confidence(std::vector<float>{1000.0F, 1003.0F, 1001.0F, 1002.0F}) - expected) < 1e-14);
    CHECK(Confidence(std::vector<float>{-std::numeric_limits<float>::infinity(), 2.0F, 2.0F}) == 0.5);

    constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
    CHECK(std::isnan(Confidence(std::vector<float>{1.0F, kNan})));
    CHECK(std::isnan(Confidence(std::vector<float>{kNan, 1.0F})));
    CHECK(std::isnan(Confidence(std::vector<float>{std::numeric_limits<float>::infinity(), 1.0F})));
    CHECK_THROWS_AS(Confidence({}), std::logic_error);
}

TEST_CASE("An exit is taken where its confidence reaches its threshold", "[policy][exits]")
{
    const auto policy = Make(R"({"name": "confidence", "threshold": [0.6, 0.5]})");
    CHECK(Decision(*policy, 0, WithConfidence(0.61)).yes);
    CHECK_FALSE(Decision(*policy, 0, WithConfidence(0.59)).yes);
    CHECK(Decision(*policy, 1, WithConfidence(0.59)).yes);
    CHECK(Decision(*policy, 1, {1.0F, 1.0F}).yes); // exactly 0.5
    CHECK(std::abs(*Decision(*policy, 0, WithConfidence(0.59)).score - 0.59) < 1e-6);

    const auto same = Make(R"({"name": "confidence", "threshold": 0.7})");
    for (const std::size_t exit : {0, 1})
    {
        CHECK(Decision(*same, exit, WithConfidence(0.71)).yes);
        CHECK_FALSE(Decision(*same, exit, WithConfidence(0.69)).yes);
    }
    CHECK(Decision(*Make(R"({"name": "confidence", "threshold": 0})"), 0, std::vector<float>(100)).yes);
    CHECK_FALSE(Decision(*Make(R"({"name": "confidence", "threshold": 1.5})"), 1, {1.0F}).yes);
    CHECK(Decision(*Make(R"({"name": "confidence", "threshold": 1})"), 1, {1.0F}).yes);
    CHECK_FALSE(Decision(*policy, 1, {std::numeric_limits<float>::quiet_NaN(), 1.0F}).yes);
    CHECK_THROWS_AS(Decision(*policy, 0, {}), std::logic_error);
    CHECK_THROWS_AS(Decision(*policy, 2, {1.0F}), std::logic_error);
}

TEST_CASE("The threshold that CE-CoLLM recommends is the default, and stands in the study", "[policy][exits]")
{
    Json scheme = Json::parse(R"({"policy": {"name": "confidence"}})");
    StrictObject object(scheme, "study.json", "scheme");
    const auto policy = ReadExitPolicy(object, {8}, false);
    CHECK(Decision(*policy, 0, WithConfidence(0.81)).yes);
    CHECK_FALSE(Decision(*policy, 0, WithConfidence(0.79)).yes);
    CHECK(scheme["policy"]["threshold"] == 0.8);
}

TEST_CASE("An exit is taken by a draw where the policy is random", "[policy][exits]")
{
    const auto policy = Make(R"({"name": "random", "shares": [0.25, 1]})", /* shapeMode */ true);
    const auto decide = [&](std::size_t exit, double drawn, std::vector<float> logits) {
        int draws = 0;
        const Verdict verdict = policy->Decide(
            {.request = 3, .token = 2, .exit = exit, .layer = 8 + 8 * exit, .logits = logits},
            [&] {
                draws++;
                return drawn;
            });
        CHECK(draws == 1);
        return verdict;
    };
    CHECK(decide(0, 0.2499, {}).yes);
    CHECK_FALSE(decide(0, 0.25, {}).yes);
    CHECK(decide(1, 0.9999, {}).yes);
    CHECK_FALSE(decide(0, 0.5, {}).score.has_value());
    CHECK(decide(0, 0.5, {2.0F, 2.0F}).score == 0.5);
}

TEST_CASE("Tokens exit after the listed layers, again from the beginning", "[policy][exits]")
{
    const auto policy = Make(R"({"name": "listed", "tokens": [8, 0, 16]})", /* shapeMode */ true);
    const auto exit = [&](std::uint32_t token) {
        for (const std::size_t index : {0, 1})
        {
            const std::size_t layer = 8 + 8 * index;
            if (policy->Decide({.request = 5, .token = token, .exit = index, .layer = layer, .logits = {}}, NeverDrawn)
                    .yes)
            {
                return layer;
            }
        }
        return std::size_t{0};
    };
    std::vector<std::size_t> layers;
    for (std::uint32_t token = 1; token <= 7; token++)
    {
        layers.push_back(exit(token));
    }
    CHECK(layers == std::vector<std::size_t>{8, 0, 16, 8, 0, 16, 8});
    CHECK_FALSE(Decision(*policy, 0, {}).score.has_value());
    CHECK(Decision(*policy, 1, {0.0F, 0.0F, 0.0F, 0.0F}).score == 0.25);
}

TEST_CASE("An exit policy that does not fit is refused by key", "[policy][exits][input]")
{
    const std::string place = "study.json: scheme.policy.";
    CHECK(Mistake(R"({"name": "entropy"})") ==
          place + "name: is \"entropy\"; accepted: confidence, random, listed");
    CHECK(Mistake(R"({"name": "confidence"})", /* shapeMode */ true) ==
          place + "name: confidence looks at numbers, which shape mode has none of; accepted there: random, listed");
    CHECK(Mistake(R"({"name": "confidence", "threshold": -0.1})").starts_with(place + "threshold: is -0.1; "));
    CHECK(Mistake(R"({"name": "confidence", "threshold": "high"})").starts_with(place + "threshold: is \"high\""));
    const std::string two = "; accepted: a list of 2 numbers, one an exit, ";
    CHECK(Mistake(R"({"name": "confidence", "threshold": [0.8]})") ==
          place + "threshold: is [0.8]" + two + "not below 0");
    CHECK(Mistake(R"({"name": "confidence", "threshold": [0.8, -1]})") ==
          place + "threshold: is [0.8,-1]" + two + "not below 0");
    CHECK(Mistake(R"({"name": "confidence", "threshold": [0.8, null]})") ==
          place + "threshold: is [0.8,null]" + two + "not below 0");
    CHECK(Mistake(R"({"name": "random", "shares": [0.5, 1.01]})") ==
          place + "shares: is [0.5,1.01]" + two + "from 0 to 1");
    CHECK(Mistake(R"({"name": "random", "shares": 0.5})") == place + "shares: is 0.5" + two + "from 0 to 1");
    CHECK(Mistake(R"({"name": "random"})") ==
          place + "shares: missing; accepted: a list of 2 numbers, one an exit, from 0 to 1");
    const std::string tokens = "tokens: must be a list of layers with an exit, or 0 for none; accepted: 0, 8, 16";
    for (const char* list : {"[]", "[8, 9]", "[8, -16]", "[8, 16.0]", "8", "[\"8\"]"})
    {
        CAPTURE(list);
        CHECK(Mistake(R"({"name": "listed", "tokens": )" + std::string(list) + "}") == place + tokens);
    }
    CHECK(Mistake(R"({"name": "listed", "tokens": [8], "share": 1})").starts_with(place + "share: unknown key"));
    CHECK(ErrorOf([] {
              Json scheme = Json::parse("{}");
              StrictObject object(scheme, "study.json", "scheme");
              ReadExitPolicy(object, {8}, false);
          }).starts_with("study.json: scheme.policy: missing"));
}
