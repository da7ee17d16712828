// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_EXITS_H
#define SPLITLLM_EXITS_H

#include "base/strict-json.h"
#include "llm/config.h"
#include "llm/model.h"
#include "llm/safetensors.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

namespace splitllm
{

/**
 * A trained exit: what makes a hidden state inside the model fit for the model's own head E. For a row h
 *
 *     a = h + up silu(down inputNorm(h)),   logits = E norm(a)
 *
 * with norms of the model's family and epsilon. d is the model's width, r the exit's.
 */
struct ExitWeights
{
    NormWeights inputNorm;
    ArrayView down; //!< [r, d]
    ArrayView up;   //!< [d, r]
    NormWeights norm;
};

/// Early exits of a model (CE-CoLLM, section III-A), each after one of its layers.
struct Exits
{
    std::vector<std::size_t> layers;  //!< after which layers, from 1, ascending, never the model's last
    std::size_t width = 0;            //!< r; 0: untrained, which is the model's own final norm and head
    std::vector<ExitWeights> weights; //!< one a layer; none where untrained, or where only shapes are computed
    std::shared_ptr<const MappedTensors> storage; //!< keeps the views valid

    /**
     * Loads the trained exits of a folder for a model of shape \p config:
     *  - exits.json: "model", "layers", "width", "made_by" (the command) and "trained_on", no other key;
     *  - exits.safetensors: for each layer L the tensors exit.L.input_norm.weight [d], exit.L.down.weight [r, d],
     *    exit.L.up.weight [d, r], exit.L.norm.weight [d], of OPT also exit.L.input_norm.bias and exit.L.norm.bias [d];
     *    no others. Each is fp32, fp16 or bf16.
     *
     * \throws InputError naming file and key or tensor
     */
    static std::shared_ptr<const Exits> Load(const std::filesystem::path& folder, const ModelConfig& config);
};

/**
 * The layers that the key "layers" of \p object lists for the exits of a model of shape \p config.
 * \throws InputError unless it is a list, not empty, of ascending layers from 1 to the one before the last
 */
std::vector<std::size_t> ReadExitLayers(StrictObject& object, const ModelConfig& config);

/// Parameters of one exit of width r: 2 d r and two norms; of an untrained one (r = 0) none, they are the model's.
std::uint64_t ExitParameters(const ModelConfig& config, std::size_t width);

} // namespace splitllm

#endif // SPLITLLM_EXITS_H
