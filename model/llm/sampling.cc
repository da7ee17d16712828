// SPDX-License-Identifier: GPL-2.0-only
#include "llm/sampling.h"

#include "base/deterministic-math.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

namespace splitllm
{

namespace
{

struct Candidate
{
    TokenId token;
    double weight; //!< proportional to the probability
};

/// True where \p a is drawn after \p b.
bool
IsLater(const Candidate& a, const Candidate& b)
{
    return a.weight != b.weight ? a.weight < b.weight : a.token > b.token;
}

} // namespace

TokenId
Greedy(std::span<const float> logits)
{
    assert(!logits.empty());
    const auto isNumber = [](float value) { return !std::isnan(value); };
    const auto first = std::ranges::find_if(logits, isNumber);
    std::size_t best = first == logits.end() ? 0 : static_cast<std::size_t>(first - logits.begin());
    // The largest value stays in a register: this runs over the whole vocabulary for every token.
    float largest = logits[best];
    for (std::size_t i = best + 1; i < logits.size(); ++i)
    {
        if (logits[i] > largest)
        {
            best = i;
            largest = logits[i];
        }
    }
    return static_cast<TokenId>(best);
}

double
LogSumExp(std::span<const float> logits)
{
    assert(!logits.empty());
    const double largest = *std::ranges::max_element(logits);
    double sum = 0.0;
    for (const float value : logits)
    {
        sum += deterministic::Exp(value - largest);
    }
    return largest + deterministic::Log(sum);
}

TokenId
Sample(std::span<const float> logits, const Sampling& sampling, double uniform)
{
    assert(sampling.temperature >= 0.0 && sampling.topP > 0.0 && sampling.topP <= 1.0);
    assert(uniform >= 0.0 && uniform < 1.0);
    const TokenId best = Greedy(logits);
    const double largest = logits[best];
    if (sampling.temperature == 0.0 || !std::isfinite(largest))
    {
        return best;
    }
    std::vector<Candidate> candidates;
    candidates.reserve(logits.size());
    double total = 0.0;
    for (std::size_t i = 0; i < logits.size(); ++i)
    {
        const double weight = deterministic::Exp((logits[i] - largest) / sampling.temperature);
        if (weight > 0.0) // not where the logit is NaN
        {
            candidates.push_back({static_cast<TokenId>(i), weight});
            total += weight;
        }
    }

    // The nucleus is mostly a few tokens, so a heap that is emptied that far beats sorting the vocabulary. It grows at
    // the end of the vector, in reverse order.
    std::make_heap(candidates.begin(), candidates.end(), IsLater);
    auto nucleus = candidates.end();
    double mass = 0.0;
    while (nucleus != candidates.begin() && mass < sampling.topP * total)
    {
        std::pop_heap(candidates.begin(), nucleus, IsLater);
        --nucleus;
        mass += nucleus->weight;
    }
    double passed = 0.0;
    auto drawn = candidates.end();
    do
    {
        --drawn;
        passed += drawn->weight;
    } while (drawn != nucleus && passed <= uniform * mass);
    return drawn->token;
}

} // namespace splitllm
