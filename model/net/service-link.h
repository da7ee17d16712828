// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SERVICE_LINK_H
#define SPLITLLM_SERVICE_LINK_H

#include "net/message-link.h"
#include "net/outage-schedule.h"

#include "ns3/data-rate.h"
#include "ns3/event-id.h"
#include "ns3/nstime.h"

#include <array>
#include <cstdint>
#include <map>
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
    OutageSchedule outages{}; //!< in which nothing leaves
};

/**
 * A calibrated ideal link: a message of n payload bytes occupies its direction for startup + 8 n / rate and arrives a
 * delay later. Header bytes are counted, not charged. The message crosses as the bytes of one packet. In an outage the
 * link stands still: a message that had begun goes on afterwards, and what has left arrives.
 *
 * Papers report communication this way: a fixed cost a message and a rate.
 */
class ServiceLink final : public MessageLink
{
  public:
    /// \throws std::invalid_argument for a rate of zero
    explicit ServiceLink(ServiceLinkConfig config);
    ~ServiceLink() override;

    /// How long a message occupies the link, rounded up to a nanosecond.
    ns3::Time ServiceTime(MessageKind kind, std::uint64_t payloadBytes) const;

  private:
    bool LeavesAtOnce(Direction direction, const Queued& message) const override;
    void Begin(Direction direction, const Queued& message) override;
    void GiveUp(Direction direction) override;
    std::optional<ns3::Time> WorstArrival(Direction direction,
                                          MessageKind kind,
                                          std::uint64_t payloadBytes) const override;

    ServiceLinkConfig m_config;
    std::array<ns3::Time, kDirections> m_begun{}; //!< with the first message
    std::array<ns3::EventId, kDirections> m_ends;
};

} // namespace splitllm

#endif // SPLITLLM_SERVICE_LINK_H
