// SPDX-License-Identifier: GPL-2.0-only
#include "net/stop-and-wait.h"

#include "base/deterministic-math.h"
#include "net/transmission-time.h"

#include "ns3/simulator.h"

#include <stdexcept>

namespace splitllm
{

using namespace ns3;

BlockFading::BlockFading(const RayleighChannel& channel, Time coherence)
    : m_channel(channel),
      m_coherence(coherence),
      m_uniform(CreateObject<UniformRandomVariable>())
{
    ThresholdSnr(channel, 0.0); // checks the channel
}

double
BlockFading::Snr()
{
    const std::int64_t block =
        m_coherence.IsZero() ? -1 : Simulator::Now().GetNanoSeconds() / m_coherence.GetNanoSeconds();
    if (block == -1 || block != m_block)
    {
        m_block = block;
        // The inverse of the distribution function; ns-3's exponential variate goes through libm.
        m_snr = -m_channel.snr * deterministic::Log(1.0 - m_uniform->GetValue(0.0, 1.0));
    }
    return m_snr;
}

bool
BlockFading::Carries(double snr, DataRate rate) const
{
    return snr >= ThresholdSnr(m_channel, static_cast<double>(rate.GetBitRate()));
}

void
BlockFading::SetStream(std::int64_t stream)
{
    m_uniform->SetStream(stream);
}

StopAndWait::~StopAndWait()
{
    m_event.Cancel();
}

void
StopAndWait::Send(std::uint64_t bytes, BlockFading& fading, const StopAndWaitConfig& config)
{
    if (m_busy)
    {
        throw std::logic_error("stop-and-wait sends one frame at a time");
    }
    m_config = config;
    m_fading = &fading;
    m_bytes = bytes;
    m_number = 0;
    m_givenUp = false;
    Attempt();
}

void
StopAndWait::Resend()
{
    Attempt();
}

void
StopAndWait::GiveUp()
{
    m_givenUp = true;
}

void
StopAndWait::Cancel()
{
    m_event.Cancel();
    m_busy = false;
}

bool
StopAndWait::IsBusy() const
{
    return m_busy;
}

void
StopAndWait::Attempt()
{
    m_busy = true;
    m_number++;
    const Time start = Simulator::Now();
    const Time duration = TransmissionTime(m_bytes, m_config.rate);
    const double snr = m_fading->Snr();
    const AttemptRecord record{.start = start,
                               .end = start + duration,
                               .bytes = m_bytes,
                               .number = m_number,
                               .snr = snr,
                               .success = m_fading->Carries(snr, m_config.rate)};
    m_event = Simulator::Schedule(duration, [this, record] { Finish(record); });
}

void
StopAndWait::Finish(const AttemptRecord& record)
{
    m_event = Simulator::Schedule(m_config.feedback, [this, success = record.success] { Feedback(success); });
    if (onAttempt)
    {
        onAttempt(record);
    }
    if (record.success)
    {
        onDelivered();
    }
}

void
StopAndWait::Feedback(bool success)
{
    if (!success && !m_givenUp && m_number % m_config.attempts != 0)
    {
        Attempt();
        return;
    }
    m_busy = false;
    onDone(success);
}

} // namespace splitllm
