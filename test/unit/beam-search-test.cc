// SPDX-License-Identifier: GPL-2.0-only

// Beam search against plain enumeration.

#include "support/catch.h"

#include "llm/beam-search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>
#include <vector>

using namespace splitllm;

namespace
{

using Tokens = std::vector<TokenId>;

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Logits of a language of \p vocab tokens that remembers everything: some function of all tokens so far.
std::vector<float>
LogitsAfter(const Tokens& tokens, std::size_t vocab, std::uint32_t seed)
{
    std::uint32_t state = 2166136261U ^ seed;
    for (const TokenId token : tokens)
    {
        state = (state ^ (token + 1)) * 16777619U;
    }
    std::vector<float> logits;
    for (std::size_t i = 0; i < vocab; i++)
    {
        state = (state ^ static_cast<std::uint32_t>(i + 7)) * 16777619U;
        logits.push_back(static_cast<float>(state % 1000003) / 250000.0F);
    }
    return logits;
}

double
LogProbability(const std::vector<float>& logits, TokenId token)
{
    double sum = 0.0;
    for (const float logit : logits)
    {
        sum += std::exp(static_cast<double>(logit));
    }
    return logits[token] - std::log(sum);
}

struct Question
{
    std::size_t vocab;
    std::size_t beams;
    double penalty;
    std::uint32_t newTokens;
    Tokens stop;
    std::uint32_t seed;

    bool Ends(const Tokens& tokens) const
    {
        return tokens.size() == newTokens || std::ranges::find(stop, tokens.back()) != stop.end();
    }
};

/// What BeamSearch finds, and after how many steps.
std::pair<Tokens, std::size_t>
Search(const Question& question)
{
    BeamSearch search(question.beams, question.penalty, question.newTokens, question.stop);
    std::vector<Tokens> running{{}};
    std::size_t steps = 0;
    while (!search.Ended())
    {
        std::vector<std::vector<ScoredToken>> rows;
        for (const Tokens& tokens : running)
        {
            rows.push_back(MostLikely(LogitsAfter(tokens, question.vocab, question.seed), search.Candidates()));
        }
        search.Advance(rows);
        std::vector<Tokens> next;
        for (const BeamSearch::Continuation& continuation : search.Running())
        {
            next.push_back(running.at(continuation.parent));
            next.back().push_back(continuation.token);
        }
        running = std::move(next);
        REQUIRE(running.size() == search.Hypotheses());
        steps++;
    }
    return {search.Answer(), steps};
}

/// The best of all answers that there are.
Tokens
BestOfAll(const Question& question)
{
    Tokens best;
    double highest = -std::numeric_limits<double>::infinity();
    std::vector<std::pair<Tokens, double>> open{{{}, 0.0}};
    while (!open.empty())
    {
        const auto [tokens, score] = open.back();
        open.pop_back();
        const std::vector<float> logits = LogitsAfter(tokens, question.vocab, question.seed);
        for (TokenId token = 0; token < question.vocab; token++)
        {
            Tokens longer = tokens;
            longer.push_back(token);
            const double sum = score + LogProbability(logits, token);
            if (!question.Ends(longer))
            {
                open.emplace_back(longer, sum);
            }
            else if (const double its = sum / std::pow(longer.size(), question.penalty); its > highest)
            {
                highest = its;
                best = longer;
            }
        }
    }
    return best;
}

/// The rules of the search, told with every token of the vocabulary instead of the most likely ones.
std::pair<Tokens, std::size_t>
SearchWithAllTokens(const Question& question)
{
    using Scored = std::pair<double, Tokens>;
    const auto better = [](const Scored& a, const Scored& b) { return a.first > b.first; };
    std::vector<Scored> running{{0.0, {}}};
    std::vector<Scored> finished;
    for (std::size_t steps = 1;; steps++)
    {
        std::vector<Scored> all;
        for (const auto& [score, tokens] : running)
        {
            const std::vector<float> logits = LogitsAfter(tokens, question.vocab, question.seed);
            for (TokenId token = 0; token < question.vocab; token++)
            {
                all.emplace_back(score + LogProbability(logits, token), tokens);
                all.back().second.push_back(token);
            }
        }
        std::ranges::stable_sort(all, better);
        running.clear();
        const double length = std::pow(steps, question.penalty);
        for (std::size_t rank = 0; rank < all.size(); rank++)
        {
            if (!question.Ends(all[rank].second))
            {
                running.push_back(all[rank]);
            }
            else if (rank < question.beams)
            {
                finished.emplace_back(all[rank].first / length, all[rank].second);
            }
        }
        running.resize(std::min(running.size(), question.beams));
        std::ranges::stable_sort(finished, better);
        finished.resize(std::min(finished.size(), question.beams));
        if (running.empty() ||
            (finished.size() == question.beams && running.front().first / length <= finished.back().first))
        {
            return {finished.front().second, steps};
        }
    }
}

} // namespace

TEST_CASE("the most likely tokens have the probabilities of the softmax, in order", "[beams]")
{
    const std::vector<float> logits{0.5F, 3.0F, -2.0F, 3.0F, 1.0F};
    const std::vector<ScoredToken> most = MostLikely(logits, 4);
    REQUIRE(most.size() == 4);
    const Tokens order{1, 3, 4, 0};
    for (std::size_t i = 0; i < 4; i++)
    {
        CHECK(most[i].token == order[i]);
        CHECK(most[i].logProbability == Approx(LogProbability(logits, order[i])).epsilon(1e-6));
    }
    CHECK(MostLikely(logits, 99).size() == 5);
}

TEST_CASE("the most likely token is the greedy one, whatever the logits are", "[beams]")
{
    // Near 0 their softmax would have the same fp32 logarithm.
    const std::vector<std::vector<float>> rows{{1e-9F, 2e-9F, 20.0F - 20.0F, 12.0F},
                                               {1e-9F, 3e-9F, 2e-9F},
                                               {kNaN, 1.0F, kNaN, 2.0F},
                                               {kNaN, kNaN},
                                               {-kInfinity, -kInfinity},
                                               {1.0F, kInfinity, kInfinity},
                                               {7.0F, 7.0F}};
    for (const std::vector<float>& logits : rows)
    {
        const std::vector<ScoredToken> most = MostLikely(logits, logits.size());
        CHECK(most.front().token == Greedy(logits));
        for (const ScoredToken& each : most)
        {
            CHECK_FALSE(std::isnan(each.logProbability));
        }
    }
    CHECK(MostLikely(rows[1], 3)[1].token == 2);
    Tokens order;
    for (const ScoredToken& each :
         MostLikely(std::vector<float>{1.0F, kNaN, 5.0F, kNaN, 3.0F, kNaN, 4.0F, 2.0F, kNaN, 6.0F}, 10))
    {
        order.push_back(each.token);
    }
    CHECK(order == Tokens{9, 2, 6, 4, 7, 0, 1, 3, 5, 8});
}

TEST_CASE("with as many beams as there are answers the search finds the best of all", "[beams]")
{
    std::map<std::size_t, std::size_t> lengths;
    for (const double penalty : {1.0, 0.0, 2.5, -1.0})
    {
        for (std::uint32_t seed = 0; seed < 25; seed++)
        {
            const Question question{3, 81, penalty, 4, {2}, seed};
            CAPTURE(penalty, seed);
            const Tokens answer = Search(question).first;
            CHECK(answer == BestOfAll(question));
            lengths[answer.size()]++;
        }
    }
    CHECK(lengths.size() == 4); // answers of every length are among them
}

TEST_CASE("the most likely tokens of each hypothesis are enough", "[beams]")
{
    std::size_t early = 0;
    std::size_t greedy = 0;
    for (const std::size_t beams : {1, 2, 3, 5})
    {
        for (const Tokens& stop : std::vector<Tokens>{{}, {4}, {1, 4, 9}})
        {
            for (const double penalty : {1.0, 0.0, -0.5, 2.0})
            {
                for (std::uint32_t seed = 0; seed < 10; seed++)
                {
                    const Question question{23, beams, penalty, 9, stop, seed};
                    CAPTURE(beams, stop.size(), penalty, seed);
                    const auto found = Search(question);
                    CHECK(found == SearchWithAllTokens(question));
                    early += found.second < 9 ? 1 : 0;
                    greedy += found == Search(Question{23, 1, penalty, 9, stop, seed}) ? 1 : 0;
                }
            }
        }
    }
    CHECK(early > 50);   // some searches end before the last token
    CHECK(greedy < 470); // and more beams find something else
}

TEST_CASE("a search of one beam goes the greedy way", "[beams]")
{
    for (std::uint32_t seed = 0; seed < 40; seed++)
    {
        const Question question{.vocab = 17, .beams = 1, .penalty = 1.0, .newTokens = 12, .stop = {3, 5}, .seed = seed};
        Tokens greedy;
        do
        {
            greedy.push_back(Greedy(LogitsAfter(greedy, question.vocab, seed)));
        } while (!question.Ends(greedy));
        CAPTURE(seed);
        CHECK(Search(question) == std::pair(greedy, greedy.size()));
    }
}

TEST_CASE("of equal hypotheses the first goes on with its first token", "[beams]")
{
    BeamSearch search(2, 1.0, 3, {});
    const std::vector<ScoredToken> row{{5, -1.0F}, {6, -1.0F}, {7, -1.0F}, {8, -1.0F}};
    search.Advance(std::vector(1, row));
    search.Advance(std::vector(2, row));
    REQUIRE(search.Running().size() == 2);
    CHECK(search.Running()[0].parent == 0);
    CHECK(search.Running()[0].token == 5);
    CHECK(search.Running()[1].parent == 0);
    CHECK(search.Running()[1].token == 6);
    search.Advance(std::vector(2, row));
    CHECK(search.Ended());
    CHECK(search.Running().empty());
    CHECK(search.Answer() == Tokens{5, 5, 5});
}

TEST_CASE("a beam search that is used wrongly says so", "[beams]")
{
    CHECK_THROWS_AS(BeamSearch(0, 1.0, 3, {}), std::logic_error);
    BeamSearch search(2, 1.0, 1, {});
    CHECK_THROWS_AS(search.Answer(), std::logic_error);
    const std::vector<ScoredToken> row{{5, -1.0F}, {6, -2.0F}};
    CHECK_THROWS_AS(search.Advance(std::vector(2, row)), std::logic_error);
    CHECK_THROWS_AS(search.Advance(std::vector<std::vector<ScoredToken>>(1)), std::logic_error);
    search.Advance(std::vector(1, row));
    CHECK(search.Answer() == Tokens{5});
    CHECK_THROWS_AS(search.Advance(std::vector<std::vector<ScoredToken>>()), std::logic_error);
}
