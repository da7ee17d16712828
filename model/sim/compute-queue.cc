// SPDX-License-Identifier: GPL-2.0-only
#include "sim/compute-queue.h"

#include "ns3/simulator.h"

namespace splitllm
{

using ns3::Simulator;
using ns3::Time;

ComputeQueue::Turn::Turn(ComputeQueue& queue, const ComputeJob& job)
    : m_queue(queue),
      m_job(job)
{
}

ComputeQueue::Turn::~Turn()
{
    m_resumption.Cancel();
    m_queue.Leave(*this);
}

bool
ComputeQueue::Turn::await_suspend(std::coroutine_handle<> waiter)
{
    m_waiter = waiter;
    return m_queue.Enter(*this);
}

ComputeQueue::Slot
ComputeQueue::Turn::await_resume() const
{
    if (m_error)
    {
        std::rethrow_exception(m_error);
    }
    return m_slot;
}

ComputeQueue::ComputeQueue(const DeviceProfile& profile)
    : m_profile(profile)
{
}

ComputeQueue::~ComputeQueue()
{
    m_event.Cancel();
}

void
ComputeQueue::SetLargestBatch(std::uint32_t jobs)
{
    m_largestBatch = jobs;
}

ComputeQueue::Turn
ComputeQueue::Run(const ComputeJob& job)
{
    return {*this, job};
}

/// Takes \p turn in. \return false if it is over already: an idle device ran it in no time
bool
ComputeQueue::Enter(Turn& turn)
{
    if (m_largestBatch == 1)
    {
        return TakeSlot(turn);
    }
    m_waiting.push_back(&turn);
    if (!m_isTaken)
    {
        StartAfterThisInstant();
    }
    return true;
}

/// Without batches nothing that comes later changes when a job runs: its slot is the next one.
bool
ComputeQueue::TakeSlot(Turn& turn)
{
    const Time now = Simulator::Now();
    Assign({&turn}, turn.m_job, ns3::Max(now, m_freeAt));
    m_freeAt = turn.m_slot.end;
    if (m_freeAt == now)
    {
        return false;
    }
    turn.m_resumption = Simulator::Schedule(m_freeAt - now, [waiter = turn.m_waiter] { waiter.resume(); });
    return true;
}

Time
ComputeQueue::TimeOf(const ComputeJob& job) const
{
    return ns3::NanoSeconds(m_profile.TimeOf(job.operation, job.rows, job.work, job.rate, job.elapsed).count());
}

/// Gives \p turns, which run as \p joined from \p start on, their slot.
void
ComputeQueue::Assign(const std::deque<Turn*>& turns, const ComputeJob& joined, Time start)
{
    Time duration;
    std::exception_ptr error;
    try
    {
        if (m_profile.RunsAsOne(joined.operation, joined.work))
        {
            duration = TimeOf(joined);
        }
        else
        {
            for (const Turn* turn : turns)
            {
                duration += TimeOf(turn->m_job);
            }
        }
    }
    catch (...)
    {
        error = std::current_exception(); // belongs to the sessions, not to the event that starts them
    }
    for (Turn* turn : turns)
    {
        turn->m_slot = {start, start + duration, static_cast<std::uint32_t>(turns.size())};
        turn->m_error = error;
    }
    m_busy += duration;
    m_jobs += turns.size();
    m_batches++;
}

void
ComputeQueue::StartAfterThisInstant()
{
    m_isTaken = true;
    m_event = Simulator::ScheduleNow([this] { Start(); });
}

/// Runs the job that waits longest and those that batch with it.
void
ComputeQueue::Start()
{
    m_isTaken = !m_waiting.empty();
    if (!m_isTaken)
    {
        return; // who waited has left
    }
    ComputeJob joined = m_waiting.front()->m_job;
    m_running.push_back(m_waiting.front());
    m_waiting.pop_front();
    for (auto next = m_waiting.begin(); next != m_waiting.end() && m_running.size() < m_largestBatch;)
    {
        const ComputeJob& job = (*next)->m_job;
        if (!job.BatchesWith(joined))
        {
            ++next;
            continue;
        }
        joined.rows += job.rows;
        joined.work.Join(job.work);
        joined.elapsed += job.elapsed; // on this host they ran one after the other
        m_running.push_back(*next);
        next = m_waiting.erase(next);
    }
    const Time now = Simulator::Now();
    Assign(m_running, joined, now);
    m_event = Simulator::Schedule(m_running.front()->m_slot.end - now, [this] { End(); });
}

/// The batch is over; its sessions go on, and may hand in their next job or be lost by what another one does.
void
ComputeQueue::End()
{
    while (!m_running.empty())
    {
        Turn* turn = m_running.front();
        m_running.pop_front();
        turn->m_waiter.resume();
    }
    StartAfterThisInstant();
}

void
ComputeQueue::Leave(Turn& turn)
{
    std::erase(m_waiting, &turn);
    std::erase(m_running, &turn);
}

} // namespace splitllm
