// SPDX-License-Identifier: GPL-2.0-only
#include "llm/adapter.h"

#include "base/strict-json.h"
#include "support/catch.h"
#include "support/error-of.h"
#include "support/safetensors-file.h"
#include "support/temporary-folder.h"
#include "support/test-models.h"

#include <cstring>
#include <string>

using namespace splitllm;
using test::ErrorOf;

namespace
{

ModelConfig
TinyLlama()
{
    return LoadConfig(test::TestModel("tiny-llama"));
}

/// The test adapter of tiny-llama with another config, changed by the members of \p patch, and other tensor names.
class ChangedAdapter
{
  public:
    explicit ChangedAdapter(const std::string& patch = "{}", const std::string& from = "{", const std::string& to = "{")
    {
        const auto original = test::TestModel("tiny-llama-lora");
        Json config = LoadStrictJson(original / "adapter_config.json");
        config.merge_patch(Json::parse(patch));
        m_folder.Write("adapter_config.json", config.dump());
        m_folder.Write("adapter_model.safetensors",
                       test::RenamedTensors(original / "adapter_model.safetensors", from, to));
    }

    std::shared_ptr<const Adapter> Load(const ModelConfig& model = TinyLlama()) const
    {
        return Adapter::Load(m_folder.Path(), model);
    }

    /// The error of Load, without the path of the folder.
    std::string Error(const ModelConfig& model = TinyLlama()) const
    {
        const std::string path = m_folder.Path().string() + "/";
        const std::string error = ErrorOf([&] { Load(model); });
        CHECK((error.empty() || error.starts_with(path)));
        return error.empty() ? "" : error.substr(path.size());
    }

  private:
    test::TemporaryFolder m_folder;
};

std::string
ConfigError(const std::string& patch)
{
    return ChangedAdapter(patch).Error();
}

float
Element(const ArrayView& view, std::size_t index)
{
    float value = 0.0F;
    std::memcpy(&value, view.data + sizeof(float) * index, sizeof value);
    return value;
}

} // namespace

TEST_CASE("A PEFT adapter has its matrices in their places")
{
    const auto adapter = Adapter::Load(test::TestModel("tiny-llama-lora"), TinyLlama());
    CHECK(adapter->rank == 4);
    CHECK(adapter->scaling == 2.0F);
    REQUIRE(adapter->layers.size() == 4);
    for (const LoraLayer& layer : adapter->layers)
    {
        CHECK(layer.query.a.shape == std::vector<std::size_t>{4, 64});
        CHECK(layer.query.b.shape == std::vector<std::size_t>{64, 4});
        CHECK(layer.key.b.shape == std::vector<std::size_t>{32, 4});
        CHECK(layer.value.b.shape == std::vector<std::size_t>{32, 4});
    }
    // As the safetensors package reads them.
    CHECK(Element(adapter->layers[1].value.b, 31 * 4 + 3) == -0x1.2f7570p-4F);
    CHECK(Element(adapter->layers[1].query.a, 3 * 64 + 63) == -0x1.6157a4p-5F);

    const auto opt = Adapter::Load(test::TestModel("tiny-opt-lora"), LoadConfig(test::TestModel("tiny-opt")));
    CHECK(opt->layers.size() == 4);
    CHECK(opt->layers[3].key.b.shape == std::vector<std::size_t>{64, 4});
}

TEST_CASE("The scaling is alpha / r, or alpha / sqrt(r) with use_rslora")
{
    CHECK(ChangedAdapter(R"({"lora_alpha":3})").Load()->scaling == 0.75F);
    CHECK(ChangedAdapter(R"({"lora_alpha":0.5})").Load()->scaling == 0.125F);
    CHECK(ChangedAdapter(R"({"use_rslora":true})").Load()->scaling == 4.0F);
}

TEST_CASE("A projection that is no target has no data")
{
    const std::string entry = R"("target_modules":["q_proj","v_proj"])";
    CHECK(ConfigError("{" + entry + "}") ==
          "adapter_model.safetensors: tensor \"base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight\": "
          "belongs to no target; accepted: lora_A and lora_B of target_modules only");

    // A file with one target: of a model with one layer, rank 1, widths 2.
    ModelConfig model;
    model.name = "m";
    model.layers = 1;
    model.hidden = 2;
    model.heads = 1;
    model.kvHeads = 1;
    model.headDim = 2;
    const test::TemporaryFolder folder;
    folder.Write("adapter_config.json", R"({"peft_type":"LORA","r":1,"lora_alpha":1,"target_modules":["v_proj"]})");
    folder.Write("adapter_model.safetensors",
                 test::SafetensorsFile(R"({"base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight":
        {"dtype":"F16","shape":[1,2],"data_offsets":[0,4]},
        "base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight":
        {"dtype":"F16","shape":[2,1],"data_offsets":[4,8]}})",
                                       "aaaabbbb"));
    const auto adapter = Adapter::Load(folder.Path(), model);
    CHECK(adapter->layers.at(0).query.a.data == nullptr);
    CHECK(adapter->layers.at(0).key.b.data == nullptr);
    CHECK(adapter->layers.at(0).value.a.dtype == DType::F16);
}

TEST_CASE("An adapter config that the layers do not implement is refused by key")
{
    CHECK(ConfigError(R"({"r":0})") == "adapter_config.json: r: is 0; accepted: an integer from 1 to 65536");
    CHECK(ConfigError(R"({"peft_type":"IA3"})") == "adapter_config.json: peft_type: is \"IA3\"; accepted: LORA");
    CHECK(ConfigError(R"({"bias":"all"})") == "adapter_config.json: bias: is \"all\"; accepted: none");
    CHECK(ConfigError(R"({"lora_alpha":-1})").starts_with("adapter_config.json: lora_alpha: is -1; accepted: a num"));
    CHECK(ConfigError(R"({"lora_alpha":null})").starts_with("adapter_config.json: lora_alpha: missing"));
    CHECK(ConfigError(R"({"use_dora":true})") ==
          "adapter_config.json: use_dora: is true; accepted: null, false or empty");
    CHECK(ConfigError(R"({"rank_pattern":{"q_proj":8}})") ==
          "adapter_config.json: rank_pattern: is {\"q_proj\":8}; accepted: null, false or empty");
    CHECK(ConfigError(R"({"layers_to_transform":[0]})") ==
          "adapter_config.json: layers_to_transform: is [0]; accepted: null, false or empty");
    CHECK(ConfigError(R"({"use_dora":false,"rank_pattern":{},"modules_to_save":[],"a_future_key":1})").empty());

    const std::string targets = "; accepted: a list of q_proj, k_proj, v_proj";
    CHECK(ConfigError(R"({"target_modules":["q_proj","o_proj"]})") ==
          "adapter_config.json: target_modules: holds \"o_proj\"" + targets);
    CHECK(ConfigError(R"({"target_modules":"all-linear"})") ==
          "adapter_config.json: target_modules: is \"all-linear\"" + targets);
    CHECK(ConfigError(R"({"target_modules":[]})") == "adapter_config.json: target_modules: is []" + targets);
    CHECK(ConfigError(R"({"target_modules":[3]})") == "adapter_config.json: target_modules: holds 3" + targets);
}

TEST_CASE("An adapter of another model is refused with what differs")
{
    const std::string layer0 = "adapter_model.safetensors: tensor \"base_model.model.model.layers.0.self_attn.";
    ModelConfig deeper = TinyLlama();
    deeper.layers = 30;
    CHECK(ChangedAdapter().Error(deeper) ==
          "adapter_model.safetensors: adapts 4 layers under base_model.model.model.layers.; accepted: 30, as the model "
          "tiny-llama has");
    ModelConfig shallower = TinyLlama();
    shallower.layers = 3;
    CHECK(ChangedAdapter().Error(shallower).find("adapts 4 layers") != std::string::npos);
    ModelConfig wider = TinyLlama();
    wider.hidden = 128;
    CHECK(ChangedAdapter().Error(wider) == layer0 + "q_proj.lora_A.weight\": has shape [4,64]; accepted: [4,128]");
    ModelConfig moreHeads = TinyLlama();
    moreHeads.kvHeads = 4;
    CHECK(ChangedAdapter().Error(moreHeads) == layer0 + "k_proj.lora_B.weight\": has shape [32,4]; accepted: [64,4]");
    CHECK(ChangedAdapter().Error(LoadConfig(test::TestModel("tiny-opt"))) ==
          "adapter_model.safetensors: adapts 0 layers under base_model.model.model.decoder.layers.; accepted: 4, as "
          "the model tiny-opt has");
    CHECK(ChangedAdapter(R"({"r":8})").Error() ==
          layer0 + "q_proj.lora_A.weight\": has shape [4,64]; accepted: [8,64]");
}

TEST_CASE("Tensors that an adapter lacks or has too many are named")
{
    CHECK(ChangedAdapter("{}", "layers.2.self_attn.q_proj.lora_A", "layers.2.self_attn.q_proj.lora_C").Error() ==
          "adapter_model.safetensors: tensor \"base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight\": "
          "missing; accepted: shape [4,64] of F32, F16, BF16");
    CHECK(ChangedAdapter("{}", "layers.3.", "layers.99999999999999999999.").Error().find("adapts 3 layers") !=
          std::string::npos);
    CHECK(ChangedAdapter("{}", "layers.3.", "layers.4294967295.").Error().find("adapts 4294967296 layers") !=
          std::string::npos);

    const test::TemporaryFolder folder;
    CHECK(ErrorOf([&] { Adapter::Load(folder.Path(), TinyLlama()); }) ==
          folder.Path().string() + "/adapter_config.json: cannot be read; accepted: a readable JSON file");
    folder.Write("adapter_config.json",
                 R"({"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":["q_proj"]})");
    CHECK(ErrorOf([&] { Adapter::Load(folder.Path(), TinyLlama()); }) ==
          folder.Path().string() + "/adapter_model.safetensors: cannot be read; accepted: a readable safetensors file");
}

TEST_CASE("The parameters of an adapter are r (d + out) over Q, K and V of every layer")
{
    CHECK(LoraParameters(TinyLlama(), 4) == 5'120); // as PEFT counts them
    CHECK(LoraParameters(LoadConfig(test::TestModel("tiny-opt")), 4) == 6'144);
    // Rank 16 on LLaMA-7B: 32 layers * 3 * 16 * (4096 + 4096)
    CHECK(LoraParameters(NamedShape("llama-7b", DType::F16), 16) == 12'582'912);
    CHECK(LoraParameters(NamedShape("llama-3.2-3b", DType::F16), 1) == 28 * (6144 + 2 * (3072 + 1024)));
}
