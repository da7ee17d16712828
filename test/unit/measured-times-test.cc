// SPDX-License-Identifier: GPL-2.0-only
#include "compute/measured-times.h"

#include "support/catch.h"
#include "support/error-of.h"

#include <chrono>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;
using std::chrono::nanoseconds;

namespace
{

MeasuredTimes
Read(Json samples)
{
    Json json{{"samples", std::move(samples)}};
    StrictObject object(json, "here.json", "head");
    return MeasuredTimes::Read(object, "samples");
}

/// A call that took \p ns, as a profile has it.
Json
Sample(std::size_t rows, const Work& work, std::int64_t ns)
{
    return MeasuredTimes::Written(
        {.rows = rows, .work = work, .median = nanoseconds(ns), .p10 = nanoseconds(ns), .p90 = nanoseconds(ns)});
}

constexpr std::uint64_t kWeights = 5000;

/// What attention asks of \p rows rows of one sequence behind \p context entries, in some model.
Work
OneSequence(std::uint64_t rows, std::uint64_t context)
{
    const std::uint64_t seen = rows * context + rows * (rows + 1) / 2;
    return {.flops = 700 * rows + 12 * seen, .bytesRead = kWeights + 8 * context, .weightBytes = kWeights, .caches = 1};
}

/// And of a row of each of \p rows sequences, that have \p context entries together.
Work
SequenceEach(std::uint64_t rows, std::uint64_t context)
{
    return {.flops = 700 * rows + 12 * (context + rows),
            .bytesRead = kWeights + 8 * context,
            .weightBytes = kWeights,
            .caches = rows};
}

/// Nanoseconds by a rule that is linear in the rows for each context, and in the context for all rows.
std::int64_t
Took(std::uint64_t rows, std::uint64_t context)
{
    return static_cast<std::int64_t>(90000 + 600 * rows + 40 * context + 2 * rows * context);
}

/// Rows 1, 3 and 8 behind 0, 10 and 50 entries, in no order.
Json
Grid()
{
    Json samples = Json::array();
    for (const std::uint64_t context : {50, 0, 10})
    {
        for (const std::uint64_t rows : {3, 8, 1})
        {
            samples.push_back(Sample(rows, OneSequence(rows, context), Took(rows, context)));
        }
    }
    return samples;
}

std::int64_t
Time(const MeasuredTimes& times, std::size_t rows, const Work& work)
{
    return times.TimeOf(rows, work).count();
}

} // namespace

TEST_CASE("A call that was measured takes its median, whatever lies around it")
{
    Json samples = Json::array();
    std::int64_t ns = 1;
    const std::vector<std::uint64_t> rows{1, 2, 7, 100, 513};
    const std::vector<std::uint64_t> contexts{0, 1, 19, 4096};
    for (const std::uint64_t w : rows)
    {
        for (const std::uint64_t context : contexts)
        {
            samples.push_back(Sample(w, OneSequence(w, context), ns = ns * 31 % 999'999'937));
        }
    }
    const MeasuredTimes times = Read(samples);
    ns = 1;
    for (const std::uint64_t w : rows)
    {
        for (const std::uint64_t context : contexts)
        {
            INFO(w << " rows behind " << context);
            ns = ns * 31 % 999'999'937;
            CHECK(Time(times, w, OneSequence(w, context)) == ns);
        }
    }
    CHECK(Time(times, 5, {}) == 0); // nothing to do takes no time
}

TEST_CASE("Between measured calls time is linear in the rows, and in the context")
{
    const MeasuredTimes times = Read(Grid());
    for (const std::uint64_t rows : {1, 2, 3, 5, 7, 8})
    {
        for (const std::uint64_t context : {0, 4, 10, 31, 50})
        {
            INFO(rows << " rows behind " << context);
            CHECK(Time(times, rows, OneSequence(rows, context)) == Took(rows, context));
        }
    }
}

TEST_CASE("Contexts up to a model's last position are measured for all rows between")
{
    // Of a model of 60 positions: 2 rows behind at most 58 entries, 20 behind at most 40.
    Json samples = Json::array();
    for (const std::uint64_t rows : {2, 20})
    {
        for (const std::uint64_t context : {std::uint64_t{0}, 60 - rows})
        {
            const auto took = static_cast<std::int64_t>(1000 + 100 * context);
            samples.push_back(Sample(rows, OneSequence(rows, context), took));
        }
    }
    const MeasuredTimes times = Read(samples);
    for (const std::uint64_t rows : {2, 3, 11, 19, 20})
    {
        INFO(rows);
        CHECK(Time(times, rows, OneSequence(rows, 60 - rows)) == 1000 + 100 * (60 - static_cast<std::int64_t>(rows)));
        CHECK(Time(times, rows, OneSequence(rows, 0)) == 1000);
    }
}

TEST_CASE("A call without attention is measured for its weights, its rows and its FLOPs alone")
{
    Json samples = Json::array();
    for (const std::uint64_t rows : {1, 4, 16})
    {
        samples.push_back(Sample(rows,
                                 {.flops = 30 * rows, .bytesRead = 64, .weightBytes = 64},
                                 static_cast<std::int64_t>(100 * rows * rows)));
    }
    const MeasuredTimes times = Read(samples);
    // Activations of another type: other bytes, the same call.
    CHECK(Time(times, 4, {.flops = 120, .bytesRead = 99, .bytesWritten = 3, .launches = 7, .weightBytes = 64}) == 1600);
    CHECK(Time(times, 2, {.flops = 60, .bytesRead = 64, .weightBytes = 64}) == 600);     // a third of the way to 1600
    CHECK(Time(times, 10, {.flops = 300, .bytesRead = 64, .weightBytes = 64}) == 13600); // half-way to 25600
    const auto fails = [&](std::size_t rows, const Work& work) {
        return ErrorOf([&] { times.TimeOf(rows, work); });
    };
    CHECK(fails(17, {.flops = 510, .weightBytes = 64}) ==
          "a call with rows 17, FLOPs a row 30, sequences 1 was not measured; accepted: with one sequence rows 1 "
          "(FLOPs a row 30) to 16 (FLOPs a row 30); with a sequence for each row none");
    CHECK_FALSE(fails(4, {.flops = 121, .weightBytes = 64}).empty());
    CHECK_FALSE(fails(4, {.flops = 119, .weightBytes = 64}).empty());
    CHECK(fails(4, {.flops = 120, .weightBytes = 65}) ==
          "65 bytes of weights were not measured; accepted: 64; another model or precision needs a measurement of its "
          "own");
}

TEST_CASE("A call outside of what was measured is an error that says what was")
{
    const MeasuredTimes times = Read(Grid());
    const auto fails = [&](std::size_t rows, const Work& work) {
        return ErrorOf([&] { times.TimeOf(rows, work); });
    };
    // FLOPs of a row: 700 + 12 (context + (rows + 1) / 2)
    CHECK(fails(9, OneSequence(9, 0)) ==
          "a call with rows 9, FLOPs a row 760, sequences 1 was not measured; accepted: with one sequence rows 1 "
          "(FLOPs a row 712 to 1312) to 8 (FLOPs a row 754 to 1354); with a sequence for each row none");
    CHECK_FALSE(fails(1, OneSequence(1, 51)).empty());
    CHECK_FALSE(fails(5, OneSequence(5, 51)).empty());
    CHECK_FALSE(fails(3, SequenceEach(3, 30)).empty()); // one sequence's rows say nothing about it

    Json later = Json::array({Sample(4, OneSequence(4, 8), 5), Sample(6, OneSequence(6, 8), 7)});
    const MeasuredTimes few = Read(later);
    CHECK(ErrorOf([&] { few.TimeOf(5, OneSequence(5, 8)); }).empty());
    CHECK_FALSE(ErrorOf([&] { few.TimeOf(3, OneSequence(3, 8)); }).empty());
    CHECK_FALSE(ErrorOf([&] { few.TimeOf(4, OneSequence(4, 7)); }).empty());
}

TEST_CASE("A batch of tokens takes what batches took, and one with prompts is in between")
{
    Json samples = Grid();
    for (const std::uint64_t rows : {2, 8})
    {
        for (const std::uint64_t context : {0, 50}) // of each
        {
            samples.push_back(Sample(rows, SequenceEach(rows, rows * context), 10 * Took(rows, context)));
        }
    }
    const MeasuredTimes times = Read(samples);
    CHECK(Time(times, 2, SequenceEach(2, 100)) == 10 * Took(2, 50));
    CHECK(Time(times, 5, SequenceEach(5, 5 * 20)) == 10 * Took(5, 20));
    CHECK(Time(times, 8, SequenceEach(8, 13 + 27 + 8 * 15)) == 10 * Took(8, 20)); // contexts are 20 in the mean
    CHECK(Time(times, 1, SequenceEach(1, 10)) == Took(1, 10)); // a batch of one is a sequence

    // As two jobs that a server joins: 3 rows behind 9 entries, and 2 rows behind 14. The 5 rows see 27 + 6 + 28 + 3 = 64
    // entries. One sequence sees as many behind 9.8 entries, one each behind 11.8; 2 caches are a quarter of the way from
    // 1 to 5.
    const Work mixed = Work(OneSequence(3, 9)).Join(OneSequence(2, 14));
    const double one = 90000 + 600 * 5 + 40 * 9.8 + 2 * 5 * 9.8;
    const double each = 10 * (90000 + 600 * 5 + 40 * 11.8 + 2 * 5 * 11.8);
    CHECK(Time(times, 5, mixed) == std::llround(one + (each - one) / 4));

    // Prompts see less than one sequence as long as they are: they take what its first rows take.
    const Work prompts = Work(OneSequence(3, 0)).Join(OneSequence(3, 0));
    const MeasuredTimes alone = Read(Grid());
    CHECK(Time(alone, 6, prompts) == Took(6, 0));
    CHECK_FALSE(ErrorOf([&] { times.TimeOf(9, Work(OneSequence(3, 0)).Join(OneSequence(6, 0))); }).empty());
}

TEST_CASE("Operations without attention on several rows join as one call of all rows")
{
    const auto head = [](std::uint64_t rows) {
        return Work{.flops = 30 * rows, .bytesRead = 64 + 5 * rows, .launches = 2, .weightBytes = 64};
    };
    const MeasuredTimes times = Read(Json::array({Sample(1, head(1), 100), Sample(9, head(9), 900)}));
    CHECK(Time(times, 7, head(3).Join(head(4))) == 700);
}

TEST_CASE("The same numbers give the same time however far apart they are")
{
    // The largest counts that are accepted, and nearly the largest time.
    const std::uint64_t most = std::uint64_t{1} << 53;
    const Work work{.flops = most, .bytesRead = most, .bytesWritten = most, .weightBytes = most};
    const MeasuredTimes times = Read(Json::array({Sample(1, work, 900'000'000'000'000'000)}));
    CHECK(times.TimeOf(1, work).count() == 900'000'000'000'000'000);
}

TEST_CASE("A sample is read strictly")
{
    const Work work{.flops = 80, .bytesRead = 9, .bytesWritten = 5, .weightBytes = 4, .caches = 8};
    const Json good = Sample(8, work, 610'001);
    CHECK(good.dump() == R"({"rows":8,"caches":8,"flops":80,"weight_bytes":4,"bytes_read":9,"bytes_written":5,)"
                         R"("ms":0.610001,"p10":0.610001,"p90":0.610001,"repeats":1})");
    const auto errorOf = [&](const std::string& key, const Json& value) {
        Json bad = good;
        bad[key] = value;
        return ErrorOf([&] { Read(Json::array({bad})); });
    };
    const std::string at = "here.json: head.samples[0].";
    CHECK(errorOf("rows", 8).empty());
    CHECK(errorOf("rows", 0).starts_with(at + "rows: "));
    CHECK(errorOf("rows", 1.5).starts_with(at + "rows: "));
    CHECK(errorOf("caches", 3) ==
          at + "caches: is 3; accepted: 1 where all rows are of one sequence, or 8 where each is of its own");
    CHECK(errorOf("caches", 9).starts_with(at + "caches: "));
    CHECK(errorOf("flops", -1).starts_with(at + "flops: "));
    CHECK(errorOf("flops", (std::uint64_t{1} << 53) + 1).starts_with(at + "flops: "));
    CHECK(errorOf("bytes_read", "9").starts_with(at + "bytes_read: "));
    CHECK(errorOf("bytes_written", nullptr).starts_with(at + "bytes_written: "));
    CHECK(errorOf("weight_bytes", 10).starts_with(at + "weight_bytes: "));
    CHECK(errorOf("ms", 2e12).starts_with(at + "ms: "));
    CHECK(errorOf("p10", -1).starts_with(at + "p10: "));
    CHECK(errorOf("p10", 0.7) ==
          at + "ms: is not between p10 and p90; accepted: the median, in order with the percentiles around it");
    CHECK(errorOf("p90", 0.5).starts_with(at + "ms: "));
    CHECK(errorOf("repeats", 0).starts_with(at + "repeats: "));
    CHECK(errorOf("context", 5).starts_with(at + "context: "));
    for (const std::string key :
         {"rows", "flops", "weight_bytes", "bytes_read", "bytes_written", "ms", "p10", "p90", "repeats"})
    {
        INFO(key);
        Json bad = good;
        bad.erase(key);
        CHECK(ErrorOf([&] { Read(Json::array({bad})); }).starts_with(at + key + ": "));
    }
    CHECK(ErrorOf([&] { Read(Json::array({good, good})); }) ==
          "here.json: head.samples[1].rows: the same call as one before it; accepted: each once");
    CHECK(ErrorOf([] { Read(Json::array()); }) ==
          "here.json: head.samples: is empty; accepted: a list of at least one call that was measured");
    CHECK(ErrorOf([] { Read(5); }).starts_with("here.json: head.samples: "));
    CHECK(ErrorOf([] { Read(Json::array({5})); }).starts_with("here.json: head.samples[0]: "));
}
