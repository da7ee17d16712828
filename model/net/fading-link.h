// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_FADING_LINK_H
#define SPLITLLM_FADING_LINK_H

#include "net/message-link.h"
#include "net/stop-and-wait.h"

#include <array>
#include <cstdint>
#include <functional>
#include <optional>

namespace splitllm
{

/// What becomes of a message when N attempts have failed.
enum class OnLoss
{
    Resend, //!< the sender starts another N attempts
    Fail,   //!< the connection is lost
};

/// The figures of a fading link.
struct FadingLinkConfig
{
    RayleighChannel channel;
    ns3::Time coherence;
    StopAndWaitConfig arq;
    ns3::Time delay; //!< one way, after the last byte left
    OnLoss onLoss = OnLoss::Resend;
    double epsilon = 1e-3; //!< outage target: what WorstArrival leaves out of account
    bool measuresSnr = false; //!< WorstArrival goes by the SNRs of the sender's attempts so far; otherwise by the mean
};

/**
 * Messages sent whole over a channel with Rayleigh block fading, without TCP and IP: what OPSC's outage model describes.
 *
 * Each attempt at a message takes the time of its payload bytes at rate R; header bytes are counted, not charged. So a
 * message without payload takes no time, is not subject to fading, and waits for nothing but the messages before it. The
 * two directions fade independently and do not disturb each other. Messages keep their order.
 */
class FadingLink final : public MessageLink
{
  public:
    /// \throws std::invalid_argument for a bandwidth, mean SNR, rate or number of attempts that is not above 0, and for an
    /// outage target outside (0, 1)
    explicit FadingLink(const FadingLinkConfig& config);
    ~FadingLink() override;

    /// Up fades by \p stream, down by the next one. \return 2
    std::int64_t AssignStreams(std::int64_t stream);

    /// Called at the end of each attempt.
    std::function<void(Direction, const AttemptRecord&)> onAttempt;

  private:
    bool LeavesAtOnce(Direction direction, const Queued& message) const override;
    void Begin(Direction direction, const Queued& message) override;
    void GiveUp(Direction direction) override;
    std::optional<ns3::Time> WorstArrival(Direction direction,
                                          MessageKind kind,
                                          std::uint64_t payloadBytes) const override;

    void CountAttempt(Direction direction, const AttemptRecord& record);
    void HandleDone(Direction direction, bool delivered);

    /// Attempts that all but epsilon of the messages in \p direction need at most, as far as its sender knows.
    double WorstAttempts(std::size_t direction) const;

    FadingLinkConfig m_config;
    std::array<BlockFading, kDirections> m_fading;
    std::array<StopAndWait, kDirections> m_arq;
    std::array<double, kDirections> m_snr; //!< mean, as known to the sender
};

} // namespace splitllm

#endif // SPLITLLM_FADING_LINK_H
