// SPDX-License-Identifier: GPL-2.0-only
#include "device-measurement.h"

#include "compute/cpu/cpu-backend.h"
#include "compute/device-profile.h"
#include "compute/shape-backend.h"
#include "support/catch.h"
#include "support/error-of.h"
#include "support/random-model.h"
#include "support/temporary-folder.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;
using std::chrono::nanoseconds;

namespace
{

constexpr auto kSilent = [](const std::string&) {};

ModelConfig
SmallLlama()
{
    ModelConfig config;
    config.name = "small-llama";
    config.layers = 7;
    config.hidden = 20;
    config.heads = 4;
    config.kvHeads = 2;
    config.headDim = 6;
    config.ffn = 13;
    config.vocab = 31;
    config.maxPositions = 24;
    config.dtype = DType::BF16;
    return config;
}

/// Phantoms, with a clock that this test sets: an operation takes 500 ns, a head what Heads says.
class ClockedBackend : public ShapeBackend
{
  public:
    using ShapeBackend::ShapeBackend;

    /// Head n, from 0, takes this many ns.
    std::function<std::int64_t(std::size_t n)> heads = [](std::size_t) { return 500; };
    std::vector<std::size_t> layers; //!< that were projected

  protected:
    nanoseconds Clock(const std::function<void()>& operation) override
    {
        m_took = nanoseconds(500);
        operation();
        return m_took;
    }

    Projections DoProject(const ResidentModel& model, std::size_t layer, const Tensor& hidden) override
    {
        layers.push_back(layer);
        return ShapeBackend::DoProject(model, layer, hidden);
    }

    Tensor DoHead(const ResidentModel& model, const Tensor& hidden) override
    {
        m_took = nanoseconds(heads(m_heads++));
        return ShapeBackend::DoHead(model, hidden);
    }

  private:
    nanoseconds m_took{0};
    std::size_t m_heads = 0;
};

MeasuredParts
PartsOf(Backend& backend, const ModelConfig& config)
{
    Model model;
    model.config = config;
    MeasuredParts parts;
    parts.models.push_back(backend.Resident(std::make_shared<const Model>(model)));
    return parts;
}

/// A row of one sequence behind nothing.
MeasurementPlan
OneCall()
{
    return {.rows = {1}, .contexts = {0}, .sequences = {}, .layers = 2, .repeats = 1, .prune = false};
}

const MeasuredCall&
Find(const std::vector<MeasuredCall>& calls,
     Operation operation,
     std::size_t rows,
     std::uint64_t caches,
     std::size_t context)
{
    const auto found = std::ranges::find_if(calls, [&](const MeasuredCall& call) {
        return call.operation == operation && call.sample.rows == rows && call.sample.work.caches == caches &&
               call.context == context;
    });
    REQUIRE(found != calls.end());
    return *found;
}

DeviceProfile
Read(const std::string& text)
{
    Json json = ParseStrictJson(text, "measured.json");
    StrictObject object(json, "measured.json");
    return DeviceProfile::Read(object, {});
}

const MeasuredOn kOn{.device = "a \"host\"", .software = "s", .model = "m", .command = "c", .date = ""};

} // namespace

TEST_CASE("A measurement is the median of the rounds behind the first, with its percentiles", "[device-measurement]")
{
    ClockedBackend backend(DType::F32);
    // The warm-up's, then 10, 20, ... 110 in some order.
    backend.heads = [](std::size_t n) { return n == 0 ? 1'000'000 : static_cast<std::int64_t>((7 * n % 11 + 1) * 10); };
    MeasurementPlan plan = OneCall();
    plan.repeats = 11;
    std::vector<std::string> said;
    const auto calls = MeasureDevice(backend, PartsOf(backend, SmallLlama()), plan, [&](const std::string& line) {
        said.push_back(line);
    });
    const TimeSample& head = Find(calls, Operation::Head, 1, 0, 0).sample;
    CHECK(head.median == nanoseconds(60));
    CHECK(head.p10 == nanoseconds(20));
    CHECK(head.p90 == nanoseconds(100));
    CHECK(head.repeats == 11);
    CHECK(Find(calls, Operation::Project, 1, 0, 0).sample.repeats == 2 * 11); // of each layer
    CHECK(said.size() == 12);
    CHECK(said.back() == "round 11 of 11");
}

TEST_CASE("Rounds go on through the layers of the model", "[device-measurement]")
{
    ClockedBackend backend(DType::F32);
    MeasurementPlan plan = OneCall();
    plan.repeats = 3;
    MeasureDevice(backend, PartsOf(backend, SmallLlama()), plan, kSilent);
    CHECK(backend.layers == std::vector<std::size_t>{0, 1, 2, 3, 4, 5, 0, 1}); // the seventh fits no pair

    backend.layers.clear();
    plan.layers = 7;
    MeasureDevice(backend, PartsOf(backend, SmallLlama()), plan, kSilent);
    CHECK(backend.layers.size() == 4 * 7);
}

TEST_CASE("Every operation of the parts is measured, in every shape of the plan", "[device-measurement]")
{
    ClockedBackend backend(DType::F32);
    const ModelConfig config = SmallLlama();
    MeasuredParts parts = PartsOf(backend, config);
    Adapter lora;
    lora.rank = 2;
    BottleneckAdapter narrow;
    narrow.width = 3;
    Exits untrained;
    untrained.layers = {1, 5};
    SideNetwork network;
    network.width = 3;
    network.inner = 5;
    parts.adapter = backend.Resident(std::make_shared<const Adapter>(lora), config);
    parts.bottleneck = backend.Resident(std::make_shared<const BottleneckAdapter>(narrow), config);
    parts.exits = backend.Resident(std::make_shared<const Exits>(untrained), config);
    parts.side = backend.Resident(std::make_shared<const SideNetwork>(network), config);
    const MeasurementPlan plan{
        .rows = {1, 5}, .contexts = {0, 4, 100}, .sequences = {3}, .layers = 2, .repeats = 1, .prune = true};
    const auto calls = MeasureDevice(backend, parts, plan, kSilent);

    std::set<Operation> measured;
    for (const MeasuredCall& call : calls)
    {
        measured.insert(call.operation);
        CHECK(call.sample.median == nanoseconds(500));
    }
    CHECK(measured.size() == 20); // all operations but those of codecs and policies: calibrate, encode, decode

    // 100 entries do not fit into 24 positions: 23 before a row, 19 before five.
    for (const Operation operation : {Operation::FinishLayer, Operation::Attend})
    {
        for (const auto& [rows, context] : {std::pair{1, 0}, {1, 4}, {1, 23}, {5, 0}, {5, 4}, {5, 19}})
        {
            Find(calls, operation, rows, 1, context);
        }
    }
    Find(calls, Operation::FinishLayer, 3, 3, 0);
    Find(calls, Operation::FinishLayer, 3, 3, 4);
    Find(calls, Operation::FinishLayer, 3, 3, 23);
    Find(calls, Operation::Head, 3, 0, 0);
    Find(calls, Operation::Exit, 3, 0, 0);
    Find(calls, Operation::SideInput, 5, 0, 0);
    CHECK(Find(calls, Operation::Prune, 4, 0, 0).sample.work.flops == 4);
    Find(calls, Operation::Prune, 23, 0, 0);
    Find(calls, Operation::Restore, 2, 0, 0);          // one entry of one layer
    Find(calls, Operation::Snapshot, 2 * 2 * 23, 0, 0); // all of two

    // Greedy and drawn.
    CHECK(std::ranges::count(calls, Operation::Sample, &MeasuredCall::operation) == 2);
}

TEST_CASE("Each precision of the weights is measured apart", "[device-measurement]")
{
    ModelConfig config = SmallLlama();
    config.hidden = config.ffn = 64;
    config.headDim = 16;
    CpuBackend backend(1);
    const auto model = RandomModel(config, 5);
    MeasuredParts parts;
    parts.models = {backend.Resident(model), backend.Resident(model, WeightPrecision::Front(config, config.layers, 4))};
    const auto calls = MeasureDevice(backend, parts, OneCall(), kSilent);
    // Q, K and V of 64 x 128 and a norm of 64: bf16, or half a byte and 4 bytes for 64 of them.
    std::vector<std::uint64_t> weights;
    for (const MeasuredCall& call : calls)
    {
        if (call.operation == Operation::Project)
        {
            weights.push_back(call.sample.work.weightBytes);
        }
    }
    CHECK(weights == std::vector<std::uint64_t>{2 * 64 + 4096 + 512, 2 * 64 + 2 * 64 * 128});
}

TEST_CASE("A codec is measured on rows of three widths", "[device-measurement]")
{
    const ModelConfig config = SmallLlama();
    CpuBackend backend(1);
    MeasuredParts parts;
    parts.models = {backend.Resident(RandomModel(config, 5))};
    Json json{{"codec", {{"name", "tab-q"}, {"bits", 4}}}};
    StrictObject object(json, "test");
    parts.codec = ReadTensorCodec(object, "codec", {.config = config, .shapeMode = false, .calibrations = {}});
    MeasurementPlan plan = OneCall();
    plan.rows = {3};
    const auto calls = MeasureDevice(backend, parts, plan, kSilent);
    // Keys of 12, states of 20, and queries, keys and values of 48.
    for (const Operation operation : {Operation::Encode, Operation::Decode})
    {
        std::vector<std::uint64_t> flops;
        for (const MeasuredCall& call : calls)
        {
            if (call.operation == operation)
            {
                CHECK(call.sample.rows == 3);
                flops.push_back(call.sample.work.flops);
            }
        }
        REQUIRE(flops.size() == 3);
        CHECK(flops[1] * 12 == flops[0] * 20);
        CHECK(flops[2] * 12 == flops[0] * 48);
    }
    parts.codec = MakeDenseCodec(DType::F16);
    CHECK(ErrorOf([&] { MeasureDevice(backend, parts, plan, kSilent); }) ==
          "codec: costs nothing; accepted: a codec that compresses");
}

TEST_CASE("A measured profile gives, for the calls of any backend, the times that were measured",
          "[device-measurement]")
{
    const ModelConfig config = SmallLlama();
    CpuBackend cpu(1);
    const auto model = RandomModel(config, 3);
    MeasuredParts parts;
    parts.models = {cpu.Resident(model)};
    const MeasurementPlan plan{
        .rows = {1, 5}, .contexts = {0, 9}, .sequences = {3}, .layers = 2, .repeats = 3, .prune = false};
    const auto calls = MeasureDevice(cpu, parts, plan, kSilent);
    const std::string text = MeasuredProfile("measured", kOn, calls);
    const DeviceProfile profile = Read(text);
    CHECK(profile.Name() == "measured");
    CHECK(profile.Mode() == Timing::Table);
    CHECK(std::ranges::count(text, '\n') < 40 + static_cast<std::ptrdiff_t>(calls.size())); // a line a call
    for (const MeasuredCall& call : calls)
    {
        INFO(NameOf(call.operation) << ", rows " << call.sample.rows);
        const Work& work = call.sample.work;
        CHECK(profile.TimeOf(call.operation, call.sample.rows, work, DType::BF16, {}) == call.sample.median);
    }

    // The same calls without numbers, and with activations of another type.
    ShapeBackend shapes(DType::BF16);
    const MeasuredParts shapeParts = PartsOf(shapes, config);
    for (const MeasuredCall& call : MeasureDevice(shapes, shapeParts, plan, kSilent))
    {
        const auto& [operation, sample, context] = call;
        INFO(NameOf(operation) << ", rows " << sample.rows << ", context " << context);
        const auto same = std::ranges::find_if(calls, [&](const MeasuredCall& one) {
            return one.operation == operation && one.sample.rows == sample.rows && one.context == context &&
                   one.sample.work.caches == sample.work.caches && one.sample.work.flops == sample.work.flops;
        });
        REQUIRE(same != calls.end());
        CHECK(profile.TimeOf(operation, sample.rows, sample.work, DType::BF16, {}) == same->sample.median);
    }

    // A wider model's are none of them, and neither is an operation that was not measured.
    ModelConfig wider = config;
    wider.ffn++;
    const auto other = PartsOf(shapes, wider);
    const Tensor hidden = Tensor::Phantom(1, wider.hidden);
    const Work work = shapes.FeedForward(*other.models.front(), 0, hidden).work;
    CHECK(ErrorOf([&] { profile.TimeOf(Operation::FinishLayer, 1, work, DType::BF16, {}); })
              .starts_with("hardware profile measured: timing.table.finish-layer.samples: "));
    CHECK(ErrorOf([&] { profile.TimeOf(Operation::FeedForward, 1, work, DType::BF16, {}); })
              .starts_with("hardware profile measured: timing.table.feed-forward: missing; "));
}

TEST_CASE("A plan that a model cannot follow is an error that says what it can", "[device-measurement]")
{
    ShapeBackend backend(DType::F32);
    const MeasuredParts parts = PartsOf(backend, SmallLlama());
    const auto errorOf = [&](const std::function<void(MeasurementPlan&)>& change) {
        MeasurementPlan plan = OneCall();
        change(plan);
        return ErrorOf([&] { MeasureDevice(backend, parts, plan, kSilent); });
    };
    CHECK(errorOf([](MeasurementPlan&) {}).empty());
    CHECK(errorOf([](MeasurementPlan& plan) { plan.rows = {1, 25}; }) == "rows: 25 is not from 1 to 24");
    CHECK(errorOf([](MeasurementPlan& plan) { plan.rows = {0}; }) == "rows: 0 is not from 1 to 24");
    CHECK(errorOf([](MeasurementPlan& plan) { plan.sequences = {1}; }) == "sequences: 1 is not from 2 to 4096");
    CHECK(errorOf([](MeasurementPlan& plan) { plan.layers = 8; }) == "layers: 8 is not from 1 to 7");
    CHECK(errorOf([](MeasurementPlan& plan) { plan.repeats = 0; }) == "repeats: 0 is not from 1 to 1000000");
    CHECK(errorOf([](MeasurementPlan& plan) { plan.rows.clear(); }) ==
          "rows and contexts: none; at least one of each is expected");
    CHECK_FALSE(errorOf([](MeasurementPlan& plan) { plan.contexts.clear(); }).empty());
    CHECK(errorOf([](MeasurementPlan& plan) { plan.rows = {24}; }).empty());
}

TEST_CASE("The table of a measurement has a line for each call, with rates from its work", "[device-measurement]")
{
    const TimeSample sample{.rows = 8,
                            .work = {.flops = 6000, .bytesRead = 2500, .bytesWritten = 500, .caches = 1},
                            .median = nanoseconds(2000),
                            .p10 = nanoseconds(1500),
                            .p90 = nanoseconds(3000),
                            .repeats = 7};
    CHECK(MeasuredTable({{Operation::FinishLayer, sample, 64}}) ==
          "operation      rows sequences context           ms          p10          p90     GB/s   GFLOP/s repeats\n"
          "finish-layer      8         1      64     0.002000     0.001500     0.003000     1.50      3.00       7\n");
}
