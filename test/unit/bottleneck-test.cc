// SPDX-License-Identifier: GPL-2.0-only
#include "llm/bottleneck.h"

#include "compute/cpu/cpu-backend.h"
#include "compute/shape-backend.h"
#include "support/bottleneck-folder.h"
#include "support/catch.h"
#include "support/error-of.h"
#include "support/random-model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

/// Widths that are all different and no multiple of a vector.
ModelConfig
Odd(Family family)
{
    ModelConfig config;
    config.name = "odd";
    config.family = family;
    config.biases = family == Family::Opt;
    config.layers = 3;
    config.hidden = 50;
    config.heads = 6;
    config.kvHeads = family == Family::Opt ? 6 : 2;
    config.headDim = 10;
    config.ffn = 77;
    config.vocab = 101;
    config.maxPositions = 64;
    config.dtype = DType::BF16;
    return config;
}

/// Two layers of width 2.
ModelConfig
Two()
{
    ModelConfig config;
    config.name = "two";
    config.layers = 2;
    config.hidden = 2;
    return config;
}

Tensor
RandomRows(std::size_t rows, std::size_t cols, std::uint64_t seed = 51)
{
    Random random(seed);
    Tensor tensor = Tensor::Zeros(rows, cols);
    std::ranges::generate(tensor.Values(), [&] { return 2.0F * random.Uniform(); });
    return tensor;
}

bool
SameBits(const Tensor& a, const Tensor& b)
{
    return a.Rows() == b.Rows() && a.Cols() == b.Cols() && a.Elements() > 0 &&
           std::memcmp(a.Values().data(), b.Values().data(), a.Elements() * sizeof(float)) == 0;
}

double
Element(const ArrayView& view, std::size_t index)
{
    float value = 0.0F;
    std::memcpy(&value, view.data + sizeof(float) * index, sizeof value);
    return value;
}

Computed<Tensor>
Attend(Backend& backend, const ResidentModel& model, std::size_t layer, const Projections& projections, KvCache& cache)
{
    KvCache* const view = &cache;
    return backend.Attend(model, layer, projections, {&view, 1});
}

/// The error of loading \p folder, without its path.
std::string
Error(const BottleneckFolder& folder)
{
    const std::string path = folder.Write().string() + "/";
    const std::string error = ErrorOf([&] { folder.Load(); });
    CHECK((error.empty() || error.starts_with(path)));
    return error.empty() ? "" : error.substr(path.size());
}

std::shared_ptr<const Model>
ShapeOf(const ModelConfig& config)
{
    Model model;
    model.config = config;
    return std::make_shared<const Model>(std::move(model));
}

} // namespace

TEST_CASE("A bottleneck's weights are the tensors that have its name", "[bottleneck]")
{
    const BottleneckFolder folder(Two(), 3);
    const auto adapter = folder.Load();
    CHECK(adapter->width == 3);
    REQUIRE(adapter->layers.size() == 2);
    for (const std::size_t layer : {0, 1})
    {
        for (const bool mlp : {false, true})
        {
            const BottleneckLayer& of = adapter->layers[layer];
            const BottleneckWeights& weights = mlp ? of.mlp : of.attention;
            CHECK(weights.down.weight.shape == std::vector<std::size_t>{3, 2});
            CHECK(weights.down.bias.shape == std::vector<std::size_t>{3});
            CHECK(weights.up.weight.shape == std::vector<std::size_t>{2, 3});
            CHECK(weights.up.bias.shape == std::vector<std::size_t>{2});
            // In the file one after the other: 6 + 3 + 6 + 2 elements a bottleneck.
            const std::byte* first = adapter->layers[0].attention.down.weight.data;
            const std::size_t before = 17 * (2 * layer + (mlp ? 1 : 0));
            CHECK(weights.down.weight.data == first + 4 * before);
            CHECK(weights.down.bias.data == first + 4 * (before + 6));
            CHECK(weights.up.weight.data == first + 4 * (before + 9));
            CHECK(weights.up.bias.data == first + 4 * (before + 15));
        }
    }
    CHECK(BottleneckAdapter::IsIn(folder.Write()));
    CHECK_FALSE(BottleneckAdapter::IsIn(folder.Write() / "elsewhere"));
    CHECK_FALSE(BottleneckAdapter::IsIn(""));
}

TEST_CASE("A bottleneck folder that is not as it should be is an error of one line", "[bottleneck][bad-input]")
{
    CHECK(Error(BottleneckFolder(Two(), 3)).empty());
    const auto error = [](const std::function<void(BottleneckFolder&)>& change) {
        BottleneckFolder folder(Two(), 3);
        change(folder);
        const std::string text = Error(folder);
        CHECK(text.find('\n') == std::string::npos);
        return text;
    };
    CHECK(error([](auto& f) { f.Drop("width"); }).starts_with("bottleneck.json: width: missing"));
    CHECK(error([](auto& f) { f.Drop("made_by"); }).starts_with("bottleneck.json: made_by: missing"));
    CHECK(error([](auto& f) { f.Set("rank", "3"); }).starts_with("bottleneck.json: rank: unknown key"));
    CHECK(error([](auto& f) { f.Set("width", "0"); }).starts_with("bottleneck.json: width: "));
    CHECK(error([](auto& f) { f.Set("width", "1e30"); }).starts_with("bottleneck.json: width: "));
    CHECK(error([](auto& f) { f.Set("width", "4"); }).find("layers.1.attention.down.weight") != std::string::npos);
    CHECK(error([](auto& f) { f.Rename("layers.2.mlp.up.bias", "layers.3.mlp.up.bias"); })
              .find("layers.2.mlp.up.bias") != std::string::npos);
    CHECK(error([](auto& f) { f.Add("layers.3.mlp.up.bias", {2}); }) ==
          "bottleneck.safetensors: tensor \"layers.3.mlp.up.bias\": belongs to no bottleneck; accepted: those of "
          "layers 1 to 2 of the model two");
    CHECK(error([](auto& f) { f.Add("layers.0.mlp.up.bias", {2}); }).find("layers.0.mlp.up.bias") !=
          std::string::npos);

    const BottleneckFolder other(Odd(Family::Llama), 3);
    CHECK(ErrorOf([&] { BottleneckAdapter::Load(other.Write(), Two()); }).find("layers.1.attention.down.weight") !=
          std::string::npos);
}

TEST_CASE("Bottlenecks of width 48 are 0.38 % of LLaMA-7B, as SPA's Table 2 says", "[bottleneck]")
{
    const ModelConfig config = NamedShape("llama-7b", DType::F16);
    // 32 x 2 x (4096 x 48 + 48 + 48 x 4096 + 4096)
    CHECK(BottleneckParameters(config, 48) == 25'431'040);
    CHECK(100.0 * 25'431'040 / 6'738'415'616 == Approx(0.38).margin(0.005));
}

TEST_CASE("A bottleneck adds what plain loops in double precision give", "[bottleneck]")
{
    for (const Family family : {Family::Llama, Family::Opt})
    {
        const BottleneckFolder folder(Odd(family), 19);
        const auto adapter = folder.Load();
        CpuBackend backend(2);
        const auto resident = backend.Resident(adapter, folder.Config());
        const Tensor output = RandomRows(7, 50);
        for (std::size_t layer = 0; layer < 3; ++layer)
        {
            for (const Sublayer sublayer : {Sublayer::Attention, Sublayer::Mlp})
            {
                const Tensor added = backend.Bottleneck(*resident, layer, sublayer, output).value;
                REQUIRE(added.Rows() == 7);
                REQUIRE(added.Cols() == 50);
                const BottleneckLayer& of = adapter->layers[layer];
                const BottleneckWeights& weights = sublayer == Sublayer::Attention ? of.attention : of.mlp;
                std::size_t cut = 0; // by ReLU
                for (std::size_t row = 0; row < 7; ++row)
                {
                    std::vector<double> inner(19);
                    for (std::size_t i = 0; i < 19; ++i)
                    {
                        double sum = Element(weights.down.bias, i);
                        for (std::size_t j = 0; j < 50; ++j)
                        {
                            sum += Element(weights.down.weight, 50 * i + j) * output.Row(row)[j];
                        }
                        cut += sum < 0.0 ? 1 : 0;
                        inner[i] = std::max(sum, 0.0);
                    }
                    for (std::size_t i = 0; i < 50; ++i)
                    {
                        double sum = Element(weights.up.bias, i);
                        for (std::size_t j = 0; j < 19; ++j)
                        {
                            sum += Element(weights.up.weight, 19 * i + j) * inner[j];
                        }
                        CHECK(added.Row(row)[i] == Approx(sum).margin(2e-5));
                    }
                }
                CHECK(cut > 20);
                CHECK(cut < 7 * 19 - 20);
            }
        }
    }
}

TEST_CASE("A bottleneck's rows have the bits of one row at a time, on any instruction set and threads", "[bottleneck]")
{
    ModelConfig config = Odd(Family::Llama);
    config.hidden = 330; // large enough for work to be shared
    const BottleneckFolder folder(config, 213);
    const auto adapter = folder.Load();
    const Tensor output = RandomRows(23, config.hidden);
    CpuBackend reference(1, *SupportedKernels().front());
    const auto resident = reference.Resident(adapter, config);
    Tensor expected = Tensor::Zeros(0, config.hidden);
    for (std::size_t row = 0; row < output.Rows(); ++row)
    {
        expected.Append(reference.Bottleneck(*resident, 2, Sublayer::Mlp, output.Slice(row, 1)).value);
    }
    for (const Kernels* kernels : SupportedKernels())
    {
        for (const std::size_t threads : {1, 2, 3})
        {
            CAPTURE(kernels->name, threads);
            CpuBackend backend(threads, *kernels);
            const auto its = backend.Resident(adapter, config);
            CHECK(SameBits(backend.Bottleneck(*its, 2, Sublayer::Mlp, output).value, expected));
            CHECK(SameBits(backend.Bottleneck(*its, 2, Sublayer::Mlp, output.Slice(4, 6)).value,
                           expected.Slice(4, 6)));
        }
    }
}

TEST_CASE("The halves of a layer and two residuals have its bits and its work", "[bottleneck]")
{
    for (const Family family : {Family::Llama, Family::Opt})
    {
        for (const unsigned bits : {16U, 4U})
        {
            for (const bool tracks : {false, true})
            {
                ModelConfig config = Odd(family);
                config.hidden = 64; // whole groups of codes
                config.ffn = 128;
                config.headDim = 32;
                CAPTURE(config.biases, bits, tracks);
                CpuBackend backend(2);
                const auto model = backend.Resident(RandomModel(config, 41), WeightPrecision::Front(config, 1, bits));
                const auto whole = backend.NewCache(*model, 0, 3, 20);
                const auto halves = backend.NewCache(*model, 0, 3, 20);
                if (tracks)
                {
                    whole->TrackAttention();
                    halves->TrackAttention();
                }
                std::size_t before = 0;
                for (const std::size_t rows : {7, 1, 3})
                {
                    const Tensor hidden = RandomRows(rows, config.hidden, 100 + rows);
                    for (const std::size_t layer : {0, 1})
                    {
                        const Projections qkv = backend.Project(*model, layer, hidden).value;
                        const auto expected = backend.FinishLayer(*model, layer, hidden, qkv, *whole);

                        const auto attended = Attend(backend, *model, layer, qkv, *halves);
                        const auto middle = backend.Combine(hidden, attended.value);
                        const auto mlp = backend.FeedForward(*model, layer, middle.value);
                        const auto next = backend.Combine(middle.value, mlp.value);
                        CHECK(SameBits(next.value, expected.value));
                        CHECK_FALSE(SameBits(middle.value, expected.value));

                        Work work = attended.work;
                        work += middle.work;
                        work += mlp.work;
                        work += next.work;
                        CHECK(work.flops == expected.work.flops);
                        CHECK(work.launches == expected.work.launches);
                        CHECK(work.weightBytes == expected.work.weightBytes);
                        // What the four hand to one another: written three times, read four times.
                        CHECK(work.bytesRead == expected.work.bytesRead + 4 * 4 * rows * 64);
                        CHECK(work.bytesWritten == expected.work.bytesWritten + 3 * 4 * rows * 64);
                        CHECK(attended.operation == Operation::Attend);
                        CHECK(mlp.operation == Operation::FeedForward);
                        CHECK(next.operation == Operation::Combine);
                        CHECK(attended.rows == rows);
                        CHECK(mlp.rows == rows);
                        CHECK(next.rows == rows);
                    }
                    before += rows;
                    CHECK(halves->Length(1) == before);
                    CHECK(halves->Position(1) == before);
                    CHECK(halves->Length(2) == 0);
                }
                if (tracks)
                {
                    CHECK(backend.Prune(*halves, 0, 0.5).value == backend.Prune(*whole, 0, 0.5).value);
                    CHECK(SameBits(backend.Snapshot(*halves, 0, 1, 0, 6).value, backend.Snapshot(*whole, 0, 1, 0, 6).value));
                }
            }
        }
    }
}

TEST_CASE("The work of a layer's halves and of a bottleneck is what a count by hand gives", "[bottleneck]")
{
    ModelConfig config; // d 10, q 12, kv 6, f 7
    config.layers = 2;
    config.hidden = 10;
    config.heads = 6;
    config.kvHeads = 3;
    config.headDim = 2;
    config.ffn = 7;
    config.vocab = 11;
    config.maxPositions = 20;
    config.dtype = DType::BF16;
    ShapeBackend backend(DType::F32);
    const Tensor hidden = Tensor::Phantom(3, 10);

    SECTION("LLaMA")
    {
        const auto model = backend.Resident(ShapeOf(config));
        const auto cache = backend.NewCache(*model, 1, 2, 9);
        cache->Grow(1, 4);
        const auto attended = Attend(backend, *model, 1, backend.Project(*model, 1, hidden).value, *cache);
        CHECK(attended.value.IsPhantom());
        CHECK(attended.value.Rows() == 3);
        CHECK(attended.value.Cols() == 10);
        CHECK(cache->Length(1) == 7);
        // 5 + 6 + 7 positions: rotation of 18 columns; scaled queries, scores, values; softmax of 6 heads; output 12 x 10
        CHECK(attended.work == Work{3 * 3 * 18 + 3 * 12 + 2 * (2 * 12 * 18) + 4 * 6 * 18 + 3 * 2 * 120,
                                    2 * 120 + 4 * (3 * 24 + 2 * 6 * 4),
                                    4 * (3 * 10 + 3 * 12),
                                    6,
                                    2 * 120,
                                    1});
        const auto mlp = backend.FeedForward(*model, 1, hidden);
        CHECK(mlp.value.Rows() == 3);
        CHECK(mlp.value.Cols() == 10);
        CHECK(mlp.work == Work{3 * (40 + 6 * 70 + 5 * 7), 2 * (10 + 210) + 4 * 30, 4 * 30, 5, 2 * (10 + 210)});
    }
    SECTION("OPT")
    {
        config.family = Family::Opt;
        config.biases = true;
        config.heads = config.kvHeads = 5; // q and kv 10
        const auto model = backend.Resident(ShapeOf(config));
        const auto cache = backend.NewCache(*model, 0, 2, 3);
        const Work work = Attend(backend, *model, 0, backend.Project(*model, 0, hidden).value, *cache).work;
        CHECK(work == Work{3 * 10 + 2 * (2 * 10 * 6) + 4 * 5 * 6 + 3 * (200 + 10),
                           2 * (100 + 10) + 4 * 3 * 30,
                           4 * (3 * 10 + 3 * 20),
                           5,
                           2 * (100 + 10),
                           1});
        // norm 70 with two vectors; 10 x 7 twice with biases 7 and 10; ReLU 7
        CHECK(backend.FeedForward(*model, 0, hidden).work ==
              Work{3 * (70 + 280 + 17 + 7), 2 * (20 + 140 + 17) + 4 * 30, 4 * 30, 4, 2 * (20 + 140 + 17)});
    }
    SECTION("a bottleneck of width 3 in fp16, and adding what it gives")
    {
        BottleneckAdapter shape;
        shape.width = 3;
        shape.layers.resize(2);
        shape.layers.front().attention.down.weight.dtype = DType::F16;
        const auto adapter = backend.Resident(std::make_shared<const BottleneckAdapter>(shape), config);
        CHECK(adapter->Width() == 3);
        CHECK(adapter->Weights() == DType::F16);
        CHECK(adapter->Bytes() == 2 * 2 * 2 * (60 + 13));
        const auto added = backend.Bottleneck(*adapter, 1, Sublayer::Mlp, hidden);
        CHECK(added.value.IsPhantom());
        CHECK(added.value.Rows() == 3);
        CHECK(added.value.Cols() == 10);
        CHECK(added.operation == Operation::Bottleneck);
        CHECK(added.rows == 3);
        // products of 10 x 3 twice, biases 3 and 10, ReLU 3
        CHECK(added.work == Work{3 * (60 + 3 + 3 + 60 + 10), 2 * 73 + 4 * 30, 4 * 30, 3});
        const auto sum = backend.Combine(hidden, added.value);
        CHECK(sum.value.IsPhantom());
        CHECK(sum.work == Work{30, 8 * 30, 4 * 30, 1});
    }
}

TEST_CASE("Backends refuse halves and bottlenecks of wrong shapes, layers and owners", "[bottleneck]")
{
    const ModelConfig config = Odd(Family::Llama);
    const BottleneckFolder folder(config, 5);
    const auto weights = RandomModel(config, 43);
    CpuBackend cpu(1);
    ShapeBackend shape(DType::F32);
    const auto model = cpu.Resident(weights);
    const auto adapter = cpu.Resident(folder.Load(), config);
    const auto cache = cpu.NewCache(*model, 0, 2, 3);
    const Tensor hidden = RandomRows(2, 50);
    const Projections qkv = cpu.Project(*model, 0, hidden).value;

    CHECK_THROWS_AS(Attend(cpu, *model, 3, qkv, *cache), std::logic_error);
    CHECK_THROWS_AS(Attend(cpu, *model, 2, qkv, *cache), std::logic_error);
    CHECK_THROWS_AS(Attend(cpu, *model, 0, Projections{}, *cache), std::logic_error);
    Projections narrow = qkv;
    narrow.key = Tensor::Zeros(2, 19);
    CHECK_THROWS_AS(Attend(cpu, *model, 0, narrow, *cache), std::logic_error);
    Projections hollow = qkv;
    hollow.value = Tensor::Phantom(2, 20);
    CHECK_THROWS_AS(Attend(cpu, *model, 0, hollow, *cache), std::logic_error);
    CHECK_THROWS_AS(Attend(cpu, *model, 0, qkv, *shape.NewCache(*model, 0, 2, 3)), std::logic_error);
    CHECK_NOTHROW(Attend(cpu, *model, 0, qkv, *cache));
    CHECK_THROWS_AS(Attend(cpu, *model, 0, qkv, *cache), std::logic_error); // no room
    CHECK(cache->Length(0) == 2);

    CHECK_THROWS_AS(cpu.FeedForward(*model, 3, hidden), std::logic_error);
    CHECK_THROWS_AS(cpu.FeedForward(*model, 0, RandomRows(2, 49)), std::logic_error);
    CHECK_THROWS_AS(cpu.FeedForward(*model, 0, Tensor::Phantom(2, 50)), std::logic_error);
    CHECK_THROWS_AS(cpu.FeedForward(*shape.Resident(weights), 0, hidden), std::logic_error);

    CHECK_THROWS_AS(cpu.Bottleneck(*adapter, 3, Sublayer::Mlp, hidden), std::logic_error);
    CHECK_THROWS_AS(cpu.Bottleneck(*adapter, 0, Sublayer::Mlp, RandomRows(2, 51)), std::logic_error);
    CHECK_THROWS_AS(cpu.Bottleneck(*adapter, 0, Sublayer::Mlp, Tensor::Zeros(0, 50)), std::logic_error);
    CHECK_THROWS_AS(cpu.Bottleneck(*adapter, 0, Sublayer::Mlp, Tensor::Phantom(2, 50)), std::logic_error);
    CHECK_THROWS_AS(cpu.Bottleneck(*shape.Resident(folder.Load(), config), 0, Sublayer::Mlp, hidden),
                    std::logic_error);
    CHECK_THROWS_AS(cpu.Combine(hidden, RandomRows(1, 50)), std::logic_error);
    CHECK_THROWS_AS(cpu.Combine(hidden, RandomRows(2, 49)), std::logic_error);

    CHECK_THROWS_AS(cpu.Resident(folder.Load(), Two()), std::logic_error);
    BottleneckAdapter hollowAdapter;
    hollowAdapter.width = 5;
    hollowAdapter.layers.resize(3);
    CHECK_THROWS_AS(cpu.Resident(std::make_shared<const BottleneckAdapter>(hollowAdapter), config), std::logic_error);
}
