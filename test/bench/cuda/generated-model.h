// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_BENCH_GENERATED_MODEL_H
#define SPLITLLM_BENCH_GENERATED_MODEL_H

#include "llm/model.h"
#include "support/random-model.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

namespace splitllm::bench
{

/**
 * A LLaMA model of \p config with generated weights, each matrix in memory of its own. Matrices repeat one block of random
 * numbers from different places on, since drawing 7 billion of them takes minutes.
 */
inline std::shared_ptr<const Model>
GeneratedModel(const ModelConfig& config)
{
    struct Owner
    {
        test::RandomArrays arrays{1};
        std::deque<std::unique_ptr<std::byte[]>> memory;
        Model model;
    };

    constexpr std::size_t kBlock = 1U << 20;
    const auto owner = std::make_shared<Owner>();
    const ArrayView block = owner->arrays.Make(config.dtype, {kBlock}, 0.02F);
    const std::size_t blockBytes = kBlock * SizeOf(config.dtype);
    const auto matrix = [&](std::size_t out, std::size_t in) -> ArrayView {
        const std::size_t bytes = out * in * SizeOf(config.dtype);
        std::byte* to = owner->memory.emplace_back(std::make_unique_for_overwrite<std::byte[]>(bytes)).get();
        std::size_t at = owner->memory.size() * 4096 % blockBytes;
        for (std::size_t done = 0; done < bytes;)
        {
            const std::size_t part = std::min(blockBytes - at, bytes - done);
            std::memcpy(to + done, block.data + at, part);
            done += part;
            at = 0;
        }
        return {config.dtype, {out, in}, to};
    };
    const auto norm = [&] { return NormWeights{owner->arrays.Make(config.dtype, {config.hidden}, 0.1F, 1.0F), {}}; };
    Model& model = owner->model;
    model.config = config;
    model.embedding = matrix(config.vocab, config.hidden);
    for (std::size_t i = 0; i < config.layers; ++i)
    {
        model.layers.push_back({.attentionNorm = norm(),
                                .query = {matrix(config.QueryWidth(), config.hidden), {}},
                                .key = {matrix(config.KvWidth(), config.hidden), {}},
                                .value = {matrix(config.KvWidth(), config.hidden), {}},
                                .output = {matrix(config.hidden, config.QueryWidth()), {}},
                                .mlpNorm = norm(),
                                .gate = {matrix(config.ffn, config.hidden), {}},
                                .up = {matrix(config.ffn, config.hidden), {}},
                                .down = {matrix(config.hidden, config.ffn), {}}});
    }
    model.finalNorm = norm();
    model.head = config.tiedHead ? model.embedding : matrix(config.vocab, config.hidden);
    return {owner, &owner->model};
}

} // namespace splitllm::bench

#endif // SPLITLLM_BENCH_GENERATED_MODEL_H
