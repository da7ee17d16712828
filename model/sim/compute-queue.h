// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_COMPUTE_QUEUE_H
#define SPLITLLM_COMPUTE_QUEUE_H

#include "ns3/nstime.h"

namespace splitllm
{

/**
 * One compute device that does one thing at a time, first come, first served.
 *
 * Durations are known when work is handed in, so the queue is the instant at which the device is free again.
 */
class ComputeQueue
{
  public:
    /// A stretch of the device's time.
    struct Slot
    {
        ns3::Time start;
        ns3::Time end;
    };

    /// Takes the next \p duration of the device at or after \p now. Work of no duration waits for its turn as well.
    Slot Take(ns3::Time now, ns3::Time duration)
    {
        const ns3::Time start = ns3::Max(now, m_freeAt);
        m_freeAt = start + duration;
        m_busy += duration;
        return {start, m_freeAt};
    }

    /// Time taken so far.
    ns3::Time Busy() const
    {
        return m_busy;
    }

  private:
    ns3::Time m_freeAt;
    ns3::Time m_busy;
};

} // namespace splitllm

#endif // SPLITLLM_COMPUTE_QUEUE_H
