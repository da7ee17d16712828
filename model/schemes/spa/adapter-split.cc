// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/spa/adapter-split.h"

#include "base/input-error.h"
#include "schemes/embedding.h"
#include "schemes/full-model.h"

#include <utility>

namespace splitllm
{

namespace
{

/// The user's device: embedding, the adapters, head and the choice of the next token.
class Device final : public UserRole
{
  public:
    Device(Session& session, const SchemeParts& parts)
        : s(session),
          m_parts(parts),
          m_decoder(session, parts)
    {
    }

    void BeginRequest(const RequestLimits& limits) override
    {
        m_decoder.Begin(limits, m_parts.sampling);
    }

    Task<std::optional<TokenId>> Step(std::span<const TokenId> tokens, std::size_t position) override
    {
        const ModelConfig& config = m_parts.model->Config();
        const EmbeddedStep step = co_await SendEmbedding(s, m_parts, m_decoder, tokens, position);
        for (std::size_t layer = 1; layer <= config.layers; layer++)
        {
            co_await Adapt(layer, Sublayer::Attention, step.positions.size(), position);
            co_await Adapt(layer, Sublayer::Mlp, step.positions.size(), position);
        }
        Message message = co_await s.Receive();
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
    /// Sends back what the adapter behind \p sublayer adds to the output that comes in.
    Task<void> Adapt(std::size_t layer, Sublayer sublayer, std::size_t rows, std::size_t position)
    {
        const ResidentModel& model = *m_parts.model;
        Message message = co_await s.Receive();
        s.Expect(message, MessageKind::AdapterInput, layer);
        const Tensor output = co_await s.TensorIn(std::move(message), rows, model.Config().hidden);
        Tensor added = co_await s.Run(
            model, s.host.backend->Bottleneck(*m_parts.bottleneck, layer - 1, sublayer, output), layer);
        co_await s.Send(MessageKind::AdapterOutput, position, layer, std::move(added));
    }

    Session& s;
    const SchemeParts& m_parts;
    Decoder m_decoder;
};

/// The server: the layers of the base model.
class Server final : public ServerRole
{
  public:
    Server(Session& session, const SchemeParts& parts)
        : s(session),
          m_parts(parts)
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
    Task<void> ServeStep(Tensor h, std::size_t position)
    {
        const ResidentModel& model = *m_parts.model;
        const std::size_t layers = model.Config().layers;
        Backend& backend = *s.host.backend;
        if (!m_cache)
        {
            m_admission = co_await s.Admit(LongestKvBytes(m_parts, layers));
            m_cache = std::make_unique<RequestCache>(s, model);
        }
        m_cache->Reserve(h.Rows());
        for (std::size_t l = 0; l < layers; l++)
        {
            const Projections qkv = co_await s.Run(model, backend.Project(model, l, h), l + 1);
            Tensor attended = co_await s.Run(model, backend.Attend(model, l, qkv, m_cache->Caches()), l + 1);
            h = co_await Adapted(std::move(h), std::move(attended), position, l + 1);
            Tensor mlp = co_await s.Run(model, backend.FeedForward(model, l, h), l + 1);
            h = co_await Adapted(std::move(h), std::move(mlp), position, l + 1);
        }
        co_await s.Send(MessageKind::FinalState, m_cache->Position() - 1, layers, m_cache->Newest(h));
    }

    /// \p h with the output of one of its sublayers, once the device has said what the adapter adds to that.
    Task<Tensor> Adapted(Tensor h, Tensor output, std::size_t position, std::size_t layer)
    {
        const ResidentModel& model = *m_parts.model;
        Backend& backend = *s.host.backend;
        co_await s.Send(MessageKind::AdapterInput, position, layer, output);
        Message message = co_await s.Receive();
        s.Expect(message, MessageKind::AdapterOutput, layer);
        const Tensor added = co_await s.TensorIn(std::move(message), h.Rows(), h.Cols());
        output = co_await s.Run(model, backend.Combine(std::move(output), added), layer);
        co_return co_await s.Run(model, backend.Combine(std::move(h), output), layer);
    }

    Session& s;
    const SchemeParts& m_parts;
    ByteSemaphore::Ticket m_admission; //!< of the request
    std::unique_ptr<RequestCache> m_cache;
};

} // namespace

AdapterSplitScheme::AdapterSplitScheme(SchemeParts parts)
    : Scheme(std::move(parts))
{
    if (!Parts().bottleneck)
    {
        throw InputError("scheme \"adapter-split\" splits bottleneck adapters off the model: give model.adapter");
    }
}

bool
AdapterSplitScheme::HasServer() const
{
    return true;
}

std::unique_ptr<UserRole>
AdapterSplitScheme::MakeUser(Session& session) const
{
    return std::make_unique<Device>(session, Parts());
}

std::unique_ptr<ServerRole>
AdapterSplitScheme::MakeServer(Session& session) const
{
    return std::make_unique<Server>(session, Parts());
}

Footprint
AdapterSplitScheme::UserFootprint() const
{
    const ModelConfig& config = Parts().model->Config();
    return {EmbeddingBytes(config) + HeadBytes(config), AdapterBytes()};
}

Footprint
AdapterSplitScheme::ServerFootprint() const
{
    const ModelConfig& config = Parts().model->Config();
    return {LayerBytes(config, config.layers), 0};
}

} // namespace splitllm
