// SPDX-License-Identifier: GPL-2.0-only
#include "llm/model.h"

#include "support/catch.h"
#include "support/error-of.h"
#include "support/safetensors-file.h"
#include "support/temporary-folder.h"
#include "support/test-models.h"

#include <fstream>
#include <iterator>
#include <string>

using namespace splitllm;
using test::ErrorOf;

namespace
{

using Shape = std::vector<std::size_t>;

/// A copy of a test model whose config and tensor names can be changed.
class ChangedModel
{
  public:
    explicit ChangedModel(const std::string& name)
        : m_original(test::TestModel(name))
    {
        Config("{", "{");
        Tensors("{", "{");
    }

    /// Writes the original config with \p from replaced by \p to.
    void Config(const std::string& from, const std::string& to)
    {
        std::ifstream stream(m_original / "config.json");
        std::string text{std::istreambuf_iterator<char>(stream), {}};
        const auto at = text.find(from);
        REQUIRE(at != std::string::npos);
        m_folder.Write("config.json", text.replace(at, from.size(), to));
    }

    /// Writes the original weights with \p from replaced by \p to in every name.
    void Tensors(const std::string& from, const std::string& to)
    {
        m_folder.Write("model.safetensors", test::RenamedTensors(m_original / "model.safetensors", from, to));
    }

    std::shared_ptr<const Model> Load() const
    {
        return Model::Load(m_folder.Path());
    }

    /// The error of Load, without the path of the weights.
    std::string Error() const
    {
        const std::string path = m_folder.Path().string() + "/model.safetensors: ";
        const std::string error = ErrorOf([&] { Load(); });
        CHECK(error.starts_with(path));
        return error.substr(std::min(path.size(), error.size()));
    }

  private:
    std::filesystem::path m_original;
    test::TemporaryFolder m_folder;
};

} // namespace

TEST_CASE("A LLaMA model has every weight in its place")
{
    const auto model = Model::Load(test::TestModel("tiny-llama"));
    const auto& index = model->storage->Index();
    CHECK(model->config.name == "tiny-llama");
    CHECK(model->config.dtype == DType::BF16);
    CHECK(model->embedding.shape == Shape{256, 64});
    CHECK(model->positions.data == nullptr);
    CHECK(model->head.data == index.at("lm_head.weight").data);
    CHECK(model->finalNorm.scale.data == index.at("model.norm.weight").data);
    CHECK(model->finalNorm.shift.data == nullptr);
    REQUIRE(model->layers.size() == 4);
    const LayerWeights& layer = model->layers[2];
    const auto at = [&](const std::string& name) { return index.at("model.layers.2." + name + ".weight").data; };
    CHECK(layer.attentionNorm.scale.data == at("input_layernorm"));
    CHECK(layer.attentionNorm.shift.data == nullptr);
    CHECK(layer.query.weight.data == at("self_attn.q_proj"));
    CHECK(layer.key.weight.data == at("self_attn.k_proj"));
    CHECK(layer.value.weight.data == at("self_attn.v_proj"));
    CHECK(layer.output.weight.data == at("self_attn.o_proj"));
    CHECK(layer.mlpNorm.scale.data == at("post_attention_layernorm"));
    CHECK(layer.gate.weight.data == at("mlp.gate_proj"));
    CHECK(layer.up.weight.data == at("mlp.up_proj"));
    CHECK(layer.down.weight.data == at("mlp.down_proj"));
    CHECK(layer.query.weight.shape == Shape{64, 64});
    CHECK(layer.key.weight.shape == Shape{32, 64});
    CHECK(layer.up.weight.shape == Shape{176, 64});
    CHECK(layer.down.weight.shape == Shape{64, 176});
    CHECK(layer.query.bias.data == nullptr);
    CHECK(layer.down.bias.data == nullptr);
}

TEST_CASE("An OPT model has every weight and bias in its place, and its embedding for a head")
{
    const auto model = Model::Load(test::TestModel("tiny-opt"));
    const auto& index = model->storage->Index();
    CHECK(model->head.data == model->embedding.data);
    CHECK(model->positions.shape == Shape{514, 64});
    CHECK(model->finalNorm.scale.data == index.at("model.decoder.final_layer_norm.weight").data);
    CHECK(model->finalNorm.shift.data == index.at("model.decoder.final_layer_norm.bias").data);
    REQUIRE(model->layers.size() == 4);
    const LayerWeights& layer = model->layers[3];
    const auto check = [&](const LinearWeights& linear, const std::string& name) {
        CHECK(linear.weight.data == index.at("model.decoder.layers.3." + name + ".weight").data);
        CHECK(linear.bias.data == index.at("model.decoder.layers.3." + name + ".bias").data);
        CHECK(linear.bias.shape == Shape{linear.weight.shape.at(0)});
    };
    check(layer.query, "self_attn.q_proj");
    check(layer.key, "self_attn.k_proj");
    check(layer.value, "self_attn.v_proj");
    check(layer.output, "self_attn.out_proj");
    check(layer.up, "fc1");
    check(layer.down, "fc2");
    CHECK(layer.gate.weight.data == nullptr);
    CHECK(layer.attentionNorm.shift.data == index.at("model.decoder.layers.3.self_attn_layer_norm.bias").data);
    CHECK(layer.mlpNorm.scale.data == index.at("model.decoder.layers.3.final_layer_norm.weight").data);
}

TEST_CASE("A file saved from the headless model is the same model")
{
    ChangedModel opt("tiny-opt");
    opt.Tensors("\"model.decoder.", "\"decoder.");
    CHECK(opt.Load()->layers.size() == 4);

    ChangedModel llama("tiny-llama");
    llama.Tensors("\"model.", "\"");
    CHECK(llama.Load()->layers.size() == 4);
}

TEST_CASE("A tied head is the embedding even where the file holds another")
{
    ChangedModel model("tiny-llama");
    model.Config("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    const auto tied = model.Load();
    CHECK(tied->head.data == tied->embedding.data);

    model.Tensors("lm_head.weight", "mystery");
    CHECK(model.Load()->head.data != nullptr);
    model.Config("{", "{");
    CHECK(model.Error() == "tensor \"lm_head.weight\": missing; accepted: shape [256,64] of F32, F16, BF16");
}

TEST_CASE("The dtype is that of the weights, whatever the config says")
{
    ChangedModel model("tiny-llama");
    model.Config("\"torch_dtype\": \"bfloat16\"", "\"torch_dtype\": \"float32\"");
    CHECK(model.Load()->config.dtype == DType::BF16);
    model.Tensors("BF16", "F16");
    CHECK(model.Load()->config.dtype == DType::F16);
    model.Tensors("BF16", "I16");
    CHECK(model.Error() == "tensor \"model.embed_tokens.weight\": has dtype I16; accepted: F32, F16, BF16");
}

TEST_CASE("Weights that are not what the config promises are refused by name")
{
    ChangedModel llama("tiny-llama");
    llama.Config("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5");
    CHECK(llama.Error() ==
          "tensor \"model.layers.4.input_layernorm.weight\": missing; accepted: shape [64] of F32, F16, BF16");
    llama.Config("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4");
    CHECK(llama.Error() == "tensor \"model.layers.0.self_attn.k_proj.weight\": has shape [32,64]; accepted: [64,64]");
    llama.Config("\"intermediate_size\": 176", "\"intermediate_size\": 175");
    CHECK(llama.Error() == "tensor \"model.layers.0.mlp.gate_proj.weight\": has shape [176,64]; accepted: [175,64]");

    ChangedModel opt("tiny-opt");
    opt.Config("\"max_position_embeddings\": 512", "\"max_position_embeddings\": 514");
    CHECK(opt.Error() == "tensor \"model.decoder.embed_positions.weight\": has shape [514,64]; accepted: [516,64]");
    opt.Config("{", "{");
    opt.Tensors("layers.1.fc2.bias", "layers.1.fc3.bias");
    CHECK(opt.Error() ==
          "tensor \"model.decoder.layers.1.fc2.bias\": missing; accepted: shape [64] of F32, F16, BF16");
}
