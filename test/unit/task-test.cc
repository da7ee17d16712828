// SPDX-License-Identifier: GPL-2.0-only
#include "sim/task.h"

#include "sim/delay.h"
#include "sim/mailbox.h"
#include "support/catch.h"
#include "support/counted.h"

#include "ns3/nstime.h"
#include "ns3/simulator.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace splitllm;
using ns3::NanoSeconds;
using ns3::Seconds;
using ns3::Simulator;
using ns3::Time;
using test::Counted;

namespace
{

#ifdef __SANITIZE_ADDRESS__
constexpr std::uint64_t kManyTasks = 300'000;
constexpr int kDeepChain = 2'000; // frames are larger here
#else
constexpr std::uint64_t kManyTasks = 1'000'000;
constexpr int kDeepChain = 5'000;
#endif

/// What became of a process.
struct Outcome
{
    int ends = 0;
    std::string error; //!< what() of the exception that ended it

    Process::EndCallback Callback()
    {
        return [this](std::exception_ptr cause) {
            ends++;
            try
            {
                if (cause)
                {
                    std::rethrow_exception(cause);
                }
            }
            catch (const std::exception& exception)
            {
                error = exception.what();
            }
        };
    }
};

/// Where the stack is.
std::uintptr_t
StackPosition()
{
    return reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
}

Task<int>
Number(int value)
{
    co_return value;
}

Task<std::unique_ptr<int>>
MoveOnly(int value)
{
    co_return std::make_unique<int>(value);
}

Task<int>
LaterNumber(Time after, int value)
{
    co_await Delay(after);
    co_return value;
}

Task<int>
Failing(std::string reason)
{
    throw std::runtime_error(reason);
    co_return 0;
}

Task<int>
FailingLater(Time after, std::string reason)
{
    co_await Delay(after);
    throw std::runtime_error(reason);
}

/// One task inside the other; the innermost waits.
Task<int>
Chain(int depth, Time innermost)
{
    if (depth == 0)
    {
        co_await Delay(innermost);
        co_return 0;
    }
    co_return 1 + co_await Chain(depth - 1, innermost);
}

Task<void>
HoldAndWait(Counted /* held */, Time duration)
{
    const Counted local;
    co_await Delay(duration);
}

Task<void>
HoldAndReceive(Counted /* held */, Mailbox<int>& mailbox)
{
    const Counted local;
    co_await mailbox.Receive();
}

/// gcc 12 lays out the frame of such a coroutine wrongly: no variable of its own, and a condition that awaits.
Task<void>
AwaitInCondition(int& result)
{
    if (co_await Number(1) > 0)
    {
        result = 1;
    }
}

/// What every test here must leave behind: no object, no frame, no event.
struct NothingLeft
{
    ~NothingLeft()
    {
        Simulator::Destroy();
        CHECK(Counted::Alive() == 0);
        CHECK(FramePool::Live() == frames);
    }

    std::size_t frames = FramePool::Live();
};

} // namespace

TEST_CASE("A task runs when it is awaited, not before", "[task]")
{
    const NothingLeft check;
    std::vector<std::string> order;
    Outcome outcome;
    const auto inner = [](std::vector<std::string>& log) -> Task<int> {
        log.emplace_back("inner");
        co_return 7;
    };
    const auto outer = [&inner](std::vector<std::string>& log) -> Task<void> {
        Task<int> task = inner(log);
        log.emplace_back("made");
        const int value = co_await task;
        log.push_back("got " + std::to_string(value));
    };
    Process process(outer(order), outcome.Callback());
    CHECK(order.empty());
    process.Start();
    CHECK(order == std::vector<std::string>{"made", "inner", "got 7"});
    CHECK(outcome.ends == 1);
    CHECK(outcome.error.empty());
}

TEST_CASE("A task's result reaches its waiter, now or later, copied or only movable", "[task]")
{
    const NothingLeft check;
    std::vector<int> results;
    Outcome outcome;
    const auto body = [](std::vector<int>& into) -> Task<void> {
        into.push_back(co_await Number(1));
        into.push_back(*co_await MoveOnly(2));
        into.push_back(co_await LaterNumber(Seconds(2), 3));
        into.push_back(co_await Number(4));
    };
    Process process(body(results), outcome.Callback());
    process.Start();
    CHECK(results == std::vector<int>{1, 2});
    Simulator::Run();
    CHECK(results == std::vector<int>{1, 2, 3, 4});
    CHECK(Simulator::Now() == Seconds(2));
    CHECK(outcome.ends == 1);
}

TEST_CASE("An exception passes from a task to its waiter", "[task]")
{
    const NothingLeft check;
    std::vector<std::string> caught;
    Outcome outcome;
    const auto body = [](std::vector<std::string>& log) -> Task<void> {
        try
        {
            co_await Failing("at once");
        }
        catch (const std::runtime_error& error)
        {
            log.emplace_back(error.what());
        }
        try
        {
            co_await FailingLater(Seconds(1), "later");
        }
        catch (const std::runtime_error& error)
        {
            log.emplace_back(error.what());
        }
        co_await FailingLater(Seconds(1), "to the end");
        log.emplace_back("not reached");
    };
    Process process(body(caught), outcome.Callback());
    process.Start();
    Simulator::Run();
    CHECK(caught == std::vector<std::string>{"at once", "later"});
    CHECK(outcome.ends == 1);
    CHECK(outcome.error == "to the end");
    CHECK(Simulator::Now() == Seconds(2));
}

TEST_CASE("A process tells its end once, also when it fails at once", "[task]")
{
    const NothingLeft check;
    Outcome outcome;
    const auto body = []() -> Task<void> { co_await Failing("no start"); };
    Process process(body(), outcome.Callback());
    CHECK(outcome.ends == 0);
    process.Start();
    CHECK(outcome.ends == 1);
    CHECK(outcome.error == "no start");
    Simulator::Run();
    CHECK(outcome.ends == 1);
}

TEST_CASE("A task that was never awaited destroys its arguments", "[task]")
{
    const NothingLeft check;
    {
        const Task<void> task = HoldAndWait(Counted(), Seconds(1));
        CHECK(Counted::Alive() == 1);
        CHECK(FramePool::Live() == check.frames + 1);
    }
    {
        Outcome outcome;
        const Process process(HoldAndWait(Counted(), Seconds(1)), outcome.Callback());
        CHECK(Counted::Alive() == 1);
    }
    CHECK(Counted::Alive() == 0);
    CHECK(FramePool::Live() == check.frames);
}

TEST_CASE("A task that is assigned to passes its frame on", "[task]")
{
    const NothingLeft check;
    Task<void> task = HoldAndWait(Counted(), Seconds(1));
    Task<void> other;
    other = std::move(task);
    CHECK(Counted::Alive() == 1);
    other = HoldAndWait(Counted(), Seconds(1));
    CHECK(Counted::Alive() == 1); // the temporary took the first with it
}

TEST_CASE("Destroying a suspended task destroys what it holds and cancels its event", "[task]")
{
    const NothingLeft check;
    Outcome outcome;
    {
        Process process(HoldAndWait(Counted(), Seconds(5)), outcome.Callback());
        process.Start();
        CHECK(Counted::Alive() == 2); // the argument and the local
        Simulator::Stop(Seconds(1));
        Simulator::Run();
    }
    CHECK(Counted::Alive() == 0);
    Simulator::Run();
    CHECK(Simulator::Now() == Seconds(5)); // ns-3 keeps the cancelled event in its list, where it does nothing
    CHECK(outcome.ends == 0);
}

TEST_CASE("Destroying a task that waits for a mailbox takes it out of the mailbox", "[task]")
{
    const NothingLeft check;
    Mailbox<int> mailbox;
    Outcome outcome;
    {
        Process process(HoldAndReceive(Counted(), mailbox), outcome.Callback());
        process.Start();
        CHECK(Counted::Alive() == 2);
    }
    CHECK(Counted::Alive() == 0);
    mailbox.Put(1);
    CHECK(mailbox.Size() == 1);
    CHECK(outcome.ends == 0);
}

TEST_CASE("Processes that outlive the simulator leak nothing and touch nothing", "[task]")
{
    const NothingLeft check;
    Mailbox<int> mailbox;
    Outcome outcome;
    std::vector<std::unique_ptr<Process>> processes;
    for (int i = 0; i < 100; i++)
    {
        processes.push_back(std::make_unique<Process>(
            i % 2 == 0 ? HoldAndWait(Counted(), Seconds(1 + i)) : [](int depth) -> Task<void> {
                const Counted local;
                co_await Chain(depth, Seconds(100));
            }(i),
            outcome.Callback()));
        processes.back()->Start();
    }
    Simulator::Stop(Seconds(10));
    Simulator::Run();
    CHECK(outcome.ends == 5); // those of 1, 3, 5, 7 and 9 s
    Simulator::Destroy();
    CHECK(Counted::Alive() == 2 * 45 + 50);
    processes.clear();
    CHECK(Counted::Alive() == 0);
    // A new simulation does not see the old events.
    Simulator::Run();
    CHECK(Simulator::Now() == Seconds(0));
}

TEST_CASE("Events that hold a process let it go when the simulator is destroyed", "[task]")
{
    const NothingLeft check;
    Outcome outcome;
    auto process = std::make_shared<Process>(HoldAndWait(Counted(), Seconds(50)), outcome.Callback());
    process->Start();
    Simulator::Schedule(Seconds(20), [process] {});
    process.reset();
    Simulator::Stop(Seconds(10));
    Simulator::Run();
    CHECK(Counted::Alive() == 2);
    Simulator::Destroy();
    CHECK(Counted::Alive() == 0);
}

TEST_CASE("Awaiting many tasks that finish at once does not grow the stack", "[task]")
{
    const NothingLeft check;
    std::uint64_t sum = 0;
    std::uintptr_t lowest = UINTPTR_MAX;
    std::uintptr_t first = 0;
    Outcome outcome;
    const auto leaf = [](std::uintptr_t& low, std::uintptr_t& begin) -> Task<int> {
        const std::uintptr_t here = StackPosition();
        low = std::min(low, here);
        if (begin == 0)
        {
            begin = here;
        }
        co_return 1;
    };
    const auto body = [&leaf](std::uint64_t& total, std::uintptr_t& low, std::uintptr_t& begin, bool laterFirst)
        -> Task<void> {
        if (laterFirst)
        {
            co_await Delay(Seconds(1));
        }
        for (std::uint64_t i = 0; i < kManyTasks; i++)
        {
            total += co_await leaf(low, begin);
        }
    };
    for (const bool laterFirst : {false, true})
    {
        Process process(body(sum, lowest, first, laterFirst), outcome.Callback());
        process.Start();
        Simulator::Run();
        CHECK(sum == kManyTasks);
        CHECK(first - lowest < 4096);
        sum = 0;
        first = 0;
        lowest = UINTPTR_MAX;
    }
    CHECK(outcome.ends == 2);
}

TEST_CASE("A loop over values put by events runs on a flat stack", "[task]")
{
    const NothingLeft check;
    constexpr int kValues = 20'000;
    Mailbox<int> mailbox;
    std::vector<std::uintptr_t> stack;
    Outcome outcome;
    const auto take = [](Mailbox<int>& from) -> Task<int> { co_return co_await from.Receive(); };
    const auto body = [&take](Mailbox<int>& from, std::vector<std::uintptr_t>& positions) -> Task<void> {
        for (int i = 0; i < kValues; i++)
        {
            const int value = co_await take(from);
            CHECK(value == i);
            positions.push_back(StackPosition());
        }
    };
    Process process(body(mailbox, stack), outcome.Callback());
    process.Start();
    for (int i = 0; i < kValues; i++)
    {
        Simulator::Schedule(NanoSeconds(i), [&mailbox, i] { mailbox.Put(i); });
    }
    Simulator::Run();
    REQUIRE(stack.size() == kValues);
    CHECK(stack.front() == stack.back());
    CHECK(outcome.ends == 1);
}

TEST_CASE("A chain of thousands of tasks suspends, resumes and can be destroyed", "[task]")
{
    const NothingLeft check;
    Outcome outcome;
    int depth = 0;
    const auto body = [](int& result) -> Task<void> { result = co_await Chain(kDeepChain, Seconds(1)); };
    {
        Process process(body(depth), outcome.Callback());
        process.Start();
        CHECK(FramePool::Live() == check.frames + kDeepChain + 3); // the chain, the body and the process
        Simulator::Run();
        CHECK(depth == kDeepChain);
        CHECK(outcome.ends == 1);
    }
    {
        Process process(body(depth), outcome.Callback());
        process.Start();
    }
    CHECK(FramePool::Live() == check.frames);
    CHECK(outcome.ends == 1);
}

TEST_CASE("A condition that awaits works, or its task throws where the compiler gets it wrong", "[task]")
{
    const NothingLeft check;
    int result = 0;
    std::string refusal;
    Outcome outcome;
    try
    {
        Process process(AwaitInCondition(result), outcome.Callback());
        process.Start();
    }
    catch (const std::logic_error& error)
    {
        refusal = error.what();
    }
    const bool works = result == 1 && outcome.ends == 1;
    const bool isRefused = refusal.find("the compiler gets wrong") != std::string::npos;
    CHECK(works != isRefused);
}

TEST_CASE("A delay takes exactly its time, and one of zero or less does not suspend", "[task]")
{
    const NothingLeft check;
    std::vector<std::int64_t> instants;
    Outcome outcome;
    const auto body = [](std::vector<std::int64_t>& log) -> Task<void> {
        for (const std::int64_t duration : {0, -5, 1, 0, 999'999'999})
        {
            co_await Delay(NanoSeconds(duration));
            log.push_back(Simulator::Now().GetNanoSeconds());
        }
    };
    Process process(body(instants), outcome.Callback());
    process.Start();
    CHECK(instants == std::vector<std::int64_t>{0, 0});
    Simulator::Run();
    CHECK(instants == std::vector<std::int64_t>{0, 0, 1, 1, 1'000'000'000});
    CHECK(Simulator::GetEventCount() == 2);
}

TEST_CASE("A mailbox gives values in the order they came", "[mailbox]")
{
    const NothingLeft check;
    Mailbox<std::unique_ptr<int>> mailbox;
    std::vector<int> received;
    Outcome outcome;
    const auto body = [](Mailbox<std::unique_ptr<int>>& from, std::vector<int>& into) -> Task<void> {
        while (true)
        {
            into.push_back(*co_await from.Receive());
        }
    };
    mailbox.Put(std::make_unique<int>(1));
    mailbox.Put(std::make_unique<int>(2));
    CHECK(mailbox.Size() == 2);
    Process process(body(mailbox, received), outcome.Callback());
    process.Start();
    CHECK(received == std::vector<int>{1, 2});
    mailbox.Put(std::make_unique<int>(3));
    CHECK(received == std::vector<int>{1, 2, 3});
    CHECK(mailbox.Size() == 0);
}

TEST_CASE("A closed mailbox gives what it has, then its reason, every time", "[mailbox]")
{
    const NothingLeft check;
    Mailbox<int> mailbox;
    mailbox.Put(5);
    CHECK_FALSE(mailbox.IsClosed());
    mailbox.Close(std::make_exception_ptr(std::runtime_error("first")));
    mailbox.Close(std::make_exception_ptr(std::runtime_error("second")));
    CHECK(mailbox.IsClosed());
    std::vector<std::string> log;
    Outcome outcome;
    const auto body = [](Mailbox<int>& from, std::vector<std::string>& into) -> Task<void> {
        for (int i = 0; i < 3; i++)
        {
            try
            {
                into.push_back(std::to_string(co_await from.Receive()));
            }
            catch (const std::runtime_error& error)
            {
                into.emplace_back(error.what());
            }
        }
    };
    Process process(body(mailbox, log), outcome.Callback());
    process.Start();
    CHECK(log == std::vector<std::string>{"5", "first", "first"});
}

TEST_CASE("Closing a mailbox wakes its receiver", "[mailbox]")
{
    const NothingLeft check;
    Mailbox<int> mailbox;
    Outcome outcome;
    Process process(HoldAndReceive(Counted(), mailbox), outcome.Callback());
    process.Start();
    CHECK(outcome.ends == 0);
    mailbox.Close(std::make_exception_ptr(std::runtime_error("gone")));
    CHECK(outcome.ends == 1);
    CHECK(outcome.error == "gone");
}

TEST_CASE("A mailbox refuses a second receiver, and the first goes on", "[mailbox]")
{
    const NothingLeft check;
    Mailbox<int> mailbox;
    Outcome first;
    Outcome second;
    Process one(HoldAndReceive(Counted(), mailbox), first.Callback());
    Process two(HoldAndReceive(Counted(), mailbox), second.Callback());
    one.Start();
    two.Start();
    CHECK(second.ends == 1);
    CHECK(second.error == "Mailbox: a second receiver");
    CHECK(first.ends == 0);
    mailbox.Put(1);
    CHECK(first.ends == 1);
    CHECK(first.error.empty());
}

TEST_CASE("A receiver may put into the mailbox it has just received from", "[mailbox]")
{
    const NothingLeft check;
    Mailbox<int> mailbox;
    std::vector<int> received;
    Outcome outcome;
    const auto body = [](Mailbox<int>& box, std::vector<int>& into) -> Task<void> {
        while (into.size() < 5)
        {
            const int value = co_await box.Receive();
            into.push_back(value);
            box.Put(value + 1);
        }
    };
    Process process(body(mailbox, received), outcome.Callback());
    process.Start();
    mailbox.Put(10);
    CHECK(received == std::vector<int>{10, 11, 12, 13, 14});
    CHECK(mailbox.Size() == 1);
}

TEST_CASE("The frame pool counts frames of every size and gives their memory out again", "[task]")
{
    const std::size_t before = FramePool::Live();
    std::vector<std::pair<unsigned char*, std::size_t>> frames;
    for (std::size_t bytes = 1; bytes <= 5000; bytes += 61)
    {
        auto* frame = static_cast<unsigned char*>(FramePool::Allocate(bytes));
        CHECK(reinterpret_cast<std::uintptr_t>(frame) % alignof(std::max_align_t) == 0);
        frames.emplace_back(frame, bytes);
    }
    CHECK(FramePool::Live() == before + frames.size());
    for (std::size_t i = 0; i < frames.size(); i++)
    {
        std::memset(frames[i].first, static_cast<int>(i), frames[i].second);
    }
    for (std::size_t i = 0; i < frames.size(); i++)
    {
        const auto [frame, bytes] = frames[i];
        CHECK(std::count(frame, frame + bytes, static_cast<unsigned char>(i)) == static_cast<std::ptrdiff_t>(bytes));
        FramePool::Free(frame, bytes);
    }
    CHECK(FramePool::Live() == before);
#ifndef __SANITIZE_ADDRESS__
    void* first = FramePool::Allocate(100);
    FramePool::Free(first, 100);
    void* again = FramePool::Allocate(120); // of the same class of 64 bytes
    CHECK(again == first);
    FramePool::Free(again, 120);
#endif
}
