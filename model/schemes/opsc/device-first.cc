// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/opsc/device-first.h"

#include "schemes/full-model.h"
#include "schemes/opsc/opsc-options.h"
#include "schemes/tlc/server.h"

#include <utility>

namespace splitllm
{

namespace
{

class Device final : public UserRole
{
  public:
    Device(Session& session, const SchemeParts& parts, std::uint32_t tokens, std::unique_ptr<UserRole> cloud)
        : m_model(session, parts),
          m_tokens(tokens),
          m_cloud(std::move(cloud))
    {
    }

    Task<std::optional<TokenId>> Step(std::span<const TokenId> tokens, std::size_t position) override
    {
        m_history.insert(m_history.end(), tokens.begin(), tokens.end());
        if (m_generated < m_tokens)
        {
            m_generated++;
            co_return (co_await m_model.Step(tokens)).front();
        }
        if (!m_handedOver)
        {
            m_handedOver = true;
            m_model.Reset();
            co_return co_await m_cloud->Step(m_history, 0);
        }
        co_return co_await m_cloud->Step(tokens, position);
    }

    void EndRequest() override
    {
        if (std::exchange(m_handedOver, false))
        {
            m_cloud->EndRequest();
        }
        m_model.Reset();
        m_history.clear();
        m_generated = 0;
    }

  private:
    FullModel m_model;
    std::uint32_t m_tokens; //!< W
    std::unique_ptr<UserRole> m_cloud;
    std::vector<TokenId> m_history; //!< what the request consumed so far
    std::uint32_t m_generated = 0;  //!< by the device
    bool m_handedOver = false;
};

} // namespace

OpscDeviceFirstScheme::OpscDeviceFirstScheme(SchemeParts parts, OpscOptions options)
    : Scheme(std::move(parts)),
      m_deviceParts(Parts()),
      m_options(std::move(options)),
      m_cloud(std::make_shared<ServerScheme>(Parts()))
{
    CheckOpsc(m_options, Parts().model->Config(), Parts().adapter != nullptr);
    if (m_options.device)
    {
        m_deviceParts.model = m_options.device;
    }
}

bool
OpscDeviceFirstScheme::HasServer() const
{
    return true;
}

std::unique_ptr<UserRole>
OpscDeviceFirstScheme::MakeUser(Session& session) const
{
    return std::make_unique<Device>(session, m_deviceParts, m_options.deviceTokens, m_cloud->MakeUser(session));
}

std::unique_ptr<ServerRole>
OpscDeviceFirstScheme::MakeServer(Session& session) const
{
    return m_cloud->MakeServer(session);
}

Footprint
OpscDeviceFirstScheme::UserFootprint() const
{
    const ResidentModel& model = *m_deviceParts.model;
    const ModelConfig& config = model.Config();
    return {EmbeddingBytes(config) + LayerBytes(config, model.Precision(), 0, config.layers).Total() + HeadBytes(config),
            0};
}

Footprint
OpscDeviceFirstScheme::ServerFootprint() const
{
    return m_cloud->ServerFootprint();
}

} // namespace splitllm
