// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_MAILBOX_H
#define SPLITLLM_MAILBOX_H

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

      private:
        Mailbox& m_mailbox;
        bool m_waiting = false;
    };

    Receipt Receive()
    {
        return Receipt(*this);
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
