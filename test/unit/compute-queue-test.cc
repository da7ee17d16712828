// SPDX-License-Identifier: GPL-2.0-only
#include "sim/compute-queue.h"

#include "support/catch.h"

using namespace splitllm;
using ns3::NanoSeconds;
using ns3::Seconds;
using ns3::Time;

TEST_CASE("An idle device starts at once", "[compute-queue]")
{
    ComputeQueue queue;
    CHECK(queue.Busy() == Time());
    const ComputeQueue::Slot slot = queue.Take(NanoSeconds(17), NanoSeconds(5));
    CHECK(slot.start == NanoSeconds(17));
    CHECK(slot.end == NanoSeconds(22));
    const ComputeQueue::Slot later = queue.Take(Seconds(1), NanoSeconds(1)); // idle in between
    CHECK(later.start == Seconds(1));
    CHECK(queue.Busy() == NanoSeconds(6));
}

TEST_CASE("A device works off what it is given in order, without gaps", "[compute-queue]")
{
    ComputeQueue queue;
    Time end = NanoSeconds(100);
    Time total;
    for (int i = 0; i < 10; i++)
    {
        const Time duration = NanoSeconds(13 * i + 7);
        const ComputeQueue::Slot slot = queue.Take(NanoSeconds(100 + i), duration); // all come while it is busy
        CHECK(slot.start == end);
        CHECK(slot.end == slot.start + duration);
        end = slot.end;
        total += duration;
    }
    CHECK(queue.Busy() == total);
    CHECK(queue.Take(end, NanoSeconds(1)).start == end); // exactly when it becomes free
}

TEST_CASE("Work of no duration waits for its turn and takes no time", "[compute-queue]")
{
    ComputeQueue queue;
    queue.Take(NanoSeconds(0), NanoSeconds(50));
    const ComputeQueue::Slot slot = queue.Take(NanoSeconds(10), Time());
    CHECK(slot.start == NanoSeconds(50));
    CHECK(slot.end == NanoSeconds(50));
    CHECK(queue.Busy() == NanoSeconds(50));
}
