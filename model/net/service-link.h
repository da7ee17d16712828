// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SERVICE_LINK_H
#define SPLITLLM_SERVICE_LINK_H

#include "net/message-port.h"

#include "ns3/data-rate.h"
#include "ns3/nstime.h"

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>

namespace splitllm
{

/// What a message of one kind costs on a service link, where it differs from the link's own figures.
struct ServiceCost
{
    std::optional<ns3::Time> startup;
    std::optional<std::uint64_t> payloadBytes; //!< takes the time of this many bytes, whatever it carries
};

/// The figures of a service link.
struct ServiceLinkConfig
{
    ns3::DataRate rate;
    ns3::Time delay;   //!< one way, after the last byte left
    ns3::Time startup; //!< before the first byte of every message
    std::map<MessageKind, ServiceCost> kinds;
};

/**
 * A calibrated ideal link: a message of n payload bytes occupies its direction for startup + 8 n / rate and arrives a
 * delay later. Header bytes are counted, not charged. The message crosses as the bytes of one packet.
 *
 * Papers report communication this way: a fixed cost a message and a rate.
 */
class ServiceLink
{
  public:
    /// \throws std::invalid_argument for a rate of zero
    explicit ServiceLink(ServiceLinkConfig config);
    ~ServiceLink();
    ServiceLink(const ServiceLink&) = delete;
    ServiceLink& operator=(const ServiceLink&) = delete;

    /// The end that sends in \p direction. Each end is handed out once; the link must outlive the simulation.
    std::unique_ptr<MessagePort> End(Direction direction);

    /// How long a message occupies the link, rounded up to a nanosecond.
    ns3::Time ServiceTime(MessageKind kind, std::uint64_t payloadBytes) const;

    /// Header and payload bytes that \p direction carried so far.
    std::uint64_t BytesSent(Direction direction) const;

  private:
    class Port;

    ServiceLinkConfig m_config;
    std::array<Port*, kDirections> m_ends{}; //!< by the direction they send in
    std::array<ns3::Time, kDirections> m_freeAt{};
    std::array<std::uint64_t, kDirections> m_bytes{};
};

} // namespace splitllm

#endif // SPLITLLM_SERVICE_LINK_H
