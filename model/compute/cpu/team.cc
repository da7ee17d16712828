// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cpu/team.h"

#include <algorithm>
#include <limits>

namespace splitllm
{

namespace
{

/// m_left's value that ends the helpers.
constexpr std::uint32_t kStop = std::numeric_limits<std::uint32_t>::max();

/// Waits until \p value is not \p old: awake for some ten microseconds, as a layer's jobs follow closely, then asleep.
void
WaitWhile(const std::atomic<std::uint32_t>& value, std::uint32_t old)
{
    for (int i = 0; i < 1000; ++i)
    {
        if (value.load(std::memory_order_relaxed) != old)
        {
            return;
        }
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    value.wait(old, std::memory_order_relaxed);
}

} // namespace

Team::Team(std::size_t threads)
{
    for (std::size_t worker = 1; worker < threads; ++worker)
    {
        m_helpers.emplace_back(&Team::Help, this, worker);
    }
}

Team::~Team()
{
    m_left.store(kStop, std::memory_order_release);
    m_left.notify_all();
    for (std::thread& helper : m_helpers)
    {
        helper.join();
    }
}

void
Team::RunJob(std::uint32_t tasks)
{
    m_tasks = tasks;
    m_undone.store(tasks, std::memory_order_relaxed);
    m_left.store(tasks, std::memory_order_release);
    m_left.notify_all();
    while (DoTask(0))
    {
    }
    for (std::uint32_t undone = m_undone.load(std::memory_order_acquire); undone != 0;
         undone = m_undone.load(std::memory_order_acquire))
    {
        WaitWhile(m_undone, undone);
    }
}

bool
Team::DoTask(std::size_t worker)
{
    std::uint32_t left = m_left.load(std::memory_order_relaxed);
    do
    {
        if (left == 0 || left == kStop)
        {
            return false;
        }
    } while (!m_left.compare_exchange_weak(left, left - 1, std::memory_order_acquire, std::memory_order_relaxed));
    // Until this task is done the job stays as it is.
    m_call(m_context, m_tasks - left, worker);
    if (m_undone.fetch_sub(1, std::memory_order_release) == 1)
    {
        m_undone.notify_one();
    }
    return true;
}

void
Team::Help(std::size_t worker)
{
    while (m_left.load(std::memory_order_relaxed) != kStop)
    {
        if (!DoTask(worker))
        {
            WaitWhile(m_left, 0);
        }
    }
}

std::size_t
Cores()
{
    return std::max<std::size_t>(1, std::thread::hardware_concurrency());
}

} // namespace splitllm
