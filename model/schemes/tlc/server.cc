// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/tlc/server.h"

#include "codec/dense-codec.h"
#include "schemes/full-model.h"

namespace splitllm
{

namespace
{

/// Sends what the user typed, or the token generated last, and waits for the next one.
class ServerUser final : public UserRole
{
  public:
    ServerUser(Session& session, std::size_t vocab)
        : s(session),
          m_vocab(vocab)
    {
    }

    Task<std::optional<TokenId>> Step(std::span<const TokenId> tokens, std::size_t position) override
    {
        s.Send(MessageKind::Tokens, position, 0, EncodeTokens(tokens), DType::I32);
        co_return (co_await s.ReceiveTokens(MessageKind::NextToken, m_vocab)).front();
    }

    void EndRequest() override
    {
        s.Send(MessageKind::End, 0, 0, {}, DType::I32);
    }

  private:
    Session& s;
    std::size_t m_vocab;
};

class ServerServer final : public ServerRole
{
  public:
    ServerServer(Session& session, const SchemeParts& parts)
        : s(session),
          m_vocab(parts.model->Config().vocab),
          m_model(session, parts)
    {
    }

    Task<void> Serve() override
    {
        while (true)
        {
            const Message message = co_await s.ReceiveStep(MessageKind::Tokens, m_model.Position());
            if (message.kind == MessageKind::End)
            {
                m_model.Reset();
                continue;
            }
            const std::vector<TokenId> tokens = s.TokensIn(message, m_vocab);
            const TokenId next = (co_await m_model.Step(tokens)).front();
            s.Send(MessageKind::NextToken, m_model.Position(), 0, EncodeTokens({&next, 1}), DType::I32);
        }
    }

  private:
    Session& s;
    std::size_t m_vocab;
    FullModel m_model;
};

} // namespace

bool
ServerScheme::HasServer() const
{
    return true;
}

std::unique_ptr<UserRole>
ServerScheme::MakeUser(Session& session) const
{
    return std::make_unique<ServerUser>(session, Parts().model->Config().vocab);
}

std::unique_ptr<ServerRole>
ServerScheme::MakeServer(Session& session) const
{
    return std::make_unique<ServerServer>(session, Parts());
}

Footprint
ServerScheme::UserFootprint() const
{
    return {};
}

Footprint
ServerScheme::ServerFootprint() const
{
    return {ModelBytes(Parts().model->Config()), AdapterBytes()};
}

} // namespace splitllm
