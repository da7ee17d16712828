// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_MONOLITHIC_H
#define SPLITLLM_TEST_MONOLITHIC_H

#include "codec/dense-codec.h"
#include "compute/cpu/cpu-backend.h"
#include "llm/adapter.h"
#include "llm/beam-search.h"
#include "llm/bottleneck.h"
#include "llm/model.h"

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace splitllm::test
{

/// What a model answered to one prompt.
struct Answer
{
    std::vector<TokenId> tokens;
    std::vector<std::vector<float>> logits; //!< those that each token was chosen from
};

/**
 * The whole model in one loop without any node, message or simulated time: what every split of it must reproduce.
 * With a wire type it rounds where the tensors of LInfer and of its counterpart for bottlenecks cross: h0, what each
 * adapter reads, what it makes of that, and hL.
 *
 * keeps says at which layer (from 1) and position LoRA counts; tap, if set, sees every residual that enters a layer and
 * the updates computed there.
 */
class Monolithic
{
  public:
    Monolithic(const std::filesystem::path& modelFolder,
               const std::filesystem::path& adapterFolder,
               std::optional<DType> wire = std::nullopt,
               std::size_t threads = 0)
        : Monolithic(std::make_shared<CpuBackend>(threads), modelFolder, adapterFolder, wire)
    {
    }

    Monolithic(std::shared_ptr<Backend> backend,
               const std::filesystem::path& modelFolder,
               const std::filesystem::path& adapterFolder,
               std::optional<DType> wire = std::nullopt)
        : m_backend(std::move(backend)),
          m_wire(wire)
    {
        const auto model = Model::Load(modelFolder);
        m_model = m_backend->Resident(model);
        if (BottleneckAdapter::IsIn(adapterFolder))
        {
            m_bottleneck = m_backend->Resident(BottleneckAdapter::Load(adapterFolder, model->config), model->config);
        }
        else if (!adapterFolder.empty())
        {
            m_adapter = m_backend->Resident(Adapter::Load(adapterFolder, model->config), model->config);
        }
    }

    /// The final states of \p tokens, appended to \p cache.
    Tensor Forward(std::span<const TokenId> tokens, KvCache& cache)
    {
        const std::size_t layers = m_model->Config().layers;
        const std::size_t position = cache.Length(0);
        KvCache* const view = &cache;
        Tensor h = Wire(m_backend->Embed(*m_model, tokens, position).value);
        for (std::size_t l = 0; l < layers; l++)
        {
            Projections qkv = m_backend->Project(*m_model, l, h).value;
            if (m_adapter)
            {
                Deltas deltas = m_backend->Adapt(*m_adapter, l, Wire(qkv.input)).value;
                if (tap)
                {
                    tap(l + 1, position, h, qkv, deltas);
                }
                deltas = {Wire(deltas.query), Wire(deltas.key), Wire(deltas.value)};
                for (std::size_t row = 0; row < h.Rows(); row++)
                {
                    if (keeps(l + 1, position + row))
                    {
                        Add(qkv.query.Row(row), deltas.query.Row(row));
                        Add(qkv.key.Row(row), deltas.key.Row(row));
                        Add(qkv.value.Row(row), deltas.value.Row(row));
                    }
                }
            }
            if (m_bottleneck)
            {
                Bottleneck(l, Sublayer::Attention, h, m_backend->Attend(*m_model, l, qkv, {&view, 1}).value);
                Bottleneck(l, Sublayer::Mlp, h, m_backend->FeedForward(*m_model, l, h).value);
                continue;
            }
            h = m_backend->FinishLayer(*m_model, l, h, qkv, cache).value;
        }
        return Wire(h);
    }

    Tensor Logits(const Tensor& hidden)
    {
        return m_backend->Head(*m_model, hidden).value;
    }

    std::unique_ptr<KvCache> NewCache()
    {
        return m_backend->NewCache(*m_model, 0, m_model->Config().layers, m_model->Config().maxPositions);
    }

    /// Greedy continuation.
    Answer Ask(std::vector<TokenId> tokens, std::size_t newTokens)
    {
        Answer answer;
        const auto cache = NewCache();
        while (answer.tokens.size() < newTokens)
        {
            const Tensor h = Forward(tokens, *cache);
            const Tensor logits = Logits(h.Slice(h.Rows() - 1, 1));
            answer.logits.emplace_back(logits.Values().begin(), logits.Values().end());
            answer.tokens.push_back(Greedy(logits.Values()));
            tokens.assign(1, answer.tokens.back());
        }
        return answer;
    }

    /// What \p search finds: a cache for each hypothesis, and a call for each row.
    std::vector<TokenId> Find(const std::vector<TokenId>& prompt, BeamSearch search)
    {
        std::vector<std::vector<TokenId>> running{prompt};
        while (!search.Ended())
        {
            std::vector<std::vector<ScoredToken>> rows;
            for (const std::vector<TokenId>& tokens : running)
            {
                const auto cache = NewCache();
                const Tensor h = Forward(tokens, *cache);
                rows.push_back(MostLikely(Logits(h.Slice(h.Rows() - 1, 1)).Values(), search.Candidates()));
            }
            search.Advance(rows);
            std::vector<std::vector<TokenId>> next;
            for (const BeamSearch::Continuation& continuation : search.Running())
            {
                next.push_back(running[continuation.parent]);
                next.back().push_back(continuation.token);
            }
            running = std::move(next);
        }
        return search.Answer();
    }

    std::function<bool(std::size_t layer, std::size_t position)> keeps = [](std::size_t, std::size_t) { return true; };
    std::function<void(std::size_t layer,
                       std::size_t position,
                       const Tensor& hidden,
                       const Projections& base,
                       const Deltas& updates)>
        tap;

  private:
    static void Add(std::span<float> to, std::span<const float> update)
    {
        for (std::size_t i = 0; i < to.size(); i++)
        {
            to[i] += update[i];
        }
    }

    /// hidden += output + what the bottleneck makes of the output
    void Bottleneck(std::size_t layer, Sublayer sublayer, Tensor& hidden, Tensor output)
    {
        const Tensor added = Wire(m_backend->Bottleneck(*m_bottleneck, layer, sublayer, Wire(output)).value);
        for (std::size_t row = 0; row < hidden.Rows(); row++)
        {
            Add(output.Row(row), added.Row(row));
            Add(hidden.Row(row), output.Row(row));
        }
    }

    Tensor Wire(const Tensor& tensor) const
    {
        return m_wire ? RoundTo(tensor, *m_wire) : tensor;
    }

    std::shared_ptr<Backend> m_backend;
    std::optional<DType> m_wire;
    std::shared_ptr<const ResidentModel> m_model;
    std::shared_ptr<const ResidentAdapter> m_adapter;
    std::shared_ptr<const ResidentBottleneck> m_bottleneck;
};

/// Greedy continuation of the whole model that rounds every state to fp16 after \p layer, as a split there does.
inline Answer
RoundedAfter(const std::filesystem::path& modelFolder,
             std::size_t layer,
             std::vector<TokenId> tokens,
             std::size_t newTokens)
{
    CpuBackend backend(1);
    const auto model = backend.Resident(Model::Load(modelFolder));
    const ModelConfig& config = model->Config();
    const auto cache = backend.NewCache(*model, 0, config.layers, config.maxPositions);
    Answer answer;
    while (answer.tokens.size() < newTokens)
    {
        Tensor h = backend.Embed(*model, tokens, cache->Position(0)).value;
        for (std::size_t l = 0; l < config.layers; l++)
        {
            const Projections qkv = backend.Project(*model, l, h).value;
            h = backend.FinishLayer(*model, l, h, qkv, *cache).value;
            h = l + 1 == layer ? RoundTo(h, DType::F16) : h;
        }
        const Tensor logits = backend.Head(*model, h.Slice(h.Rows() - 1, 1)).value;
        answer.logits.emplace_back(logits.Values().begin(), logits.Values().end());
        answer.tokens.push_back(Greedy(logits.Values()));
        tokens.assign(1, answer.tokens.back());
    }
    return answer;
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_MONOLITHIC_H
