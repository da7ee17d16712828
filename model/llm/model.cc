// SPDX-License-Identifier: GPL-2.0-only
#include "llm/model.h"

#include <string>

namespace splitllm
{

namespace
{

/// Takes tensors from a model's files under the names that Hugging Face gives them.
class WeightReader
{
  public:
    WeightReader(const ModelConfig& config, const MappedTensors& tensors)
        : m_config(config),
          m_tensors(tensors)
    {
    }

    LinearWeights Linear(const std::string& name, std::size_t out, std::size_t in) const
    {
        LinearWeights linear;
        linear.weight = m_tensors.Require(name + ".weight", {out, in});
        if (m_config.biases)
        {
            linear.bias = m_tensors.Require(name + ".bias", {out});
        }
        return linear;
    }

    NormWeights Norm(const std::string& name) const
    {
        NormWeights norm;
        norm.scale = m_tensors.Require(name + ".weight", {m_config.hidden});
        if (m_config.family == Family::Opt)
        {
            norm.shift = m_tensors.Require(name + ".bias", {m_config.hidden});
        }
        return norm;
    }

    LayerWeights Layer(const std::string& name) const
    {
        const std::size_t d = m_config.hidden;
        const bool opt = m_config.family == Family::Opt;
        const std::string attention = name + ".self_attn.";
        LayerWeights layer;
        layer.attentionNorm = Norm(name + (opt ? ".self_attn_layer_norm" : ".input_layernorm"));
        layer.query = Linear(attention + "q_proj", m_config.QueryWidth(), d);
        layer.key = Linear(attention + "k_proj", m_config.KvWidth(), d);
        layer.value = Linear(attention + "v_proj", m_config.KvWidth(), d);
        layer.output = Linear(attention + (opt ? "out_proj" : "o_proj"), d, m_config.QueryWidth());
        layer.mlpNorm = Norm(name + (opt ? ".final_layer_norm" : ".post_attention_layernorm"));
        if (!opt)
        {
            layer.gate = Linear(name + ".mlp.gate_proj", m_config.ffn, d);
        }
        layer.up = Linear(name + (opt ? ".fc1" : ".mlp.up_proj"), m_config.ffn, d);
        layer.down = Linear(name + (opt ? ".fc2" : ".mlp.down_proj"), d, m_config.ffn);
        return layer;
    }

  private:
    const ModelConfig& m_config;
    const MappedTensors& m_tensors;
};

} // namespace

std::shared_ptr<const Model>
Model::Load(const std::filesystem::path& folder)
{
    const auto model = std::make_shared<Model>();
    model->config = LoadConfig(folder);
    model->storage = MappedTensors::OpenFolder(folder);
    const ModelConfig& config = model->config;
    const MappedTensors& tensors = *model->storage;
    const WeightReader weights(config, tensors);
    const bool opt = config.family == Family::Opt;

    // A file saved from the headless model leaves "model." out.
    const std::string stem = opt ? "decoder." : "";
    const bool headless = tensors.Index().contains(stem + "embed_tokens.weight");
    const std::string prefix = (headless ? "" : "model.") + stem;

    model->embedding = tensors.Require(prefix + "embed_tokens.weight", {config.vocab, config.hidden});
    model->config.dtype = model->embedding.dtype;
    if (opt)
    {
        model->positions = tensors.Require(prefix + "embed_positions.weight", {config.maxPositions + 2, config.hidden});
    }
    for (std::size_t layer = 0; layer < config.layers; ++layer)
    {
        model->layers.push_back(weights.Layer(prefix + "layers." + std::to_string(layer)));
    }
    model->finalNorm = weights.Norm(prefix + (opt ? "final_layer_norm" : "norm"));
    model->head =
        config.tiedHead ? model->embedding : tensors.Require("lm_head.weight", {config.vocab, config.hidden});
    return model;
}

} // namespace splitllm
