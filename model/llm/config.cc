// SPDX-License-Identifier: GPL-2.0-only
#include "llm/config.h"

#include "base/input-error.h"
#include "base/strict-json.h"

#include <limits>
#include <utility>

namespace splitllm
{

namespace
{

// No published model comes near these; below them no product of sizes overflows 64 bits.
constexpr std::uint64_t kMaxLayers = 1U << 12;
constexpr std::uint64_t kMaxWidth = 1U << 20;
constexpr std::uint64_t kMaxHeads = 1U << 14;
constexpr std::uint64_t kMaxHeadDim = 1U << 12;
constexpr std::uint64_t kMaxVocab = 1U << 24;
constexpr std::uint64_t kMaxPositions = 1U << 24;

/// Rows of OPT's position table that no position uses.
constexpr std::uint64_t kOptPositionOffset = 2;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Drops the members that are null, which is how Hugging Face writes "not set".
void
RemoveNulls(Json& value)
{
    if (!value.is_object())
    {
        return;
    }
    Json kept = Json::object();
    for (auto& [key, member] : value.items())
    {
        if (!member.is_null())
        {
            RemoveNulls(member);
            kept[key] = std::move(member);
        }
    }
    value = std::move(kept);
}

/// A switch of the file that must stand where the layers here have it.
void
RequireFlag(StrictObject& config, const std::string& key, bool value)
{
    if (config.Bool(key, value) != value)
    {
        config.Fail(key, std::string("is ") + (value ? "false" : "true") + "; accepted: " + (value ? "true" : "false"));
    }
}

/// Sizes that both families write under the same keys.
void
ReadCommon(StrictObject& json, ModelConfig& config)
{
    config.layers = json.Integer("num_hidden_layers", 1, kMaxLayers);
    config.hidden = json.Integer("hidden_size", 1, kMaxWidth);
    config.heads = json.Integer("num_attention_heads", 1, kMaxHeads);
    config.vocab = json.Integer("vocab_size", 1, kMaxVocab);
    config.maxPositions = json.Integer("max_position_embeddings", 1, kMaxPositions, 2048);
    if (config.hidden % config.heads != 0)
    {
        json.Fail("hidden_size",
                  "is " + std::to_string(config.hidden) + "; accepted: a multiple of num_attention_heads, " +
                      std::to_string(config.heads));
    }
    config.headDim = config.hidden / config.heads;
    config.kvHeads = config.heads;
}

std::vector<std::uint32_t>
ReadEosTokens(StrictObject& json, std::size_t vocab)
{
    std::vector<std::uint32_t> tokens;
    if (json.Has("eos_token_id"))
    {
        const Json value = json.Raw("eos_token_id");
        for (const Json& token : value.is_array() ? value : Json::array({value}))
        {
            if (!token.is_number_unsigned() || token.get<std::uint64_t>() >= vocab)
            {
                json.Fail("eos_token_id",
                          "is " + value.dump() + "; accepted: token ids from 0 to " + std::to_string(vocab - 1));
            }
            tokens.push_back(token.get<std::uint32_t>());
        }
    }
    return tokens;
}

DType
ReadDType(StrictObject& json)
{
    const std::string key = json.Has("dtype") ? "dtype" : "torch_dtype"; // newer and older files
    const std::string name = json.Choice(key, {"float32", "float16", "bfloat16"}, "float32");
    return name == "float32" ? DType::F32 : (name == "float16" ? DType::F16 : DType::BF16);
}

/// Rotary positions, from "rope_parameters" (newer files) or from "rope_theta" and "rope_scaling".
void
ReadRope(StrictObject& json, ModelConfig& config)
{
    config.ropeTheta = json.Number("rope_theta", 1.0, kInfinity, 10000.0);
    const std::string key = json.Has("rope_parameters") ? "rope_parameters" : "rope_scaling";
    if (!json.Has(key))
    {
        return;
    }
    StrictObject rope = json.Object(key);
    const std::string typeKey = rope.Has("type") && !rope.Has("rope_type") ? "type" : "rope_type";
    const std::string type = rope.Choice(typeKey, {"default", "llama3"}, "default");
    config.ropeTheta = rope.Number("rope_theta", 1.0, kInfinity, config.ropeTheta);
    if (rope.Number("partial_rotary_factor", 0.0, 1.0, 1.0) != 1.0)
    {
        rope.Fail("partial_rotary_factor", "is not 1; accepted: 1");
    }
    if (type == "llama3")
    {
        RopeScaling scaling;
        scaling.factor = rope.Number("factor", 1.0);
        scaling.lowFreqFactor = rope.Number("low_freq_factor", 1e-3);
        scaling.highFreqFactor = rope.Number("high_freq_factor", 1e-3);
        scaling.originalMaxPositions =
            static_cast<double>(rope.Integer("original_max_position_embeddings", 1, kMaxPositions));
        if (scaling.highFreqFactor <= scaling.lowFreqFactor)
        {
            rope.Fail("high_freq_factor", "is not above low_freq_factor; accepted: a larger number");
        }
        config.ropeScaling = scaling;
    }
}

void
ReadLlama(StrictObject& json, ModelConfig& config)
{
    config.family = Family::Llama;
    json.Choice("hidden_act", {"silu"}, "silu");
    RequireFlag(json, "attention_bias", false);
    RequireFlag(json, "mlp_bias", false);
    config.kvHeads = json.Integer("num_key_value_heads", 1, kMaxHeads, config.heads);
    if (config.heads % config.kvHeads != 0)
    {
        json.Fail("num_key_value_heads",
                  "is " + std::to_string(config.kvHeads) + "; accepted: a divisor of num_attention_heads, " +
                      std::to_string(config.heads));
    }
    config.headDim = json.Integer("head_dim", 1, kMaxHeadDim, config.headDim);
    if (config.headDim % 2 != 0)
    {
        json.Fail("head_dim",
                  "is " + std::to_string(config.headDim) + "; accepted: an even number, as rotary pairs need");
    }
    config.ffn = json.Integer("intermediate_size", 1, kMaxWidth);
    config.normEps = json.Number("rms_norm_eps", 0.0, 1.0, 1e-6);
    config.tiedHead = json.Bool("tie_word_embeddings", false);
    ReadRope(json, config);
}

void
ReadOpt(StrictObject& json, ModelConfig& config)
{
    config.family = Family::Opt;
    config.biases = true;
    json.Choice("activation_function", {"relu"}, "relu");
    RequireFlag(json, "do_layer_norm_before", true);
    RequireFlag(json, "enable_bias", true);
    RequireFlag(json, "layer_norm_elementwise_affine", true);
    RequireFlag(json, "_remove_final_layer_norm", false);
    if (json.Integer("word_embed_proj_dim", 1, kMaxWidth, config.hidden) != config.hidden)
    {
        json.Fail("word_embed_proj_dim",
                  "differs from hidden_size; accepted: " + std::to_string(config.hidden));
    }
    config.ffn = json.Integer("ffn_dim", 1, kMaxWidth);
    config.tiedHead = json.Bool("tie_word_embeddings", true);
}

ModelConfig
ReadConfig(Json value, const std::string& origin)
{
    RemoveNulls(value);
    StrictObject json(value, origin);
    const std::string type = json.String("model_type");
    ModelConfig config;
    if (type == "llama")
    {
        ReadCommon(json, config);
        ReadLlama(json, config);
    }
    else if (type == "opt")
    {
        ReadCommon(json, config);
        ReadOpt(json, config);
    }
    else
    {
        throw InputError(origin + ": model_type " + Json(type).dump() + " is not supported; accepted: llama, opt");
    }
    config.eosTokens = ReadEosTokens(json, config.vocab);
    config.dtype = ReadDType(json);
    return config;
}

std::vector<ModelConfig>
NamedShapes()
{
    ModelConfig llama7;
    llama7.name = "llama-7b";
    llama7.layers = 32;
    llama7.hidden = 4096;
    llama7.heads = 32;
    llama7.kvHeads = 32;
    llama7.headDim = 128;
    llama7.ffn = 11008;
    llama7.vocab = 32000;
    llama7.maxPositions = 2048;
    llama7.normEps = 1e-6;
    llama7.eosTokens = {2};

    ModelConfig llama27 = llama7;
    llama27.name = "llama-2-7b";
    llama27.maxPositions = 4096;
    llama27.normEps = 1e-5;

    ModelConfig llama213 = llama27;
    llama213.name = "llama-2-13b";
    llama213.layers = 40;
    llama213.hidden = 5120;
    llama213.heads = 40;
    llama213.kvHeads = 40;
    llama213.ffn = 13824;

    ModelConfig llama323;
    llama323.name = "llama-3.2-3b";
    llama323.layers = 28;
    llama323.hidden = 3072;
    llama323.heads = 24;
    llama323.kvHeads = 8;
    llama323.headDim = 128;
    llama323.ffn = 8192;
    llama323.vocab = 128256;
    llama323.maxPositions = 131072;
    llama323.ropeTheta = 500000.0;
    llama323.ropeScaling = RopeScaling{32.0, 1.0, 4.0, 8192.0};
    llama323.tiedHead = true;
    llama323.eosTokens = {128001};

    ModelConfig opt1;
    opt1.name = "opt-1.3b";
    opt1.family = Family::Opt;
    opt1.layers = 24;
    opt1.hidden = 2048;
    opt1.heads = 32;
    opt1.kvHeads = 32;
    opt1.headDim = 64;
    opt1.ffn = 8192;
    opt1.vocab = 50272;
    opt1.maxPositions = 2048;
    opt1.tiedHead = true;
    opt1.biases = true;
    opt1.eosTokens = {2};

    ModelConfig opt13 = opt1;
    opt13.name = "opt-13b";
    opt13.layers = 40;
    opt13.hidden = 5120;
    opt13.heads = 40;
    opt13.kvHeads = 40;
    opt13.headDim = 128;
    opt13.ffn = 20480;

    ModelConfig smol;
    smol.name = "smollm2-135m";
    smol.layers = 30;
    smol.hidden = 576;
    smol.heads = 9;
    smol.kvHeads = 3;
    smol.headDim = 64;
    smol.ffn = 1536;
    smol.vocab = 49152;
    smol.maxPositions = 8192;
    smol.ropeTheta = 1e5;
    smol.tiedHead = true;
    smol.eosTokens = {2};

    return {llama7, llama27, llama213, llama323, opt1, opt13, smol};
}

} // namespace

std::uint64_t
ModelConfig::LayerParameters() const
{
    const std::uint64_t d = hidden;
    const std::uint64_t attention = 2 * d * QueryWidth() + 2 * d * KvWidth();
    if (family == Family::Llama)
    {
        return attention + 3 * d * ffn + 2 * d;
    }
    const std::uint64_t linearBiases = QueryWidth() + 2 * KvWidth() + d + ffn + d;
    return attention + 2 * d * ffn + linearBiases + 4 * d;
}

std::uint64_t
ModelConfig::Parameters() const
{
    const std::uint64_t d = hidden;
    const std::uint64_t embeddings = (tiedHead ? 1 : 2) * d * vocab;
    const std::uint64_t ends =
        family == Family::Llama ? d : 2 * d + d * (maxPositions + kOptPositionOffset); // final norm, positions
    return embeddings + layers * LayerParameters() + ends;
}

std::uint64_t
ModelConfig::KvBytesPerLayer(DType kvDtype) const
{
    return 2 * KvWidth() * SizeOf(kvDtype);
}

ModelConfig
LoadConfig(const std::filesystem::path& folder)
{
    const auto file = folder / "config.json";
    ModelConfig config = ReadConfig(LoadStrictJson(file), file.string());
    const auto plain = std::filesystem::absolute(folder).lexically_normal();
    config.name = (plain.has_filename() ? plain : plain.parent_path()).filename().string();
    return config;
}

ModelConfig
ParseConfig(std::string_view text, const std::string& origin)
{
    return ReadConfig(ParseStrictJson(text, origin), origin);
}

ModelConfig
NamedShape(std::string_view name, DType dtype)
{
    for (ModelConfig shape : NamedShapes())
    {
        if (shape.name == name)
        {
            shape.dtype = dtype;
            return shape;
        }
    }
    throw InputError("model shape \"" + std::string(name) + "\" is unknown; accepted: " + Joined(ShapeNames()));
}

std::vector<std::string>
ShapeNames()
{
    std::vector<std::string> names;
    for (const ModelConfig& shape : NamedShapes())
    {
        names.push_back(shape.name);
    }
    return names;
}

} // namespace splitllm
