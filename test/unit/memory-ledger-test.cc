// SPDX-License-Identifier: GPL-2.0-only
#include "compute/memory-ledger.h"

#include "support/catch.h"

#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using namespace splitllm;

TEST_CASE("A reservation holds memory for as long as it lives")
{
    MemoryLedger ledger(1000);
    {
        const Reservation weights(ledger, MemoryUse::Weights, 600);
        const Reservation kv(ledger, MemoryUse::Kv, 37);
        CHECK(ledger.Used() == 637);
        CHECK(ledger.Used(MemoryUse::Weights) == 600);
        CHECK(ledger.Used(MemoryUse::Kv) == 37);
        CHECK(ledger.Used(MemoryUse::Adapters) == 0);
        CHECK(kv.Bytes() == 37);
    }
    CHECK(ledger.Used() == 0);
    CHECK(ledger.Used(MemoryUse::Weights) == 0);
    CHECK(ledger.Capacity() == 1000);
}

TEST_CASE("The capacity may be used to the last byte and not beyond")
{
    MemoryLedger ledger(100);
    const Reservation first(ledger, MemoryUse::Weights, 99);
    CHECK_THROWS_AS(Reservation(ledger, MemoryUse::Kv, 2), OutOfMemory);
    const Reservation last(ledger, MemoryUse::Kv, 1);
    const Reservation nothing(ledger, MemoryUse::Buffers, 0);
    CHECK(ledger.Used() == 100);
}

TEST_CASE("Going over the capacity says what was asked for and changes nothing")
{
    MemoryLedger ledger(8'000'000'000);
    Reservation kv(ledger, MemoryUse::Kv, 5);
    std::string message;
    try
    {
        const Reservation weights(ledger, MemoryUse::Weights, 13'476'831'232);
    }
    catch (const OutOfMemory& error)
    {
        message = error.what();
    }
    CHECK(message == "out of memory: weights asked for 13476831232 bytes with 5 of 8000000000 in use");
    CHECK(ledger.Used() == 5);
    CHECK(ledger.Used(MemoryUse::Weights) == 0);
    CHECK(ledger.Peak() == 5);
    CHECK(ledger.Peak(MemoryUse::Weights) == 0);

    CHECK_THROWS_AS(kv.Resize(8'000'000'001), OutOfMemory);
    CHECK(kv.Bytes() == 5);
    CHECK(ledger.Used(MemoryUse::Kv) == 5);
    CHECK(ledger.Peak(MemoryUse::Kv) == 5);
}

TEST_CASE("A capacity of 0 is unlimited, short of what a counter holds")
{
    constexpr std::uint64_t all = std::numeric_limits<std::uint64_t>::max();
    MemoryLedger ledger(0);
    const Reservation most(ledger, MemoryUse::Weights, all - 3);
    CHECK_THROWS_AS(Reservation(ledger, MemoryUse::Weights, 4), OutOfMemory);
    const Reservation rest(ledger, MemoryUse::Weights, 3);
    CHECK(ledger.Used() == all);
}

TEST_CASE("A sum that wraps around does not slip under the capacity")
{
    MemoryLedger ledger(1000);
    const Reservation some(ledger, MemoryUse::Weights, 10);
    CHECK_THROWS_AS(Reservation(ledger, MemoryUse::Kv, std::numeric_limits<std::uint64_t>::max() - 5), OutOfMemory);
    CHECK(ledger.Used() == 10);
}

TEST_CASE("A reservation grows and shrinks")
{
    MemoryLedger ledger(100);
    Reservation kv(ledger, MemoryUse::Kv, 10);
    kv.Resize(73);
    CHECK(kv.Bytes() == 73);
    CHECK(ledger.Used(MemoryUse::Kv) == 73);
    kv.Resize(7);
    CHECK(ledger.Used() == 7);
    kv.Resize(7);
    CHECK(ledger.Used() == 7);
    kv.Resize(0);
    CHECK(ledger.Used() == 0);
    kv.Resize(100);
    CHECK(ledger.Used() == 100);

    Reservation none;
    CHECK(none.Bytes() == 0);
    CHECK_THROWS_AS(none.Resize(1), std::logic_error);
}

TEST_CASE("Peaks are the largest amounts at any instant, of each use and of all together")
{
    MemoryLedger ledger(0);
    {
        const Reservation weights(ledger, MemoryUse::Weights, 50);
        Reservation kv(ledger, MemoryUse::Kv, 30);
        kv.Resize(10);
        kv.Resize(12);
        const Reservation buffers(ledger, MemoryUse::Buffers, 15);
    }
    const Reservation later(ledger, MemoryUse::Buffers, 40);
    CHECK(ledger.Peak() == 80); // 50 + 30, though the peaks of the uses add up to 120
    CHECK(ledger.Peak(MemoryUse::Weights) == 50);
    CHECK(ledger.Peak(MemoryUse::Kv) == 30);
    CHECK(ledger.Peak(MemoryUse::Buffers) == 40);
    CHECK(ledger.Peak(MemoryUse::Adapters) == 0);
    CHECK(ledger.Used() == 40);
}

TEST_CASE("Moving a reservation moves what it holds")
{
    static_assert(!std::is_copy_constructible_v<Reservation>);
    static_assert(std::is_nothrow_move_constructible_v<Reservation>);

    MemoryLedger ledger(100);
    MemoryLedger other(100);
    {
        Reservation a(ledger, MemoryUse::Kv, 11);
        Reservation b(std::move(a));
        CHECK(ledger.Used() == 11);
        CHECK(b.Bytes() == 11);
        CHECK(a.Bytes() == 0);
        CHECK_THROWS_AS(a.Resize(1), std::logic_error);

        Reservation c(other, MemoryUse::Buffers, 17);
        c = std::move(b);
        CHECK(other.Used() == 0);
        CHECK(ledger.Used() == 11);
        CHECK(ledger.Used(MemoryUse::Kv) == 11);
        CHECK(c.Bytes() == 11);

        Reservation& same = c;
        c = std::move(same);
        CHECK(c.Bytes() == 11);
        CHECK(ledger.Used() == 11);

        c = Reservation();
        CHECK(ledger.Used() == 0);
    }
    {
        std::vector<Reservation> many;
        for (std::uint64_t i = 1; i <= 13; ++i)
        {
            many.emplace_back(ledger, MemoryUse::Activations, i);
        }
        CHECK(ledger.Used() == 91);
        many.erase(many.begin() + 4);
        CHECK(ledger.Used() == 86);
    }
    CHECK(ledger.Used() == 0);
    CHECK(other.Used() == 0);
}

TEST_CASE("Memory uses have the names of the results")
{
    CHECK(NameOf(MemoryUse::Weights) == "weights");
    CHECK(NameOf(MemoryUse::Adapters) == "adapters");
    CHECK(NameOf(MemoryUse::Kv) == "kv");
    CHECK(NameOf(MemoryUse::Activations) == "activations");
    CHECK(NameOf(MemoryUse::Buffers) == "buffers");
}
