// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_COMPUTE_QUEUE_H
#define SPLITLLM_COMPUTE_QUEUE_H

#include "compute/backend.h"
#include "compute/device-profile.h"

#include "ns3/event-id.h"
#include "ns3/nstime.h"

#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>

namespace splitllm
{

/// One operation of one session, handed in to a compute device.
struct ComputeJob
{
    const ResidentModel* model; //!< what it is an operation of; null for one of a codec
    Operation operation;
    std::size_t layer; //!< from 1; 0 outside the layers
    std::size_t rows;
    DType rate; //!< whose peak rate applies: the weights' type
    Work work;
    std::chrono::nanoseconds elapsed; //!< what it took on this host, for measured timing alone

    /// Whether the device can run both as one operation: the same one, of the same layer and model.
    bool BatchesWith(const ComputeJob& other) const
    {
        return model == other.model && operation == other.operation && layer == other.layer;
    }
};

/**
 * One compute device that runs one operation at a time, first come, first served.
 *
 * Without batches a job gets its slot when it is handed in, and keeps it.
 *
 * With batches of up to m > 1 jobs the device, once it is free, takes the job that waits longest and every other
 * waiting one that batches with it, the longest waiting first, up to m. They run as one operation, whose work is theirs
 * joined (Work::Join), and end together. No job waits for others to come; but a device that becomes free, or gets its first
 * job, starts only after the events that are already scheduled for that instant, so that what comes at the same instant
 * is in the same batch. Jobs that come at one instant wait in the order of the events that hand them in, and sessions
 * of a batch go on in its order. A job whose coroutine is destroyed while it waits leaves the queue.
 */
class ComputeQueue
{
  public:
    /// A stretch of the device's time.
    struct Slot
    {
        ns3::Time start;
        ns3::Time end;
        std::uint32_t batch = 0; //!< jobs that ran together
    };

    /// Awaitable of one Run().
    class [[nodiscard]] Turn
    {
      public:
        Turn(ComputeQueue& queue, const ComputeJob& job);
        Turn(const Turn&) = delete;
        Turn& operator=(const Turn&) = delete;
        ~Turn();

        bool await_ready() const
        {
            return false;
        }

        bool await_suspend(std::coroutine_handle<> waiter);
        Slot await_resume() const;

      private:
        friend class ComputeQueue;
        ComputeQueue& m_queue;
        ComputeJob m_job;
        std::coroutine_handle<> m_waiter;
        Slot m_slot;
        std::exception_ptr m_error;
        ns3::EventId m_resumption; //!< without batches
    };

    /// \param profile turns work into time; must outlive the queue
    explicit ComputeQueue(const DeviceProfile& profile);
    ComputeQueue(const ComputeQueue&) = delete;
    ComputeQueue& operator=(const ComputeQueue&) = delete;
    ~ComputeQueue();

    /// Lets up to \p jobs, at least 1, run as one operation. To be set before the first job; default 1: no batches.
    void SetLargestBatch(std::uint32_t jobs);

    /**
     * `co_await Run(job)`: resumes when the device has run \p job, with the time that it ran. Throws what
     * DeviceProfile::TimeOf throws.
     */
    Turn Run(const ComputeJob& job);

    /// Time taken so far, up to the end of what it runs now. A batch counts once.
    ns3::Time Busy() const
    {
        return m_busy;
    }

    /// Jobs started.
    std::uint64_t Jobs() const
    {
        return m_jobs;
    }

    /// Operations that they were run as: a batch is one.
    std::uint64_t Batches() const
    {
        return m_batches;
    }

  private:
    bool Enter(Turn& turn);
    bool TakeSlot(Turn& turn);
    ns3::Time TimeOf(const ComputeJob& job) const;
    void Assign(const std::deque<Turn*>& turns, const ComputeJob& joined, ns3::Time start);
    void StartAfterThisInstant();
    void Start();
    void End();
    void Leave(Turn& turn);

    const DeviceProfile& m_profile;
    std::uint32_t m_largestBatch = 1;
    ns3::Time m_freeAt; //!< end of the last slot taken, without batches

    std::deque<Turn*> m_waiting; //!< longest waiting first, with batches
    std::deque<Turn*> m_running; //!< the batch
    bool m_isTaken = false;      //!< a batch runs, or one is about to start
    ns3::EventId m_event;        //!< the end of that batch, or its start

    ns3::Time m_busy;
    std::uint64_t m_jobs = 0;
    std::uint64_t m_batches = 0;
};

} // namespace splitllm

#endif // SPLITLLM_COMPUTE_QUEUE_H
