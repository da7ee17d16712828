// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_STOP_AND_WAIT_H
#define SPLITLLM_STOP_AND_WAIT_H

#include "policy/outage.h"
#include "sim/split-llm-records.h"

#include "ns3/data-rate.h"
#include "ns3/event-id.h"
#include "ns3/nstime.h"
#include "ns3/ptr.h"
#include "ns3/random-variable-stream.h"

#include <cstdint>
#include <functional>

namespace splitllm
{

/// One direction of a channel with Rayleigh block fading: which SNR it has when.
class BlockFading
{
  public:
    /**
     * \param coherence length of a block in simulated time; zero: every look at the channel sees a block of its own
     * \throws std::invalid_argument for a bandwidth or mean SNR that is not above 0
     */
    BlockFading(const RayleighChannel& channel, ns3::Time coherence);

    /// The SNR of the block that is now: exponential, independent from block to block.
    double Snr();

    /// Whether \p snr carries \p rate: W log2(1 + snr) >= R.
    bool Carries(double snr, ns3::DataRate rate) const;

    /// The random stream of the blocks.
    void SetStream(std::int64_t stream);

  private:
    RayleighChannel m_channel;
    ns3::Time m_coherence;
    ns3::Ptr<ns3::UniformRandomVariable> m_uniform;
    std::int64_t m_block = -1; //!< the one that m_snr is of
    double m_snr = 0.0;
};

/// How a sender uses a fading channel.
struct StopAndWaitConfig
{
    ns3::DataRate rate;          //!< R, above zero
    std::uint32_t attempts = 1;  //!< N, of a round
    ns3::Time feedback;          //!< from the end of an attempt to the sender's knowing how it ended
};

/**
 * Stop-and-wait ARQ over one direction of a fading channel: a frame is sent again and again until an attempt gets
 * across, N times at most. An attempt takes 8 bytes / R and gets across if the SNR at its start carries R.
 */
class StopAndWait
{
  public:
    StopAndWait() = default;
    ~StopAndWait();
    StopAndWait(const StopAndWait&) = delete;
    StopAndWait& operator=(const StopAndWait&) = delete;

    /**
     * Starts the attempts of a new frame. One frame at a time.
     * \param bytes that take time
     * \param fading must outlive the attempts
     */
    void Send(std::uint64_t bytes, BlockFading& fading, const StopAndWaitConfig& config);

    /// Starts another N attempts of the frame that was given up last.
    void Resend();

    /// No attempt follows the one under way, which ends as usual.
    void GiveUp();

    /// Ends the attempts of the frame under way; nothing is called for it any more.
    void Cancel();

    /// Whether a frame is under way, the feedback about it included.
    bool IsBusy() const;

    std::function<void(const AttemptRecord&)> onAttempt; //!< at the end of each
    std::function<void()> onDelivered;                   //!< at the end of the attempt that succeeds
    std::function<void(bool delivered)> onDone;          //!< when the sender knows; the next frame may follow

  private:
    void Attempt();
    void Finish(const AttemptRecord& record);
    void Feedback(bool success);

    StopAndWaitConfig m_config;
    BlockFading* m_fading = nullptr;
    std::uint64_t m_bytes = 0;
    std::uint32_t m_number = 0; //!< attempts at the frame so far
    bool m_busy = false;
    bool m_givenUp = false;
    ns3::EventId m_event;
};

} // namespace splitllm

#endif // SPLITLLM_STOP_AND_WAIT_H
