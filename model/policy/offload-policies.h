// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_OFFLOAD_POLICIES_H
#define SPLITLLM_OFFLOAD_POLICIES_H

#include "policy/offload-policy.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace splitllm
{

/// The policies that come with the module, by their names in studies (doc/studies.md).
std::map<std::string, PolicyFactory> BuiltInPolicies();

/// Every cell is exchanged, without a word about which: LInfer.
std::shared_ptr<const OffloadPolicy> ExchangeEverything();

/**
 * DLoRA: LoRA is skipped at all layers of the tokens that matter least, by the norm of their embedding (Eq 1 at h0).
 * \param keep share of the tokens, in [0, 1], that keep LoRA
 * \param quantiles percentiles 0 to 100 of that norm
 */
std::shared_ptr<const OffloadPolicy> KeepLargeTokens(double keep, std::vector<float> quantiles);

/// DLoRA in shape mode: a seeded draw decides about each token.
std::shared_ptr<const OffloadPolicy> KeepRandomTokens(double keep);

} // namespace splitllm

#endif // SPLITLLM_OFFLOAD_POLICIES_H
