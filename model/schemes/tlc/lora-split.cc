// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/tlc/lora-split.h"

#include "codec/dense-codec.h"
#include "compute/timed.h"
#include "policy/calibrator-features.h"
#include "schemes/embedding.h"
#include "schemes/full-model.h"
#include "schemes/tlc/delta-rows.h"
#include "schemes/tlc/selected-rows.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace splitllm
{

namespace
{

constexpr std::size_t kNorms = 3; // of the base Q, K and V
using BaseNorm = std::array<float, kNorms>;

Work
WorkOf(const DecisionCost& cost, std::size_t rows)
{
    return {.flops = rows * cost.flops, .bytesRead = cost.bytes + rows * cost.bytesEach, .bytesWritten = 0, .launches = 1};
}

/// The rows, of \p of, that \p message carries; takes from its payload what says so. \throws ProtocolError
Rows
TakeRows(Message& message, const OffloadPolicy& policy, std::size_t of)
{
    try
    {
        return policy.Selects() ? TakeSelection(message.payload, of) : AllRows(of);
    }
    catch (const DecodeError& error)
    {
        throw ProtocolError(std::string(NameOf(message.kind)) + ": " + error.what());
    }
}

/// \p payload of a message about \p rows of \p of.
Payload
About(const Rows& rows, std::size_t of, const OffloadPolicy& policy, Payload payload)
{
    return policy.Selects() ? WithSelection(rows, of, std::move(payload)) : std::move(payload);
}

/// The norms of the base projections of \p rows, as they travel: fp32, three a row.
Payload
BaseNorms(const Projections& projections, const Rows& rows)
{
    const std::size_t size = rows.size() * kNorms * sizeof(float);
    if (projections.query.IsPhantom())
    {
        return Payload::Phantom(size);
    }
    std::vector<std::byte> bytes(size);
    std::byte* to = bytes.data();
    for (const std::size_t row : rows)
    {
        for (const Tensor* base : {&projections.query, &projections.key, &projections.value})
        {
            const auto norm = static_cast<float>(Norm(base->Row(row)));
            std::memcpy(to, &norm, sizeof(norm));
            to += sizeof(norm);
        }
    }
    return Payload::Of(std::move(bytes));
}

/// Takes the norms of \p rows rows from the end of \p payload. \throws ProtocolError if they are not there
std::vector<BaseNorm>
TakeBaseNorms(Payload& payload, std::size_t rows)
{
    const std::size_t size = rows * kNorms * sizeof(float);
    if (payload.size < size)
    {
        throw ProtocolError("layer-input: no room for the norms of " + std::to_string(rows) + " rows");
    }
    std::vector<BaseNorm> norms(rows);
    payload.size -= size;
    if (!payload.phantom)
    {
        std::memcpy(norms.data(), payload.bytes.data() + payload.size, size);
        payload.bytes.resize(payload.size);
    }
    return norms;
}

/**
 * What one tier decides about \p rows of the step at \p position: charged to its node, reported, and returned as the
 * indices in \p rows of those worth an exchange.
 * \param verdictOf called with an index in \p rows and the cell
 */
template <typename F>
Task<Rows>
DecideRows(Session& s,
           const ResidentModel& model,
           unsigned tier,
           const DecisionCost& cost,
           const Rows& rows,
           std::size_t position,
           std::size_t layer,
           const F& verdictOf)
{
    auto computed = Timed(Operation::Calibrate, rows.size(), WorkOf(cost, rows.size()), [&] {
        std::vector<Verdict> each;
        for (std::size_t i = 0; i < rows.size(); i++)
        {
            const Cell cell{s.request, position + rows[i], layer};
            each.push_back(s.Outcome(cell.position, layer, [&] { return verdictOf(i, cell); }));
        }
        return each;
    });
    std::vector<Verdict> verdicts;
    if (cost.IsFree())
    {
        verdicts = std::move(computed.value);
    }
    else
    {
        verdicts = co_await s.Run(model, std::move(computed), layer);
    }
    Rows chosen;
    for (std::size_t i = 0; i < rows.size(); i++)
    {
        s.Decide({s.request, position + rows[i], layer}, tier, verdicts[i]);
        if (verdicts[i].yes)
        {
            chosen.push_back(i);
        }
    }
    co_return chosen;
}

/// The user's device: embedding, LoRA, Tier 2, head and the choice of the next token.
class Device final : public UserRole
{
  public:
    Device(Session& session, const SchemeParts& parts, const OffloadPolicy& policy, bool firstLayer)
        : s(session),
          m_parts(parts),
          m_policy(policy),
          m_firstLayer(firstLayer),
          m_decoder(session, parts)
    {
    }

    void BeginRequest(const RequestLimits& limits) override
    {
        m_decoder.Begin(limits, m_parts.sampling);
    }

    Task<std::optional<TokenId>> Step(std::span<const TokenId> tokens, std::size_t position) override
    {
        const ResidentModel& model = *m_parts.model;
        const ModelConfig& config = model.Config();
        const EmbeddedStep step = co_await SendEmbedding(s, m_parts, m_decoder, tokens, position);
        m_position = position;
        m_rows = step.positions.size();
        m_layer = 0;
        m_previous.assign(m_rows, {});
        Message message = co_await s.Receive();
        while (message.kind == MessageKind::LayerInput)
        {
            co_await Adapt(std::move(message));
            message = co_await s.Receive();
        }
        s.Expect(message, MessageKind::FinalState, config.layers);
        Tensor hL = co_await s.TensorIn(std::move(message), step.states, config.hidden);
        co_return (co_await m_decoder.Next(step.positions.back(), std::move(hL))).front();
    }

    std::optional<std::vector<TokenId>> Answer() const override
    {
        return m_decoder.Answer();
    }

    void EndRequest() override
    {
        s.Send(MessageKind::End, 0, 0, {}, DType::F32);
    }

  private:
    /// LoRA for the rows of one layer that the edge sent, and back with what Tier 2 finds worth it.
    Task<void> Adapt(Message message)
    {
        const ResidentModel& model = *m_parts.model;
        const ModelConfig& config = model.Config();
        const std::size_t layer = message.layer;
        // Layers come in turn; what a policy finds not worth it is left out.
        const std::size_t next = m_layer == 0 && !m_firstLayer ? 2 : m_layer + 1;
        s.Expect(message, MessageKind::LayerInput, m_policy.Selects() ? std::max(layer, next) : next);
        if (layer > config.layers)
        {
            throw ProtocolError("layer-input of layer " + std::to_string(layer) + " of a model that has " +
                                std::to_string(config.layers));
        }
        m_layer = layer;
        const Rows rows = TakeRows(message, m_policy, m_rows);
        const std::vector<BaseNorm> norms =
            m_policy.UsesBaseNorms() ? TakeBaseNorms(message.payload, rows.size()) : std::vector<BaseNorm>(rows.size());
        const Tensor input = co_await s.TensorIn(std::move(message), rows.size(), config.hidden);
        const Deltas deltas = co_await s.Run(model, s.host.backend->Adapt(*m_parts.adapter, layer - 1, input), layer);
        const Tensor updates = SideBySide(deltas);

        const Rows returned = co_await Decide(rows, updates, norms, layer);
        if (returned.empty())
        {
            s.Send(MessageKind::Skip, m_position, layer, {}, DType::F32);
            co_return;
        }
        Payload payload = co_await s.Encode(MessageKind::Deltas, layer, Gather(updates, returned));
        payload = About(returned, rows.size(), m_policy, std::move(payload));
        s.Send(MessageKind::Deltas, m_position, layer, std::move(payload), s.Codec().Exact());
    }

    /// Tier 2: the rows of \p updates, which belong to \p rows of the step, that go back.
    Task<Rows> Decide(const Rows& rows,
                      const Tensor& updates,
                      const std::vector<BaseNorm>& norms,
                      std::size_t layer)
    {
        const auto verdictOf = [&](std::size_t i, const Cell& cell) {
            std::vector<float>& previous = m_previous[rows[i]];
            const DeviceView view{.cell = cell,
                                  .update = updates.IsPhantom() ? std::span<const float>() : updates.Row(i),
                                  .previous = previous,
                                  .baseNorms = norms[i],
                                  .draw = m_policy.Selects() ? s.uniform(Draw::Tier2) : 0.0};
            const Verdict verdict = m_policy.Return(view);
            previous.assign(view.update.begin(), view.update.end());
            return verdict;
        };
        co_return co_await
            DecideRows(s, *m_parts.model, 2, m_policy.ReturnCost(), rows, m_position, layer, verdictOf);
    }

    Session& s;
    const SchemeParts& m_parts;
    const OffloadPolicy& m_policy;
    bool m_firstLayer;
    Decoder m_decoder;
    std::size_t m_position = 0;
    std::size_t m_rows = 0;
    std::size_t m_layer = 0; //!< the last one that the edge asked about in this step
    std::vector<std::vector<float>> m_previous; //!< LoRA's last update of each row of the step
};

/// The edge server: the layers of the base model, and Tier 1.
class Edge final : public ServerRole
{
  public:
    Edge(Session& session, const SchemeParts& parts, const OffloadPolicy& policy, bool firstLayer)
        : s(session),
          m_parts(parts),
          m_policy(policy),
          m_firstLayer(firstLayer)
    {
    }

    Task<void> Serve() override
    {
        while (true)
        {
            const std::size_t position = m_cache ? m_cache->Position() : 0;
            Message message = co_await s.ReceiveStep(MessageKind::Embedding, position);
            if (message.kind == MessageKind::End)
            {
                m_cache.reset();
                m_admission = {};
                continue;
            }
            Tensor h0 = co_await TakeEmbedding(s, m_parts, std::move(message), m_cache.get());
            co_await ServeStep(std::move(h0), position);
        }
    }

  private:
    /// LoRA's updates of some rows of a step.
    struct Updates
    {
        Rows rows;
        Tensor tensor;
    };

    Task<void> ServeStep(Tensor h, std::size_t position)
    {
        const ResidentModel& model = *m_parts.model;
        const ModelConfig& config = model.Config();
        Backend& backend = *s.host.backend;
        if (!m_cache)
        {
            m_admission = co_await s.Admit(LongestKvBytes(m_parts, config.layers));
            m_cache = std::make_unique<RequestCache>(s, model);
        }
        m_cache->Reserve(h.Rows());
        m_embedding = h;
        m_tokenDraws.resize(h.Rows());
        for (double& draw : m_tokenDraws)
        {
            draw = m_policy.Selects() ? s.uniform(Draw::Tier1) : 0.0;
        }

        for (std::size_t l = 0; l < config.layers; l++)
        {
            Projections qkv = co_await s.Run(model, backend.Project(model, l, h), l + 1);
            const Rows offloaded = co_await Decide(h, position, l + 1);
            if (!offloaded.empty())
            {
                co_await SendInput(qkv, offloaded, position, l + 1);
                const Updates updates = co_await ReceiveUpdates(offloaded, l + 1);
                if (!updates.rows.empty())
                {
                    qkv = co_await s.Run(
                        model,
                        backend.Merge(std::move(qkv), Separate(updates.tensor, config), updates.rows),
                        l + 1);
                }
            }
            h = co_await s.Run(model, backend.FinishLayer(model, l, h, qkv, m_cache->Caches()), l + 1);
        }
        const std::size_t last = m_cache->Position() - 1;
        co_await s.Send(MessageKind::FinalState, last, config.layers, m_cache->Newest(h));
    }

    /// Tier 1: the rows of \p hidden, which enters \p layer, that go to the device.
    Task<Rows> Decide(const Tensor& hidden, std::size_t position, std::size_t layer)
    {
        const Rows rows = AllRows(hidden.Rows());
        if (layer == 1 && !m_firstLayer)
        {
            for (const std::size_t row : rows)
            {
                s.Decide({s.request, position + row, layer}, 1, {.yes = false, .score = {}});
            }
            co_return Rows{};
        }
        const auto verdictOf = [&](std::size_t row, const Cell& cell) {
            const bool numbers = !hidden.IsPhantom();
            return m_policy.Offload(
                {.cell = cell,
                 .embedding = numbers ? std::as_const(m_embedding).Row(row) : std::span<const float>(),
                 .hidden = numbers ? hidden.Row(row) : std::span<const float>(),
                 .draw = m_policy.Selects() ? s.uniform(Draw::Tier1) : 0.0,
                 .tokenDraw = m_tokenDraws[row]});
        };
        co_return co_await DecideRows(s, *m_parts.model, 1, m_policy.OffloadCost(), rows, position, layer, verdictOf);
    }

    Task<void> SendInput(const Projections& qkv, const Rows& rows, std::size_t position, std::size_t layer)
    {
        Payload payload = co_await s.Encode(MessageKind::LayerInput, layer, Gather(qkv.input, rows));
        if (m_policy.UsesBaseNorms())
        {
            const Payload norms = BaseNorms(qkv, rows);
            payload.bytes.insert(payload.bytes.end(), norms.bytes.begin(), norms.bytes.end());
            payload.size += norms.size;
        }
        payload = About(rows, qkv.input.Rows(), m_policy, std::move(payload));
        s.Send(MessageKind::LayerInput, position, layer, std::move(payload), s.Codec().Exact());
    }

    /// LoRA's updates for some of the rows \p offloaded, or for none.
    Task<Updates> ReceiveUpdates(const Rows& offloaded, std::size_t layer)
    {
        const ModelConfig& config = m_parts.model->Config();
        Message message = co_await s.Receive();
        if (message.kind == MessageKind::Skip && m_policy.Selects())
        {
            s.Expect(message, MessageKind::Skip, layer);
            co_return Updates{};
        }
        s.Expect(message, MessageKind::Deltas, layer);
        Updates updates;
        updates.rows = TakeRows(message, m_policy, offloaded.size());
        updates.tensor = co_await s.TensorIn(std::move(message),
                                             updates.rows.size(),
                                             config.QueryWidth() + 2 * config.KvWidth());
        for (std::size_t& row : updates.rows)
        {
            row = offloaded[row];
        }
        co_return updates;
    }

    Session& s;
    const SchemeParts& m_parts;
    const OffloadPolicy& m_policy;
    bool m_firstLayer;
    ByteSemaphore::Ticket m_admission; //!< of the request
    std::unique_ptr<RequestCache> m_cache;
    Tensor m_embedding;               //!< h0 of the step
    std::vector<double> m_tokenDraws; //!< one for each row of the step
};

} // namespace

LoraSplitScheme::LoraSplitScheme(SchemeParts parts, std::shared_ptr<const OffloadPolicy> policy, bool firstLayer)
    : Scheme(std::move(parts)),
      m_policy(std::move(policy)),
      m_firstLayer(firstLayer)
{
}

bool
LoraSplitScheme::HasServer() const
{
    return true;
}

std::unique_ptr<UserRole>
LoraSplitScheme::MakeUser(Session& session) const
{
    return std::make_unique<Device>(session, Parts(), *m_policy, m_firstLayer);
}

std::unique_ptr<ServerRole>
LoraSplitScheme::MakeServer(Session& session) const
{
    return std::make_unique<Edge>(session, Parts(), *m_policy, m_firstLayer);
}

Footprint
LoraSplitScheme::UserFootprint() const
{
    const ModelConfig& config = Parts().model->Config();
    return {EmbeddingBytes(config) + HeadBytes(config), AdapterBytes() + m_policy->DeviceBytes()};
}

Footprint
LoraSplitScheme::ServerFootprint() const
{
    const ModelConfig& config = Parts().model->Config();
    return {LayerBytes(config, config.layers), m_policy->EdgeBytes()};
}

} // namespace splitllm
