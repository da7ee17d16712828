// SPDX-License-Identifier: GPL-2.0-only
#include "compute/device-profile.h"

#include "base/input-error.h"
#include "support/catch.h"

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

using namespace splitllm;
using std::chrono::nanoseconds;

namespace
{

const std::filesystem::path kShipped = std::filesystem::path(SPLITLLM_SOURCE_DIR) / "scenarios" / "hardware";

constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();

/// A folder that is gone at the end of the test.
class TemporaryFolder
{
  public:
    TemporaryFolder()
    {
        std::string path = (std::filesystem::temp_directory_path() / "splitllm-XXXXXX").string();
        REQUIRE(mkdtemp(path.data()) != nullptr);
        m_path = path;
    }

    ~TemporaryFolder()
    {
        std::filesystem::remove_all(m_path);
    }

    void Write(const std::string& file, const std::string& text) const
    {
        std::ofstream(m_path / file) << text;
    }

    const std::filesystem::path& Path() const
    {
        return m_path;
    }

  private:
    std::filesystem::path m_path;
};

DeviceProfile
Profile(const std::string& text, const std::filesystem::path& folder = kShipped)
{
    Json json = ParseStrictJson(text, "study.json");
    StrictObject object(json, "study.json", "nodes.edge.hardware");
    return DeviceProfile::Read(object, folder);
}

/// A profile of 2 TFLOPS, 100 GB/s and no overhead with \p more keys, each after a comma.
DeviceProfile
Small(const std::string& more = "")
{
    return Profile(
        R"({"name": "small", "source": "test", "tflops": {"fp32": 2}, "bandwidth_gb_per_s": 100)" + more + "}");
}

/// The message of the InputError that \p call throws, without its path; empty if it throws none.
template <typename Call>
std::string
ErrorOf(Call call)
{
    try
    {
        call();
    }
    catch (const InputError& error)
    {
        const std::string message = error.what();
        const std::string path = "study.json: nodes.edge.hardware.";
        return message.starts_with(path) ? message.substr(path.size()) : message;
    }
    return "";
}

std::string
ErrorOfSmall(const std::string& more)
{
    return ErrorOf([&] { Small(more); });
}

std::int64_t
Time(const DeviceProfile& profile,
     const Work& work,
     DType dtype = DType::F32,
     Operation operation = Operation::FinishLayer,
     std::size_t rows = 1)
{
    return profile.TimeOf(operation, rows, work, dtype, nanoseconds(424242)).count();
}

} // namespace

TEST_CASE("The roofline is the slower of arithmetic and memory")
{
    const DeviceProfile a100 = DeviceProfile::Load("a100-80gb", kShipped);
    CHECK(a100.Mode() == Timing::Roofline);

    // 13.4 GB at 2039 GB/s are 6,571,848.95 ns: LLaMA-7B in fp16, read once for a token.
    CHECK(Time(a100, {.flops = 13'400'000'000, .bytesRead = 13'400'000'000}, DType::F16) == 6'571'849);
    // 3.12 TFLOP at 312 TFLOPS.
    CHECK(Time(a100, {.flops = 3'120'000'000'000, .bytesRead = 13'400'000'000}, DType::F16) == 10'000'000);
    // The same at fp32's 19.5 TFLOPS and int8's 624 TOPS.
    CHECK(Time(a100, {.flops = 3'120'000'000'000}, DType::F32) == 160'000'000);
    CHECK(Time(a100, {.flops = 3'120'000'000'000}, DType::I8) == 5'000'000);
    // What is written moves too.
    CHECK(Time(a100, {.bytesRead = 2039'000, .bytesWritten = 4078'000}, DType::BF16) == 3000);
}

TEST_CASE("A time is rounded up to a nanosecond, and only then")
{
    const DeviceProfile small = Small();
    CHECK(Time(small, {}) == 0);
    CHECK(Time(small, {.bytesRead = 1}) == 1);
    CHECK(Time(small, {.bytesRead = 100}) == 1);
    CHECK(Time(small, {.bytesRead = 100, .bytesWritten = 1}) == 2);
    CHECK(Time(small, {.flops = 2000}) == 1);
    CHECK(Time(small, {.flops = 2001}) == 2);
    CHECK(Time(small, {.flops = 2000 * 1'234'567ULL}) == 1'234'567);
}

TEST_CASE("Each launch adds the launch overhead")
{
    const DeviceProfile small = Small(R"(, "launch_us": 2.5)");
    CHECK(Time(small, {.launches = 1}) == 2500);
    CHECK(Time(small, {.bytesRead = 301, .launches = 7}) == 4 + 7 * 2500);
    // 10 launches of 5 us beside 6,571,849 ns.
    const DeviceProfile a100 = DeviceProfile::Load("a100-80gb", kShipped);
    CHECK(Time(a100, {.bytesRead = 13'400'000'000, .launches = 10}, DType::F16) == 6'621'849);
}

TEST_CASE("Efficiencies reduce the peak rates")
{
    const DeviceProfile half = Small(R"(, "efficiency": {"compute": 0.5, "bandwidth": 0.25})");
    CHECK(Time(half, {.flops = 7000}) == 7);
    CHECK(Time(half, {.bytesRead = 7000}) == 280);
    const DeviceProfile one = Small(R"(, "efficiency": {"bandwidth": 0.5})");
    CHECK(Time(one, {.flops = 7000}) == 4);
    CHECK(Time(one, {.bytesRead = 7000}) == 140);
}

TEST_CASE("Of fp16 and bf16 one stands in for the other where only one is given")
{
    const std::string rest = R"(, "bandwidth_gb_per_s": 1000, "name": "x1", "source": "test"})";
    const DeviceProfile half = Profile(R"({"tflops": {"fp16": 4})" + rest);
    const DeviceProfile brain = Profile(R"({"tflops": {"bf16": 8, "int8": 1})" + rest);
    const DeviceProfile both = Profile(R"({"tflops": {"fp16": 4, "bf16": 8})" + rest);
    const Work work{.flops = 64'000};
    CHECK(Time(half, work, DType::BF16) == 16);
    CHECK(Time(brain, work, DType::F16) == 8);
    CHECK(Time(both, work, DType::F16) == 16);
    CHECK(Time(both, work, DType::BF16) == 8);
    CHECK(ErrorOf([&] { Time(brain, work, DType::F32); }) ==
          "hardware profile x1: tflops.fp32: missing, and the weights are of this type; accepted: a number above 0 "
          "(given: bf16, int8)");
    CHECK_FALSE(ErrorOf([&] { Time(half, work, DType::I8); }).empty());
}

TEST_CASE("A time beyond the clock is an error")
{
    CHECK(Time(Small(), {.flops = kMost}) == 9'223'372'036'854'776); // 2^64 / 2000
    const DeviceProfile slow = Small(R"(, "efficiency": {"compute": 1e-9}, "launch_us": 1000)");
    CHECK(ErrorOf([&] { Time(slow, {.flops = kMost}); }) ==
          "hardware profile small: one operation takes more than 292 years; accepted: higher rates");
    CHECK_FALSE(ErrorOf([&] { Time(slow, {.launches = kMost}); }).empty());
    CHECK_FALSE(ErrorOf([&] { Time(slow, {.bytesRead = 100'000'000, .launches = 9'223'372'036'854}); }).empty());
    const DeviceProfile table =
        Small(R"(, "timing": {"table": {"head": {"ms_per_row": 1}}, "otherwise": "free"})");
    CHECK_FALSE(ErrorOf([&] { Time(table, {}, DType::F32, Operation::Head, kMost); }).empty());
}

TEST_CASE("A table gives the time of a call or of each of its rows")
{
    const DeviceProfile table = Small(
        R"(, "timing": {"table": {"finish-layer": {"ms": 1.1875}, "adapt": {"ms_per_row": 0.1}, "merge": {"ms": 0}},
                        "otherwise": "free"})");
    CHECK(table.Mode() == Timing::Table);
    const Work work{.flops = 1'000'000'000, .bytesRead = 1'000'000'000, .launches = 3};
    // TLC-Calibrator's 38 ms a token over LLaMA-7B's 32 layers.
    CHECK(32 * Time(table, work) == 38'000'000);
    CHECK(Time(table, work, DType::I8, Operation::FinishLayer, 21) == 1'187'500);
    CHECK(Time(table, work, DType::F32, Operation::Adapt, 1) == 100'000);
    CHECK(Time(table, work, DType::F32, Operation::Adapt, 7) == 700'000);
    CHECK(Time(table, work, DType::F32, Operation::Merge) == 0);
    for (const Operation free : {Operation::Embed, Operation::Project, Operation::Head, Operation::Sample})
    {
        CHECK(Time(table, work, DType::F32, free) == 0);
    }
}

TEST_CASE("What a table leaves out takes the roofline's time if it says so")
{
    const DeviceProfile table =
        Small(R"(, "launch_us": 1, "timing": {"table": {"adapt": {"ms": 0.25}}, "otherwise": "roofline"})");
    const Work work{.bytesRead = 4300, .launches = 2};
    CHECK(Time(table, work, DType::F32, Operation::Adapt) == 250'000);
    CHECK(Time(table, work, DType::F32, Operation::Head) == 2043);
    CHECK(Time(table, work, DType::F32, Operation::Project) == 2043);
}

TEST_CASE("A layer in a table is charged once, with finish-layer")
{
    const DeviceProfile table = Small(
        R"(, "timing": {"table": {"layer": {"ms": 1.125}, "head": {"ms": 2}}, "otherwise": "roofline"})");
    const Work work{.bytesRead = 4300};
    CHECK(Time(table, work, DType::F32, Operation::Project) == 0);
    CHECK(Time(table, work, DType::F32, Operation::FinishLayer) == 1'125'000);
    CHECK(Time(table, work, DType::F32, Operation::Head) == 2'000'000);
    CHECK(Time(table, work, DType::F32, Operation::Adapt) == 43);

    const DeviceProfile rows =
        Small(R"(, "timing": {"table": {"layer": {"ms_per_row": 0.5}}, "otherwise": "free"})");
    CHECK(Time(rows, work, DType::F32, Operation::FinishLayer, 3) == 1'500'000);
    CHECK(Time(rows, work, DType::F32, Operation::Project, 3) == 0);

    // In halves it is charged with the second one.
    CHECK(Time(table, work, DType::F32, Operation::Attend) == 0);
    CHECK(Time(table, work, DType::F32, Operation::FeedForward) == 1'125'000);
    CHECK(Time(rows, work, DType::F32, Operation::FeedForward, 3) == 1'500'000);
}

namespace
{

/// A table where a head of 5 weight bytes takes 3 ms for a row and 7 ms for five, and \p more keys.
std::string
Measured(const std::string& more)
{
    const std::string spread = R"(, "p10": 2, "p90": 9, "repeats": 20})";
    return R"(, "timing": {"table": {"sample": {"samples": [{"rows": 1, "flops": 8, "weight_bytes": 0, "bytes_read": 6,
               "bytes_written": 4, "ms": 4)" + spread + R"(]},
               "head": {"samples": [{"rows": 1, "flops": 10, "weight_bytes": 5, "bytes_read": 6, "bytes_written": 2,
               "ms": 3)" + spread + R"(, {"rows": 5, "flops": 50, "weight_bytes": 5, "bytes_read": 8,
               "bytes_written": 10, "ms": 7)" + spread + "]}}" + more;
}

const std::string kMeasuredOn =
    R"(, "measured_on": {"device": "a host", "software": "its compiler", "model": "small", "command": "measure it")";

} // namespace

TEST_CASE("A table of measured samples gives their times, and refuses a call that is none of them")
{
    const DeviceProfile profile = Small(Measured(R"(, "otherwise": "error"})" + kMeasuredOn + "}"));
    CHECK(profile.Mode() == Timing::Table);
    const auto head = [](std::uint64_t rows) { return Work{.flops = 10 * rows, .bytesRead = 9, .weightBytes = 5}; };
    CHECK(Time(profile, head(1), DType::F32, Operation::Head, 1) == 3'000'000);
    CHECK(Time(profile, head(4), DType::F32, Operation::Head, 4) == 6'000'000);
    CHECK(Time(profile, head(5), DType::I8, Operation::Head, 5) == 7'000'000); // rates do not matter
    CHECK(ErrorOf([&] { Time(profile, head(6), DType::F32, Operation::Head, 6); }) ==
          "hardware profile small: timing.table.head.samples: a call with rows 6, FLOPs a row 10, sequences 1 was "
          "not measured; accepted: with one sequence rows 1 (FLOPs a row 10) to 5 (FLOPs a row 10); with a sequence for "
          "each row none");
    CHECK(ErrorOf([&] { Time(profile, head(1), DType::F32, Operation::Exit, 1); }) ==
          R"(hardware profile small: timing.table.exit: missing; accepted: its time, or another "otherwise" than "error")");

    // The roofline is for operations that the table lacks: beside a measurement a bound would be a leap.
    const DeviceProfile bounded = Small(Measured(R"(, "otherwise": "roofline"})" + kMeasuredOn + R"(, "date": "today"})"));
    CHECK(Time(bounded, {.bytesRead = 4300}, DType::F32, Operation::Exit) == 43);
    CHECK_FALSE(ErrorOf([&] { Time(bounded, head(6), DType::F32, Operation::Head, 6); }).empty());

    // Calls that share weights are one call; others come one after the other.
    CHECK(profile.RunsAsOne(Operation::Head, head(1)));
    CHECK_FALSE(profile.RunsAsOne(Operation::Sample, {.flops = 8}));
    CHECK(profile.RunsAsOne(Operation::Exit, {.flops = 8}));
    CHECK(Small().RunsAsOne(Operation::Sample, {.flops = 8}));
    CHECK(Small(R"(, "timing": {"table": {"sample": {"ms": 1}}, "otherwise": "free"})")
              .RunsAsOne(Operation::Sample, {.flops = 8}));

    CHECK(ErrorOfSmall(Measured(R"(, "otherwise": "free"})")) ==
          "measured_on: missing; accepted: an object with device, software, model and command, because the table has "
          "samples");
    CHECK(ErrorOfSmall(R"(, "timing": {"table": {"head": {}}, "otherwise": "free"})") ==
          "timing.table.head.ms: missing; accepted: ms, the time of a call, or ms_per_row, the time of each of its "
          "rows, or samples, calls that were measured");
    CHECK(ErrorOfSmall(R"(, "timing": {"table": {"head": {"ms_per_row": 1, "ms": 2}}, "otherwise": "free"})") ==
          "timing.table.head.ms: stands beside ms_per_row; accepted: one of ms, ms_per_row, samples");
    CHECK(ErrorOfSmall(R"(, "timing": {"table": {"layer": {"samples": []}}, "otherwise": "free"})") ==
          "timing.table.layer.samples: unknown key; accepted: ms, ms_per_row"); // two operations' weights
    CHECK(ErrorOfSmall(kMeasuredOn + R"(, "weather": "fine"})").starts_with("measured_on.weather: "));
    CHECK(ErrorOfSmall(kMeasuredOn + R"(, "date": ""})").starts_with("measured_on.date: "));
    CHECK(ErrorOfSmall(R"(, "measured_on": {})").starts_with("measured_on.device: "));
    CHECK(ErrorOfSmall(R"(, "measured_on": {"device": "a host"})").starts_with("measured_on.software: "));
    CHECK(ErrorOfSmall(R"(, "measured_on": 5)").starts_with("measured_on: "));
}

TEST_CASE("Measured timing passes on what the kernel took")
{
    const DeviceProfile measured = Profile(R"({"name": "here", "source": "this host", "timing": "measured"})");
    CHECK(measured.Mode() == Timing::Measured);
    CHECK(Time(measured, {.flops = 1'000'000}, DType::I8) == 424242);
}

TEST_CASE("Rates are required only where the roofline is used")
{
    const std::string head = R"({"name": "t", "source": "test", "timing": {"table": {}, "otherwise": )";
    CHECK_NOTHROW(Profile(head + R"("free"}})"));
    CHECK(ErrorOf([&] { Profile(head + R"("roofline"}})"); }) ==
          R"(tflops: missing; accepted: an object such as {"fp16": 312}, because the roofline needs it)");
    CHECK(ErrorOf([&] { Profile(R"({"name": "t", "source": "test", "tflops": {"fp32": 1}})"); }) ==
          "bandwidth_gb_per_s: missing; accepted: a number above 0, because the roofline needs it");
}

TEST_CASE("Memory is in bytes, decimal or binary units, or unlimited")
{
    CHECK(Small().Memory() == 0);
    CHECK(Small(R"(, "memory": "80GB")").Memory() == 80'000'000'000);
    CHECK(Small(R"(, "memory": "80GiB")").Memory() == 85'899'345'920);
    CHECK(Small(R"(, "memory": 12345)").Memory() == 12345);
    CHECK(ErrorOfSmall(R"(, "memory": "80G")") ==
          R"(memory: "80G" is not a whole number of bytes below 2^64; write a number and one of B, kB, MB, GB, TB, )"
          R"(KiB, MiB, GiB, TiB, such as "80GB")");
    CHECK_FALSE(ErrorOfSmall(R"(, "memory": -1)").empty());
    CHECK_FALSE(ErrorOfSmall(R"(, "memory": 1.5)").empty());
    CHECK_FALSE(ErrorOfSmall(R"(, "memory": null)").empty());
}

TEST_CASE("A bad value is an error that names its path")
{
    const auto failsAt = [](const std::string& more, const std::string& path) {
        INFO(more);
        CHECK(ErrorOfSmall(", " + more).starts_with(path + ": "));
    };
    failsAt(R"("launch_us": -1)", "launch_us");
    failsAt(R"("launch_us": "5us")", "launch_us");
    failsAt(R"("efficiency": {"compute": 0})", "efficiency.compute");
    failsAt(R"("efficiency": {"compute": 1.01})", "efficiency.compute");
    failsAt(R"("efficiency": {"bandwidth": -0.5})", "efficiency.bandwidth");
    failsAt(R"("efficiency": {"speed": 0.5})", "efficiency.speed");
    failsAt(R"("efficiency": 0.5)", "efficiency");
    failsAt(R"("timing": "guessed")", "timing");
    failsAt(R"("timing": 5)", "timing");
    failsAt(R"("timing": {"otherwise": "free"})", "timing.table");
    failsAt(R"("timing": {"table": {}})", "timing.otherwise");
    failsAt(R"("timing": {"table": {}, "otherwise": "zero"})", "timing.otherwise");
    failsAt(R"("timing": {"table": {}, "otherwise": "free", "more": 1})", "timing.more");

    const auto failsInTable = [&](const std::string& entries, const std::string& path) {
        failsAt(R"("timing": {"table": {)" + entries + R"(}, "otherwise": "free"})", "timing.table." + path);
    };
    failsInTable(R"("attention": {"ms": 1})", "attention");
    failsInTable(R"("head": {})", "head.ms");
    failsInTable(R"("head": {"ms": 1, "ms_per_row": 1})", "head.ms_per_row");
    failsInTable(R"("head": {"ms": -1})", "head.ms");
    failsInTable(R"("head": {"ms_per_row": "1ms"})", "head.ms_per_row");
    failsInTable(R"("head": {"us": 1})", "head.us");
    failsInTable(R"("head": {"samples": []})", "head.samples");
    failsInTable(R"("head": {"samples": [{}]})", "head.samples[0].rows");
    failsInTable(R"("head": {"samples": [], "ms": 1})", "head.ms");
    failsInTable(R"("head": 1)", "head");
    failsInTable(R"("layer": {"ms": 1}, "project": {"ms": 1})", "layer");
    failsInTable(R"("layer": {"ms": 1}, "finish-layer": {"ms": 1})", "layer");
    failsInTable(R"("layer": {"ms": 1}, "attend": {"ms": 1})", "layer");
    failsInTable(R"("layer": {"ms": 1}, "feed-forward": {"ms": 1})", "layer");

    const auto failsAlone = [](const std::string& keys, const std::string& path) {
        INFO(keys);
        CHECK(ErrorOf([&] { Profile("{" + keys + "}"); }).starts_with(path + ": "));
    };
    const std::string rates = R"("tflops": {"fp32": 1}, "bandwidth_gb_per_s": 1)";
    failsAlone(R"("source": "s", )" + rates, "name");
    failsAlone(R"("name": "", "source": "s", )" + rates, "name");
    failsAlone(R"("name": "n", )" + rates, "source");
    failsAlone(R"("name": "n", "source": "", )" + rates, "source");
    const std::string named = R"("name": "n", "source": "s", "bandwidth_gb_per_s": )";
    failsAlone(named + R"(1, "tflops": {})", "tflops");
    failsAlone(named + R"(1, "tflops": 312)", "tflops");
    failsAlone(named + R"(1, "tflops": {"fp32": 0})", "tflops.fp32");
    failsAlone(named + R"(1, "tflops": {"fp32": -0.0})", "tflops.fp32");
    failsAlone(named + R"(1, "tflops": {"fp32": -1})", "tflops.fp32");
    failsAlone(named + R"(1, "tflops": {"fp32": 1e7})", "tflops.fp32");
    failsAlone(named + R"(1, "tflops": {"fp64": 1})", "tflops.fp64");
    failsAlone(named + R"(1, "tflops": {"int32": 1})", "tflops.int32");
    failsAlone(named + R"(0, "tflops": {"fp32": 1})", "bandwidth_gb_per_s");
    failsAlone(named + R"(-1, "tflops": {"fp32": 1})", "bandwidth_gb_per_s");
    failsAlone(named + R"("1GB", "tflops": {"fp32": 1})", "bandwidth_gb_per_s");
}

TEST_CASE("NaN and infinity that a program put there are refused")
{
    for (const double value : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
    {
        for (const std::string key : {"bandwidth_gb_per_s", "launch_us"})
        {
            Json json = {{"name", "n"}, {"source", "s"}, {"tflops", {{"fp32", 1}}}, {"bandwidth_gb_per_s", 1}};
            json[key] = value;
            StrictObject object(json, "study.json");
            CHECK(ErrorOf([&] { DeviceProfile::Read(object, kShipped); }).starts_with("study.json: " + key + ": "));
        }
    }
}

TEST_CASE("An unknown key lists all accepted ones, present or not")
{
    CHECK(ErrorOfSmall(R"(, "bandwidth_gbps": 5)") ==
          "bandwidth_gbps: unknown key; accepted: profile, name, source, memory, tflops, bandwidth_gb_per_s, "
          "launch_us, efficiency, timing, measured_on");
    CHECK(ErrorOfSmall(R"(, "timing": {"table": {"attention": {"ms": 1}}, "otherwise": "free"})") ==
          "timing.table.attention: unknown key; accepted: embed, project, adapt, merge, finish-layer, prune, "
          "snapshot, restore, head, sample, exit, attend, feed-forward, bottleneck, side-input, side, combine, gate, search, fork, calibrate, encode, decode, layer");
    CHECK(ErrorOf([] { Profile(R"({"name": "n", "source": "s", "tflops": {"fp8": 1}})"); }) ==
          "tflops.fp8: unknown key; accepted: fp32, fp16, bf16, int8");
}

TEST_CASE("An inline profile overrides a named one")
{
    const DeviceProfile plain = Profile(R"({"profile": "a100-80gb"})");
    const DeviceProfile loaded = DeviceProfile::Load("a100-80gb", kShipped);
    const Work flops{.flops = 312'000'000};
    const Work bytes{.bytesRead = 2'039'000, .launches = 1};
    CHECK(plain.Name() == "a100-80gb");
    CHECK(plain.Source() == loaded.Source());
    CHECK(plain.Memory() == 80'000'000'000);
    CHECK(Time(plain, flops, DType::F16) == 1000);
    CHECK(Time(plain, bytes) == 6000);

    const DeviceProfile changed = Profile(
        R"({"profile": "a100-80gb", "name": "half", "memory": "40GB", "tflops": {"fp16": 156}, "launch_us": 0,
            "efficiency": {"bandwidth": 0.5}})");
    CHECK(changed.Name() == "half");
    CHECK(changed.Source() == loaded.Source());
    CHECK(changed.Memory() == 40'000'000'000);
    CHECK(Time(changed, flops, DType::F16) == 2000); // replaced
    CHECK(Time(changed, flops, DType::I8) == 500);   // of the base
    CHECK(Time(changed, bytes) == 2000);

    const DeviceProfile table = Profile(
        R"({"profile": "a100-80gb", "timing": {"table": {"layer": {"ms": 1.1875}}, "otherwise": "roofline"}})");
    CHECK(Time(table, flops, DType::F16) == 1'187'500);
    CHECK(Time(table, flops, DType::F16, Operation::Head) == 1000);
}

TEST_CASE("Overriding the timing leaves nothing of the base's table")
{
    const TemporaryFolder folder;
    folder.Write("tabled.json",
                 R"({"name": "tabled", "source": "test", "tflops": {"fp32": 2}, "bandwidth_gb_per_s": 100,
                     "efficiency": {"compute": 0.5, "bandwidth": 0.5},
                     "timing": {"table": {"head": {"ms": 1}, "adapt": {"ms": 2}}, "otherwise": "roofline"}})");
    const Work work{.flops = 2000};
    const DeviceProfile base = Profile(R"({"profile": "tabled"})", folder.Path());
    CHECK(Time(base, work, DType::F32, Operation::Adapt) == 2'000'000);
    CHECK(Time(base, work, DType::F32, Operation::Embed) == 2);

    const DeviceProfile other = Profile(
        R"({"profile": "tabled", "timing": {"table": {"head": {"ms": 3}}, "otherwise": "free"}})", folder.Path());
    CHECK(Time(other, work, DType::F32, Operation::Head) == 3'000'000);
    CHECK(Time(other, work, DType::F32, Operation::Adapt) == 0);

    const DeviceProfile roofline =
        Profile(R"({"profile": "tabled", "timing": "roofline", "efficiency": {"compute": 0.25}})", folder.Path());
    CHECK(Time(roofline, work, DType::F32, Operation::Head) == 4);
    CHECK(Time(roofline, {.bytesRead = 100}, DType::F32, Operation::Head) == 2);
}

TEST_CASE("A read profile lists the values that it has by default")
{
    Json json = ParseStrictJson(R"({"profile": "a100-80gb"})", "study.json");
    StrictObject object(json, "study.json");
    DeviceProfile::Read(object, kShipped);
    CHECK(json["name"] == "a100-80gb");
    CHECK(json["launch_us"] == 5.0);
    CHECK(json["memory"] == 80'000'000'000);
}

TEST_CASE("A profile that does not exist is an error that lists those that do")
{
    const TemporaryFolder folder;
    folder.Write("zeta.json", "{}");
    folder.Write("alpha.json", "{}");
    folder.Write("notes.txt", "");
    const std::string expected = "no hardware profile has the name \"a900\"; accepted: alpha, zeta (the files of " +
                                 folder.Path().string() + ")";
    CHECK(ErrorOf([&] { DeviceProfile::Load("a900", folder.Path()); }) == expected);
    CHECK(ErrorOf([&] { Profile(R"({"profile": "a900"})", folder.Path()); }) == "profile: " + expected);
    CHECK_FALSE(ErrorOf([&] { DeviceProfile::Load("", folder.Path()); }).empty());
    CHECK(ErrorOf([&] { DeviceProfile::Load("x\ny", folder.Path()); }).find('\n') == std::string::npos);
    CHECK(ErrorOf([&] { DeviceProfile::Load("x", folder.Path() / "absent"); }).find("accepted: none") !=
          std::string::npos);

    // A name is no path.
    std::filesystem::create_directory(folder.Path() / "inner");
    CHECK_FALSE(ErrorOf([&] { DeviceProfile::Load("../alpha", folder.Path() / "inner"); }).empty());
}

TEST_CASE("A profile's file is called as it is and stands on its own")
{
    const TemporaryFolder folder;
    const std::string rest = R"("source": "s", "tflops": {"fp32": 1}, "bandwidth_gb_per_s": 1})";
    folder.Write("good.json", R"({"name": "good", )" + rest);
    folder.Write("bad.json", R"({"name": "good", )" + rest);
    folder.Write("loop.json", R"({"profile": "loop", "name": "loop"})");
    folder.Write("broken.json", "{");
    folder.Write("list.json", "[]");
    const std::string place = folder.Path().string();
    CHECK_NOTHROW(DeviceProfile::Load("good", folder.Path()));
    CHECK(ErrorOf([&] { DeviceProfile::Load("bad", folder.Path()); }) ==
          place + "/bad.json: name: is \"good\"; accepted: \"bad\", as the file is called");
    CHECK(ErrorOf([&] { DeviceProfile::Load("loop", folder.Path()); }) ==
          place + "/loop.json: profile: a file cannot have a base; accepted: the keys themselves");
    CHECK(ErrorOf([&] { DeviceProfile::Load("broken", folder.Path()); }).starts_with(place + "/broken.json:1"));
    CHECK(ErrorOf([&] { DeviceProfile::Load("list", folder.Path()); }).starts_with(place + "/list.json: "));
}

TEST_CASE("The shipped profiles have the figures of their data sheets")
{
    struct Sheet
    {
        std::string name;
        std::uint64_t gigabytes;
        double fp32;
        double fp16;
        double bf16;
        double int8;
        double bandwidth;
        std::int64_t launchUs;
    };

    const std::vector<Sheet> sheets{{"a100-80gb", 80, 19.5, 312, 312, 624, 2039, 5},
                                    {"a800-80gb", 80, 19.5, 312, 312, 624, 2039, 5},
                                    {"device-13tflops", 8, 13, 13, 13, 13, 256, 5},
                                    {"h200", 141, 67, 989.5, 989.5, 1979, 4800, 5},
                                    {"jetson-xavier-nx-8gb", 8, 0.845, 6.76, 0.845, 13.5, 59.7, 10},
                                    {"laptop-cpu", 16, 0.768, 0.768, 0.768, 0.768, 51.2, 0},
                                    {"rtx-a6000", 48, 38.7, 154.8, 154.8, 309.7, 768, 5},
                                    {"v100-32gb", 32, 15.7, 125, 15.7, 62.8, 900, 5}};

    // Every file is in the list.
    std::size_t files = 0;
    for (const auto& file : std::filesystem::directory_iterator(kShipped))
    {
        files += file.path().extension() == ".json" ? 1 : 0;
    }
    CHECK(files == sheets.size());

    for (const Sheet& sheet : sheets)
    {
        INFO(sheet.name);
        const DeviceProfile profile = DeviceProfile::Load(sheet.name, kShipped);
        CHECK(profile.Mode() == Timing::Roofline);
        CHECK(profile.Memory() == sheet.gigabytes * 1'000'000'000);
        CHECK(profile.Source().size() > 40);
        CHECK(Time(profile, {.launches = 1}) == sheet.launchUs * 1000);
        const std::uint64_t giga = 1'000'000'000;
        const std::uint64_t peta = 1'000'000'000'000'000;
        const auto milliseconds = [&](const Work& work, DType dtype) {
            return static_cast<double>(Time(profile, work, dtype)) / 1e6;
        };
        CHECK(milliseconds({.bytesRead = 1000 * giga}, DType::F32) == Approx(1e6 / sheet.bandwidth).epsilon(1e-6));
        CHECK(milliseconds({.flops = peta}, DType::F32) == Approx(1e6 / sheet.fp32).epsilon(1e-6));
        CHECK(milliseconds({.flops = peta}, DType::F16) == Approx(1e6 / sheet.fp16).epsilon(1e-6));
        CHECK(milliseconds({.flops = peta}, DType::BF16) == Approx(1e6 / sheet.bf16).epsilon(1e-6));
        CHECK(milliseconds({.flops = peta}, DType::I8) == Approx(1e6 / sheet.int8).epsilon(1e-6));
    }
}
