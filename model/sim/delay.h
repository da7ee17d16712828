// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_DELAY_H
#define SPLITLLM_DELAY_H

#include "ns3/event-id.h"
#include "ns3/nstime.h"
#include "ns3/simulator.h"

#include <coroutine>

namespace splitllm
{

/**
 * `co_await Delay(t)`: the coroutine resumes inside an ns-3 event, t from now. A delay of zero or less does not suspend.
 * The event is cancelled if the coroutine is destroyed meanwhile.
 */
class [[nodiscard]] Delay
{
  public:
    explicit Delay(ns3::Time duration)
        : m_duration(duration)
    {
    }

    Delay(const Delay&) = delete;
    Delay& operator=(const Delay&) = delete;

    ~Delay()
    {
        m_event.Cancel();
    }

    bool await_ready() const
    {
        return !m_duration.IsStrictlyPositive();
    }

    void await_suspend(std::coroutine_handle<> waiter)
    {
        m_event = ns3::Simulator::Schedule(m_duration, [waiter] { waiter.resume(); });
    }

    void await_resume() const
    {
    }

  private:
    ns3::Time m_duration;
    ns3::EventId m_event;
};

} // namespace splitllm

#endif // SPLITLLM_DELAY_H
