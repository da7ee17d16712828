// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_BYTE_SEMAPHORE_H
#define SPLITLLM_BYTE_SEMAPHORE_H

#include "ns3/event-id.h"

#include <coroutine>
#include <cstdint>
#include <deque>

namespace splitllm
{

/**
 * A counting semaphore of bytes: who wants some waits until they are free, first come, first served. A large demand
 * that waits is not overtaken by small ones that would fit.
 */
class ByteSemaphore
{
  public:
    /// Bytes held for as long as this object lives; movable, empty once moved from. The semaphore must outlive it.
    class Ticket
    {
      public:
        Ticket() = default;
        Ticket(Ticket&& other) noexcept;
        Ticket& operator=(Ticket&& other) noexcept;
        ~Ticket();

      private:
        friend class ByteSemaphore;
        Ticket(ByteSemaphore& semaphore, std::uint64_t bytes);

        ByteSemaphore* m_semaphore = nullptr;
        std::uint64_t m_bytes = 0;
    };

    /// Awaitable of one Acquire(). Whoever waits resumes in an event of its own.
    class [[nodiscard]] Turn
    {
      public:
        Turn(ByteSemaphore& semaphore, std::uint64_t bytes);
        Turn(const Turn&) = delete;
        Turn& operator=(const Turn&) = delete;
        ~Turn();

        bool await_ready();
        void await_suspend(std::coroutine_handle<> waiter);
        Ticket await_resume();

      private:
        friend class ByteSemaphore;
        ByteSemaphore& m_semaphore;
        std::uint64_t m_bytes;
        Ticket m_ticket; //!< once it is granted
        std::coroutine_handle<> m_waiter;
        ns3::EventId m_resumption;
    };

    /// \param capacity bytes; 0 is unlimited
    explicit ByteSemaphore(std::uint64_t capacity);
    ByteSemaphore(const ByteSemaphore&) = delete;
    ByteSemaphore& operator=(const ByteSemaphore&) = delete;

    /// Sets the capacity before anything is acquired; 0 is unlimited.
    void SetCapacity(std::uint64_t capacity);

    /// `co_await Acquire(bytes)`: a Ticket of \p bytes. \throws OutOfMemory if they are more than the capacity
    Turn Acquire(std::uint64_t bytes);

  private:
    bool Fits(std::uint64_t bytes) const;
    Ticket Grant(std::uint64_t bytes);
    void GrantWaiting();

    std::uint64_t m_capacity;
    std::uint64_t m_held = 0;
    std::deque<Turn*> m_waiting; //!< longest waiting first
};

} // namespace splitllm

#endif // SPLITLLM_BYTE_SEMAPHORE_H
