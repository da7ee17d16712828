// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_MODEL_H
#define SPLITLLM_MODEL_H

#include "llm/config.h"
#include "llm/safetensors.h"

#include <filesystem>
#include <memory>
#include <vector>

namespace splitllm
{

/// y = W x + b. W is [out, in]; b is empty (no data) where the family has none.
struct LinearWeights
{
    ArrayView weight;
    ArrayView bias;
};

/// Scale and, for LayerNorm, shift; each [d].
struct NormWeights
{
    ArrayView scale;
    ArrayView shift; //!< no data for RMSNorm
};

/// Views of one layer's weights. d = hidden, q = query width, kv = key/value width, f = ffn.
struct LayerWeights
{
    NormWeights attentionNorm;
    LinearWeights query;  //!< [q, d]
    LinearWeights key;    //!< [kv, d]
    LinearWeights value;  //!< [kv, d]
    LinearWeights output; //!< [d, q]
    NormWeights mlpNorm;
    LinearWeights gate; //!< [f, d], LLaMA only
    LinearWeights up;   //!< [f, d]; OPT's fc1
    LinearWeights down; //!< [d, f]; OPT's fc2
};

/// A model on this host: its configuration and views of its mapped weights.
struct Model
{
    ModelConfig config;
    ArrayView embedding; //!< [vocab, d]
    ArrayView positions; //!< OPT: [max + 2, d]
    std::vector<LayerWeights> layers;
    NormWeights finalNorm;
    ArrayView head; //!< [vocab, d]; the embedding itself where tied
    std::shared_ptr<const MappedTensors> storage; //!< keeps the views valid

    /**
     * Loads config.json and maps the weights, checking every tensor's presence, shape and dtype. Takes the dtype of
     * the embedding for the model's, since config.json is often silent or wrong about it.
     * \throws InputError naming the file and the tensor or key.
     */
    static std::shared_ptr<const Model> Load(const std::filesystem::path& folder);
};

} // namespace splitllm

#endif // SPLITLLM_MODEL_H
