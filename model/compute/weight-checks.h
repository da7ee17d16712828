// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_WEIGHT_CHECKS_H
#define SPLITLLM_WEIGHT_CHECKS_H

#include "llm/adapter.h"
#include "llm/bottleneck.h"
#include "llm/exits.h"
#include "llm/model.h"
#include "llm/side-network.h"

/// \file
/// What every backend that computes asks of weights before it takes them: that they are there, and of the shapes that the
/// model has. All throw std::logic_error.

namespace splitllm
{

void ExpectWeights(const Model& model);
void ExpectWeights(const Adapter& adapter, const ModelConfig& config);
void ExpectWeights(const BottleneckAdapter& adapter, const ModelConfig& config);
void ExpectWeights(const Exits& exits, const ModelConfig& config);
void ExpectWeights(const SideNetwork& side, const ModelConfig& config);

} // namespace splitllm

#endif // SPLITLLM_WEIGHT_CHECKS_H
