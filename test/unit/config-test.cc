// SPDX-License-Identifier: GPL-2.0-only
#include "llm/config.h"

#include "base/strict-json.h"
#include "support/catch.h"
#include "support/error-of.h"
#include "support/temporary-folder.h"
#include "support/test-models.h"

#include <string>

using namespace splitllm;
using test::ErrorOf;

namespace
{

/// A LLaMA config with awkward sizes, changed by the members of \p patch (null removes one).
std::string
Llama(const std::string& patch = "{}")
{
    Json config = Json::parse(R"({"model_type":"llama","num_hidden_layers":3,"hidden_size":84,"num_attention_heads":6,
        "num_key_value_heads":2,"intermediate_size":130,"vocab_size":301,"max_position_embeddings":77,
        "rms_norm_eps":1e-6,"rope_theta":50000.0,"rope_scaling":null,"tie_word_embeddings":true,"eos_token_id":2,
        "torch_dtype":"bfloat16","some_future_key":{"a":[1]}})");
    config.merge_patch(Json::parse(patch));
    return config.dump();
}

std::string
Opt(const std::string& patch = "{}")
{
    Json config = Json::parse(R"({"model_type":"opt","num_hidden_layers":3,"hidden_size":84,"num_attention_heads":6,
        "ffn_dim":130,"vocab_size":301,"max_position_embeddings":77,"word_embed_proj_dim":84,
        "do_layer_norm_before":true,"activation_function":"relu","eos_token_id":2,"torch_dtype":"float16"})");
    config.merge_patch(Json::parse(patch));
    return config.dump();
}

std::string
ErrorIn(const std::string& text)
{
    return ErrorOf([&] { ParseConfig(text, "c.json"); });
}

} // namespace

TEST_CASE("A LLaMA config is read key by key")
{
    const ModelConfig config = ParseConfig(Llama(), "c.json");
    CHECK(config.family == Family::Llama);
    CHECK(config.layers == 3);
    CHECK(config.hidden == 84);
    CHECK(config.heads == 6);
    CHECK(config.kvHeads == 2);
    CHECK(config.headDim == 14);
    CHECK(config.QueryWidth() == 84);
    CHECK(config.KvWidth() == 28);
    CHECK(config.ffn == 130);
    CHECK(config.vocab == 301);
    CHECK(config.maxPositions == 77);
    CHECK(config.normEps == 1e-6);
    CHECK(config.ropeTheta == 50000.0);
    CHECK(!config.ropeScaling);
    CHECK(config.tiedHead);
    CHECK(!config.biases);
    CHECK(config.eosTokens == std::vector<std::uint32_t>{2});
    CHECK(config.dtype == DType::BF16);
    CHECK(config.KvBytesPerLayer(DType::F32) == 224);
    CHECK(config.KvBytesPerLayer(DType::F16) == 112);
}

TEST_CASE("What a LLaMA config leaves out has the value that transformers gives it")
{
    const ModelConfig config = ParseConfig(Llama(R"({"num_key_value_heads":null,"rms_norm_eps":null,"rope_theta":null,
        "max_position_embeddings":null,"tie_word_embeddings":null,"eos_token_id":null,"torch_dtype":null})"),
                                           "c.json");
    CHECK(config.kvHeads == 6);
    CHECK(config.normEps == 1e-6);
    CHECK(config.ropeTheta == 10000.0);
    CHECK(config.maxPositions == 2048);
    CHECK(!config.tiedHead);
    CHECK(config.eosTokens.empty());
    CHECK(config.dtype == DType::F32);

    // null is "not set" also where it is written out
    CHECK(ErrorIn(R"({"model_type":"llama","num_hidden_layers":1,"hidden_size":8,"num_attention_heads":2,
        "head_dim":null,"num_key_value_heads":null,"intermediate_size":9,"vocab_size":5,
        "rope_scaling":null,"rope_parameters":{"rope_theta":null}})")
              .empty());
}

TEST_CASE("Newer and older spellings of a LLaMA config mean the same")
{
    const ModelConfig newer = ParseConfig(Llama(R"({"rope_theta":null,"torch_dtype":null,"dtype":"float16",
        "rope_parameters":{"rope_theta":7e4,"rope_type":"default"},"head_dim":20,"eos_token_id":[3,300]})"),
                                          "c.json");
    CHECK(newer.ropeTheta == 7e4);
    CHECK(newer.dtype == DType::F16);
    CHECK(newer.headDim == 20);
    CHECK(newer.QueryWidth() == 120);
    CHECK(newer.eosTokens == std::vector<std::uint32_t>{3, 300});

    const std::string scaling = R"("factor":32.0,"low_freq_factor":1.5,"high_freq_factor":4.5,
        "original_max_position_embeddings":8190)";
    for (const std::string& text : {Llama(R"({"rope_scaling":{"rope_type":"llama3",)" + scaling + "}}"),
                                    Llama(R"({"rope_scaling":{"type":"llama3",)" + scaling + "}}"),
                                    Llama(R"({"rope_parameters":{"rope_type":"llama3",)" + scaling + "}}")})
    {
        const ModelConfig config = ParseConfig(text, "c.json");
        REQUIRE(config.ropeScaling);
        CHECK(config.ropeTheta == 50000.0);
        CHECK(config.ropeScaling->factor == 32.0);
        CHECK(config.ropeScaling->lowFreqFactor == 1.5);
        CHECK(config.ropeScaling->highFreqFactor == 4.5);
        CHECK(config.ropeScaling->originalMaxPositions == 8190.0);
    }
    CHECK(!ParseConfig(Llama(R"({"rope_scaling":{"type":"default"}})"), "c.json").ropeScaling);
}

TEST_CASE("An OPT config is read key by key")
{
    const ModelConfig config = ParseConfig(Opt(), "c.json");
    CHECK(config.family == Family::Opt);
    CHECK(config.layers == 3);
    CHECK(config.hidden == 84);
    CHECK(config.kvHeads == 6);
    CHECK(config.headDim == 14);
    CHECK(config.ffn == 130);
    CHECK(config.vocab == 301);
    CHECK(config.maxPositions == 77);
    CHECK(config.normEps == 1e-5);
    CHECK(config.tiedHead);
    CHECK(config.biases);
    CHECK(config.dtype == DType::F16);
    CHECK(!ParseConfig(Opt(R"({"tie_word_embeddings":false})"), "c.json").tiedHead);
}

TEST_CASE("A model that no layer implements is refused by name")
{
    CHECK(ErrorIn(Llama(R"({"model_type":"mamba"})")) ==
          "c.json: model_type \"mamba\" is not supported; accepted: llama, opt");
    CHECK(ErrorIn(Llama(R"({"model_type":null})")) == "c.json: model_type: missing; accepted: a string");
    CHECK(ErrorIn("[]") == "c.json: is a list; accepted: an object");
    CHECK(ErrorIn("null") == "c.json: is null; accepted: an object");
    CHECK(ErrorIn(Llama(R"({"hidden_act":"gelu"})")) == "c.json: hidden_act: is \"gelu\"; accepted: silu");
    CHECK(ErrorIn(Llama(R"({"attention_bias":true})")) == "c.json: attention_bias: is true; accepted: false");
    CHECK(ErrorIn(Llama(R"({"mlp_bias":true})")) == "c.json: mlp_bias: is true; accepted: false");
    CHECK(ErrorIn(Llama(R"({"torch_dtype":"float64"})")) ==
          "c.json: torch_dtype: is \"float64\"; accepted: float32, float16, bfloat16");
    CHECK(ErrorIn(Opt(R"({"do_layer_norm_before":false})")) ==
          "c.json: do_layer_norm_before: is false; accepted: true");
    CHECK(ErrorIn(Opt(R"({"enable_bias":false})")) == "c.json: enable_bias: is false; accepted: true");
    CHECK(ErrorIn(Opt(R"({"layer_norm_elementwise_affine":false})")) ==
          "c.json: layer_norm_elementwise_affine: is false; accepted: true");
    CHECK(ErrorIn(Opt(R"({"_remove_final_layer_norm":true})")) ==
          "c.json: _remove_final_layer_norm: is true; accepted: false");
    CHECK(ErrorIn(Opt(R"({"activation_function":"gelu"})")) ==
          "c.json: activation_function: is \"gelu\"; accepted: relu");
    CHECK(ErrorIn(Opt(R"({"word_embed_proj_dim":42})")) ==
          "c.json: word_embed_proj_dim: differs from hidden_size; accepted: 84");
}

TEST_CASE("Sizes that fit no model are refused")
{
    CHECK(ErrorIn(Llama(R"({"num_hidden_layers":0})")) ==
          "c.json: num_hidden_layers: is 0; accepted: an integer from 1 to 4096");
    CHECK(ErrorIn(Llama(R"({"hidden_size":84.0})")) ==
          "c.json: hidden_size: is 84.0; accepted: an integer from 1 to 1048576");
    CHECK(ErrorIn(Llama(R"({"hidden_size":null})")) ==
          "c.json: hidden_size: missing; accepted: an integer from 1 to 1048576");
    CHECK(ErrorIn(Llama(R"({"hidden_size":85})")) ==
          "c.json: hidden_size: is 85; accepted: a multiple of num_attention_heads, 6");
    CHECK(ErrorIn(Opt(R"({"hidden_size":85,"word_embed_proj_dim":85})")) ==
          "c.json: hidden_size: is 85; accepted: a multiple of num_attention_heads, 6");
    CHECK(ErrorIn(Llama(R"({"num_key_value_heads":4})")) ==
          "c.json: num_key_value_heads: is 4; accepted: a divisor of num_attention_heads, 6");
    CHECK(ErrorIn(Llama(R"({"head_dim":15})")) ==
          "c.json: head_dim: is 15; accepted: an even number, as rotary pairs need");
    CHECK(ErrorIn(Llama(R"({"num_attention_heads":12,"num_key_value_heads":12})")) ==
          "c.json: head_dim: is 7; accepted: an even number, as rotary pairs need");
    for (const char* key : {"num_hidden_layers",
                            "hidden_size",
                            "num_attention_heads",
                            "num_key_value_heads",
                            "head_dim",
                            "intermediate_size",
                            "vocab_size",
                            "max_position_embeddings"})
    {
        for (const char* value :
             {"0", "-1", "1.5", "\"8\"", "true", "[8]", "4294967296", "18446744073709551615", "1e30"})
        {
            CAPTURE(key, value);
            const std::string text = Llama(std::string("{\"") + key + "\":" + value + "}");
            CHECK(ErrorIn(text).starts_with(std::string("c.json: ") + key + ": is "));
        }
    }
    // The largest sizes accepted still have a parameter count.
    const ModelConfig most = ParseConfig(
        Llama(R"({"num_hidden_layers":4096,"hidden_size":1048576,"num_attention_heads":16384,
        "num_key_value_heads":16384,"head_dim":4096,"intermediate_size":1048576,"vocab_size":16777216,
        "tie_word_embeddings":false})"),
        "c.json");
    CHECK(static_cast<double>(most.Parameters()) == Approx(4096 * (4 * 0x1p46 + 3 * 0x1p40) + 2 * 0x1p44));
}

TEST_CASE("Rotary settings that are not implemented or make no sense are refused")
{
    CHECK(ErrorIn(Llama(R"({"rope_scaling":{"rope_type":"yarn","factor":4.0}})")) ==
          "c.json: rope_scaling.rope_type: is \"yarn\"; accepted: default, llama3");
    CHECK(ErrorIn(Llama(R"({"rope_scaling":{"type":"linear","factor":4.0}})")) ==
          "c.json: rope_scaling.type: is \"linear\"; accepted: default, llama3");
    CHECK(ErrorIn(Llama(R"({"rope_scaling":{"type":"llama3","factor":4.0}})")) ==
          "c.json: rope_scaling.low_freq_factor: missing; accepted: a number, at least 0.001");
    CHECK(ErrorIn(Llama(R"({"rope_scaling":{"rope_type":"llama3","factor":4.0,"low_freq_factor":2,"high_freq_factor":2,
        "original_max_position_embeddings":8}})")) ==
          "c.json: rope_scaling.high_freq_factor: is not above low_freq_factor; accepted: a larger number");
    CHECK(ErrorIn(Llama(R"({"rope_parameters":{"partial_rotary_factor":0.5}})")) ==
          "c.json: rope_parameters.partial_rotary_factor: is not 1; accepted: 1");
    CHECK(ErrorIn(Llama(R"({"rope_theta":0})")) == "c.json: rope_theta: is 0; accepted: a number, at least 1");
    CHECK(ErrorIn(Llama(R"({"rope_scaling":"llama3"})")) == "c.json: rope_scaling: is \"llama3\"; accepted: an object");
    CHECK(ErrorIn(Llama(R"({"rms_norm_eps":-1e-6})")) ==
          "c.json: rms_norm_eps: is -1e-06; accepted: a number from 0 to 1");
}

TEST_CASE("End tokens are ids of the vocabulary")
{
    CHECK(ErrorIn(Llama(R"({"eos_token_id":301})")) ==
          "c.json: eos_token_id: is 301; accepted: token ids from 0 to 300");
    CHECK(ErrorIn(Llama(R"({"eos_token_id":[0,-1]})")) ==
          "c.json: eos_token_id: is [0,-1]; accepted: token ids from 0 to 300");
    CHECK(ErrorIn(Llama(R"({"eos_token_id":"</s>"})")) ==
          "c.json: eos_token_id: is \"</s>\"; accepted: token ids from 0 to 300");
}

TEST_CASE("Published shapes have their published parameter counts")
{
    struct Case
    {
        const char* name;
        std::uint64_t parameters;
        std::uint64_t layer;
    };
    // Model cards and transformers' own count.
    for (const Case& c : {Case{"llama-7b", 6'738'415'616, 202'383'360},
                          Case{"llama-2-7b", 6'738'415'616, 202'383'360},
                          Case{"llama-2-13b", 13'015'864'320, 317'204'480},
                          Case{"llama-3.2-3b", 3'212'749'824, 100'669'440},
                          Case{"opt-1.3b", 1'315'758'080, 50'358'272},
                          Case{"opt-13b", 12'853'473'280, 314'639'360},
                          Case{"smollm2-135m", 134'515'008, 3'540'096}})
    {
        CAPTURE(c.name);
        const ModelConfig config = NamedShape(c.name, DType::F16);
        CHECK(config.name == c.name);
        CHECK(config.dtype == DType::F16);
        CHECK(config.Parameters() == c.parameters);
        CHECK(config.LayerParameters() == c.layer);
        CHECK(config.QueryWidth() == config.hidden);
    }
    CHECK(ShapeNames().size() == 7);
    CHECK(ErrorOf([] { NamedShape("llama-8b", DType::F16); }) ==
          "model shape \"llama-8b\" is unknown; accepted: llama-7b, llama-2-7b, llama-2-13b, llama-3.2-3b, opt-1.3b, "
          "opt-13b, smollm2-135m");
}

TEST_CASE("Keys and values of LLaMA-2-7B take 16 KiB a layer and token in fp16")
{
    CHECK(NamedShape("llama-2-7b", DType::F16).KvBytesPerLayer(DType::F16) == 16384);
    CHECK(NamedShape("llama-3.2-3b", DType::F16).KvBytesPerLayer(DType::F16) == 4096);
}

TEST_CASE("A model folder is named after itself")
{
    CHECK(LoadConfig(test::TestModel("tiny-llama")).name == "tiny-llama");
    CHECK(LoadConfig(test::TestModel("tiny-opt") / "").name == "tiny-opt");
    CHECK(LoadConfig(test::TestModel("tiny-opt") / ".." / "tiny-llama").name == "tiny-llama");
    // As transformers counts them.
    CHECK(LoadConfig(test::TestModel("tiny-llama")).Parameters() == 217'664);
    CHECK(LoadConfig(test::TestModel("tiny-opt")).Parameters() == 249'344);

    const test::TemporaryFolder folder;
    CHECK(ErrorOf([&] { LoadConfig(folder.Path()); }) ==
          folder.Path().string() + "/config.json: cannot be read; accepted: a readable JSON file");
    folder.Write("config.json", Opt(R"({"vocab_size":-3})"));
    CHECK(ErrorOf([&] { LoadConfig(folder.Path()); }) ==
          folder.Path().string() + "/config.json: vocab_size: is -3; accepted: an integer from 1 to 16777216");
}
