// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CONFIG_H
#define SPLITLLM_CONFIG_H

#include "tensor/dtype.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace splitllm
{

/// The architectures that the layers implement.
enum class Family
{
    Llama, //!< RMSNorm, rotary positions, grouped-query attention, SwiGLU
    Opt,   //!< LayerNorm, learned positions (offset 2), ReLU, biases
};

/// Long-context scaling of the rotary frequencies as LLaMA 3.1 and later use it (rope_type "llama3").
struct RopeScaling
{
    double factor = 1.0;
    double lowFreqFactor = 1.0;
    double highFreqFactor = 4.0;
    double originalMaxPositions = 8192.0;
};

/// What a model's config.json says, under the names used here.
struct ModelConfig
{
    std::string name; //!< folder name or shape name, for messages and results; empty where only text was parsed
    Family family = Family::Llama;
    std::size_t layers = 0;
    std::size_t hidden = 0; //!< d, width of the residual stream
    std::size_t heads = 0;  //!< query heads
    std::size_t kvHeads = 0;
    std::size_t headDim = 0;
    std::size_t ffn = 0; //!< inner width of the MLP
    std::size_t vocab = 0;
    std::size_t maxPositions = 0; //!< longest context
    double normEps = 1e-5;
    double ropeTheta = 10000.0;
    std::optional<RopeScaling> ropeScaling;
    bool tiedHead = false; //!< the head is the embedding matrix
    bool biases = false;   //!< linear layers carry a bias (OPT)
    std::vector<std::uint32_t> eosTokens;
    DType dtype = DType::F32; //!< of the weights

    std::size_t QueryWidth() const
    {
        return heads * headDim;
    }

    std::size_t KvWidth() const
    {
        return kvHeads * headDim;
    }

    /// Parameters of one layer / of the whole model (a tied head counted once).
    std::uint64_t LayerParameters() const;
    std::uint64_t Parameters() const;

    /// Bytes of one position's keys and values in one layer.
    std::uint64_t KvBytesPerLayer(DType kvDtype) const;
};

/**
 * Reads config.json of a Hugging Face folder.
 * \throws InputError naming the file and key: malformed JSON, unknown model_type, a value that no layer implements.
 */
ModelConfig LoadConfig(const std::filesystem::path& folder);

/**
 * Parses the text of a config.json; \p origin names it in messages.
 * \throws InputError as LoadConfig.
 */
ModelConfig ParseConfig(std::string_view text, const std::string& origin);

/**
 * A published shape by name, for shape mode: "llama-7b", "llama-2-7b", "llama-2-13b", "llama-3.2-3b", "opt-1.3b",
 * "opt-13b", "smollm2-135m".
 * \throws InputError listing the known names.
 */
ModelConfig NamedShape(std::string_view name, DType dtype);

/// The names that NamedShape knows, in its order.
std::vector<std::string> ShapeNames();

} // namespace splitllm

#endif // SPLITLLM_CONFIG_H
