// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SIM_END_SIMULATION_H
#define SPLITLLM_SIM_END_SIMULATION_H

#include "ns3/event-impl.h"
#include "ns3/ptr.h"
#include "ns3/simulator.h"

#include <utility>

namespace splitllm
{

/// See EndSimulation().
template <class Cause>
class ThrowEvent : public ns3::EventImpl
{
  public:
    explicit ThrowEvent(Cause cause)
        : m_cause(std::move(cause))
    {
    }

  private:
    void Notify() override
    {
        Cause cause = std::move(m_cause);
        Unref(); // the simulator's reference, which it drops only after an event that returns
        throw cause;
    }

    Cause m_cause;
};

/// Lets \p cause leave Simulator::Run() as an exception, thrown by an event of its own at the current instant: neither a
/// coroutine nor an event of ns-3 is unwound, and nothing leaks.
template <class Cause>
void
EndSimulation(Cause cause)
{
    ns3::Simulator::Schedule(ns3::Time(0), ns3::Create<ThrowEvent<Cause>>(std::move(cause)));
}

} // namespace splitllm

#endif // SPLITLLM_SIM_END_SIMULATION_H
