// SPDX-License-Identifier: GPL-2.0-only
#include "llm/sampling.h"

#include "support/catch.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

using namespace splitllm;

namespace
{

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNaN = std::nanf("");

/// Logits whose softmax at temperature 1 is \p probabilities.
std::vector<float>
LogitsOf(const std::vector<double>& probabilities)
{
    std::vector<float> logits;
    for (const double p : probabilities)
    {
        logits.push_back(static_cast<float>(std::log(p)));
    }
    return logits;
}

} // namespace

TEST_CASE("Greedy takes the largest logit, the lowest index among equals, and never NaN")
{
    CHECK(Greedy(std::vector<float>{-3.0F}) == 0);
    CHECK(Greedy(std::vector<float>{1.0F, 5.0F, 2.0F, 5.0F, 4.0F}) == 1);
    CHECK(Greedy(std::vector<float>{-0.0F, 0.0F}) == 0);
    CHECK(Greedy(std::vector<float>{kNaN, -7.0F, kNaN, -6.0F, kNaN}) == 3);
    CHECK(Greedy(std::vector<float>{kNaN, -kInfinity}) == 1);
    CHECK(Greedy(std::vector<float>{kNaN, kNaN, kNaN}) == 0);
    CHECK(Greedy(std::vector<float>{1.0F, kInfinity, 2.0F}) == 1);
}

TEST_CASE("Temperature zero is greedy whatever the draw")
{
    const std::vector<float> logits{0.1F, 0.2F, 0.2F};
    for (const double uniform : {0.0, 0.5, 0.999999})
    {
        CHECK(Sample(logits, {0.0, 0.9}, uniform) == 1);
    }
}

TEST_CASE("The draw walks the tokens from the most probable down")
{
    const auto logits = LogitsOf({0.1, 0.4, 0.2, 0.3}); // order: 1, 3, 2, 0
    const Sampling sampling{1.0, 1.0};
    CHECK(Sample(logits, sampling, 0.0) == 1);
    CHECK(Sample(logits, sampling, 0.399) == 1);
    CHECK(Sample(logits, sampling, 0.401) == 3);
    CHECK(Sample(logits, sampling, 0.699) == 3);
    CHECK(Sample(logits, sampling, 0.701) == 2);
    CHECK(Sample(logits, sampling, 0.899) == 2);
    CHECK(Sample(logits, sampling, 0.901) == 0);
    CHECK(Sample(logits, sampling, std::nextafter(1.0, 0.0)) == 0);
}

TEST_CASE("The nucleus is the smallest set that reaches top p, with its probabilities scaled to one")
{
    const auto logits = LogitsOf({0.1, 0.4, 0.2, 0.3});
    // 0.69 needs tokens 1 and 3, of 4/7 and 3/7.
    CHECK(Sample(logits, {1.0, 0.69}, 0.571) == 1);
    CHECK(Sample(logits, {1.0, 0.69}, 0.572) == 3);
    CHECK(Sample(logits, {1.0, 0.69}, 0.999999) == 3);
    // 0.71 needs token 2 as well: 4/9, 3/9, 2/9.
    CHECK(Sample(logits, {1.0, 0.71}, 0.444) == 1);
    CHECK(Sample(logits, {1.0, 0.71}, 0.445) == 3);
    CHECK(Sample(logits, {1.0, 0.71}, 0.778) == 2);
    CHECK(Sample(logits, {1.0, 0.71}, 0.999999) == 2);
    CHECK(Sample(logits, {1.0, 1e-9}, 0.999999) == 1);
}

TEST_CASE("Temperature raises probabilities to its inverse")
{
    const auto logits = LogitsOf({0.2, 0.8});
    // At 0.5: 0.04 : 0.64. At 2: sqrt(0.2) : sqrt(0.8) = 1 : 2.
    CHECK(Sample(logits, {0.5, 1.0}, 0.941) == 1);
    CHECK(Sample(logits, {0.5, 1.0}, 0.942) == 0);
    CHECK(Sample(logits, {2.0, 1.0}, 0.666) == 1);
    CHECK(Sample(logits, {2.0, 1.0}, 0.667) == 0);
}

TEST_CASE("Equal logits are ordered by index")
{
    const std::vector<float> logits(5, 1.5F);
    for (TokenId token = 0; token < 5; ++token)
    {
        CHECK(Sample(logits, {0.7, 1.0}, 0.2 * token + 0.1) == token);
    }
    CHECK(Sample(logits, {0.7, 0.3}, 0.999) == 1); // a nucleus of the first two
    const std::vector<float> four(4, 1.5F);
    CHECK(Sample(four, {0.7, 0.5}, 0.999) == 1); // which reach one half exactly
}

TEST_CASE("Logits that are no numbers are never drawn")
{
    const std::vector<float> logits{kNaN, 1.0F, -kInfinity, 1.0F, kNaN};
    for (const double uniform : {0.0, 0.499})
    {
        CHECK(Sample(logits, {1.0, 1.0}, uniform) == 1);
    }
    CHECK(Sample(logits, {1.0, 1.0}, 0.999999) == 3);
    CHECK(Sample(std::vector<float>{0.0F, kInfinity}, {1.0, 1.0}, 0.99) == 1);
    CHECK(Sample(std::vector<float>{kNaN, -kInfinity}, {1.0, 1.0}, 0.99) == 1);
    CHECK(Sample(std::vector<float>{kNaN}, {1.0, 1.0}, 0.99) == 0);
    CHECK(Sample(std::vector<float>{-3e38F, 3e38F}, {1e-300, 1.0}, 0.99) == 1);
    CHECK(Sample(std::vector<float>{0.0F, 0.0F}, {1e300, 1.0}, 0.75) == 1);
}

TEST_CASE("Tokens are drawn as often as they are probable")
{
    std::mt19937_64 random(3);
    std::vector<float> logits;
    double total = 0.0;
    for (int i = 0; i < 37; ++i)
    {
        logits.push_back(static_cast<float>(random() % 1000) / 300.0F);
        total += std::exp(static_cast<double>(logits.back()) / 0.8);
    }
    std::vector<double> counts(logits.size());
    constexpr int kDraws = 20000;
    for (int i = 0; i < kDraws; ++i)
    {
        counts[Sample(logits, {0.8, 1.0}, (i + 0.5) / kDraws)] += 1.0;
    }
    for (std::size_t i = 0; i < logits.size(); ++i)
    {
        CHECK(counts[i] / kDraws == Approx(std::exp(logits[i] / 0.8) / total).margin(1.0 / kDraws));
    }
}
