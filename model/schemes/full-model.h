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

    KvCache& Cache()
    {
        return *m_cache;
    }

    /// Makes room in the ledger for \p rows more positions. \throws OutOfMemory
    void Reserve(std::size_t rows);

    /// Positions held by every layer.
    std::size_t Length() const;

  private:
    const ModelConfig& m_config;
    std::unique_ptr<KvCache> m_cache;
    std::uint64_t m_bytesPerPosition;
    Reservation m_memory;
};

/**
 * Head and sampling: the token that follows the position whose final state is \p hL (1 x d). Reports the logits to
 * Session::onLogits.
 */
Task<TokenId> NextToken(Session& session, const SchemeParts& parts, Tensor hL);

/// What a host does with the whole model: the steps that Server and Local share.
class FullModel
{
  public:
    FullModel(Session& session, const SchemeParts& parts);

    /// Embedding, all layers with the adapter, head and sampling: the token that follows \p tokens.
    Task<TokenId> Step(std::span<const TokenId> tokens);

    /// Drops the request's keys and values.
    void Reset();

    /// Positions consumed by the request so far.
    std::size_t Position() const;

  private:
    Session& m_session;
    const SchemeParts& m_parts;
    std::unique_ptr<RequestCache> m_cache;
};

} // namespace splitllm

#endif // SPLITLLM_FULL_MODEL_H
