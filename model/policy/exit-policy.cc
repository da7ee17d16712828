// SPDX-License-Identifier: GPL-2.0-only
#include "policy/exit-policy.h"

#include "base/deterministic-math.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

namespace splitllm
{

namespace
{

constexpr double kThreshold = 0.8; // what CE-CoLLM recommends

/// The confidence, where there are logits.
std::optional<double>
Score(const ExitQuestion& question)
{
    return question.logits.empty() ? std::nullopt : std::optional(Confidence(question.logits));
}

class ByConfidence final : public ExitPolicy
{
  public:
    explicit ByConfidence(std::vector<double> thresholds)
        : m_thresholds(std::move(thresholds))
    {
    }

    Verdict Decide(const ExitQuestion& question, const std::function<double()>& /* uniform */) const override
    {
        const double confidence = Confidence(question.logits);
        return {confidence >= m_thresholds.at(question.exit), confidence};
    }

  private:
    std::vector<double> m_thresholds;
};

class AtRandom final : public ExitPolicy
{
  public:
    explicit AtRandom(std::vector<double> shares)
        : m_shares(std::move(shares))
    {
    }

    Verdict Decide(const ExitQuestion& question, const std::function<double()>& uniform) const override
    {
        return {uniform() < m_shares.at(question.exit), Score(question)};
    }

  private:
    std::vector<double> m_shares;
};

class AsListed final : public ExitPolicy
{
  public:
    explicit AsListed(std::vector<std::size_t> layers)
        : m_layers(std::move(layers))
    {
    }

    Verdict Decide(const ExitQuestion& question, const std::function<double()>& /* uniform */) const override
    {
        return {m_layers[(question.token - 1) % m_layers.size()] == question.layer, Score(question)};
    }

  private:
    std::vector<std::size_t> m_layers;
};

/// The numbers under \p key, one an exit, each in [0, \p most].
std::vector<double>
ReadOneAnExit(StrictObject& policy, const std::string& key, std::size_t exits, double most)
{
    const Json list = policy.Has(key) ? policy.Raw(key) : Json();
    const auto isValid = [most](const Json& value) {
        return value.is_number() && value.get<double>() >= 0.0 && value.get<double>() <= most;
    };
    if (!list.is_array() || list.size() != exits || !std::ranges::all_of(list, isValid))
    {
        policy.Fail(key,
                    (policy.Has(key) ? "is " + list.dump() : "missing") + "; accepted: a list of " + std::to_string(exits) +
                        " numbers, one an exit, " + (most == 1.0 ? "from 0 to 1" : "not below 0"));
    }
    return list.get<std::vector<double>>();
}

/// A threshold for all exits, or one for each.
std::vector<double>
ReadThresholds(StrictObject& policy, std::size_t exits)
{
    constexpr double kAny = std::numeric_limits<double>::max();
    if (policy.Has("threshold") && policy.Raw("threshold").is_array())
    {
        return ReadOneAnExit(policy, "threshold", exits, kAny);
    }
    return std::vector<double>(exits, policy.Number("threshold", 0.0, kAny, kThreshold));
}

std::vector<std::size_t>
ReadTokens(StrictObject& policy, const std::vector<std::size_t>& layers)
{
    const Json list = policy.Has("tokens") ? policy.Raw("tokens") : Json();
    const auto isValid = [&layers](const Json& value) {
        return value.is_number_unsigned() &&
               (value == 0 || std::ranges::find(layers, value.get<std::uint64_t>()) != layers.end());
    };
    if (!list.is_array() || list.empty() || !std::ranges::all_of(list, isValid))
    {
        policy.Fail("tokens", "must be a list of layers with an exit, or 0 for none; accepted: 0, " + Joined(layers));
    }
    return list.get<std::vector<std::size_t>>();
}

} // namespace

double
Confidence(std::span<const float> logits)
{
    if (logits.empty())
    {
        throw std::logic_error("confidence needs logits");
    }
    const double largest = std::ranges::max(logits);
    double sum = 0.0;
    for (const float logit : logits)
    {
        sum += deterministic::Exp(logit - largest);
    }
    return 1.0 / sum;
}

std::shared_ptr<const ExitPolicy>
ExitByConfidence(std::vector<double> thresholds)
{
    return std::make_shared<ByConfidence>(std::move(thresholds));
}

std::shared_ptr<const ExitPolicy>
ExitAtRandom(std::vector<double> shares)
{
    return std::make_shared<AtRandom>(std::move(shares));
}

std::shared_ptr<const ExitPolicy>
ExitAsListed(std::vector<std::size_t> layers)
{
    return std::make_shared<AsListed>(std::move(layers));
}

std::shared_ptr<const ExitPolicy>
ReadExitPolicy(StrictObject& scheme, const std::vector<std::size_t>& layers, bool shapeMode)
{
    StrictObject policy = scheme.Object("policy");
    const std::string name = policy.Choice("name", {"confidence", "random", "listed"});
    if (name == "confidence" && shapeMode)
    {
        policy.Fail("name",
                    "confidence looks at numbers, which shape mode has none of; accepted there: random, listed");
    }
    std::shared_ptr<const ExitPolicy> made;
    if (name == "confidence")
    {
        made = ExitByConfidence(ReadThresholds(policy, layers.size()));
    }
    else if (name == "random")
    {
        made = ExitAtRandom(ReadOneAnExit(policy, "shares", layers.size(), 1.0));
    }
    else
    {
        made = ExitAsListed(ReadTokens(policy, layers));
    }
    policy.Finish();
    return made;
}

} // namespace splitllm
