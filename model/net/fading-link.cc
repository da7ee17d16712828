// SPDX-License-Identifier: GPL-2.0-only
#include "net/fading-link.h"

#include "net/transmission-time.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace splitllm
{

using namespace ns3;

namespace
{

constexpr double kLongest = 1e18; // nanoseconds, 31 years: a bound that sums of such times do not overflow

constexpr double kNewest = 0.125; // weight of an attempt's SNR in what the sender knows of the mean

} // namespace

FadingLink::FadingLink(const FadingLinkConfig& config)
    : MessageLink(config.delay),
      m_config(config),
      m_fading{BlockFading(config.channel, config.coherence), BlockFading(config.channel, config.coherence)}
{
    if (m_config.arq.rate.GetBitRate() == 0 || m_config.arq.attempts == 0)
    {
        throw std::invalid_argument("a fading link needs a rate and a number of attempts above zero");
    }
    m_snr.fill(m_config.channel.snr);
    WorstAttempts(0); // which refuses an epsilon that is none
    for (const Direction direction : {Direction::Up, Direction::Down})
    {
        StopAndWait& arq = m_arq[static_cast<std::size_t>(direction)];
        arq.onAttempt = [this, direction](const AttemptRecord& record) { CountAttempt(direction, record); };
        arq.onDelivered = [this, direction] { Depart(direction); };
        arq.onDone = [this, direction](bool delivered) { HandleDone(direction, delivered); };
    }
}

FadingLink::~FadingLink() = default;

bool
FadingLink::LeavesAtOnce(Direction, const Queued& message) const
{
    return message.payloadBytes == 0;
}

void
FadingLink::Begin(Direction direction, const Queued& message)
{
    const auto index = static_cast<std::size_t>(direction);
    m_arq[index].Send(message.payloadBytes, m_fading[index], m_config.arq);
}

void
FadingLink::GiveUp(Direction direction)
{
    m_arq[static_cast<std::size_t>(direction)].GiveUp();
}

void
FadingLink::CountAttempt(Direction direction, const AttemptRecord& record)
{
    CountBytes(direction);
    if (m_config.measuresSnr)
    {
        double& known = m_snr[static_cast<std::size_t>(direction)];
        known += (record.snr - known) * kNewest;
    }
    if (onAttempt)
    {
        onAttempt(direction, record);
    }
}

void
FadingLink::HandleDone(Direction direction, bool delivered)
{
    const Queued& message = Queue(direction).front();
    if (delivered || message.sender == nullptr)
    {
        Finish(direction);
    }
    else if (m_config.onLoss == OnLoss::Resend)
    {
        m_arq[static_cast<std::size_t>(direction)].Resend();
    }
    else
    {
        Lose(direction,
             "message " + std::to_string(message.sequence) + " lost after " + std::to_string(m_config.arq.attempts) +
                 " attempts");
    }
}

/// Eq 9 for this message and all that wait before it, and the feedback between attempts.
std::optional<Time>
FadingLink::WorstArrival(Direction direction, MessageKind, std::uint64_t payloadBytes) const
{
    const double attempts = WorstAttempts(static_cast<std::size_t>(direction));
    const auto worst = [&](std::uint64_t bytes) {
        const Time attempt = TransmissionTime(bytes, m_config.arq.rate) + m_config.arq.feedback;
        return bytes > 0 ? attempts * static_cast<double>(attempt.GetNanoSeconds()) : 0.0;
    };
    double nanoseconds = worst(payloadBytes);
    if (payloadBytes > 0)
    {
        nanoseconds -= static_cast<double>(m_config.arq.feedback.GetNanoSeconds()); // after its last attempt
    }
    for (const Queued& message : Queue(direction))
    {
        nanoseconds += worst(message.payloadBytes);
    }
    return NanoSeconds(static_cast<std::int64_t>(std::min(nanoseconds, kLongest))) + Delay();
}

double
FadingLink::WorstAttempts(std::size_t direction) const
{
    const RayleighChannel channel{m_config.channel.bandwidth, m_snr[direction]};
    const auto rate = static_cast<double>(m_config.arq.rate.GetBitRate());
    return static_cast<double>(OutageAttempts(channel, rate, m_config.epsilon));
}

std::int64_t
FadingLink::AssignStreams(std::int64_t stream)
{
    for (BlockFading& fading : m_fading)
    {
        fading.SetStream(stream++);
    }
    return kDirections;
}

} // namespace splitllm
