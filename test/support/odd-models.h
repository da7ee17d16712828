// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_ODD_MODELS_H
#define SPLITLLM_TEST_ODD_MODELS_H

#include "compute/backend.h"
#include "support/catch.h"
#include "support/random-model.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

// Small models of awkward widths, and what a backend makes of them.

namespace splitllm::test
{

inline ModelConfig
OddLlama()
{
    ModelConfig config;
    config.name = "odd-llama";
    config.layers = 3;
    config.hidden = 50;
    config.heads = 6;
    config.kvHeads = 2;
    config.headDim = 10;
    config.ffn = 77;
    config.vocab = 101;
    config.maxPositions = 128;
    config.ropeTheta = 500.0;
    config.dtype = DType::BF16;
    return config;
}

/// Frequencies below, between and above the scaling's bounds; a tied head; one key/value head for each query head.
inline ModelConfig
ScaledLlama()
{
    ModelConfig config = OddLlama();
    config.name = "scaled-llama";
    config.heads = config.kvHeads = 3;
    config.headDim = 16;
    config.ropeScaling =
        RopeScaling{.factor = 8.0, .lowFreqFactor = 1.0, .highFreqFactor = 4.0, .originalMaxPositions = 64.0};
    config.tiedHead = true;
    config.dtype = DType::F32;
    return config;
}

inline ModelConfig
OddOpt()
{
    ModelConfig config = OddLlama();
    config.name = "odd-opt";
    config.family = Family::Opt;
    config.biases = true;
    config.hidden = 52;
    config.heads = config.kvHeads = 4;
    config.headDim = 13;
    config.dtype = DType::F16;
    return config;
}

inline const std::vector<ModelConfig> kConfigs{OddLlama(), ScaledLlama(), OddOpt()};

inline std::vector<TokenId>
RandomTokens(const ModelConfig& config, std::size_t count)
{
    Random random(99);
    std::vector<TokenId> tokens(count);
    std::ranges::generate(tokens, [&] { return static_cast<TokenId>(random.Below(config.vocab)); });
    return tokens;
}

/// Logits of all tokens, computed in calls of the given numbers of rows; \p split layers have a cache of their own.
inline std::vector<float>
Logits(Backend& backend,
       const std::shared_ptr<const Model>& model,
       const std::shared_ptr<const Adapter>& adapter,
       const std::vector<TokenId>& tokens,
       const std::vector<std::size_t>& chunks,
       std::size_t split = 0)
{
    const auto resident = backend.Resident(model);
    const auto lora = adapter ? backend.Resident(adapter, model->config) : nullptr;
    const std::size_t layers = model->config.layers;
    const auto front = split > 0 ? backend.NewCache(*resident, 0, split, tokens.size()) : nullptr;
    const auto back = backend.NewCache(*resident, split, layers, tokens.size());
    std::vector<float> logits;
    std::size_t position = 0;
    for (const std::size_t chunk : chunks)
    {
        Tensor hidden = backend.Embed(*resident, std::span(tokens).subspan(position, chunk), position).value;
        for (std::size_t layer = 0; layer < layers; ++layer)
        {
            Projections projections = backend.Project(*resident, layer, hidden).value;
            if (lora)
            {
                const Deltas deltas = backend.Adapt(*lora, layer, projections.input).value;
                projections = backend.Merge(std::move(projections), deltas).value;
            }
            KvCache& cache = layer < split ? *front : *back;
            hidden = backend.FinishLayer(*resident, layer, hidden, projections, cache).value;
        }
        const Tensor rows = backend.Head(*resident, hidden).value;
        logits.insert(logits.end(), rows.Values().begin(), rows.Values().end());
        position += chunk;
    }
    REQUIRE(position == tokens.size());
    return logits;
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_ODD_MODELS_H
