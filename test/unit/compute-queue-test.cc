// SPDX-License-Identifier: GPL-2.0-only
#include "sim/compute-queue.h"

#include "compute/shape-backend.h"
#include "sim/delay.h"
#include "sim/task.h"
#include "support/catch.h"

#include "ns3/simulator.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

using namespace splitllm;
using ns3::NanoSeconds;
using ns3::Simulator;
using ns3::Time;

namespace
{

/// 1000 FLOPs, or a byte, a nanosecond; 2000 ns a launch.
constexpr const char* kHardware =
    R"({"name": "test", "source": "test", "tflops": {"fp32": 1}, "bandwidth_gb_per_s": 1, "launch_us": 2})";

DeviceProfile
Profile(const std::string& text = kHardware)
{
    Json json = Json::parse(text);
    StrictObject object(json, "test");
    return DeviceProfile::Read(object, {});
}

std::shared_ptr<const ResidentModel>
AModel()
{
    ModelConfig config;
    config.dtype = DType::F32;
    return std::make_shared<const ResidentModel>(config, DType::F32, WeightPrecision(config));
}

/// A job that takes \p ns of the test's hardware.
ComputeJob
Taking(const ResidentModel& model, std::uint64_t ns, std::size_t layer = 1)
{
    return {.model = &model,
            .operation = Operation::Project,
            .layer = layer,
            .rows = 1,
            .rate = model.Config().dtype,
            .work = {.flops = 1000 * ns},
            .elapsed = {}};
}

/// What became of the jobs of one session.
struct Ran
{
    std::vector<ComputeQueue::Slot> slots;
    std::string error;

    bool operator==(const std::vector<std::pair<int, int>>& expected) const
    {
        return std::ranges::equal(slots, expected, [](const ComputeQueue::Slot& slot, const auto& times) {
            return slot.start == NanoSeconds(times.first) && slot.end == NanoSeconds(times.second);
        });
    }
};

/// Hands in \p jobs from \p start on, each when the one before is over.
Task<void>
HandIn(ComputeQueue& queue, Time start, std::vector<ComputeJob> jobs, Ran& ran)
{
    co_await Delay(start);
    for (const ComputeJob& job : jobs)
    {
        const ComputeQueue::Slot slot = co_await queue.Run(job);
        CHECK(slot.end == Simulator::Now());
        ran.slots.push_back(slot);
    }
}

/// Sessions that share one device.
class Sessions
{
  public:
    explicit Sessions(std::uint32_t largestBatch, const DeviceProfile& itsProfile = Profile())
        : profile(itsProfile)
    {
        queue.SetLargestBatch(largestBatch);
    }

    ~Sessions()
    {
        m_processes.clear();
        Simulator::Destroy();
        CHECK(FramePool::Live() == m_frames);
    }

    Sessions(const Sessions&) = delete;
    Sessions& operator=(const Sessions&) = delete;

    /// A session that hands in its first job at \p ns.
    Ran& Add(std::int64_t ns, std::vector<ComputeJob> jobs)
    {
        Ran& ran = *m_ran.emplace_back(std::make_unique<Ran>());
        m_processes.push_back(std::make_unique<Process>(
            HandIn(queue, NanoSeconds(ns), std::move(jobs), ran), [&ran](std::exception_ptr error) {
                try
                {
                    if (error)
                    {
                        std::rethrow_exception(error);
                    }
                }
                catch (const std::exception& cause)
                {
                    ran.error = cause.what();
                }
            }));
        m_processes.back()->Start();
        return ran;
    }

    /// Destroys session \p index at \p at.
    void Lose(std::size_t index, Time at)
    {
        Simulator::Schedule(at, [this, index] { m_processes[index].reset(); });
    }

    void LoseNow(std::size_t index)
    {
        m_processes[index].reset();
    }

    DeviceProfile profile;
    ComputeQueue queue{profile};

  private:
    std::size_t m_frames = FramePool::Live();
    std::vector<std::unique_ptr<Ran>> m_ran;
    std::vector<std::unique_ptr<Process>> m_processes;
};

} // namespace

TEST_CASE("An idle device starts at once", "[compute-queue]")
{
    const auto model = AModel();
    Sessions sessions(1);
    CHECK(sessions.queue.Busy() == Time());
    const Ran& ran = sessions.Add(17, {Taking(*model, 5)});
    const Ran& later = sessions.Add(1000, {Taking(*model, 1)}); // idle in between
    Simulator::Run();
    CHECK(ran == std::vector<std::pair<int, int>>{{17, 22}});
    CHECK(later == std::vector<std::pair<int, int>>{{1000, 1001}});
    CHECK(sessions.queue.Busy() == NanoSeconds(6));
}

TEST_CASE("A device works off what it is given in order, without gaps", "[compute-queue]")
{
    const auto model = AModel();
    Sessions sessions(1);
    std::vector<const Ran*> all;
    for (int i = 0; i < 10; i++)
    {
        // All come while it is busy, and the first one's next job goes behind them.
        all.push_back(&sessions.Add(100 + i, {Taking(*model, 13 * i + 107), Taking(*model, 3)}));
    }
    const Ran& atTheEnd = sessions.Add(100 + 10 * 107 + 13 * 45 + 10 * 3, {Taking(*model, 1)});
    Simulator::Run();
    int end = 100;
    for (int i = 0; i < 10; i++)
    {
        CHECK(all[i]->slots.at(0).start == NanoSeconds(end));
        end += 13 * i + 107;
        CHECK(all[i]->slots.at(0).end == NanoSeconds(end));
    }
    for (int i = 0; i < 10; i++)
    {
        CHECK(all[i]->slots.at(1).start == NanoSeconds(end));
        end += 3;
    }
    CHECK(atTheEnd == std::vector<std::pair<int, int>>{{end, end + 1}}); // exactly when it becomes free
    CHECK(sessions.queue.Busy() == NanoSeconds(end + 1 - 100));
    CHECK(sessions.queue.Jobs() == 21);
    CHECK(sessions.queue.Batches() == 21);
}

TEST_CASE("Work of no duration waits for its turn and takes no time", "[compute-queue]")
{
    const auto model = AModel();
    for (const std::uint32_t largest : {1U, 4U})
    {
        CAPTURE(largest);
        Sessions sessions(largest);
        sessions.Add(0, {Taking(*model, 50, 2)});
        const Ran& ran = sessions.Add(10, {Taking(*model, 0), Taking(*model, 0), Taking(*model, 4), Taking(*model, 0)});
        const Ran& alone = sessions.Add(60, {Taking(*model, 0)});
        Simulator::Run();
        CHECK(ran == std::vector<std::pair<int, int>>{{50, 50}, {50, 50}, {50, 54}, {54, 54}});
        CHECK(alone == std::vector<std::pair<int, int>>{{60, 60}});
        CHECK(sessions.queue.Busy() == NanoSeconds(54));
    }
}

TEST_CASE("Jobs that come together read the weights and launch once", "[compute-queue]")
{
    const auto model = AModel();
    // Bound by memory, and by arithmetic.
    for (const std::uint64_t flops : {1'000ULL, 700'000ULL})
    {
        const Work work{
            .flops = flops, .bytesRead = 9'000 + 110, .bytesWritten = 31, .launches = 3, .weightBytes = 9'000};
        for (const int k : {1, 3, 16, 17, 37})
        {
            CAPTURE(flops, k);
            Sessions sessions(16);
            std::vector<const Ran*> all;
            for (int i = 0; i < k; i++)
            {
                ComputeJob job = Taking(*model, 0);
                job.work = work;
                all.push_back(&sessions.Add(5, {job}));
            }
            Simulator::Run();
            const auto duration = [&](int jobs) {
                return std::max<int>(jobs * static_cast<int>(flops) / 1000, 9'000 + jobs * 141) + 3 * 2000;
            };
            int start = 5;
            int done = 0;
            while (done < k)
            {
                const int batch = std::min(16, k - done);
                for (int i = done; i < done + batch; i++)
                {
                    CHECK(*all[i] == std::vector<std::pair<int, int>>{{start, start + duration(batch)}});
                    CHECK(all[i]->slots.front().batch == static_cast<std::uint32_t>(batch));
                }
                start += duration(batch);
                done += batch;
            }
            CHECK(sessions.queue.Busy() == NanoSeconds(start - 5)); // a batch counts once
            CHECK(sessions.queue.Jobs() == static_cast<std::uint64_t>(k));
            CHECK(sessions.queue.Batches() == static_cast<std::uint64_t>((k + 15) / 16));
        }
    }
}

TEST_CASE("A table's time is that of one call for all rows, or of each row", "[compute-queue]")
{
    const auto model = AModel();
    for (const bool perRow : {false, true})
    {
        Sessions sessions(8, Profile(std::string(R"({"name": "t", "source": "t", "timing": {"table": {"project": {")") +
                                     (perRow ? "ms_per_row" : "ms") + R"(": 0.001}}, "otherwise": "free"}})"));
        ComputeJob prompt = Taking(*model, 1);
        prompt.rows = 7;
        const Ran& ran = sessions.Add(0, {prompt});
        sessions.Add(0, {Taking(*model, 1)});
        sessions.Add(0, {Taking(*model, 1)});
        Simulator::Run();
        CHECK(ran == std::vector<std::pair<int, int>>{{0, perRow ? 9'000 : 1'000}});
    }
}

TEST_CASE("Measured times of a batch add up", "[compute-queue]")
{
    const auto model = AModel();
    Sessions sessions(8, Profile(R"({"name": "t", "source": "t", "timing": "measured"})"));
    ComputeJob job = Taking(*model, 1);
    job.elapsed = std::chrono::nanoseconds(30);
    const Ran& ran = sessions.Add(0, {job});
    job.elapsed = std::chrono::nanoseconds(12);
    sessions.Add(0, {job});
    Simulator::Run();
    CHECK(ran == std::vector<std::pair<int, int>>{{0, 42}});
}

TEST_CASE("By measured samples a batch is one call where it shares weights, and one call after the other elsewhere",
          "[compute-queue]")
{
    // A call of w rows took 100 + 10 w ns, of up to 3 rows.
    const auto samples = [](std::uint64_t weights) {
        Json list = Json::array();
        for (const std::size_t rows : {1, 3})
        {
            const std::chrono::nanoseconds took(100 + 10 * rows);
            const Work work{.flops = 7 * rows, .bytesRead = weights, .weightBytes = weights};
            list.push_back(
                MeasuredTimes::Written({.rows = rows, .work = work, .median = took, .p10 = took, .p90 = took}));
        }
        return Json{{"samples", list}};
    };
    const Json table{{"project", samples(50)}, {"adapt", samples(0)}};
    const Json profile{{"name", "t"},
                       {"source", "t"},
                       {"timing", {{"table", table}, {"otherwise", "error"}}},
                       {"measured_on", {{"device", "d"}, {"software", "s"}, {"model", "m"}, {"command", "c"}}}};
    const auto model = AModel();
    const auto job = [&](Operation operation, std::size_t rows) {
        ComputeJob it = Taking(*model, 1);
        it.operation = operation;
        it.rows = rows;
        it.work = {.flops = 7 * rows, .bytesRead = 50, .weightBytes = operation == Operation::Project ? 50U : 0U};
        return it;
    };
    Sessions sessions(8, Profile(profile.dump()));
    const Ran& a = sessions.Add(0, {job(Operation::Project, 1), job(Operation::Adapt, 1)});
    const Ran& b = sessions.Add(0, {job(Operation::Project, 2), job(Operation::Adapt, 2)});
    // 3 rows together; then 1 row and 2 rows
    CHECK_NOTHROW(Simulator::Run());
    CHECK(a == std::vector<std::pair<int, int>>{{0, 130}, {130, 130 + 110 + 120}});
    CHECK(b == std::vector<std::pair<int, int>>{{0, 130}, {130, 130 + 110 + 120}});

    const Ran& many = sessions.Add(1000, {job(Operation::Project, 4)});
    Simulator::Run();
    CHECK(many.error.starts_with("hardware profile t: timing.table.project.samples: "));
}

TEST_CASE("Only the same operation of the same layer and model is batched, and who waits longest goes first",
          "[compute-queue]")
{
    const auto model = AModel();
    const auto other = AModel();
    Sessions sessions(2);
    sessions.Add(0, {Taking(*model, 100)});
    const Ran& a = sessions.Add(1, {Taking(*model, 10)});
    const Ran& layer = sessions.Add(2, {Taking(*model, 20, 2)});
    const Ran& foreign = sessions.Add(3, {Taking(*other, 30)});
    ComputeJob head = Taking(*model, 40);
    head.operation = Operation::Head;
    const Ran& operation = sessions.Add(4, {head});
    const Ran& a2 = sessions.Add(5, {Taking(*model, 11)});
    const Ran& a3 = sessions.Add(6, {Taking(*model, 12)}); // no room in the batch of two
    const Ran& layer2 = sessions.Add(7, {Taking(*model, 21, 2)});
    const Ran& a4 = sessions.Add(8, {Taking(*model, 13)});
    Simulator::Run();
    CHECK(a == std::vector<std::pair<int, int>>{{100, 121}});
    CHECK(a2 == std::vector<std::pair<int, int>>{{100, 121}});
    CHECK(layer == std::vector<std::pair<int, int>>{{121, 162}});
    CHECK(layer2 == std::vector<std::pair<int, int>>{{121, 162}});
    CHECK(foreign == std::vector<std::pair<int, int>>{{162, 192}});
    CHECK(operation == std::vector<std::pair<int, int>>{{192, 232}});
    CHECK(a3 == std::vector<std::pair<int, int>>{{232, 257}});
    CHECK(a4 == std::vector<std::pair<int, int>>{{232, 257}});
    CHECK(foreign.slots.front().batch == 1);
    CHECK(a4.slots.front().batch == 2);
}

TEST_CASE("What comes at the instant at which the device becomes free is in the next batch", "[compute-queue]")
{
    const auto model = AModel();
    Sessions sessions(8);
    // Its event at 50 is scheduled before the device's own one, that of the second after it.
    const Ran& before = sessions.Add(50, {Taking(*model, 1)});
    sessions.Add(0, {Taking(*model, 50, 2)});
    const Ran& waiting = sessions.Add(20, {Taking(*model, 2)});
    const Ran* after = nullptr;
    Simulator::Schedule(NanoSeconds(30), [&] { after = &sessions.Add(20, {Taking(*model, 4)}); });
    const Ran& late = sessions.Add(51, {Taking(*model, 8)});
    Simulator::Run();
    for (const Ran* ran : {&before, &waiting, after})
    {
        CHECK(*ran == std::vector<std::pair<int, int>>{{50, 57}});
        CHECK(ran->slots.front().batch == 3);
    }
    CHECK(late == std::vector<std::pair<int, int>>{{57, 65}});
}

TEST_CASE("Sessions of one batch that go on alike are in one batch again", "[compute-queue]")
{
    const auto model = AModel();
    Sessions sessions(8);
    std::vector<ComputeJob> layers;
    for (std::size_t layer = 1; layer <= 5; layer++)
    {
        layers.push_back(Taking(*model, 10, layer));
    }
    std::vector<const Ran*> all;
    for (int i = 0; i < 3; i++)
    {
        all.push_back(&sessions.Add(0, layers));
    }
    Simulator::Run();
    for (const Ran* ran : all)
    {
        CHECK(*ran == std::vector<std::pair<int, int>>{{0, 30}, {30, 60}, {60, 90}, {90, 120}, {120, 150}});
    }
    CHECK(sessions.queue.Batches() == 5);
}

TEST_CASE("A lost session leaves the queue, and the others go on", "[compute-queue]")
{
    const auto model = AModel();
    Sessions sessions(8);
    const Ran& running = sessions.Add(0, {Taking(*model, 50)});
    const Ran& waiting = sessions.Add(1, {Taking(*model, 7)});
    const Ran& stays = sessions.Add(2, {Taking(*model, 9)});
    sessions.Lose(0, NanoSeconds(10)); // keeps the device until 50
    sessions.Lose(1, NanoSeconds(20));
    Simulator::Run();
    CHECK(running.slots.empty());
    CHECK(waiting.slots.empty());
    CHECK(stays == std::vector<std::pair<int, int>>{{50, 59}});
    CHECK(sessions.queue.Busy() == NanoSeconds(59));
    CHECK(sessions.queue.Jobs() == 2);
}

TEST_CASE("Without batches a lost session's slot is kept", "[compute-queue]")
{
    const auto model = AModel();
    Sessions sessions(1);
    const Ran& lost = sessions.Add(0, {Taking(*model, 50)});
    const Ran& stays = sessions.Add(2, {Taking(*model, 9)});
    sessions.Lose(0, NanoSeconds(1)); // before the other one comes
    Simulator::Run();
    CHECK(lost.slots.empty());
    CHECK(stays == std::vector<std::pair<int, int>>{{50, 59}});
}

TEST_CASE("Everyone may be lost before a batch starts", "[compute-queue]")
{
    const auto model = AModel();
    Sessions sessions(8);
    sessions.Add(0, {Taking(*model, 50)}); // waits for the end of this instant
    sessions.LoseNow(0);
    const Ran& next = sessions.Add(3, {Taking(*model, 4)});
    Simulator::Run();
    CHECK(next == std::vector<std::pair<int, int>>{{3, 7}});
    CHECK(sessions.queue.Busy() == NanoSeconds(4));
}

TEST_CASE("A session may be lost by what another one of its batch does", "[compute-queue]")
{
    const auto model = AModel();
    Sessions sessions(8);
    Ran ran;
    const auto body = [](Sessions& its, const ComputeJob job, Ran& into) -> Task<void> {
        into.slots.push_back(co_await its.queue.Run(job));
        its.LoseNow(0);
    };
    {
        // Comes first: the other one is lost between the end of the batch and its own turn to go on.
        Process first(body(sessions, Taking(*model, 5), ran), [](std::exception_ptr) {});
        first.Start();
        const Ran& lost = sessions.Add(0, {Taking(*model, 6)});
        const Ran& stays = sessions.Add(0, {Taking(*model, 7)});
        Simulator::Run();
        CHECK(ran == std::vector<std::pair<int, int>>{{0, 18}});
        CHECK(lost.slots.empty());
        CHECK(stays == std::vector<std::pair<int, int>>{{0, 18}});
    }
}

TEST_CASE("A job that has no time fails in its session and in no other", "[compute-queue]")
{
    const auto model = AModel();
    ModelConfig config;
    config.dtype = DType::I8;
    const ResidentModel unrated(config, DType::F32, WeightPrecision(config));
    for (const std::uint32_t largest : {1U, 8U})
    {
        CAPTURE(largest);
        Sessions sessions(largest);
        const Ran& idle = sessions.Add(0, {Taking(unrated, 1)});
        const Ran& fine = sessions.Add(5, {Taking(*model, 10)});
        const Ran& busy = sessions.Add(6, {Taking(unrated, 1)});
        const Ran& next = sessions.Add(7, {Taking(*model, 10)});
        Simulator::Run();
        CHECK(idle.error.find("tflops.int8: missing") != std::string::npos);
        CHECK(busy.error == idle.error);
        CHECK(fine == std::vector<std::pair<int, int>>{{5, 15}});
        CHECK(next == std::vector<std::pair<int, int>>{{15, 25}});
    }
}
