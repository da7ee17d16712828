// SPDX-License-Identifier: GPL-2.0-only

// Logits and greedy text against Hugging Face transformers, which computed test/golden/*.safetensors with
// scripts/make-golden (fp32 arithmetic, the same bf16 weights).

#include "support/catch.h"
#include "support/monolithic.h"
#include "support/test-models.h"

#include "llm/safetensors.h"

#include <cstring>
#include <string>

using namespace splitllm;
using splitllm::test::Answer;
using splitllm::test::Monolithic;
using splitllm::test::TestModel;

namespace
{

constexpr double kLimit = 1e-6; // NMSE

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

double
Nmse(std::span<const float> values, std::span<const float> reference)
{
    REQUIRE(values.size() == reference.size());
    double error = 0.0;
    double power = 0.0;
    for (std::size_t i = 0; i < values.size(); i++)
    {
        const double difference = double{values[i]} - double{reference[i]};
        error += difference * difference;
        power += double{reference[i]} * double{reference[i]};
    }
    return error / power;
}

/// Compares every prompt that the golden file has, with or without the adapter.
void
Compare(const std::string& golden,
        const std::filesystem::path& model,
        const std::filesystem::path& adapter,
        std::size_t leastPrompts)
{
    const Golden expected(golden);
    const std::string suffix = adapter.empty() ? "" : "-lora";
    Monolithic monolithic(model, adapter);
    std::size_t prompts = 0;
    for (; expected.Has("prompt." + std::to_string(prompts) + ".tokens"); prompts++)
    {
        const std::string n = std::to_string(prompts);
        const std::vector<TokenId> prompt = expected.Tokens("prompt." + n + ".tokens");
        CAPTURE(golden, suffix, n);
        if (expected.Has("logits" + suffix + "." + n))
        {
            const std::vector<float> reference = expected.Floats("logits" + suffix + "." + n);
            const auto cache = monolithic.NewCache();
            const Tensor hidden = monolithic.Forward(prompt, *cache);
            const Tensor logits = monolithic.Logits(hidden);
            // The golden file holds the logits of the last positions, as many as fit.
            const std::size_t rows = reference.size() / logits.Cols();
            const Tensor last = logits.Slice(logits.Rows() - rows, rows);
            const double nmse = Nmse(last.Values(), reference);
            INFO("NMSE " << nmse);
            CHECK(nmse <= kLimit);
        }
        CHECK(monolithic.Ask(prompt, 32).tokens == expected.Tokens("greedy" + suffix + "." + n));
    }
    CHECK(prompts >= leastPrompts);
}

} // namespace

TEST_CASE("tiny models give transformers' logits and greedy text", "[transformers]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        Compare(model, TestModel(model), "", 1);
        Compare(model, TestModel(model), TestModel(model + "-lora"), 1);
    }
}

TEST_CASE("SmolLM2 gives transformers' logits and greedy text of 8 prompts", "[transformers][smollm2]")
{
    const char* folder = std::getenv("SPLITLLM_MODELS");
    const std::filesystem::path models = folder != nullptr ? folder : SPLITLLM_MODEL_DIR;
    if (!std::filesystem::exists(models / "smollm2-135m-instruct/model.safetensors"))
    {
        WARN("skipped: no SmolLM2 in " << models << "; scripts/import-model makes it");
        return;
    }
    const std::filesystem::path adapter = models / "smollm2-135m-lora-seed1";
    Compare("smollm2-135m", models / "smollm2-135m-instruct", "", 8);
    Compare("smollm2-135m", models / "smollm2-135m-instruct", adapter, 8);

    const Golden golden("smollm2-135m");
    int changed = 0;
    for (int n = 0; n < 8; n++)
    {
        changed += golden.Tokens("greedy." + std::to_string(n)) != golden.Tokens("greedy-lora." + std::to_string(n));
    }
    CHECK(changed >= 4); // otherwise losing the adapter on the way could go unseen
}
