// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TASK_H
#define SPLITLLM_TASK_H

#include "sim/frame-pool.h"

#include <coroutine>
#include <exception>
#include <functional>
#include <optional>
#include <stdexcept>
#include <utility>

namespace splitllm
{

template <typename T = void>
class Task;

namespace detail
{

/// What promises of every result type share.
class TaskPromiseBase
{
  public:
    /// A task starts when it is awaited.
    std::suspend_always initial_suspend() noexcept
    {
        return {};
    }

    struct FinalAwaiter
    {
        bool await_ready() const noexcept
        {
            return false;
        }

        /// The waiter resumes inside this call. It may destroy the finished frame, so nothing follows.
        template <typename Promise>
        void await_suspend(std::coroutine_handle<Promise> finished) const noexcept
        {
            if (std::coroutine_handle<> waiter = finished.promise().m_waiter)
            {
                waiter.resume();
            }
        }

        void await_resume() const noexcept
        {
        }
    };

    FinalAwaiter final_suspend() noexcept
    {
        return {};
    }

    void unhandled_exception() noexcept
    {
        m_error = std::current_exception();
    }

    static void* operator new(std::size_t bytes)
    {
        s_newest = FramePool::Allocate(bytes);
        return s_newest;
    }

    static void operator delete(void* frame, std::size_t bytes) noexcept
    {
        FramePool::Free(frame, bytes);
    }

    std::coroutine_handle<> m_waiter; //!< who awaits this task, once it has suspended
    std::exception_ptr m_error;

  protected:
    /**
     * gcc 12 lays out the frame wrongly where a coroutine without variables of its own awaits in the condition of an
     * if, a loop or a switch: its handle points beside the frame, and resuming it does nothing or worse.
     */
    static void CheckFrame(void* frame)
    {
#if defined(__GNUC__) && !defined(__clang__)
        if (frame != s_newest)
        {
            throw std::logic_error("a coroutine that the compiler gets wrong: assign what co_await returns to a "
                                   "variable, and let the condition test that");
        }
#else
        static_cast<void>(frame); // here a frame may lie in its caller's
#endif
    }

  private:
    static inline void* s_newest = nullptr; //!< the frame allocated last
};

template <typename T>
class TaskPromise : public TaskPromiseBase
{
  public:
    Task<T> get_return_object();

    template <typename U>
    void return_value(U&& value)
    {
        m_value.emplace(std::forward<U>(value));
    }

    T Take()
    {
        if (m_error)
        {
            std::rethrow_exception(m_error);
        }
        return std::move(*m_value);
    }

  private:
    std::optional<T> m_value;
};

template <>
class TaskPromise<void> : public TaskPromiseBase
{
  public:
    Task<void> get_return_object();

    void return_void() noexcept
    {
    }

    void Take()
    {
        if (m_error)
        {
            std::rethrow_exception(m_error);
        }
    }
};

} // namespace detail

/**
 * A coroutine whose result somebody awaits. Lazy, move-only; the Task owns the frame, so destroying it destroys what
 * the coroutine holds, wherever it is suspended.
 *
 * Awaiting runs the task at once, up to its first suspension. One that finishes without suspending does not suspend its
 * waiter either, so a loop may await any number of them on a flat stack. (await_suspend returns bool for this: with
 * gcc 12 symmetric transfer grows the stack in builds without optimisation.)
 *
 * Await in statements of their own, `const int n = co_await Count();`, and test the variable. gcc 12 compiles
 * `co_await (a ? F() : G())` into a double destruction, and some conditions that await into tasks that throw when made.
 */
template <typename T>
class [[nodiscard]] Task
{
  public:
    using promise_type = detail::TaskPromise<T>;

    Task() = default;

    explicit Task(std::coroutine_handle<promise_type> handle)
        : m_handle(handle)
    {
    }

    Task(Task&& other) noexcept
        : m_handle(std::exchange(other.m_handle, nullptr))
    {
    }

    Task& operator=(Task&& other) noexcept
    {
        std::swap(m_handle, other.m_handle);
        return *this;
    }

    ~Task()
    {
        if (m_handle)
        {
            m_handle.destroy();
        }
    }

    bool await_ready() const noexcept
    {
        return false;
    }

    bool await_suspend(std::coroutine_handle<> waiter)
    {
        m_handle.resume();
        if (m_handle.done())
        {
            return false;
        }
        m_handle.promise().m_waiter = waiter;
        return true;
    }

    T await_resume()
    {
        return m_handle.promise().Take();
    }

  private:
    std::coroutine_handle<promise_type> m_handle;
};

template <typename T>
Task<T>
detail::TaskPromise<T>::get_return_object()
{
    const auto handle = std::coroutine_handle<TaskPromise<T>>::from_promise(*this);
    CheckFrame(handle.address());
    return Task<T>(handle);
}

inline Task<void>
detail::TaskPromise<void>::get_return_object()
{
    const auto handle = std::coroutine_handle<TaskPromise<void>>::from_promise(*this);
    CheckFrame(handle.address());
    return Task<void>(handle);
}

/**
 * A task that nobody awaits: it runs from Start() to its end, then tells. Destroying the process earlier destroys the
 * task where it is, silently. The callback runs inside the last resumption and must not destroy the process.
 */
class Process
{
  public:
    /// Called once at the end, with the exception that ended the task or null.
    using EndCallback = std::function<void(std::exception_ptr)>;

    Process(Task<void> body, EndCallback onEnd)
        : m_task(Run(std::move(body), std::move(onEnd)))
    {
    }

    void Start()
    {
        m_task.await_suspend(std::noop_coroutine());
    }

  private:
    static Task<void> Run(Task<void> body, EndCallback onEnd)
    {
        std::exception_ptr error;
        try
        {
            co_await std::move(body);
        }
        catch (...)
        {
            error = std::current_exception();
        }
        onEnd(error);
    }

    Task<void> m_task;
};

} // namespace splitllm

#endif // SPLITLLM_TASK_H
