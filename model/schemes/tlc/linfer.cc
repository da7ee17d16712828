// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/tlc/linfer.h"

#include "schemes/full-model.h"
#include "schemes/tlc/delta-rows.h"

namespace splitllm
{

namespace
{

/// The user's device: embedding, LoRA, head and sampling.
class LInferDevice final : public UserRole
{
  public:
    LInferDevice(Session& session, const SchemeParts& parts)
        : s(session),
          m_parts(parts)
    {
    }

    Task<TokenId> Step(std::span<const TokenId> tokens, std::size_t position) override
    {
        const ResidentModel& model = *m_parts.model;
        const ModelConfig& config = model.Config();
        Backend& backend = *s.host.backend;

        const Tensor h0 = co_await s.Run(model, backend.Embed(model, tokens, position));
        s.Send(MessageKind::Embedding, position, 0, h0);
        for (std::size_t l = 0; l < config.layers; l++)
        {
            const Tensor input = co_await s.ReceiveTensor(MessageKind::LayerInput, l + 1, config.hidden);
            const Deltas deltas = co_await s.Run(model, backend.Adapt(*m_parts.adapter, l, input), l + 1);
            s.Send(MessageKind::Deltas, position, l + 1, SideBySide(deltas));
        }
        Tensor hL = co_await s.ReceiveTensor(MessageKind::FinalState, config.layers, config.hidden);
        co_return co_await NextToken(s, m_parts, std::move(hL));
    }

    void EndRequest() override
    {
        s.Send(MessageKind::End, 0, 0, {}, DType::F32);
    }

  private:
    Session& s;
    const SchemeParts& m_parts;
};

/// The edge server: the layers of the base model.
class LInferEdge final : public ServerRole
{
  public:
    LInferEdge(Session& session, const SchemeParts& parts)
        : s(session),
          m_parts(parts)
    {
    }

    Task<void> Serve() override
    {
        while (true)
        {
            const std::size_t position = m_cache ? m_cache->Position() : 0;
            const Message message = co_await s.ReceiveStep(MessageKind::Embedding, position);
            if (message.kind == MessageKind::End)
            {
                m_cache.reset();
                continue;
            }
            co_await ServeStep(s.TensorIn(message, m_parts.model->Config().hidden), position);
        }
    }

  private:
    Task<void> ServeStep(Tensor h, std::size_t position)
    {
        const ResidentModel& model = *m_parts.model;
        const ModelConfig& config = model.Config();
        Backend& backend = *s.host.backend;
        if (!m_cache)
        {
            m_cache = std::make_unique<RequestCache>(s, model);
        }
        m_cache->Reserve(h.Rows());

        for (std::size_t l = 0; l < config.layers; l++)
        {
            Projections qkv = co_await s.Run(model, backend.Project(model, l, h), l + 1);
            s.Send(MessageKind::LayerInput, position, l + 1, qkv.input);
            const Tensor deltas = co_await s.ReceiveTensor(MessageKind::Deltas,
                                                           l + 1,
                                                           config.QueryWidth() + 2 * config.KvWidth());
            s.Decide(position, h.Rows(), l + 1, /* offloaded */ true, /* returned */ true);
            qkv = co_await s.Run(model, backend.Merge(std::move(qkv), Separate(deltas, config)), l + 1);
            h = co_await s.Run(model, backend.FinishLayer(model, l, h, qkv, m_cache->Cache()), l + 1);
        }
        s.Send(MessageKind::FinalState, position + h.Rows() - 1, config.layers, h.Slice(h.Rows() - 1, 1));
    }

    Session& s;
    const SchemeParts& m_parts;
    std::unique_ptr<RequestCache> m_cache;
};

} // namespace

bool
LInferScheme::HasServer() const
{
    return true;
}

std::unique_ptr<UserRole>
LInferScheme::MakeUser(Session& session) const
{
    return std::make_unique<LInferDevice>(session, Parts());
}

std::unique_ptr<ServerRole>
LInferScheme::MakeServer(Session& session) const
{
    return std::make_unique<LInferEdge>(session, Parts());
}

Footprint
LInferScheme::UserFootprint() const
{
    const ModelConfig& config = Parts().model->Config();
    return {EmbeddingBytes(config) + HeadBytes(config), AdapterBytes()};
}

Footprint
LInferScheme::ServerFootprint() const
{
    const ModelConfig& config = Parts().model->Config();
    return {LayerBytes(config, config.layers), 0};
}

} // namespace splitllm
