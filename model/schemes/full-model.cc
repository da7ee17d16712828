// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/full-model.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace splitllm
{

RequestCache::RequestCache(Session& session, const ResidentModel& model)
    : RequestCache(session, model, 0, model.Config().layers)
{
}

RequestCache::RequestCache(Session& session, const ResidentModel& model, std::size_t first, std::size_t last)
    : m_bytesPerEntry(model.Config().KvBytesPerLayer(model.Activations())),
      m_memory(session.host.memory, MemoryUse::Kv, 0)
{
    m_caches.push_back(session.host.backend->NewCache(model, first, last, model.Config().maxPositions));
    m_views.push_back(m_caches.back().get());
}

Task<void>
RequestCache::Branch(Session& session, const ResidentModel& model, std::vector<std::size_t> parents)
{
    std::vector<std::unique_ptr<KvCache>> before = std::exchange(m_caches, {});
    for (std::size_t i = 0; i < before.size(); i++)
    {
        if (std::ranges::find(parents, i) == parents.end())
        {
            m_memory.Resize(m_memory.Bytes() - BytesOf(*before[i]));
            before[i].reset();
        }
    }
    std::vector<KvCache*> continued(before.size()); // where the cache of each hypothesis went
    for (const std::size_t parent : parents)
    {
        if (continued[parent] == nullptr)
        {
            m_caches.push_back(std::move(before[parent]));
            continued[parent] = m_caches.back().get();
            continue;
        }
        m_memory.Resize(m_memory.Bytes() + BytesOf(*continued[parent]));
        m_caches.push_back(co_await session.Run(model, session.host.backend->Fork(*continued[parent])));
    }
    m_views.clear();
    for (const std::unique_ptr<KvCache>& cache : m_caches)
    {
        m_views.push_back(cache.get());
    }
}

std::vector<std::size_t>
RequestCache::NextPositions(std::size_t rows) const
{
    std::vector<std::size_t> positions(rows, Position());
    if (m_caches.size() == 1)
    {
        std::iota(positions.begin(), positions.end(), Position());
    }
    return positions;
}

Tensor
RequestCache::Newest(const Tensor& states) const
{
    const std::size_t rows = m_caches.size();
    return states.Slice(states.Rows() - rows, rows);
}

std::uint64_t
RequestCache::BytesOf(const KvCache& cache) const
{
    std::uint64_t entries = 0;
    for (std::size_t layer = cache.First(); layer < cache.Last(); layer++)
    {
        entries += cache.Length(layer);
    }
    return entries * m_bytesPerEntry;
}

void
RequestCache::Reserve(std::size_t rows)
{
    m_memory.Resize(m_memory.Bytes() + BytesOf(rows));
}

std::uint64_t
RequestCache::BytesOf(std::size_t rows) const
{
    return rows * (m_caches.front()->Last() - m_caches.front()->First()) * m_bytesPerEntry;
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
    return m_caches.front()->Position(m_caches.front()->Last() - 1);
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
    const std::size_t hypotheses = std::max(std::size_t{1}, parts.sampling.beams);
    return hypotheses * parts.Positions() * layers * config.KvBytesPerLayer(parts.model->Activations());
}

FullModel::FullModel(Session& session, const SchemeParts& parts, double keep)
    : m_session(session),
      m_parts(parts),
      m_keep(keep),
      m_decoder(session, parts)
{
}

void
FullModel::Begin(const RequestLimits& limits, const Sampling& sampling)
{
    m_decoder.Begin(limits, sampling);
}

Task<std::vector<TokenId>>
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
    else
    {
        co_await m_cache->Branch(s, model, m_decoder.Parents());
    }
    tokens = m_decoder.Inputs(tokens);
    const std::vector<std::size_t> positions = m_cache->NextPositions(tokens.size());

    Tensor h = co_await s.Run(model, backend.Embed(model, tokens, positions));
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
        for (KvCache* cache : prunes ? m_cache->Caches() : std::span<KvCache* const>())
        {
            const std::size_t dropped = co_await s.Run(model, backend.Prune(*cache, l, m_keep), l + 1);
            m_cache->Release(dropped);
        }
    }
    co_return co_await m_decoder.Next(positions.back(), m_cache->Newest(h));
}

Task<Tensor>
FullModel::FinishLayer(std::size_t l, Tensor h, Projections qkv)
{
    Session& s = m_session;
    const ResidentModel& model = *m_parts.model;
    Backend& backend = *s.host.backend;
    if (!m_parts.bottleneck)
    {
        co_return co_await s.Run(model, backend.FinishLayer(model, l, h, qkv, m_cache->Caches()), l + 1);
    }
    Tensor attended = co_await s.Run(model, backend.Attend(model, l, qkv, m_cache->Caches()), l + 1);
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
