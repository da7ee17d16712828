// SPDX-License-Identifier: GPL-2.0-only
#include "sim/byte-semaphore.h"

#include "compute/memory-ledger.h"
#include "sim/delay.h"
#include "sim/task.h"
#include "support/catch.h"

#include "ns3/nstime.h"
#include "ns3/simulator.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

using namespace splitllm;
using ns3::NanoSeconds;
using ns3::Simulator;

namespace
{

/// Wants some bytes at \p start and holds them for \p duration; notes when it got them, in ns.
Task<void>
Hold(ByteSemaphore& semaphore, std::int64_t start, std::uint64_t bytes, std::int64_t duration, std::int64_t& granted)
{
    co_await Delay(NanoSeconds(start));
    const ByteSemaphore::Ticket ticket = co_await semaphore.Acquire(bytes);
    granted = Simulator::Now().GetNanoSeconds();
    co_await Delay(NanoSeconds(duration));
}

/// Processes that want bytes of one semaphore.
struct Holders
{
    explicit Holders(std::uint64_t capacity)
        : semaphore(capacity)
    {
    }

    ~Holders()
    {
        processes.clear();
        Simulator::Destroy();
        CHECK(FramePool::Live() == frames);
    }

    /// \return when it was granted; -1 until then
    const std::int64_t& Add(std::int64_t start, std::uint64_t bytes, std::int64_t duration)
    {
        std::int64_t& granted = *times.emplace_back(std::make_unique<std::int64_t>(-1));
        processes.push_back(std::make_unique<Process>(
            Hold(semaphore, start, bytes, duration, granted), [this](std::exception_ptr error) {
                try
                {
                    if (error)
                    {
                        std::rethrow_exception(error);
                    }
                }
                catch (const OutOfMemory& cause)
                {
                    outOfMemory = cause.what();
                }
            }));
        processes.back()->Start();
        return granted;
    }

    void Lose(std::size_t index, std::int64_t at)
    {
        Simulator::Schedule(NanoSeconds(at), [this, index] { processes[index].reset(); });
    }

    std::size_t frames = FramePool::Live();
    ByteSemaphore semaphore;
    std::vector<std::unique_ptr<std::int64_t>> times;
    std::vector<std::unique_ptr<Process>> processes;
    std::string outOfMemory;
};

} // namespace

TEST_CASE("Bytes are granted in the order in which they were asked for", "[byte-semaphore]")
{
    Holders holders(10);
    const auto& a = holders.Add(0, 6, 100);
    const auto& b = holders.Add(1, 4, 50); // fits exactly
    const auto& c = holders.Add(2, 7, 20); // waits for a
    const auto& d = holders.Add(3, 3, 10); // would fit from 51 on, but c came first
    const auto& e = holders.Add(4, 1, 10); // waits for c, for 7 and 3 are held
    const auto& f = holders.Add(300, 10, 1);
    Simulator::Run();
    CHECK(a == 0);
    CHECK(b == 1);
    CHECK(c == 100);
    CHECK(d == 100);
    CHECK(e == 110);
    CHECK(f == 300);
}

TEST_CASE("Equal demands wait for one another in rounds", "[byte-semaphore]")
{
    // Of 7 that take 5 each of 14, 2 run at a time, for 30.
    Holders holders(14);
    std::vector<const std::int64_t*> granted;
    for (int i = 0; i < 7; i++)
    {
        granted.push_back(&holders.Add(0, 5, 30));
    }
    Simulator::Run();
    for (int i = 0; i < 7; i++)
    {
        CHECK(*granted[i] == 30 * (i / 2));
    }
}

TEST_CASE("Without a capacity nobody waits, and beyond one there is no waiting for ever", "[byte-semaphore]")
{
    Holders unlimited(0);
    const auto& a = unlimited.Add(0, std::uint64_t{1} << 62, 100);
    const auto& b = unlimited.Add(0, std::uint64_t{1} << 62, 100);
    Simulator::Run();
    CHECK(a == 0);
    CHECK(b == 0);

    Holders holders(10);
    const auto& tooMuch = holders.Add(0, 11, 1);
    const auto& next = holders.Add(0, 10, 1);
    Simulator::Run();
    CHECK(tooMuch == -1);
    CHECK(holders.outOfMemory.find("11 bytes") != std::string::npos);
    CHECK(holders.outOfMemory.find("of 10 that") != std::string::npos);
    CHECK(next == 100); // the clock went on
}

TEST_CASE("Who is lost while waiting or holding makes room for the others", "[byte-semaphore]")
{
    Holders holders(10);
    holders.Add(0, 6, 100);
    const auto& large = holders.Add(1, 9, 10);
    const auto& small = holders.Add(2, 4, 100); // fits once the large one before it is gone
    const auto& last = holders.Add(3, 6, 10);
    holders.Lose(1, 20);
    holders.Lose(0, 40);
    Simulator::Run();
    CHECK(large == -1);
    CHECK(small == 20);
    CHECK(last == 40);
}

TEST_CASE("What was granted to someone who is lost before going on is granted again", "[byte-semaphore]")
{
    Holders holders(10);
    holders.Add(0, 10, 50);
    const auto& lost = holders.Add(1, 10, 10);
    const auto& next = holders.Add(2, 10, 10);
    // At 50 the first one's end grants, and the session is lost before the event in which it would go on.
    holders.Lose(1, 50);
    Simulator::Run();
    CHECK(lost == -1);
    CHECK(next == 50);
}

TEST_CASE("A ticket that is moved is held once", "[byte-semaphore]")
{
    Holders holders(10);
    ByteSemaphore::Ticket kept;
    Process taker(
        [](ByteSemaphore& from, ByteSemaphore::Ticket& into) -> Task<void> {
            into = co_await from.Acquire(7);
            ByteSemaphore::Ticket moved = std::move(into);
            into = co_await from.Acquire(3); // moved holds 7
            into = std::move(moved);         // the 3 are free again
        }(holders.semaphore, kept),
        [](std::exception_ptr error) { CHECK_FALSE(error); });
    taker.Start();
    const auto& three = holders.Add(1, 3, 10);
    const auto& seven = holders.Add(2, 7, 10);
    Simulator::Schedule(NanoSeconds(30), [&] { kept = {}; });
    Simulator::Run();
    CHECK(three == 1);
    CHECK(seven == 30);
}
