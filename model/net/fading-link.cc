// SPDX-License-Identifier: GPL-2.0-only
#include "net/fading-link.h"

#include "net/transmission-time.h"

#include "ns3/event-id.h"
#include "ns3/simulator.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

namespace splitllm
{

using namespace ns3;

namespace
{

constexpr double kLongest = 1e18; // nanoseconds, 31 years: a bound that sums of such times do not overflow

constexpr double kNewest = 0.125;  // weight of an attempt's SNR in what the sender knows of the mean

} // namespace

/// One end of a fading link.
class FadingLink::Port final : public MessagePort
{
  public:
    Port(FadingLink& link, Direction sends)
        : MessagePort(sends),
          m_link(link),
          m_reader(std::numeric_limits<std::uint32_t>::max())
    {
        m_arq.onAttempt = [this](const AttemptRecord& record) { CountAttempt(record); };
        m_arq.onDelivered = [this] { Depart(m_unsent.front().packet); };
        m_arq.onDone = [this](bool delivered) { HandleDone(delivered); };
        Open();
    }

    ~Port() override
    {
        m_link.m_ends[Index()] = nullptr;
        for (EventId& event : m_departures)
        {
            event.Cancel();
        }
    }

    void Close() override
    {
        m_closing = true;
        SendNext();
    }

    void Abandon() override
    {
        // Not one of this port's departures, which end with it.
        Simulator::Schedule(m_link.m_config.delay, [&link = m_link, peer = 1 - Index()] {
            if (link.m_ends[peer] != nullptr)
            {
                link.m_ends[peer]->EndReceiving();
            }
        });
    }

    /// Eq 9 for this message and all that wait before it, and the feedback between attempts.
    std::optional<Time> WorstArrival(MessageKind, std::uint64_t payloadBytes) const override
    {
        const FadingLinkConfig& config = m_link.m_config;
        const double attempts = m_link.WorstAttempts(Index());
        const auto worst = [&](std::uint64_t bytes) {
            const Time attempt = TransmissionTime(bytes, config.arq.rate) + config.arq.feedback;
            return bytes > 0 ? attempts * static_cast<double>(attempt.GetNanoSeconds()) : 0.0;
        };
        double nanoseconds = worst(payloadBytes);
        if (payloadBytes > 0)
        {
            nanoseconds -= static_cast<double>(config.arq.feedback.GetNanoSeconds()); // after its last attempt
        }
        for (const Unsent& unsent : m_unsent)
        {
            nanoseconds += worst(unsent.payloadBytes);
        }
        return NanoSeconds(static_cast<std::int64_t>(std::min(nanoseconds, kLongest))) + config.delay;
    }

  protected:
    void Transmit(const Message& message) override
    {
        m_unsent.push_back({ToPacket(message), message.payload.size, message.sequence});
        SendNext();
    }

  private:
    struct Unsent
    {
        Ptr<Packet> packet;
        std::uint64_t payloadBytes;
        std::uint32_t sequence;
    };

    std::size_t Index() const
    {
        return static_cast<std::size_t>(Sends());
    }

    /// Starts on the first message that waits, if none is under way. What has no payload departs at once.
    void SendNext()
    {
        while (!m_unsent.empty() && !m_arq.IsBusy())
        {
            const Unsent& next = m_unsent.front();
            if (next.payloadBytes > 0)
            {
                m_arq.Send(next.payloadBytes, m_link.m_fading[Index()], m_link.m_config.arq);
                return;
            }
            m_link.m_bytes[Index()] += next.packet->GetSize();
            Depart(next.packet);
            m_unsent.pop_front();
        }
        if (m_closing && m_unsent.empty())
        {
            m_closing = false;
            AtPeer([](Port& peer) { peer.EndReceiving(); });
        }
    }

    void CountAttempt(const AttemptRecord& record)
    {
        m_link.m_bytes[Index()] += m_unsent.front().packet->GetSize();
        if (m_link.m_config.measuresSnr)
        {
            double& known = m_link.m_snr[Index()];
            known += (record.snr - known) * kNewest;
        }
        if (m_link.onAttempt)
        {
            m_link.onAttempt(Sends(), record);
        }
    }

    void Depart(Ptr<Packet> packet)
    {
        AtPeer([packet](Port& peer) {
            if (!peer.HasFailed())
            {
                peer.DeliverPacket(peer.m_reader, packet);
            }
        });
    }

    void HandleDone(bool delivered)
    {
        if (!delivered && m_link.m_config.onLoss == OnLoss::Resend)
        {
            m_arq.Resend();
            return;
        }
        if (!delivered)
        {
            const std::string reason = "message " + std::to_string(m_unsent.front().sequence) + " lost after " +
                                       std::to_string(m_link.m_config.arq.attempts) + " attempts";
            AtPeer([reason](Port& peer) { peer.Break(reason); });
            Break(reason);
            return;
        }
        m_unsent.pop_front();
        SendNext();
    }

    void Break(const std::string& reason)
    {
        m_arq.Cancel();
        m_unsent.clear();
        Fail(reason);
    }

    /// Does \p action to the other end a delay from now, if it still exists then.
    template <typename F>
    void AtPeer(F action)
    {
        while (!m_departures.empty() && m_departures.front().IsExpired())
        {
            m_departures.pop_front();
        }
        m_departures.push_back(Simulator::Schedule(m_link.m_config.delay, [this, action] {
            if (Port* peer = m_link.m_ends[1 - Index()])
            {
                action(*peer);
            }
        }));
    }

    FadingLink& m_link;
    StopAndWait m_arq;
    FrameReader m_reader;
    std::deque<Unsent> m_unsent;      //!< in order; the first may be under way
    std::deque<EventId> m_departures; //!< in the order of their time
    bool m_closing = false;
};

FadingLink::FadingLink(const FadingLinkConfig& config)
    : m_config(config),
      m_fading{BlockFading(config.channel, config.coherence), BlockFading(config.channel, config.coherence)}
{
    if (m_config.arq.rate.GetBitRate() == 0 || m_config.arq.attempts == 0)
    {
        throw std::invalid_argument("a fading link needs a rate and a number of attempts above zero");
    }
    m_snr.fill(m_config.channel.snr);
    WorstAttempts(0); // which refuses an epsilon that is none
}

double
FadingLink::WorstAttempts(std::size_t direction) const
{
    const RayleighChannel channel{m_config.channel.bandwidth, m_snr[direction]};
    const auto rate = static_cast<double>(m_config.arq.rate.GetBitRate());
    return static_cast<double>(OutageAttempts(channel, rate, m_config.epsilon));
}

FadingLink::~FadingLink() = default;

std::unique_ptr<MessagePort>
FadingLink::End(Direction direction)
{
    Port*& end = m_ends[static_cast<std::size_t>(direction)];
    if (end != nullptr)
    {
        throw std::logic_error("this end of the fading link is taken");
    }
    auto port = std::make_unique<Port>(*this, direction);
    end = port.get();
    return port;
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

std::uint64_t
FadingLink::BytesSent(Direction direction) const
{
    return m_bytes[static_cast<std::size_t>(direction)];
}

} // namespace splitllm
