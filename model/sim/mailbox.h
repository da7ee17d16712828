// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_MAILBOX_H
#define SPLITLLM_MAILBOX_H

#include "ns3/event-id.h"
#include "ns3/nstime.h"
#include "ns3/simulator.h"

#include <coroutine>
#include <deque>
#include <exception>
#include <optional>
#include <stdexcept>
#include <utility>

namespace splitllm
{

/**
 * Values on their way to a coroutine, first in, first out.
 *
 * A waiting receiver resumes inside Put() or Close(). Closing lets what is already there be received; every receive
 * after that throws the reason. One receiver at a time.
 */
template <typename T>
class Mailbox
{
  public:
    Mailbox() = default;
    Mailbox(const Mailbox&) = delete;
    Mailbox& operator=(const Mailbox&) = delete;

    /// Awaitable of one Receive().
    class [[nodiscard]] Receipt
    {
      public:
        explicit Receipt(Mailbox& mailbox)
            : m_mailbox(mailbox)
        {
        }

        Receipt(const Receipt&) = delete;
        Receipt& operator=(const Receipt&) = delete;

        ~Receipt()
        {
            if (m_waiting)
            {
                m_mailbox.m_waiter = nullptr;
            }
        }

        bool await_ready() const
        {
            return !m_mailbox.m_values.empty() || m_mailbox.m_closed;
        }

        void await_suspend(std::coroutine_handle<> waiter)
        {
            if (m_mailbox.m_waiter)
            {
                throw std::logic_error("Mailbox: a second receiver");
            }
            m_mailbox.m_waiter = waiter;
            m_waiting = true;
        }

        T await_resume()
        {
            m_waiting = false;
            return m_mailbox.Take();
        }

      protected:
        Mailbox& m_mailbox;
        bool m_waiting = false;
    };

    /// Awaitable of one ReceiveWithin().
    class [[nodiscard]] TimedReceipt : public Receipt
    {
      public:
        TimedReceipt(Mailbox& mailbox, ns3::Time duration)
            : Receipt(mailbox),
              m_duration(duration)
        {
        }

        ~TimedReceipt()
        {
            m_timeout.Cancel();
        }

        void await_suspend(std::coroutine_handle<> waiter)
        {
            Receipt::await_suspend(waiter);
            m_timeout = ns3::Simulator::Schedule(ns3::Max(m_duration, ns3::Time(0)), [this] {
                // Behind the events of this instant, one of which may bring a value.
                m_timeout = ns3::Simulator::ScheduleNow([this] { this->m_mailbox.Wake(); });
            });
        }

        std::optional<T> await_resume()
        {
            m_timeout.Cancel();
            if (!this->await_ready())
            {
                this->m_waiting = false;
                return std::nullopt;
            }
            return Receipt::await_resume();
        }

      private:
        ns3::Time m_duration;
        ns3::EventId m_timeout;
    };

    Receipt Receive()
    {
        return Receipt(*this);
    }

    /**
     * Awaitable: the next value, or nothing if none is put within \p duration. One that is put at the instant when the
     * time is over, by an event that was scheduled before that instant, counts.
     */
    TimedReceipt ReceiveWithin(ns3::Time duration)
    {
        return TimedReceipt(*this, duration);
    }

    /// The next value if there is one, also after the mailbox was closed. Not while somebody waits.
    std::optional<T> TakeWaiting()
    {
        return m_values.empty() ? std::nullopt : std::optional<T>(Take());
    }

    void Put(T value)
    {
        m_values.push_back(std::move(value));
        Wake();
    }

    /// \param reason thrown by receives once the mailbox is empty; a second call changes nothing
    void Close(std::exception_ptr reason)
    {
        if (!m_closed)
        {
            m_closed = reason;
            Wake();
        }
    }

    bool IsClosed() const
    {
        return static_cast<bool>(m_closed);
    }

    std::size_t Size() const
    {
        return m_values.size();
    }

  private:
    void Wake()
    {
        if (m_waiter)
        {
            std::exchange(m_waiter, nullptr).resume();
        }
    }

    T Take()
    {
        if (m_values.empty())
        {
            std::rethrow_exception(m_closed);
        }
        T value = std::move(m_values.front());
        m_values.pop_front();
        return value;
    }

    std::deque<T> m_values;
    std::coroutine_handle<> m_waiter;
    std::exception_ptr m_closed;
};

} // namespace splitllm

#endif // SPLITLLM_MAILBOX_H
