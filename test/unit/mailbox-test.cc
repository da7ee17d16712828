// SPDX-License-Identifier: GPL-2.0-only
#include "sim/mailbox.h"

#include "sim/frame-pool.h"
#include "sim/task.h"
#include "support/catch.h"
#include "support/counted.h"

#include "ns3/nstime.h"
#include "ns3/simulator.h"

#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

using namespace splitllm;
using ns3::MicroSeconds;
using ns3::NanoSeconds;
using ns3::Simulator;
using ns3::Time;
using test::Counted;

namespace
{

/// What one receipt came to, and when.
struct Received
{
    Time when;
    std::optional<int> value;
    std::string error;
};

Task<void>
ReceiveWithin(Mailbox<int>& mailbox, Time duration, std::vector<Received>& results, Counted /* held */)
{
    Received result;
    try
    {
        result.value = co_await mailbox.ReceiveWithin(duration);
    }
    catch (const std::exception& error)
    {
        result.error = error.what();
    }
    result.when = Simulator::Now();
    results.push_back(result);
}

/// A mailbox and processes that wait for it for some time. Nothing is left of them.
struct Waiting
{
    ~Waiting()
    {
        processes.clear();
        Simulator::Destroy();
        CHECK(Counted::Alive() == 0);
        CHECK(FramePool::Live() == frames);
    }

    /// Lets a new process wait from now on.
    void Wait(Time duration)
    {
        processes
            .emplace_back(std::make_unique<Process>(ReceiveWithin(mailbox, duration, results, Counted()),
                                                    [](std::exception_ptr) {}))
            ->Start();
    }

    void WaitAt(Time when, Time duration)
    {
        Simulator::Schedule(when, [this, duration] { Wait(duration); });
    }

    void PutAt(Time when, int value)
    {
        Simulator::Schedule(when, [this, value] { mailbox.Put(value); });
    }

    std::size_t frames = FramePool::Live();
    Mailbox<int> mailbox;
    std::vector<Received> results;
    std::vector<std::unique_ptr<Process>> processes;
};

} // namespace

TEST_CASE("A timed receive ends with the value or with the time, whichever is first", "[mailbox]")
{
    Waiting test;
    test.Wait(MicroSeconds(5));
    test.PutAt(MicroSeconds(3), 17);
    test.WaitAt(MicroSeconds(4), MicroSeconds(4)); // beyond the end of the first one's time, which is cancelled
    test.PutAt(MicroSeconds(9), 18);
    test.WaitAt(MicroSeconds(9), MicroSeconds(5)); // at once
    Simulator::Run();
    REQUIRE(test.results.size() == 3);
    CHECK(test.results[0].value == 17);
    CHECK(test.results[0].when == MicroSeconds(3));
    CHECK_FALSE(test.results[1].value);
    CHECK(test.results[1].error.empty());
    CHECK(test.results[1].when == MicroSeconds(8));
    CHECK(test.results[2].value == 18);
    CHECK(test.results[2].when == MicroSeconds(9));
    CHECK(test.mailbox.Size() == 0);
}

TEST_CASE("A value at the instant when the time is over counts, in either order of the events", "[mailbox]")
{
    for (const bool valueFirst : {true, false})
    {
        CAPTURE(valueFirst);
        Waiting test;
        if (valueFirst)
        {
            test.PutAt(MicroSeconds(5), 17);
        }
        test.Wait(MicroSeconds(5));
        if (!valueFirst)
        {
            test.PutAt(MicroSeconds(5), 17);
        }
        Simulator::Run();
        REQUIRE(test.results.size() == 1);
        CHECK(test.results[0].value == 17);
        CHECK(test.results[0].when == MicroSeconds(5));
    }
}

TEST_CASE("A timed receive of no time waits for this instant alone", "[mailbox]")
{
    for (const Time& duration : {Time(0), NanoSeconds(-3)})
    {
        Waiting test;
        test.Wait(duration);
        test.PutAt(Time(0), 17);
        Simulator::Run();
        test.Wait(duration);
        test.PutAt(NanoSeconds(1), 18);
        Simulator::Run();
        REQUIRE(test.results.size() == 2);
        CHECK(test.results[0].value == 17);
        CHECK_FALSE(test.results[1].value);
        CHECK(test.results[1].when == Time(0));
        CHECK(test.mailbox.Size() == 1);
    }
}

TEST_CASE("After a timed receive came to nothing, the mailbox can be waited for again", "[mailbox]")
{
    Waiting test;
    test.Wait(MicroSeconds(5));
    Simulator::Run();
    test.Wait(MicroSeconds(5)); // no second receiver
    test.PutAt(MicroSeconds(1), 17);
    Simulator::Run();
    REQUIRE(test.results.size() == 2);
    CHECK(test.results[1].value == 17);
}

TEST_CASE("A timed receive of a closed mailbox throws the reason, at once or when it closes", "[mailbox]")
{
    Waiting test;
    test.Wait(MicroSeconds(5));
    Simulator::Schedule(MicroSeconds(2),
                        [&test] { test.mailbox.Close(std::make_exception_ptr(std::runtime_error("gone"))); });
    Simulator::Run();
    test.Wait(MicroSeconds(5));
    REQUIRE(test.results.size() == 2);
    CHECK(test.results[0].error == "gone");
    CHECK(test.results[0].when == MicroSeconds(2));
    CHECK(test.results[1].error == "gone");
}

TEST_CASE("Destroying a task in a timed receive cancels the end of the time", "[mailbox]")
{
    // Before the time is over, and between its end and the end of that instant.
    for (const Time& when : {MicroSeconds(2), MicroSeconds(5)})
    {
        Waiting test;
        test.Wait(MicroSeconds(5));
        CHECK(Counted::Alive() == 1);
        Simulator::Schedule(when, [&test] { test.processes.clear(); });
        Simulator::Run();
        CHECK(Counted::Alive() == 0);
        CHECK(test.results.empty());
        test.mailbox.Put(1);
        CHECK(test.mailbox.Size() == 1);
    }
}

TEST_CASE("What is in a mailbox can be taken without waiting, also when it is closed", "[mailbox]")
{
    Mailbox<int> mailbox;
    CHECK_FALSE(mailbox.TakeWaiting());
    mailbox.Put(1);
    mailbox.Put(2);
    CHECK(mailbox.TakeWaiting() == 1);
    mailbox.Close(std::make_exception_ptr(std::runtime_error("gone")));
    CHECK(mailbox.TakeWaiting() == 2);
    CHECK_FALSE(mailbox.TakeWaiting());
}
