// SPDX-License-Identifier: GPL-2.0-only

// What weights of 8 or 4 bits in the first layers of a model cost: memory, and how far the model's predictions move.
//
//     split-llm-quantisation models/smollm2-135m-instruct scenarios/prompts/everyday.jsonl
//
// The text is each prompt with 24 tokens that the stored model answers. Printed are, over all positions of the text,
//   hidden NMSE   squared error of the hidden state behind the quantised layers over the squared state,
//   KL            of the predicted distribution from the stored model's, in nats, on average,
//   perplexity    of the text.

#include "base/strict-json.h"
#include "compute/cpu/cpu-backend.h"
#include "compute/footprint.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <vector>

using namespace splitllm;

namespace
{

constexpr std::size_t kAnswer = 24;

/// The hidden state behind each layer, and the logits, of one text.
struct Run
{
    std::vector<Tensor> states;
    Tensor logits;
};

Run
Compute(Backend& backend, const ResidentModel& model, const std::vector<TokenId>& text)
{
    const std::size_t layers = model.Config().layers;
    const auto cache = backend.NewCache(model, 0, layers, text.size());
    std::vector<Tensor> states;
    Tensor hidden = backend.Embed(model, text, 0).value;
    for (std::size_t layer = 0; layer < layers; ++layer)
    {
        const Projections projections = backend.Project(model, layer, hidden).value;
        hidden = backend.FinishLayer(model, layer, hidden, projections, *cache).value;
        states.push_back(hidden);
    }
    return {std::move(states), backend.Head(model, hidden).value};
}

/// \p prompt and what \p model answers, greedily.
std::vector<TokenId>
Answered(Backend& backend, const ResidentModel& model, std::vector<TokenId> prompt)
{
    for (std::size_t i = 0; i < kAnswer; ++i)
    {
        const Tensor logits = Compute(backend, model, prompt).logits;
        prompt.push_back(backend.Sample(logits.Slice(logits.Rows() - 1, 1), {}, 0.0).value);
    }
    return prompt;
}

/// Natural logarithms of the probabilities that \p logits stand for.
std::vector<double>
LogProbabilities(std::span<const float> logits)
{
    const double largest = *std::ranges::max_element(logits);
    double sum = 0.0;
    for (const float logit : logits)
    {
        sum += std::exp(logit - largest);
    }
    std::vector<double> result;
    for (const float logit : logits)
    {
        result.push_back(logit - largest - std::log(sum));
    }
    return result;
}

/// Means over the texts.
class Difference
{
  public:
    /// \param layer whose hidden state counts
    void Add(const Run& stored, const Run& quantised, std::size_t layer, const std::vector<TokenId>& text)
    {
        const std::span<const float> a = stored.states[layer].Values();
        const std::span<const float> b = quantised.states[layer].Values();
        for (std::size_t i = 0; i < a.size(); ++i)
        {
            m_error += (a[i] - b[i]) * (a[i] - b[i]);
            m_size += a[i] * a[i];
        }
        for (std::size_t i = 0; i + 1 < text.size(); ++i)
        {
            const std::vector<double> p = LogProbabilities(stored.logits.Row(i));
            const std::vector<double> q = LogProbabilities(quantised.logits.Row(i));
            for (std::size_t k = 0; k < p.size(); ++k)
            {
                m_divergence += std::exp(p[k]) * (p[k] - q[k]);
            }
            m_surprise -= q[text[i + 1]];
            ++m_positions;
        }
    }

    double HiddenNmse() const
    {
        return m_error / m_size;
    }

    double Divergence() const
    {
        return m_divergence / static_cast<double>(m_positions);
    }

    double Perplexity() const
    {
        return std::exp(m_surprise / static_cast<double>(m_positions));
    }

  private:
    double m_error = 0.0;
    double m_size = 0.0;
    double m_divergence = 0.0;
    double m_surprise = 0.0;
    std::size_t m_positions = 0;
};

std::vector<std::vector<TokenId>>
ReadPrompts(const std::string& file)
{
    std::vector<std::vector<TokenId>> prompts;
    std::ifstream lines(file);
    for (std::string line; std::getline(lines, line);)
    {
        prompts.push_back(ParseStrictJson(line, file).at("tokens").get<std::vector<TokenId>>());
    }
    return prompts;
}

void
Probe(const std::string& folder, const std::string& prompts)
{
    const auto model = Model::Load(folder);
    const ModelConfig& config = model->config;
    CpuBackend backend;
    const auto stored = backend.Resident(model);
    std::vector<std::vector<TokenId>> texts;
    std::vector<Run> runs;
    for (const std::vector<TokenId>& prompt : ReadPrompts(prompts))
    {
        texts.push_back(Answered(backend, *stored, prompt));
        runs.push_back(Compute(backend, *stored, texts.back()));
    }

    std::printf("front layers  bits  group  layers' MB  hidden NMSE       KL  perplexity\n");
    const auto row = [&](std::size_t l, const WeightPrecision& precision) {
        const auto quantised = backend.Resident(model, precision);
        Difference difference;
        for (std::size_t i = 0; i < texts.size(); ++i)
        {
            const std::size_t last = l == 0 ? 0 : l - 1;
            difference.Add(runs[i], Compute(backend, *quantised, texts[i]), last, texts[i]);
        }
        std::printf("%12zu  %4u  %5zu  %10.2f  %11.2e  %7.5f  %10.3f\n",
                    l,
                    precision.Bits(0),
                    l == 0 ? 0 : precision.Group(),
                    static_cast<double>(LayerBytes(config, precision, 0, config.layers).Total()) * 1e-6,
                    difference.HiddenNmse(),
                    difference.Divergence(),
                    difference.Perplexity());
        std::fflush(stdout);
    };
    row(0, WeightPrecision(config));
    for (const unsigned bits : {8U, 4U})
    {
        for (const std::size_t group : AcceptedGroups(config))
        {
            for (const std::size_t l : {config.layers / 4, config.layers / 2, config.layers})
            {
                row(l, WeightPrecision::Front(config, l, bits, group));
            }
        }
    }
}

} // namespace

int
main(int argc, char* argv[])
{
    if (argc != 3)
    {
        std::fprintf(stderr, "usage: split-llm-quantisation MODEL-FOLDER PROMPTS.jsonl\n");
        return 1;
    }
    try
    {
        Probe(argv[1], argv[2]);
    }
    catch (const std::exception& error)
    {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
