// SPDX-License-Identifier: GPL-2.0-only
#include "outcome-json.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <string>
#include <utility>

namespace splitllm
{

namespace
{

/// Keys of a node's outcomes, in the order of NodeOutcomes.
constexpr std::array<const char*, kOutcomeKinds> kKinds{"tokens", "candidates", "verdicts", "gates", "sizes"};

/// Occasions as runs of equal steps, each [step of the position, step of the layer, how many].
template <typename T>
Json
Steps(const std::vector<Outcome<T>>& outcomes)
{
    Json steps = Json::array();
    std::array<std::int64_t, 2> last{};
    std::array<std::int64_t, 3> run{};
    const auto close = [&steps, &run] {
        if (run[2] > 0)
        {
            steps.insert(steps.end(), {run[0], run[1], run[2]});
        }
    };
    for (const Outcome<T>& outcome : outcomes)
    {
        const std::array<std::int64_t, 2> at{outcome.occasion.position, outcome.occasion.layer};
        if (run[2] == 0 || at[0] - last[0] != run[0] || at[1] - last[1] != run[1])
        {
            close();
            run = {at[0] - last[0], at[1] - last[1], 0};
        }
        run[2]++;
        last = at;
    }
    close();
    return steps;
}

/// A bit each, the first in the lowest bit of the first byte.
template <typename T, typename F>
Json
Bits(const std::vector<Outcome<T>>& outcomes, const F& isSet)
{
    std::vector<std::uint8_t> bits((outcomes.size() + 7) / 8);
    for (std::size_t i = 0; i < outcomes.size(); i++)
    {
        bits[i / 8] |= static_cast<std::uint8_t>(isSet(outcomes[i].value) ? 1U << (i % 8) : 0U);
    }
    return Json::binary(std::move(bits));
}

template <typename T, typename F>
Json
List(const std::vector<Outcome<T>>& outcomes, const F& jsonOf)
{
    Json list = Json::array();
    for (const Outcome<T>& outcome : outcomes)
    {
        list.push_back(jsonOf(outcome.value));
    }
    return list;
}

Json
Values(const std::vector<Outcome<TokenId>>& outcomes)
{
    return {{"tokens", List(outcomes, [](TokenId token) { return token; })}};
}

/// A row's tokens and logarithms in turn.
Json
Values(const std::vector<Outcome<Candidates>>& outcomes)
{
    return {{"rows", List(outcomes, [](const Candidates& candidates) {
                 Json rows = Json::array();
                 for (const std::vector<ScoredToken>& row : candidates)
                 {
                     Json list = Json::array();
                     for (const ScoredToken& token : row)
                     {
                         list.push_back(token.token);
                         list.push_back(token.logProbability);
                     }
                     rows.push_back(std::move(list));
                 }
                 return rows;
             })}};
}

Json
Values(const std::vector<Outcome<Verdict>>& outcomes)
{
    Json values{{"count", outcomes.size()}, {"yes", Bits(outcomes, [](const Verdict& verdict) { return verdict.yes; })}};
    const auto scored = [](const Outcome<Verdict>& outcome) { return outcome.value.score.has_value(); };
    if (std::ranges::any_of(outcomes, scored))
    {
        values["scores"] = List(outcomes, [](const Verdict& verdict) {
            return verdict.score ? Json(*verdict.score) : Json();
        });
    }
    return values;
}

Json
Values(const std::vector<Outcome<GateDecision>>& outcomes)
{
    return {{"count", outcomes.size()},
            {"open", Bits(outcomes, [](const GateDecision& decision) { return decision.open; })},
            {"probabilities", List(outcomes, [](const GateDecision& decision) { return decision.probability; })}};
}

Json
Values(const std::vector<Outcome<PayloadSize>>& outcomes)
{
    return {{"bytes", List(outcomes, [](const PayloadSize& size) { return size.bytes; })}};
}

template <typename T>
void
Put(Json& node, const char* kind, const std::vector<Outcome<T>>& outcomes)
{
    if (!outcomes.empty())
    {
        Json json = Values(outcomes);
        json["at"] = Steps(outcomes);
        node[kind] = std::move(json);
    }
}

/// The bits that Bits wrote, as many as "count" says.
std::vector<bool>
BitsOf(StrictObject& object, const std::string& key)
{
    const std::uint64_t count = object.Integer("count", 0, std::numeric_limits<std::uint32_t>::max());
    const Json& json = object.Raw(key);
    if (!json.is_binary() || json.get_binary().size() != (count + 7) / 8)
    {
        object.Fail(key, "must be bytes that hold " + std::to_string(count) + " bits");
    }
    const Json::binary_t& bytes = json.get_binary();
    std::vector<bool> bits(count);
    for (std::size_t i = 0; i < count; i++)
    {
        bits[i] = (bytes[i / 8] >> (i % 8) & 1U) != 0;
    }
    return bits;
}

void
Take(StrictObject& object, std::vector<TokenId>& values)
{
    values = IntegersOf<TokenId>(object, "tokens");
}

void
Take(StrictObject& object, std::vector<Candidates>& values)
{
    for (const Json& candidates : ListOf(object, "rows"))
    {
        Candidates& rows = values.emplace_back();
        for (const Json& row : candidates)
        {
            std::vector<ScoredToken>& tokens = rows.emplace_back();
            for (std::size_t i = 0; row.is_array() && i + 1 < row.size(); i += 2)
            {
                const bool isToken = row[i].is_number_unsigned() &&
                                     row[i].get<std::uint64_t>() <= std::numeric_limits<TokenId>::max() &&
                                     row[i + 1].is_number();
                if (!isToken)
                {
                    object.Fail("rows", "must hold tokens with their logarithms");
                }
                tokens.push_back({row[i].get<TokenId>(), row[i + 1].get<float>()});
            }
        }
    }
}

void
Take(StrictObject& object, std::vector<Verdict>& values)
{
    for (const bool yes : BitsOf(object, "yes"))
    {
        values.push_back({.yes = yes, .score = {}});
    }
    if (!object.Has("scores"))
    {
        return;
    }
    const Json::array_t& scores = ListOf(object, "scores");
    const auto isScore = [](const Json& score) { return score.is_null() || score.is_number(); };
    if (scores.size() != values.size() || !std::ranges::all_of(scores, isScore))
    {
        object.Fail("scores", "must be a number or null for each of " + std::to_string(values.size()) + " verdicts");
    }
    for (std::size_t i = 0; i < scores.size(); i++)
    {
        values[i].score = scores[i].is_null() ? std::nullopt : std::optional(scores[i].get<double>());
    }
}

void
Take(StrictObject& object, std::vector<GateDecision>& values)
{
    const std::vector<bool> open = BitsOf(object, "open");
    const Json::array_t& probabilities = ListOf(object, "probabilities");
    const auto isNumber = [](const Json& value) { return value.is_number(); };
    if (probabilities.size() != open.size() || !std::ranges::all_of(probabilities, isNumber))
    {
        object.Fail("probabilities", "must be a number for each of " + std::to_string(open.size()) + " gates");
    }
    for (std::size_t i = 0; i < open.size(); i++)
    {
        values.push_back({.open = open[i], .probability = probabilities[i].get<double>()});
    }
}

void
Take(StrictObject& object, std::vector<PayloadSize>& values)
{
    constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max(); // of a message's header
    for (const std::uint64_t bytes : IntegersOf<std::uint64_t>(object, "bytes", kMost))
    {
        values.push_back({bytes});
    }
}

/// Where each of \p count outcomes was decided: the inverse of Steps.
std::vector<Occasion>
OccasionsOf(StrictObject& object, std::size_t count)
{
    const Json::array_t& steps = ListOf(object, "at");
    std::vector<Occasion> occasions;
    std::array<std::int64_t, 2> at{};
    constexpr std::int64_t kMost = std::numeric_limits<std::uint32_t>::max();
    const auto isStep = [](const Json& step) {
        return step.is_number_integer() && step >= -kMost && step <= kMost;
    };
    bool fits = steps.size() % 3 == 0 && std::ranges::all_of(steps, isStep);
    for (std::size_t i = 0; fits && i < steps.size(); i += 3)
    {
        const auto repeats = steps[i + 2].get<std::int64_t>();
        fits = repeats > 0 && static_cast<std::uint64_t>(repeats) <= count - occasions.size();
        for (std::int64_t k = 0; fits && k < repeats; k++)
        {
            at[0] += steps[i].get<std::int64_t>();
            at[1] += steps[i + 1].get<std::int64_t>();
            fits = at[0] >= 0 && at[0] <= kMost && at[1] >= 0 && at[1] <= kMost;
            occasions.push_back({static_cast<std::uint32_t>(at[0]), static_cast<std::uint32_t>(at[1])});
        }
    }
    if (!fits || occasions.size() != count)
    {
        object.Fail("at", "must lead to a place for each of " + std::to_string(count) + " outcomes");
    }
    return occasions;
}

template <typename T>
void
Take(StrictObject& node, const char* kind, std::vector<Outcome<T>>& outcomes)
{
    if (!node.Has(kind))
    {
        return;
    }
    StrictObject object = node.Object(kind);
    std::vector<T> values;
    Take(object, values);
    const std::vector<Occasion> occasions = OccasionsOf(object, values.size());
    object.Finish();
    for (std::size_t i = 0; i < values.size(); i++)
    {
        outcomes.push_back({occasions[i], std::move(values[i])});
    }
}

} // namespace

const Json::array_t&
ListOf(StrictObject& object, const std::string& key)
{
    const Json& list = object.Raw(key);
    if (!list.is_array())
    {
        object.Fail(key, "must be a list");
    }
    return list.get_ref<const Json::array_t&>();
}

Json
JsonOf(const NodeOutcomes& outcomes)
{
    Json node = Json::object();
    [&]<std::size_t... I>(std::index_sequence<I...>) {
        (Put(node, kKinds[I], std::get<I>(outcomes)), ...);
    }(std::make_index_sequence<kOutcomeKinds>());
    return node;
}

NodeOutcomes
OutcomesOf(StrictObject node)
{
    NodeOutcomes outcomes;
    [&]<std::size_t... I>(std::index_sequence<I...>) {
        (Take(node, kKinds[I], std::get<I>(outcomes)), ...);
    }(std::make_index_sequence<kOutcomeKinds>());
    node.Finish();
    return outcomes;
}

} // namespace splitllm
