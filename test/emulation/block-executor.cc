// SPDX-License-Identifier: GPL-2.0-only
#include "block-executor.h"

#include "fiber.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace splitllm::emulation
{

namespace
{

const char*
NameOf(Collective collective)
{
    switch (collective)
    {
    case Collective::Shuffle:
        return "__shfl_sync";
    case Collective::ShuffleUp:
        return "__shfl_up_sync";
    case Collective::ShuffleDown:
        return "__shfl_down_sync";
    case Collective::ShuffleXor:
        return "__shfl_xor_sync";
    case Collective::Ballot:
        return "__ballot_sync";
    case Collective::Any:
        return "__any_sync";
    case Collective::All:
        return "__all_sync";
    case Collective::SyncWarp:
        return "__syncwarp";
    case Collective::SyncThreads:
        return "__syncthreads";
    case Collective::SyncThreadsCount:
        return "__syncthreads_count";
    case Collective::SyncThreadsAnd:
        return "__syncthreads_and";
    case Collective::SyncThreadsOr:
        return "__syncthreads_or";
    }
    return "?";
}

bool
IsOfBlock(Collective collective)
{
    return collective >= Collective::SyncThreads;
}

std::string
Text(const uint3& index)
{
    std::ostringstream text;
    text << '(' << index.x << ',' << index.y << ',' << index.z << ')';
    return text.str();
}

constexpr std::uint32_t
Bit(unsigned lane)
{
    return std::uint32_t{1} << lane;
}

/// Runs the blocks of a grid one after the other. A block's threads take turns on fibers: one runs until it waits for
/// others at a collective, and the last one that arrives completes the collective for all.
class BlockExecutor
{
  public:
    BlockExecutor() = default;
    BlockExecutor(const BlockExecutor&) = delete;
    BlockExecutor& operator=(const BlockExecutor&) = delete;

    /// \copydoc splitllm::emulation::RunGrid
    void Run(const ThreadBody& body, dim3 grid, dim3 block, std::size_t sharedBytes);

    /// \copydoc splitllm::emulation::MeetWarp
    std::uint64_t MeetWarp(Collective collective, unsigned mask, std::uint64_t value, int lane, int width);

    /// \copydoc splitllm::emulation::MeetBlock
    int MeetBlock(Collective collective, int predicate);

    /// \copydoc splitllm::emulation::DynamicShared
    void* DynamicShared();

    /// \copydoc splitllm::emulation::RunInOrder
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
BlockExecutor g_executor;

void
BlockExecutor::SetOrder(Order order)
{
    m_order = order;
    m_random = order.seed;
}

void*
BlockExecutor::DynamicShared()
{
    return m_shared.get();
}

void
BlockExecutor::Run(const ThreadBody& body, dim3 grid, dim3 block, std::size_t sharedBytes)
{
    if (m_body != nullptr)
    {
        throw std::logic_error("emulated kernel: a kernel cannot launch another");
    }
    m_shared.reset(new std::byte[sharedBytes]);
    m_threads.resize(std::size_t{block.x} * block.y * block.z);
    gridDim = grid;
    blockDim = block;
    const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
    std::vector<std::uint64_t> shuffled;
    if (m_order.kind == Order::Kind::Shuffled)
    {
        shuffled.resize(blocks);
        std::iota(shuffled.begin(), shuffled.end(), 0);
        for (std::uint64_t left = blocks; left > 1; --left)
        {
            std::swap(shuffled[left - 1], shuffled[Random() % left]);
        }
    }
    m_body = &body;
    for (std::uint64_t i = 0; i < blocks && !m_error; ++i)
    {
        const std::uint64_t number = m_order.kind == Order::Kind::Shuffled  ? shuffled[i]
                                     : m_order.kind == Order::Kind::Reverse ? blocks - 1 - i
                                                                            : i;
        blockIdx.x = static_cast<unsigned>(number % grid.x);
        blockIdx.y = static_cast<unsigned>(number / grid.x % grid.y);
        blockIdx.z = static_cast<unsigned>(number / grid.x / grid.y);
        std::memset(m_shared.get(), 0xCD, sharedBytes);
        RunBlock(block);
    }
    m_body = nullptr;
    m_shared.reset();
    if (m_error)
    {
        std::rethrow_exception(std::exchange(m_error, nullptr));
    }
}

void
BlockExecutor::RunBlock(dim3 block)
{
    unsigned number = 0;
    for (unsigned z = 0; z < block.z; ++z)
    {
        for (unsigned y = 0; y < block.y; ++y)
        {
            for (unsigned x = 0; x < block.x; ++x)
            {
                Thread& thread = m_threads[number];
                thread.fiber = nullptr;
                thread.index = {x, y, z};
                thread.number = number++;
            }
        }
    }
    m_live = number;
    m_atBarrier = 0;
    m_readyWarps = 0;
    for (unsigned first = 0; first < number; first += kLanes)
    {
        const unsigned lanes = std::min(number - first, kLanes);
        const std::uint32_t all = ~std::uint32_t{0} >> (kLanes - lanes);
        m_warps[first / kLanes] = {.live = all};
        MakeReady(first / kLanes, all);
    }
    m_current = nullptr;
    m_fiber = &m_host;
    GoOn(*NextThread());
    if (m_error)
    {
        // the threads that have not exited are given up
        for (Thread& thread : m_threads)
        {
            if (thread.fiber != nullptr && (m_warps[thread.number / kLanes].live & Bit(thread.number % kLanes)) != 0)
            {
                thread.fiber->Restart();
                m_free.push_back(thread.fiber);
            }
        }
    }
}

void
BlockExecutor::FiberMain()
{
    Fiber::Entered();
    g_executor.RunThreads();
}

void
BlockExecutor::RunThreads()
{
    Fiber& self = *m_fiber;
    while (true)
    {
        Thread* next = nullptr;
        try
        {
            (*m_body)();
            Exit(*m_current);
            next = NextThread();
        }
        catch (...)
        {
            m_error = std::current_exception();
            m_current->fiber = nullptr;
        }
        if (next != nullptr && next->fiber == nullptr)
        {
            // a thread that has not started needs no other stack
            next->fiber = &self;
            m_current = next;
            threadIdx = next->index;
            continue;
        }
        m_free.push_back(&self);
        if (next == nullptr)
        {
            m_fiber = &m_host;
            self.SwitchTo(m_host);
        }
        else
        {
            GoOn(*next);
        }
    }
}

BlockExecutor::Thread*
BlockExecutor::NextThread()
{
    if (m_readyWarps == 0)
    {
        if (m_live > 0)
        {
            Fail("no thread can go on: " + Waiting());
        }
        return nullptr;
    }
    // a warp runs until it waits, except in a shuffled order
    const bool stays = m_current != nullptr && m_order.kind != Order::Kind::Shuffled &&
                       (m_readyWarps & Bit(m_current->number / kLanes)) != 0;
    const unsigned number = stays ? m_current->number / kLanes : PickBit(m_readyWarps);
    Warp& warp = m_warps[number];
    const unsigned lane = PickBit(warp.ready);
    warp.ready &= ~Bit(lane);
    if (warp.ready == 0)
    {
        m_readyWarps &= ~Bit(number);
    }
    return &m_threads[number * kLanes + lane];
}

unsigned
BlockExecutor::PickBit(std::uint32_t bits)
{
    switch (m_order.kind)
    {
    case Order::Kind::Forward:
        break;
    case Order::Kind::Reverse:
        return static_cast<unsigned>(31 - std::countl_zero(bits));
    case Order::Kind::Shuffled: {
        const auto turn = static_cast<unsigned>(Random() % kLanes);
        return (static_cast<unsigned>(std::countr_zero(std::rotr(bits, static_cast<int>(turn)))) + turn) % kLanes;
    }
    }
    return static_cast<unsigned>(std::countr_zero(bits));
}

std::uint64_t
BlockExecutor::Random()
{
    // SplitMix64
    m_random += 0x9e3779b97f4a7c15U;
    std::uint64_t mixed = m_random;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9U;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebU;
    return mixed ^ (mixed >> 31);
}

void
BlockExecutor::GoOn(Thread& next)
{
    if (next.fiber == nullptr)
    {
        next.fiber = &FreeFiber();
    }
    m_current = &next;
    threadIdx = next.index;
    if (m_fiber != next.fiber)
    {
        Fiber& left = *std::exchange(m_fiber, next.fiber);
        left.SwitchTo(*next.fiber);
    }
}

Fiber&
BlockExecutor::FreeFiber()
{
    if (m_free.empty())
    {
        m_fibers.push_back(std::make_unique<Fiber>(&FiberMain, m_fibers.size()));
        return *m_fibers.back();
    }
    Fiber& fiber = *m_free.back();
    m_free.pop_back();
    return fiber;
}

void
BlockExecutor::MakeReady(unsigned warp, std::uint32_t lanes)
{
    m_warps[warp].ready |= lanes;
    m_readyWarps |= Bit(warp);
}

void
BlockExecutor::Exit(Thread& self)
{
    Warp& warp = m_warps[self.number / kLanes];
    const std::uint32_t bit = Bit(self.number % kLanes);
    warp.live &= ~bit;
    --m_live;
    for (std::uint32_t left = warp.atWarp; left != 0; left &= left - 1)
    {
        const Thread& other = m_threads[self.number / kLanes * kLanes + std::countr_zero(left)];
        if ((other.mask & bit) != 0)
        {
            Fail(Describe(other) + " waits for " + Place(self) + ", which has exited");
        }
    }
    if (m_live > 0 && m_atBarrier == m_live)
    {
        CompleteBarrier();
    }
}

std::uint64_t
BlockExecutor::MeetWarp(Collective collective, unsigned mask, std::uint64_t value, int lane, int width)
{
    Thread& self = *m_current;
    const unsigned number = self.number / kLanes;
    Warp& warp = m_warps[number];
    const std::uint32_t bit = Bit(self.number % kLanes);
    self.at = collective;
    self.mask = mask;
    self.value = value;
    self.lane = lane;
    self.width = width;
    if ((mask & bit) == 0)
    {
        Fail(Describe(self) + " is not named in its mask");
    }
    if ((mask & ~warp.live) != 0)
    {
        Fail(Describe(self) + " names lane " + std::to_string(std::countr_zero(mask & ~warp.live)) +
             ", which has exited or never was");
    }
    warp.atWarp |= bit;
    if ((mask & ~warp.atWarp) == 0)
    {
        CompleteWarp(warp, &m_threads[std::size_t{number} * kLanes], mask);
        MakeReady(number, mask);
    }
    GoOn(*NextThread());
    return self.value;
}

void
BlockExecutor::CompleteWarp(Warp& warp, Thread* lanes, unsigned mask)
{
    const Thread& first = lanes[std::countr_zero(mask)];
    unsigned ballot = 0;
    for (std::uint32_t left = mask; left != 0; left &= left - 1)
    {
        const auto lane = static_cast<unsigned>(std::countr_zero(left));
        const Thread& thread = lanes[lane];
        if (thread.at != first.at || thread.mask != mask)
        {
            const Thread& other = thread.at != first.at ? first : *m_current;
            Fail(Describe(thread) + " meets " + Describe(other));
        }
        ballot |= (thread.value & 1U) != 0 ? Bit(lane) : 0;
    }
    std::array<std::uint64_t, kLanes> results{};
    for (std::uint32_t left = mask; left != 0; left &= left - 1)
    {
        const auto lane = static_cast<unsigned>(std::countr_zero(left));
        switch (first.at)
        {
        case Collective::Ballot:
            results[lane] = ballot;
            break;
        case Collective::Any:
            results[lane] = ballot != 0;
            break;
        case Collective::All:
            results[lane] = ballot == mask;
            break;
        case Collective::Shuffle:
        case Collective::ShuffleUp:
        case Collective::ShuffleDown:
        case Collective::ShuffleXor: {
            const unsigned source = ShuffleSource(lanes[lane], lane);
            if ((mask & Bit(source)) == 0)
            {
                Fail(Describe(lanes[lane]) + " reads lane " + std::to_string(source) +
                     ", which its mask does not name");
            }
            results[lane] = lanes[source].value;
            break;
        }
        default:
            break;
        }
    }
    for (std::uint32_t left = mask; left != 0; left &= left - 1)
    {
        lanes[std::countr_zero(left)].value = results[std::countr_zero(left)];
    }
    warp.atWarp &= ~mask;
}

unsigned
BlockExecutor::ShuffleSource(const Thread& thread, unsigned lane)
{
    // as the PTX manual defines shfl: a source beyond the lane's segment of `width` lanes is the lane itself
    if (thread.width < 1 || thread.width > static_cast<int>(kLanes) ||
        (thread.width & (thread.width - 1)) != 0)
    {
        Fail(Describe(thread) + " has width " + std::to_string(thread.width) + ", which is no power of two up to 32");
    }
    const int own = static_cast<int>(lane);
    const int operand = thread.lane & 31;
    const int first = own & ~(thread.width - 1);
    const int last = first + thread.width - 1;
    int source = own;
    switch (thread.at)
    {
    case Collective::ShuffleUp:
        source = own - operand >= first ? own - operand : own;
        break;
    case Collective::ShuffleDown:
        source = own + operand <= last ? own + operand : own;
        break;
    case Collective::ShuffleXor:
        source = (own ^ operand) <= last ? own ^ operand : own;
        break;
    default:
        source = first | (operand & (thread.width - 1));
        break;
    }
    return static_cast<unsigned>(source);
}

int
BlockExecutor::MeetBlock(Collective collective, int predicate)
{
    Thread& self = *m_current;
    self.at = collective;
    self.value = predicate != 0;
    m_warps[self.number / kLanes].atBarrier |= Bit(self.number % kLanes);
    if (++m_atBarrier == m_live)
    {
        CompleteBarrier();
    }
    GoOn(*NextThread());
    return static_cast<int>(self.value);
}

void
BlockExecutor::CompleteBarrier()
{
    const Thread* first = nullptr;
    std::uint64_t count = 0;
    const auto forEachWaiting = [this](auto visit) {
        for (std::size_t number = 0; number * kLanes < m_threads.size(); ++number)
        {
            for (std::uint32_t left = m_warps[number].atBarrier; left != 0; left &= left - 1)
            {
                visit(m_threads[number * kLanes + std::countr_zero(left)]);
            }
        }
    };
    forEachWaiting([&](const Thread& thread) {
        first = first == nullptr ? &thread : first;
        if (thread.at != first->at)
        {
            Fail(Describe(*first) + " meets " + Describe(thread));
        }
        count += thread.value;
    });
    std::uint64_t result = 0;
    switch (first->at)
    {
    case Collective::SyncThreadsCount:
        result = count;
        break;
    case Collective::SyncThreadsAnd:
        result = count == m_atBarrier;
        break;
    case Collective::SyncThreadsOr:
        result = count != 0;
        break;
    default:
        break;
    }
    forEachWaiting([result](Thread& thread) { thread.value = result; });
    for (unsigned number = 0; number * kLanes < m_threads.size(); ++number)
    {
        if (const std::uint32_t waiting = std::exchange(m_warps[number].atBarrier, 0); waiting != 0)
        {
            MakeReady(number, waiting);
        }
    }
    m_atBarrier = 0;
}

std::string
BlockExecutor::Place(const Thread& thread)
{
    return "thread " + Text(thread.index);
}

std::string
BlockExecutor::Describe(const Thread& thread)
{
    return Place(thread) + " at " + CollectiveText(thread);
}

std::string
BlockExecutor::CollectiveText(const Thread& thread)
{
    std::ostringstream text;
    text << NameOf(thread.at);
    if (!IsOfBlock(thread.at))
    {
        text << "(mask 0x" << std::hex << thread.mask << ')';
    }
    return text.str();
}

std::string
BlockExecutor::Waiting() const
{
    std::string text;
    for (std::size_t begin = 0, end = 0; begin < m_threads.size(); begin = end)
    {
        const auto isLive = [this](std::size_t number) {
            return (m_warps[number / kLanes].live & Bit(number % kLanes)) != 0;
        };
        const auto waitsAt = [&](std::size_t number) {
            return isLive(number) ? CollectiveText(m_threads[number]) : std::string();
        };
        const std::string where = waitsAt(begin);
        for (end = begin + 1; end < m_threads.size() && waitsAt(end) == where; ++end)
        {
        }
        if (where.empty())
        {
            continue;
        }
        const bool one = end - begin == 1;
        text += (text.empty() ? "" : "; ") + std::string(one ? "thread " : "threads ");
        text += Text(m_threads[begin].index) + (one ? "" : " to " + Text(m_threads[end - 1].index));
        text += (one ? " waits at " : " wait at ") + where;
    }
    return text;
}

void
BlockExecutor::Fail(const std::string& what)
{
    throw std::logic_error("emulated kernel, block " + Text(blockIdx) + ": " + what);
}

} // namespace

void
RunGrid(const ThreadBody& body, dim3 grid, dim3 block, std::size_t sharedBytes)
{
    g_executor.Run(body, grid, block, sharedBytes);
}

void
RunInOrder(Order order)
{
    g_executor.SetOrder(order);
}

std::uint64_t
MeetWarp(Collective collective, unsigned mask, std::uint64_t value, int lane, int width)
{
    return g_executor.MeetWarp(collective, mask, value, lane, width);
}

int
MeetBlock(Collective collective, int predicate)
{
    return g_executor.MeetBlock(collective, predicate);
}

void*
DynamicShared()
{
    return g_executor.DynamicShared();
}

} // namespace splitllm::emulation
