// SPDX-License-Identifier: GPL-2.0-only
#include "policy/offload-policy.h"

#include "policy/offload-policies.h"

#include <map>
#include <utility>

namespace splitllm
{

namespace
{

std::map<std::string, PolicyFactory>&
Factories()
{
    static std::map<std::string, PolicyFactory> factories = BuiltInPolicies();
    return factories;
}

} // namespace

Verdict
OffloadPolicy::Return(const DeviceView& /* view */) const
{
    return {};
}

bool
OffloadPolicy::Selects() const
{
    return true;
}

bool
OffloadPolicy::UsesBaseNorms() const
{
    return false;
}

DecisionCost
OffloadPolicy::OffloadCost() const
{
    return {};
}

DecisionCost
OffloadPolicy::ReturnCost() const
{
    return {};
}

std::uint64_t
OffloadPolicy::EdgeBytes() const
{
    return 0;
}

std::uint64_t
OffloadPolicy::DeviceBytes() const
{
    return 0;
}

void
RegisterOffloadPolicy(const std::string& name, PolicyFactory factory)
{
    Factories()[name] = std::move(factory);
}

std::vector<std::string>
OffloadPolicyNames()
{
    std::vector<std::string> names;
    for (const auto& [name, factory] : Factories())
    {
        names.push_back(name);
    }
    return names;
}

std::shared_ptr<const OffloadPolicy>
MakeOffloadPolicy(StrictObject& parameters, const PolicyContext& context)
{
    const PolicyFactory& factory = Factories().at(parameters.Choice("name", OffloadPolicyNames()));
    std::shared_ptr<const OffloadPolicy> policy = factory(parameters, context);
    parameters.Finish();
    return policy;
}

} // namespace splitllm
