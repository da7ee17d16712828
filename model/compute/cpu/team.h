// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEAM_H
#define SPLITLLM_TEAM_H

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

namespace splitllm
{

/**
 * Threads that share the tasks of a job.
 *
 * The caller works too, and a helper that the operating system does not run takes no task, so nobody waits for it: many
 * simulations may share a machine's cores. (OpenMP's barriers wait for every thread, which there costs a factor of
 * five.) One caller at a time.
 */
class Team
{
  public:
    /// \param threads how many work on a job, the caller among them; at least 1
    explicit Team(std::size_t threads);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    std::size_t Threads() const
    {
        return m_helpers.size() + 1;
    }

    /**
     * Calls body(task, worker) for every task in [0, \p tasks), in no fixed order, and returns when all are done.
     * worker in [0, Threads()) tells apart the threads that run at the same time. \p body must not throw.
     * \param share false: the caller does all tasks, because they are too small to wake a helper for
     */
    template <typename Body>
    void Run(std::size_t tasks, bool share, const Body& body)
    {
        if (!share || tasks <= 1 || m_helpers.empty())
        {
            for (std::size_t task = 0; task < tasks; ++task)
            {
                body(task, std::size_t{0});
            }
            return;
        }
        m_call = [](const void* context, std::size_t task, std::size_t worker) {
            (*static_cast<const Body*>(context))(task, worker);
        };
        m_context = &body;
        RunJob(static_cast<std::uint32_t>(tasks));
    }

  private:
    void RunJob(std::uint32_t tasks);
    void Help(std::size_t worker);

    /// Does one task of the job, if one is left.
    bool DoTask(std::size_t worker);

    // The job, which changes only while no task is left to take.
    void (*m_call)(const void* context, std::size_t task, std::size_t worker) = nullptr;
    const void* m_context = nullptr;
    std::uint32_t m_tasks = 0;

    std::atomic<std::uint32_t> m_left{0};   //!< tasks that nobody has taken
    std::atomic<std::uint32_t> m_undone{0}; //!< tasks that are not finished
    std::vector<std::thread> m_helpers;
};

/// The cores of this machine, at least 1.
std::size_t Cores();

} // namespace splitllm

#endif // SPLITLLM_TEAM_H
