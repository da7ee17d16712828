// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_FADING_LINK_H
#define SPLITLLM_FADING_LINK_H

#include "net/message-port.h"
#include "net/stop-and-wait.h"

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

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
class FadingLink
{
  public:
    /// \throws std::invalid_argument for a bandwidth, mean SNR, rate or number of attempts that is not above 0, and for an
    /// outage target outside (0, 1)
    explicit FadingLink(const FadingLinkConfig& config);
    ~FadingLink();
    FadingLink(const FadingLink&) = delete;
    FadingLink& operator=(const FadingLink&) = delete;

    /// The end that sends in \p direction. Each end is handed out once; the link must outlive the simulation.
    std::unique_ptr<MessagePort> End(Direction direction);

    /// Up fades by \p stream, down by the next one. \return 2
    std::int64_t AssignStreams(std::int64_t stream);

    /// Header and payload bytes that \p direction carried so far, of every attempt.
    std::uint64_t BytesSent(Direction direction) const;

    /// Called at the end of each attempt.
    std::function<void(Direction, const AttemptRecord&)> onAttempt;

  private:
    class Port;

    FadingLinkConfig m_config;
    std::array<BlockFading, kDirections> m_fading;
    std::array<Port*, kDirections> m_ends{}; //!< by the direction they send in
    std::array<std::uint64_t, kDirections> m_bytes{};
    /// Attempts that all but epsilon of the messages in \p direction need at most, as far as its sender knows.
    double WorstAttempts(std::size_t direction) const;

    std::array<double, kDirections> m_snr; //!< mean, as known to the sender
};

} // namespace splitllm

#endif // SPLITLLM_FADING_LINK_H
