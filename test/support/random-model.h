// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_RANDOM_MODEL_H
#define SPLITLLM_TEST_RANDOM_MODEL_H

#include "llm/adapter.h"
#include "llm/exits.h"
#include "llm/model.h"
#include "llm/side-network.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

namespace splitllm::test
{

/// A small generator with the same numbers everywhere (splitmix64).
class Random
{
  public:
    explicit Random(std::uint64_t seed)
        : m_state(seed)
    {
    }

    std::uint64_t Next()
    {
        std::uint64_t z = (m_state += 0x9e3779b97f4a7c15U);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
        return z ^ (z >> 31);
    }

    /// In [-1, 1).
    float Uniform()
    {
        return static_cast<float>(static_cast<std::int32_t>(Next() >> 40) - (1 << 23)) * 0x1p-23F;
    }

    std::size_t Below(std::size_t n)
    {
        return Next() % n;
    }

  private:
    std::uint64_t m_state;
};

/// Arrays of random weights, and the memory they lie in.
class RandomArrays
{
  public:
    explicit RandomArrays(std::uint64_t seed)
        : m_random(seed)
    {
    }

    /// centre + spread * uniform in [-1, 1)
    ArrayView Make(DType dtype, std::vector<std::size_t> shape, float spread, float centre = 0.0F)
    {
        ArrayView view{dtype, std::move(shape), nullptr};
        std::vector<std::byte>& bytes = m_bytes.emplace_back(view.Elements() * SizeOf(dtype));
        view.data = bytes.data();
        for (std::size_t i = 0; i < view.Elements(); ++i)
        {
            const float value = centre + spread * m_random.Uniform();
            if (dtype == DType::F32)
            {
                std::memcpy(bytes.data() + 4 * i, &value, 4);
                continue;
            }
            const std::uint16_t bits = dtype == DType::F16 ? ToF16(value) : ToBf16(value);
            std::memcpy(bytes.data() + 2 * i, &bits, 2);
        }
        return view;
    }

    /// [out, in], so that unit inputs give outputs of about unit size.
    ArrayView Matrix(DType dtype, std::size_t out, std::size_t in)
    {
        return Make(dtype, {out, in}, std::sqrt(3.0F / static_cast<float>(in)));
    }

  private:
    Random m_random;
    std::deque<std::vector<std::byte>> m_bytes;
};

/// A model of shape \p config with random weights of its dtype.
inline std::shared_ptr<const Model>
RandomModel(const ModelConfig& config, std::uint64_t seed)
{
    struct Owner
    {
        RandomArrays arrays;
        Model model;
    };

    const auto owner = std::make_shared<Owner>(Owner{RandomArrays(seed), {}});
    RandomArrays& arrays = owner->arrays;
    const DType dtype = config.dtype;
    const bool opt = config.family == Family::Opt;
    const auto linear = [&](std::size_t out, std::size_t in) {
        return LinearWeights{arrays.Matrix(dtype, out, in),
                             config.biases ? arrays.Make(dtype, {out}, 0.2F) : ArrayView{}};
    };
    const auto norm = [&] {
        return NormWeights{arrays.Make(dtype, {config.hidden}, 0.5F, 1.0F),
                           opt ? arrays.Make(dtype, {config.hidden}, 0.3F) : ArrayView{}};
    };

    Model& model = owner->model;
    model.config = config;
    model.embedding = arrays.Make(dtype, {config.vocab, config.hidden}, 1.0F);
    if (opt)
    {
        model.positions = arrays.Make(dtype, {config.maxPositions + 2, config.hidden}, 0.5F);
    }
    for (std::size_t i = 0; i < config.layers; ++i)
    {
        model.layers.push_back({.attentionNorm = norm(),
                                .query = linear(config.QueryWidth(), config.hidden),
                                .key = linear(config.KvWidth(), config.hidden),
                                .value = linear(config.KvWidth(), config.hidden),
                                .output = linear(config.hidden, config.QueryWidth()),
                                .mlpNorm = norm(),
                                .gate = opt ? LinearWeights{} : linear(config.ffn, config.hidden),
                                .up = linear(config.ffn, config.hidden),
                                .down = linear(config.hidden, config.ffn)});
    }
    model.finalNorm = norm();
    model.head = config.tiedHead ? model.embedding : arrays.Matrix(dtype, config.vocab, config.hidden);
    return {owner, &owner->model};
}

/// A LoRA adapter on Q and V, and on K of every odd layer, with random weights.
inline std::shared_ptr<const Adapter>
RandomAdapter(const ModelConfig& config, std::size_t rank, float scaling, DType dtype, std::uint64_t seed)
{
    struct Owner
    {
        RandomArrays arrays;
        Adapter adapter;
    };

    const auto owner = std::make_shared<Owner>(Owner{RandomArrays(seed), {}});
    const auto lora = [&](std::size_t out) {
        return LoraWeights{owner->arrays.Matrix(dtype, rank, config.hidden),
                           owner->arrays.Matrix(dtype, out, rank)};
    };
    owner->adapter.rank = rank;
    owner->adapter.scaling = scaling;
    for (std::size_t i = 0; i < config.layers; ++i)
    {
        owner->adapter.layers.push_back({.query = lora(config.QueryWidth()),
                                         .key = i % 2 == 1 ? lora(config.KvWidth()) : LoraWeights{},
                                         .value = lora(config.KvWidth())});
    }
    return {owner, &owner->adapter};
}

/// Exits after \p layers of width \p width, with random weights.
inline std::shared_ptr<const Exits>
RandomExits(const ModelConfig& config,
            std::vector<std::size_t> layers,
            std::size_t width,
            DType dtype,
            std::uint64_t seed)
{
    struct Owner
    {
        RandomArrays arrays;
        Exits exits;
    };

    const auto owner = std::make_shared<Owner>(Owner{RandomArrays(seed), {}});
    const auto norm = [&] {
        return NormWeights{owner->arrays.Make(dtype, {config.hidden}, 0.5F, 1.0F),
                           config.family == Family::Opt ? owner->arrays.Make(dtype, {config.hidden}, 0.3F)
                                                        : ArrayView{}};
    };
    owner->exits.layers = std::move(layers);
    owner->exits.width = width;
    for (std::size_t i = 0; i < owner->exits.layers.size(); ++i)
    {
        owner->exits.weights.push_back({.inputNorm = norm(),
                                        .down = owner->arrays.Matrix(dtype, width, config.hidden),
                                        .up = owner->arrays.Matrix(dtype, config.hidden, width),
                                        .norm = norm()});
    }
    return {owner, &owner->exits};
}

/// A side network of width \p width whose blocks are \p inner wide, with random weights, and a gate.
inline std::shared_ptr<const SideNetwork>
RandomSideNetwork(const ModelConfig& config, std::size_t width, std::size_t inner, DType dtype, std::uint64_t seed)
{
    struct Owner
    {
        RandomArrays arrays;
        SideNetwork side;
    };

    const auto owner = std::make_shared<Owner>(Owner{RandomArrays(seed), {}});
    RandomArrays& arrays = owner->arrays;
    owner->side.width = width;
    owner->side.inner = inner;
    for (std::size_t i = 0; i < config.layers; ++i)
    {
        owner->side.layers.push_back({.down = arrays.Matrix(dtype, width, config.hidden),
                                      .inner = arrays.Matrix(dtype, inner, width),
                                      .outer = arrays.Matrix(dtype, width, inner)});
    }
    owner->side.up = arrays.Matrix(dtype, config.hidden, width);
    owner->side.gate = {.weight = arrays.Matrix(dtype, 2, config.hidden), .bias = arrays.Make(dtype, {2}, 0.5F)};
    return {owner, &owner->side};
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_RANDOM_MODEL_H
