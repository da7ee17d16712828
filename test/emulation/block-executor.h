// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_EMULATION_BLOCK_EXECUTOR_H
#define SPLITLLM_EMULATION_BLOCK_EXECUTOR_H

#include "cuda-emulation.h"
#include "fiber.h"

#include <array>
#include <cstdint>
#include <exception>
#include <memory>
#include <string>
#include <vector>

namespace splitllm::emulation
{

/// Runs the blocks of a grid one after the other. A block's threads take turns on fibers: one runs until it waits for
/// others at a collective, and the last one that arrives completes the collective for all.
class BlockExecutor
{
  public:
    BlockExecutor() = default;
    BlockExecutor(const BlockExecutor&) = delete;
    BlockExecutor& operator=(const BlockExecutor&) = delete;

    /// Runs body once for each thread of the grid. Throws what a thread throws, and std::logic_error where threads
    /// wait for each other in a way that CUDA does not define.
    void Run(const ThreadBody& body, dim3 grid, dim3 block, std::size_t sharedBytes);

    /// \copydoc splitllm::emulation::MeetWarp
    std::uint64_t MeetWarp(Collective collective, unsigned mask, std::uint64_t value, int lane, int width);

    /// \copydoc splitllm::emulation::MeetBlock
    int MeetBlock(Collective collective, int predicate);

    /// \copydoc splitllm::emulation::DynamicShared
    void* DynamicShared();

    /// The order of later runs.
    void SetOrder(Order order);

  private:
    static constexpr unsigned kLanes = 32;
    static constexpr unsigned kMaxThreads = 1024;

    /// A thread of the running block, and the collective that it waits at.
    struct Thread
    {
        Fiber* fiber = nullptr; //!< null before it has started
        uint3 index{};
        unsigned number = 0; //!< in the block
        Collective at{};
        unsigned mask = 0;
        int lane = 0;
        int width = 0;
        std::uint64_t value = 0; //!< what it brings, then what it is given
    };

    /// Lanes of a warp, a bit each.
    struct Warp
    {
        std::uint32_t live = 0;      //!< has not exited
        std::uint32_t ready = 0;     //!< can go on
        std::uint32_t atWarp = 0;    //!< waits at a collective of the warp
        std::uint32_t atBarrier = 0; //!< waits at a barrier of the block
    };

    /// What a fiber executes: threads, one after the other.
    static void FiberMain();
    void RunThreads();
    void RunBlock(dim3 block);
    Thread* NextThread();
    unsigned PickBit(std::uint32_t bits);
    std::uint64_t Random();
    void GoOn(Thread& next);
    void Exit(Thread& self);
    Fiber& FreeFiber();
    void CompleteWarp(Warp& warp, Thread* lanes, unsigned mask);
    static unsigned ShuffleSource(const Thread& thread, unsigned lane);
    void CompleteBarrier();
    void MakeReady(unsigned warp, std::uint32_t lanes);

    /// Where threads are, for messages.
    static std::string Describe(const Thread& thread);
    static std::string CollectiveText(const Thread& thread);
    static std::string Place(const Thread& thread);
    std::string Waiting() const;
    [[noreturn]] static void Fail(const std::string& what);

    Order m_order;
    std::uint64_t m_random = 0; //!< state of a shuffled order
    const ThreadBody* m_body = nullptr;
    std::unique_ptr<std::byte[]> m_shared;
    std::vector<Thread> m_threads;
    std::array<Warp, kMaxThreads / kLanes> m_warps;
    std::uint32_t m_readyWarps = 0;
    unsigned m_live = 0;      //!< threads of the block that have not exited
    unsigned m_atBarrier = 0; //!< threads that wait at a barrier of the block
    Thread* m_current = nullptr;
    std::exception_ptr m_error; //!< what a thread has thrown
    Fiber m_host;
    Fiber* m_fiber = nullptr; //!< the running one
    std::vector<std::unique_ptr<Fiber>> m_fibers;
    std::vector<Fiber*> m_free;
};

/// The one that executes all kernels.
BlockExecutor& TheBlockExecutor();

} // namespace splitllm::emulation

#endif // SPLITLLM_EMULATION_BLOCK_EXECUTOR_H
