// SPDX-License-Identifier: GPL-2.0-only
#include "policy/gate-policy.h"

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

constexpr double kThreshold = 0.5; // SPA: the larger logit decides
constexpr double kNotAsked = std::numeric_limits<double>::quiet_NaN();

class ByGate final : public GatePolicy
{
  public:
    explicit ByGate(double threshold)
        : m_threshold(threshold)
    {
    }

    GateDecision Decide(const GateView& view) const override
    {
        const double probability = OpenProbability(view.logits);
        return {probability > m_threshold, probability};
    }

    bool UsesGate() const override
    {
        return true;
    }

  private:
    double m_threshold;
};

class Constant final : public GatePolicy
{
  public:
    explicit Constant(bool open)
        : m_open(open)
    {
    }

    GateDecision Decide(const GateView& /* view */) const override
    {
        return {m_open, kNotAsked};
    }

  private:
    bool m_open;
};

class AtRandom final : public GatePolicy
{
  public:
    explicit AtRandom(double share)
        : m_share(share)
    {
    }

    GateDecision Decide(const GateView& view) const override
    {
        return {view.draw < m_share, kNotAsked};
    }

    bool Draws() const override
    {
        return true;
    }

  private:
    double m_share;
};

class AsListed final : public GatePolicy
{
  public:
    explicit AsListed(std::vector<bool> tokens)
        : m_tokens(std::move(tokens))
    {
    }

    GateDecision Decide(const GateView& view) const override
    {
        return {m_tokens[(view.token - 1) % m_tokens.size()], kNotAsked};
    }

  private:
    std::vector<bool> m_tokens;
};

std::vector<bool>
ReadTokens(StrictObject& policy)
{
    const Json list = policy.Has("tokens") ? policy.Raw("tokens") : Json();
    const auto isValid = [](const Json& value) { return value.is_number_integer() && (value == 0 || value == 1); };
    if (!list.is_array() || list.empty() || !std::ranges::all_of(list, isValid))
    {
        policy.Fail("tokens",
                    "must say of each token of an answer whether the gate is open; accepted: a list of 0 and 1, not "
                    "empty");
    }
    std::vector<bool> tokens;
    for (const Json& value : list)
    {
        tokens.push_back(value == 1);
    }
    return tokens;
}

} // namespace

double
OpenProbability(std::span<const float> logits)
{
    if (logits.size() != 2)
    {
        throw std::logic_error("a gate has two logits, not " + std::to_string(logits.size()));
    }
    return 1.0 / (1.0 + deterministic::Exp(static_cast<double>(logits[0]) - static_cast<double>(logits[1])));
}

bool
GatePolicy::UsesGate() const
{
    return false;
}

bool
GatePolicy::Draws() const
{
    return false;
}

std::shared_ptr<const GatePolicy>
OpenByGate(double threshold)
{
    return std::make_shared<ByGate>(threshold);
}

std::shared_ptr<const GatePolicy>
OpenAlways()
{
    return std::make_shared<Constant>(true);
}

std::shared_ptr<const GatePolicy>
OpenNever()
{
    return std::make_shared<Constant>(false);
}

std::shared_ptr<const GatePolicy>
OpenAtRandom(double share)
{
    return std::make_shared<AtRandom>(share);
}

std::shared_ptr<const GatePolicy>
OpenAsListed(std::vector<bool> tokens)
{
    return std::make_shared<AsListed>(std::move(tokens));
}

std::shared_ptr<const GatePolicy>
ReadGatePolicy(StrictObject& scheme, bool shapeMode)
{
    StrictObject policy = scheme.Object("policy", Json{{"name", "gate"}});
    if (policy.Has("label"))
    {
        policy.String("label"); // for tables and plots
    }
    const std::string name = policy.Choice("name", {"gate", "always", "never", "random", "listed"});
    if (name == "gate" && shapeMode)
    {
        policy.Fail("name",
                    "gate looks at numbers, which shape mode has none of; accepted there: always, never, random, "
                    "listed");
    }
    std::shared_ptr<const GatePolicy> made;
    if (name == "gate")
    {
        made = OpenByGate(policy.Number("threshold", 0.0, 1.0, kThreshold));
    }
    else if (name == "random")
    {
        made = OpenAtRandom(policy.Number("open", 0.0, 1.0));
    }
    else if (name == "listed")
    {
        made = OpenAsListed(ReadTokens(policy));
    }
    else
    {
        made = name == "always" ? OpenAlways() : OpenNever();
    }
    policy.Finish();
    return made;
}

} // namespace splitllm
