// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/tlc/local.h"

#include "schemes/full-model.h"

namespace splitllm
{

namespace
{

class LocalUser final : public UserRole
{
  public:
    LocalUser(Session& session, const SchemeParts& parts)
        : m_model(session, parts)
    {
    }

    Task<TokenId> Step(std::span<const TokenId> tokens, std::size_t /* position */) override
    {
        return m_model.Step(tokens);
    }

    void EndRequest() override
    {
        m_model.Reset();
    }

  private:
    FullModel m_model;
};

} // namespace

bool
LocalScheme::HasServer() const
{
    return false;
}

std::unique_ptr<UserRole>
LocalScheme::MakeUser(Session& session) const
{
    return std::make_unique<LocalUser>(session, Parts());
}

std::unique_ptr<ServerRole>
LocalScheme::MakeServer(Session& /* session */) const
{
    return nullptr;
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
