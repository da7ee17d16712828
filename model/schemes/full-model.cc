// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/full-model.h"

namespace splitllm
{

RequestCache::RequestCache(Session& session, const ResidentModel& model)
    : RequestCache(session, model, 0, model.Config().layers)
{
}

RequestCache::RequestCache(Session& session, const ResidentModel& model, std::size_t first, std::size_t last)
    : m_cache(session.host.backend->NewCache(model, first, last, model.Config().maxPositions)),
      m_bytesPerEntry(model.Config().KvBytesPerLayer(model.Activations())),
      m_memory(session.host.memory, MemoryUse::Kv, 0)
{
}

void
RequestCache::Reserve(std::size_t rows)
{
    m_memory.Resize(m_memory.Bytes() + BytesOf(rows));
}

std::uint64_t
RequestCache::BytesOf(std::size_t rows) const
{
    return rows * (m_cache->Last() - m_cache->First()) * m_bytesPerEntry;
}

std::uint64_t
RequestCache::Bytes() const
{
    return m_memory.Bytes();
}

void
RequestCache::ReserveLayer(std::size_t rows)
{
    m_memory.Resize(m_memory.Bytes() + rows * m_bytesPerEntry);
}

void
RequestCache::Release(std::size_t entries)
{
    m_memory.Resize(m_memory.Bytes() - entries * m_bytesPerEntry);
}

std::size_t
RequestCache::Position() const
{
    return m_cache->Position(m_cache->Last() - 1);
}

Task<Tensor>
RunLayers(Session& s, const ResidentModel& model, Tensor h, KvCache& cache)
{
    Backend& backend = *s.host.backend;
    for (std::size_t l = cache.First(); l < cache.Last(); l++)
    {
        const Projections qkv = co_await s.Run(model, backend.Project(model, l, h), l + 1);
        h = co_await s.Run(model, backend.FinishLayer(model, l, h, qkv, cache), l + 1);
    }
    co_return h;
}

std::uint64_t
LongestKvBytes(const SchemeParts& parts, std::size_t layers)
{
    const ModelConfig& config = parts.model->Config();
    return parts.Positions() * layers * config.KvBytesPerLayer(parts.model->Activations());
}

Task<TokenId>
NextToken(Session& s, const SchemeParts& parts, std::size_t position, Tensor hL)
{
    Backend& backend = *s.host.backend;
    const Tensor logits = co_await s.Run(*parts.model, backend.Head(*parts.model, hL));
    s.ReportLogits(position, logits.Values());
    const double uniform = parts.sampling.temperature > 0.0 ? s.uniform(Draw::Sample) : 0.0;
    co_return co_await s.Run(*parts.model, backend.Sample(logits, parts.sampling, uniform));
}

FullModel::FullModel(Session& session, const SchemeParts& parts, double keep)
    : m_session(session),
      m_parts(parts),
      m_keep(keep)
{
}

Task<TokenId>
FullModel::Step(std::span<const TokenId> tokens)
{
    Session& s = m_session;
    const ResidentModel& model = *m_parts.model;
    Backend& backend = *s.host.backend;
    const bool prunes = m_keep < 1.0;
    if (!m_cache)
    {
        m_admission = co_await s.Admit(LongestKvBytes(m_parts, model.Config().layers));
        m_cache = std::make_unique<RequestCache>(s, model);
        if (prunes)
        {
            m_cache->Cache().TrackAttention();
        }
    }
    const std::size_t position = m_cache->Position();

    Tensor h = co_await s.Run(model, backend.Embed(model, tokens, position));
    for (std::size_t l = 0; l < model.Config().layers; l++)
    {
        Projections qkv = co_await s.Run(model, backend.Project(model, l, h), l + 1);
        if (m_parts.adapter)
        {
            Deltas deltas = co_await s.Run(model, backend.Adapt(*m_parts.adapter, l, qkv.input), l + 1);
            qkv = co_await s.Run(model, backend.Merge(std::move(qkv), deltas), l + 1);
        }
        m_cache->ReserveLayer(tokens.size());
        h = co_await FinishLayer(l, std::move(h), std::move(qkv));
        if (prunes)
        {
            const std::size_t dropped = co_await s.Run(model, backend.Prune(m_cache->Cache(), l, m_keep), l + 1);
            m_cache->Release(dropped);
        }
    }
    co_return co_await NextToken(s, m_parts, position + tokens.size() - 1, h.Slice(h.Rows() - 1, 1));
}

Task<Tensor>
FullModel::FinishLayer(std::size_t l, Tensor h, Projections qkv)
{
    Session& s = m_session;
    const ResidentModel& model = *m_parts.model;
    Backend& backend = *s.host.backend;
    if (!m_parts.bottleneck)
    {
        co_return co_await s.Run(model, backend.FinishLayer(model, l, h, qkv, m_cache->Cache()), l + 1);
    }
    Tensor attended = co_await s.Run(model, backend.Attend(model, l, qkv, m_cache->Cache()), l + 1);
    h = co_await Adapted(l, Sublayer::Attention, std::move(h), std::move(attended));
    Tensor mlp = co_await s.Run(model, backend.FeedForward(model, l, h), l + 1);
    co_return co_await Adapted(l, Sublayer::Mlp, std::move(h), std::move(mlp));
}

Task<Tensor>
FullModel::Adapted(std::size_t l, Sublayer sublayer, Tensor h, Tensor output)
{
    Session& s = m_session;
    const ResidentModel& model = *m_parts.model;
    Backend& backend = *s.host.backend;
    const Tensor added =
        co_await s.Run(model, backend.Bottleneck(*m_parts.bottleneck, l, sublayer, output), l + 1);
    output = co_await s.Run(model, backend.Combine(std::move(output), added), l + 1);
    co_return co_await s.Run(model, backend.Combine(std::move(h), output), l + 1);
}

void
FullModel::Reset()
{
    m_cache.reset();
    m_admission = {};
}

std::size_t
FullModel::Position() const
{
    return m_cache ? m_cache->Position() : 0;
}

} // namespace splitllm
