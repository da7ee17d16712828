// SPDX-License-Identifier: GPL-2.0-only
#include "policy/gate-policy.h"

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

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Makes the policy that a study's scheme describes.
std::shared_ptr<const GatePolicy>
Make(const std::string& policy, bool shapeMode = false)
{
    Json scheme = Json::parse(R"({"policy": )" + policy + "}");
    StrictObject object(scheme, "study.json", "scheme");
    return ReadGatePolicy(object, shapeMode);
}

std::string
Mistake(const std::string& policy, bool shapeMode = false)
{
    return ErrorOf([&] { Make(policy, shapeMode); });
}

double
Probability(const std::vector<float>& logits)
{
    return OpenProbability(logits);
}

bool
Opens(const GatePolicy& policy, const std::vector<float>& logits)
{
    return policy.Decide({.request = 0, .token = 1, .logits = logits, .draw = 0.5}).open;
}

} // namespace

TEST_CASE("The probability of open is the softmax of the gate's two logits", "[policy][gate]")
{
    CHECK(Probability({3.5F, 3.5F}) == 0.5);
    CHECK(std::abs(Probability({0.0F, 1.0F}) - 1.0 / (1.0 + std::exp(-1.0))) < 1e-15);
    CHECK(std::abs(Probability({1.0F, -1.0F}) - std::exp(-1.0) / (std::exp(1.0) + std::exp(-1.0))) < 1e-15);
    CHECK(Probability({1000.0F, 1001.0F}) == Probability({0.0F, 1.0F}));
    CHECK(Probability({-3e38F, 3e38F}) == 1.0);
    CHECK(Probability({3e38F, -3e38F}) == 0.0);
    CHECK(Probability({0.0F, kInfinity}) == 1.0);
    CHECK(Probability({0.0F, -kInfinity}) == 0.0);
    CHECK(std::isnan(Probability({kNan, 1.0F})));
    CHECK(std::isnan(Probability({1.0F, kNan})));
    CHECK(std::isnan(Probability({kInfinity, kInfinity})));
    CHECK_THROWS_AS(OpenProbability({}), std::logic_error);
    CHECK_THROWS_AS(Probability({1.0F}), std::logic_error);
    CHECK_THROWS_AS(Probability({1.0F, 2.0F, 3.0F}), std::logic_error);
}

TEST_CASE("The gate opens where its probability exceeds the threshold", "[policy][gate]")
{
    const auto larger = Make(R"({"name": "gate"})");
    CHECK(larger->UsesGate());
    CHECK_FALSE(larger->Draws());
    CHECK(Opens(*larger, {1.0F, std::nextafter(1.0F, 2.0F)}));
    CHECK_FALSE(Opens(*larger, {1.0F, 1.0F}));
    CHECK_FALSE(Opens(*larger, {std::nextafter(1.0F, 2.0F), 1.0F}));
    CHECK_FALSE(Opens(*larger, {kNan, 1.0F}));

    const auto likely = Make(R"({"name": "gate", "threshold": 0.75})"); // ln 3 = 1.0986
    CHECK(Opens(*likely, {0.0F, 1.099F}));
    CHECK_FALSE(Opens(*likely, {0.0F, 1.098F}));
    CHECK(likely->Decide({.request = 0, .token = 1, .logits = std::vector<float>{2.0F, 2.0F}, .draw = 0.0})
              .probability == 0.5);

    const auto all = Make(R"({"name": "gate", "threshold": 0})");
    CHECK(Opens(*all, {700.0F, 0.0F}));
    CHECK_FALSE(Opens(*all, {kInfinity, 0.0F}));
    CHECK_FALSE(Opens(*all, {kNan, kNan}));
    const auto none = Make(R"({"name": "gate", "threshold": 1})");
    CHECK_FALSE(Opens(*none, {0.0F, kInfinity}));
    CHECK_THROWS_AS(Opens(*larger, {}), std::logic_error);
}

TEST_CASE("A gate can be open always or never, without being asked", "[policy][gate]")
{
    for (const bool open : {true, false})
    {
        const auto policy = Make(open ? R"({"name": "always"})" : R"({"name": "never"})", /* shapeMode */ true);
        CHECK_FALSE(policy->UsesGate());
        CHECK_FALSE(policy->Draws());
        CHECK(Opens(*policy, {}) == open);
        CHECK(std::isnan(policy->Decide({.request = 1, .token = 9, .logits = {}, .draw = 0.0}).probability));
    }
}

TEST_CASE("A gate opens by a draw where the policy is random", "[policy][gate]")
{
    const auto policy = Make(R"({"name": "random", "open": 0.625})", /* shapeMode */ true);
    CHECK_FALSE(policy->UsesGate());
    CHECK(policy->Draws());
    const auto opens = [](const GatePolicy& random, double draw) {
        return random.Decide({.request = 0, .token = 3, .logits = {}, .draw = draw}).open;
    };
    CHECK(opens(*policy, 0.0));
    CHECK(opens(*policy, 0.6249));
    CHECK_FALSE(opens(*policy, 0.625));
    CHECK_FALSE(opens(*Make(R"({"name": "random", "open": 0})"), 0.0));
    CHECK(opens(*Make(R"({"name": "random", "open": 1})"), std::nextafter(1.0, 0.0)));
}

TEST_CASE("A gate opens for the listed tokens, again from the beginning", "[policy][gate]")
{
    const auto policy = Make(R"({"name": "listed", "tokens": [1, 0, 0, 1]})", /* shapeMode */ true);
    CHECK_FALSE(policy->UsesGate());
    CHECK_FALSE(policy->Draws());
    std::string open;
    for (std::uint32_t token = 1; token <= 9; token++)
    {
        open += policy->Decide({.request = 7, .token = token, .logits = {}, .draw = 0.0}).open ? '1' : '0';
    }
    CHECK(open == "100110011");
}

TEST_CASE("Without a policy SPA's gate decides, which then stands in the study", "[policy][gate]")
{
    Json scheme = Json::object();
    StrictObject object(scheme, "study.json", "scheme");
    const auto policy = ReadGatePolicy(object, false);
    CHECK(policy->UsesGate());
    CHECK(scheme == Json::parse(R"({"policy": {"name": "gate", "threshold": 0.5}})"));
    CHECK_NOTHROW(object.Finish());
}

TEST_CASE("A gate policy may have a label for tables and plots", "[policy][gate]")
{
    CHECK(Opens(*Make(R"({"name": "always", "label": "LST"})"), {}));
    CHECK(Mistake(R"({"name": "always", "label": 1})") == "study.json: scheme.policy.label: is 1; accepted: a string");
}

TEST_CASE("A gate policy that does not fit is refused by key", "[policy][gate][input]")
{
    const std::string place = "study.json: scheme.policy";
    const std::string shape =
        ".name: gate looks at numbers, which shape mode has none of; accepted there: always, never, random, listed";
    CHECK(Mistake(R"({"name": "gate"})", /* shapeMode */ true) == place + shape);
    CHECK(ErrorOf([] {
              Json scheme = Json::object();
              StrictObject object(scheme, "study.json", "scheme");
              ReadGatePolicy(object, true);
          }) == place + shape);
    CHECK(Mistake(R"({"name": "confidence"})") ==
          place + ".name: is \"confidence\"; accepted: gate, always, never, random, listed");
    CHECK(Mistake(R"({"threshold": 0.5})") == place + ".name: missing; accepted: gate, always, never, random, listed");
    CHECK(Mistake("0.5").starts_with(place + ": is 0.5; accepted: an object"));
    for (const char* number : {"-0.1", "1.1", "\"half\"", "null"})
    {
        CAPTURE(number);
        const std::string rest = std::string(": is ") + number + "; accepted: a number from 0 to 1";
        CHECK(Mistake(R"({"name": "gate", "threshold": )" + std::string(number) + "}") == place + ".threshold" + rest);
        CHECK(Mistake(R"({"name": "random", "open": )" + std::string(number) + "}") == place + ".open" + rest);
    }
    CHECK(Mistake(R"({"name": "random"})") == place + ".open: missing; accepted: a number from 0 to 1");
    CHECK(Mistake(R"({"name": "always", "threshold": 0.5})").starts_with(place + ".threshold: unknown key"));
    CHECK(Mistake(R"({"name": "listed"})").starts_with(place + ".tokens: must say"));
    for (const char* list : {"[]", "[2]", "[1, -1]", "[1.0]", "[true]", "1", "[\"1\"]"})
    {
        CAPTURE(list);
        CHECK(Mistake(R"({"name": "listed", "tokens": )" + std::string(list) + "}") ==
              place + ".tokens: must say of each token of an answer whether the gate is open; accepted: a list of 0 "
                      "and 1, not empty");
    }
}
