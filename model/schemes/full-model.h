// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_FULL_MODEL_H
#define SPLITLLM_FULL_MODEL_H

#include "schemes/decoder.h"
#include "schemes/scheme.h"
#include "schemes/session.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace splitllm
{

/**
 * The keys and values of one request on one host, with the memory that they take: a cache for each hypothesis of a beam
 * search, one without.
 */
class RequestCache
{
  public:
    /// An empty cache for every layer of \p model.
    RequestCache(Session& session, const ResidentModel& model);

    /// An empty cache for layers [\p first, \p last), counted from 0, of \p model.
    RequestCache(Session& session, const ResidentModel& model, std::size_t first, std::size_t last);

    /// The cache, where there is one.
    KvCache& Cache()
    {
        return *m_caches.front();
    }

    /// Those of all hypotheses.
    std::span<KvCache* const> Caches() const
    {
        return m_views;
    }

    /**
     * Hypothesis i goes on from what hypothesis \p parents[i] was: the first of those that have the same parent takes
     * its cache, the others take copies; what nobody goes on from is dropped before. \throws OutOfMemory
     */
    Task<void> Branch(Session& session, const ResidentModel& model, std::vector<std::size_t> parents);

    /// Positions of the next \p rows rows: of one cache, or of one cache each.
    std::vector<std::size_t> NextPositions(std::size_t rows) const;

    /// The rows of \p states that the next token follows: the last one of one cache, or that of each.
    Tensor Newest(const Tensor& states) const;

    /// Makes room in the ledger for \p rows more entries in all its layers. \throws OutOfMemory
    void Reserve(std::size_t rows);

    /// Makes room in the ledger for \p rows more entries in one layer. \throws OutOfMemory
    void ReserveLayer(std::size_t rows);

    /// Gives back the memory of \p entries that were dropped from one layer.
    void Release(std::size_t entries);

    /// Positions consumed by the last layer.
    std::size_t Position() const;

    /// What \p rows positions of all its layers take.
    std::uint64_t BytesOf(std::size_t rows) const;

    /// What is reserved.
    std::uint64_t Bytes() const;

  private:
    std::uint64_t BytesOf(const KvCache& cache) const;

    std::vector<std::unique_ptr<KvCache>> m_caches;
    std::vector<KvCache*> m_views; //!< of m_caches
    std::uint64_t m_bytesPerEntry; //!< of one layer
    Reservation m_memory;
};

/// The layers of \p cache for \p h, whose keys and values go there; room for them is reserved.
Task<Tensor> RunLayers(Session& session, const ResidentModel& model, Tensor h, KvCache& cache);

/// Bytes of keys and values of the longest request that \p parts allow, in \p layers layers and for all hypotheses of a
/// beam search.
std::uint64_t LongestKvBytes(const SchemeParts& parts, std::size_t layers);

/// What a host does with the whole model: the steps that Server, Local and MLoRA share.
class FullModel
{
  public:
    /// \param keep share of the positions that each layer's cache keeps, in (0, 1]; where it is 1 nothing is pruned
    FullModel(Session& session, const SchemeParts& parts, double keep = 1.0);

    /// A request begins, whose answer is to be as \p limits say, with at most the beams of the scheme.
    void Begin(const RequestLimits& limits, const Sampling& sampling);

    /**
     * Embedding, all layers with the adapters, head and the choice of the next token. The first step of a request waits
     * until the host admits it.
     * \param tokens the prompt; then the token that it goes on with, unless a beam search goes on with its own
     * \return what Decoder::Next returns
     */
    Task<std::vector<TokenId>> Step(std::span<const TokenId> tokens);

    /// What the tokens are chosen with.
    const Decoder& Choice() const
    {
        return m_decoder;
    }

    /// Drops the request's keys and values, and makes room for another one.
    void Reset();

    /// Positions consumed by the request so far.
    std::size_t Position() const;

  private:
    /// The rest of layer \p l, counted from 0, with the bottleneck adapters where there are any.
    Task<Tensor> FinishLayer(std::size_t l, Tensor h, Projections qkv);

    /// \p h with the output of one of its sublayers and what the adapter adds to that.
    Task<Tensor> Adapted(std::size_t l, Sublayer sublayer, Tensor h, Tensor output);

    Session& m_session;
    const SchemeParts& m_parts;
    double m_keep;
    ByteSemaphore::Ticket m_admission; //!< of the request
    std::unique_ptr<RequestCache> m_cache;
    Decoder m_decoder;
};

} // namespace splitllm

#endif // SPLITLLM_FULL_MODEL_H
