// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SIDE_NETWORK_H
#define SPLITLLM_SIDE_NETWORK_H

#include "llm/config.h"
#include "llm/safetensors.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

namespace splitllm
{

/// What a side network has for one layer of the model. d is the model's width, s the side network's, m its blocks'.
struct SideLayerWeights
{
    ArrayView down;  //!< [s, d]
    ArrayView inner; //!< [m, s]
    ArrayView outer; //!< [s, m]
};

/// The gate's linear layer. Output 0 is closed, 1 open.
struct GateWeights
{
    ArrayView weight; //!< [2, d]
    ArrayView bias;   //!< [2]
};

/**
 * A trained side network beside a model, and the gate that decides token by token whether it is asked (SPA, section
 * 3.1). It is local to a position and has no KV cache: of the states f_1 ... f_L behind all layers it makes
 *
 *     h = 0;  for each layer l:  h = h + down_l rms(f_l),  h = h + outer_l silu(inner_l rms(h));   g = up rms(h)
 *
 * with rms(x) = x / sqrt(mean(x^2) + epsilon of the model), the same for LLaMA and OPT. Where the gate is open the
 * model's final norm and head get f_L + g. The gate's logits are weight rms(f_L) + bias.
 */
struct SideNetwork
{
    std::size_t width = 0; //!< s
    std::size_t inner = 0; //!< m
    bool alone = false;    //!< it was trained to stand in for f_L: the head gets g and not f_L + g
    std::vector<SideLayerWeights> layers; //!< one a layer of the model; none where only shapes are computed
    ArrayView up;                         //!< [d, s]
    GateWeights gate;
    std::shared_ptr<const MappedTensors> storage; //!< keeps the views valid

    /**
     * Loads the side network of a folder for a model of shape \p config:
     *  - side.json: "model", "width", "inner", "combination" ("sum" or "alone"), "made_by" (the command) and
     *    "trained_on", no other key;
     *  - side.safetensors: for each layer L, from 1, side.L.down [s, d], side.L.inner [m, s] and side.L.outer [s, m],
     *    then up [d, s], gate.weight [2, d] and gate.bias [2]; no others. Each is fp32, fp16 or bf16.
     *
     * \throws InputError naming file and key or tensor
     */
    static std::shared_ptr<const SideNetwork> Load(const std::filesystem::path& folder, const ModelConfig& config);
};

/// Parameters of the down-projections of a side network of width s: L s d.
std::uint64_t DownParameters(const ModelConfig& config, std::size_t width);

/// Parameters of its blocks, m wide, and of its up-projection: 2 L s m + s d.
std::uint64_t BlockParameters(const ModelConfig& config, std::size_t width, std::size_t inner);

/// Those of the whole side network without its gate: the sum of the two.
std::uint64_t SideParameters(const ModelConfig& config, std::size_t width, std::size_t inner);

/// Parameters of the gate: 2 d + 2.
std::uint64_t GateParameters(const ModelConfig& config);

} // namespace splitllm

#endif // SPLITLLM_SIDE_NETWORK_H
