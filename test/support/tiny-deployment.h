// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_TINY_DEPLOYMENT_H
#define SPLITLLM_TEST_TINY_DEPLOYMENT_H

#include "support/test-models.h"

#include "llm/model.h"
#include "policy/offload-policy.h"
#include "split-llm-helper.h"

#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace splitllm::test
{

/// Tokens that tests of splits generate.
constexpr std::uint32_t kNewTokens = 12;

/// A prompt of 19 tokens that every tiny model knows.
inline std::vector<TokenId>
Prompt()
{
    std::vector<TokenId> prompt(19);
    std::iota(prompt.begin(), prompt.end(), 40);
    return prompt;
}

/// A tiny model with its adapter, to be split. \param policy of "tlc" and "dlora"
inline SplitLlmHelper
Deployment(const std::string& model,
           const std::string& scheme,
           const std::string& wire,
           std::shared_ptr<const OffloadPolicy> policy = nullptr)
{
    SplitLlmHelper llm;
    llm.SetModel(TestModel(model));
    llm.SetAdapter(TestModel(model + "-lora"));
    llm.SetScheme(scheme);
    llm.SetPolicy(std::move(policy), scheme == "dlora");
    llm.SetWireType(wire);
    return llm;
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_TINY_DEPLOYMENT_H
