// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/tlc/local.h"

#include "base/input-error.h"
#include "schemes/full-model.h"

#include <string>
#include <utility>

namespace splitllm
{

namespace
{

class LocalUser final : public UserRole
{
  public:
    LocalUser(Session& session, const SchemeParts& parts, double keep)
        : m_sampling(parts.sampling),
          m_model(session, parts, keep)
    {
    }

    void BeginRequest(const RequestLimits& limits) override
    {
        m_model.Begin(limits, m_sampling);
    }

    Task<std::optional<TokenId>> Step(std::span<const TokenId> tokens, std::size_t /* position */) override
    {
        co_return (co_await m_model.Step(tokens)).front();
    }

    std::optional<std::vector<TokenId>> Answer() const override
    {
        return m_model.Choice().Answer();
    }

    void EndRequest() override
    {
        m_model.Reset();
    }

  private:
    Sampling m_sampling;
    FullModel m_model;
};

} // namespace

LocalScheme::LocalScheme(SchemeParts parts, double keep)
    : Scheme(std::move(parts)),
      m_keep(keep)
{
    if (!(keep > 0.0 && keep <= 1.0))
    {
        throw InputError("scheme \"mlora\" keeps " + std::to_string(keep) +
                         " of the KV cache; accepted: a share above 0 and at most 1");
    }
}

bool
LocalScheme::HasServer() const
{
    return false;
}

std::unique_ptr<UserRole>
LocalScheme::MakeUser(Session& session) const
{
    return std::make_unique<LocalUser>(session, Parts(), m_keep);
}

Footprint
LocalScheme::UserFootprint() const
{
    return {ModelBytes(Parts().model->Config()), AdapterBytes()};
}

Footprint
LocalScheme::ServerFootprint() const
{
    return {};
}

} // namespace splitllm
