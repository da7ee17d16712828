// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_GOLDEN_H
#define SPLITLLM_TEST_GOLDEN_H

#include "llm/safetensors.h"
#include "support/catch.h"
#include "support/monolithic.h"
#include "support/nmse.h"

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace splitllm::test
{

/// What Hugging Face transformers computed: test/golden/MODEL.safetensors, by scripts/make-golden.
class Golden
{
  public:
    explicit Golden(const std::string& model)
        : m_tensors(MappedTensors::OpenFile(std::filesystem::path(SPLITLLM_SOURCE_DIR) / "test/golden" /
                                            (model + ".safetensors")))
    {
    }

    std::vector<float> Floats(const std::string& name) const
    {
        return Copy<float>(name);
    }

    std::vector<TokenId> Tokens(const std::string& name) const
    {
        return Copy<TokenId>(name);
    }

    bool Has(const std::string& name) const
    {
        return m_tensors->Index().contains(name);
    }

  private:
    template <typename T>
    std::vector<T> Copy(const std::string& name) const
    {
        const StoredTensor& tensor = m_tensors->Index().at(name);
        std::size_t elements = 1;
        for (const std::size_t dimension : tensor.shape)
        {
            elements *= dimension;
        }
        std::vector<T> values(elements);
        std::memcpy(values.data(), tensor.data, elements * sizeof(T));
        return values;
    }

    std::shared_ptr<const MappedTensors> m_tensors;
};

/**
 * Compares logits and greedy text of prompts that the golden file has, with or without the adapter.
 * \param bound of the logits' normalised squared error
 * \param most prompts
 * \param tokens of each prompt's text, at most 32
 * \return how many prompts were compared
 */
inline std::size_t
CompareWithGolden(Monolithic& model,
                  const std::string& golden,
                  bool adapted,
                  double bound,
                  std::size_t most = 32,
                  std::size_t tokens = 32)
{
    const Golden expected(golden);
    const std::string suffix = adapted ? "-lora" : "";
    std::size_t prompts = 0;
    for (; prompts < most && expected.Has("prompt." + std::to_string(prompts) + ".tokens"); prompts++)
    {
        const std::string n = std::to_string(prompts);
        const std::vector<TokenId> prompt = expected.Tokens("prompt." + n + ".tokens");
        CAPTURE(golden, suffix, n);
        if (expected.Has("logits" + suffix + "." + n))
        {
            const std::vector<float> reference = expected.Floats("logits" + suffix + "." + n);
            const auto cache = model.NewCache();
            const Tensor hidden = model.Forward(prompt, *cache);
            const Tensor logits = model.Logits(hidden);
            // The golden file holds the logits of the last positions, as many as fit.
            const std::size_t rows = reference.size() / logits.Cols();
            const Tensor last = logits.Slice(logits.Rows() - rows, rows);
            const double nmse = Nmse(last.Values(), reference);
            INFO("NMSE " << nmse);
            CHECK(nmse <= bound);
        }
        std::vector<TokenId> greedy = expected.Tokens("greedy" + suffix + "." + n);
        greedy.resize(tokens);
        CHECK(model.Ask(prompt, tokens).tokens == greedy);
    }
    return prompts;
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_GOLDEN_H
