// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_FULL_MODEL_H
#define SPLITLLM_FULL_MODEL_H

#include "schemes/scheme.h"
#include "schemes/session.h"

#include <memory>

namespace splitllm
{

/// The keys and values of one request on one host, with the memory that they take.
class RequestCache
{
  public:
    /// An empty cache for every layer of \p model.
    RequestCache(Session& session, const ResidentModel& model);

    /// An empty cache for layers [\p first, \p last), counted from 0, of \p model.
    RequestCache(Session& session, const ResidentModel& model, std::size_t first, std::size_t last);

    KvCache& Cache()
    {
        return *m_cache;
    }

    /// Makes room in the ledger for \p rows more positions of all its layers. \throws OutOfMemory
    void Reserve(std::size_t rows);

    /// Makes room in the ledger for \p rows more positions of one layer. \throws OutOfMemory
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
    std::unique_ptr<KvCache> m_cache;
    std::uint64_t m_bytesPerEntry; //!< of one layer
    Reservation m_memory;
};

/// The layers of \p cache for \p h, whose keys and values go there; room for them is reserved.
Task<Tensor> RunLayers(Session& session, const ResidentModel& model, Tensor h, KvCache& cache);

/// Bytes of keys and values of the longest request that \p parts allow, in \p layers layers.
std::uint64_t LongestKvBytes(const SchemeParts& parts, std::size_t layers);

/**
 * Head and sampling: the token that follows \p position of the sequence, counted from 0, whose final state is \p hL
 * (1 x d). Reports the logits.
 */
Task<TokenId> NextToken(Session& session, const SchemeParts& parts, std::size_t position, Tensor hL);

/// What a host does with the whole model: the steps that Server, Local and MLoRA share.
class FullModel
{
  public:
    /// \param keep share of the positions that each layer's cache keeps, in (0, 1]; where it is 1 nothing is pruned
    FullModel(Session& session, const SchemeParts& parts, double keep = 1.0);

    /// Embedding, all layers with the adapters, head and sampling: the token that follows \p tokens. The first step of a
    /// request waits until the host admits it.
    Task<TokenId> Step(std::span<const TokenId> tokens);

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
};

} // namespace splitllm

#endif // SPLITLLM_FULL_MODEL_H
