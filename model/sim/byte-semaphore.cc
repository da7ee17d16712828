// SPDX-License-Identifier: GPL-2.0-only
#include "sim/byte-semaphore.h"

#include "compute/memory-ledger.h"

#include "ns3/simulator.h"

#include <string>
#include <utility>

namespace splitllm
{

ByteSemaphore::Ticket::Ticket(ByteSemaphore& semaphore, std::uint64_t bytes)
    : m_semaphore(&semaphore),
      m_bytes(bytes)
{
}

ByteSemaphore::Ticket::Ticket(Ticket&& other) noexcept
    : m_semaphore(std::exchange(other.m_semaphore, nullptr)),
      m_bytes(std::exchange(other.m_bytes, 0))
{
}

ByteSemaphore::Ticket&
ByteSemaphore::Ticket::operator=(Ticket&& other) noexcept
{
    // What this held leaves with taken, also when other is this.
    Ticket taken(std::move(other));
    std::swap(m_semaphore, taken.m_semaphore);
    std::swap(m_bytes, taken.m_bytes);
    return *this;
}

ByteSemaphore::Ticket::~Ticket()
{
    if (m_semaphore != nullptr)
    {
        m_semaphore->m_held -= m_bytes;
        m_semaphore->GrantWaiting();
    }
}

ByteSemaphore::Turn::Turn(ByteSemaphore& semaphore, std::uint64_t bytes)
    : m_semaphore(semaphore),
      m_bytes(bytes)
{
}

ByteSemaphore::Turn::~Turn()
{
    m_resumption.Cancel();
    if (std::erase(m_semaphore.m_waiting, this) > 0)
    {
        m_semaphore.GrantWaiting(); // who waits behind a large demand may fit
    }
}

bool
ByteSemaphore::Turn::await_ready()
{
    const bool isNext = m_semaphore.m_waiting.empty() && m_semaphore.Fits(m_bytes);
    if (isNext)
    {
        m_ticket = m_semaphore.Grant(m_bytes);
    }
    return isNext;
}

void
ByteSemaphore::Turn::await_suspend(std::coroutine_handle<> waiter)
{
    m_waiter = waiter;
    m_semaphore.m_waiting.push_back(this);
}

ByteSemaphore::Ticket
ByteSemaphore::Turn::await_resume()
{
    return std::move(m_ticket);
}

ByteSemaphore::ByteSemaphore(std::uint64_t capacity)
    : m_capacity(capacity)
{
}

void
ByteSemaphore::SetCapacity(std::uint64_t capacity)
{
    m_capacity = capacity;
}

ByteSemaphore::Turn
ByteSemaphore::Acquire(std::uint64_t bytes)
{
    if (m_capacity != 0 && bytes > m_capacity)
    {
        throw OutOfMemory("out of memory: a request may need " + std::to_string(bytes) + " bytes of KV memory, of " +
                          std::to_string(m_capacity) + " that all requests may take together");
    }
    return {*this, bytes};
}

bool
ByteSemaphore::Fits(std::uint64_t bytes) const
{
    return m_capacity == 0 || bytes <= m_capacity - m_held;
}

ByteSemaphore::Ticket
ByteSemaphore::Grant(std::uint64_t bytes)
{
    m_held += bytes;
    return {*this, bytes};
}

/// Gives those that wait longest what has become free.
void
ByteSemaphore::GrantWaiting()
{
    while (!m_waiting.empty() && Fits(m_waiting.front()->m_bytes))
    {
        Turn& turn = *m_waiting.front();
        m_waiting.pop_front();
        turn.m_ticket = Grant(turn.m_bytes);
        turn.m_resumption = ns3::Simulator::ScheduleNow([waiter = turn.m_waiter] { waiter.resume(); });
    }
}

} // namespace splitllm
