// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cpu/cpu-backend.h"
#include "compute/shape-backend.h"
#include "support/catch.h"
#include "support/odd-models.h"
#include "support/random-model.h"
#include "support/reference-transformer.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

/**
 * Logits of all tokens with layers that keep a share of their positions: pruned after each step, which is computed in
 * calls of the given numbers of rows.
 */
std::vector<float>
PrunedLogits(Backend& backend,
             const ResidentModel& model,
             KvCache& cache,
             const std::vector<TokenId>& tokens,
             const std::vector<std::vector<std::size_t>>& steps,
             double keep)
{
    const std::size_t layers = model.Config().layers;
    std::vector<float> logits;
    for (const std::vector<std::size_t>& step : steps)
    {
        for (const std::size_t rows : step)
        {
            const std::size_t position = cache.Position(0);
            Tensor hidden = backend.Embed(model, std::span(tokens).subspan(position, rows), position).value;
            for (std::size_t layer = 0; layer < layers; ++layer)
            {
                const Projections projections = backend.Project(model, layer, hidden).value;
                hidden = backend.FinishLayer(model, layer, hidden, projections, cache).value;
            }
            const Tensor result = backend.Head(model, hidden).value;
            logits.insert(logits.end(), result.Values().begin(), result.Values().end());
        }
        for (std::size_t layer = 0; layer < layers; ++layer)
        {
            backend.Prune(cache, layer, keep);
        }
    }
    REQUIRE(cache.Position(layers - 1) == tokens.size());
    return logits;
}

/// A prompt of 40 tokens, 12 tokens one by one, and 12 in one step; the long steps cut into calls of these rows.
std::vector<std::vector<std::size_t>>
Steps(const std::vector<std::size_t>& prompt, const std::vector<std::size_t>& end)
{
    std::vector<std::vector<std::size_t>> steps(13, {1});
    steps.front() = prompt;
    steps.push_back(end);
    return steps;
}

std::unique_ptr<KvCache>
TrackingCache(Backend& backend, const ResidentModel& model)
{
    auto cache = backend.NewCache(model, 0, model.Config().layers, 64);
    cache->TrackAttention();
    return cache;
}

bool
SameBits(const std::vector<float>& a, const std::vector<float>& b)
{
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

} // namespace

TEST_CASE("Logits agree with the reference transformer")
{
    for (const ModelConfig& config : kConfigs)
    {
        const auto model = RandomModel(config, 5);
        const std::vector<TokenId> tokens = RandomTokens(config, 41);
        const auto expected = ReferenceTransformer(*model).Logits(tokens);
        CpuBackend backend(2);
        const double nmse = Nmse(Logits(backend, model, nullptr, tokens, {41}), expected);
        INFO(config.name << " NMSE " << nmse);
        CHECK(nmse < 1e-11);
    }
}

TEST_CASE("Logits with LoRA agree with the reference transformer")
{
    for (const ModelConfig& config : kConfigs)
    {
        const auto model = RandomModel(config, 6);
        const auto adapter = RandomAdapter(config, 5, 0.75F, config.dtype, 7);
        const std::vector<TokenId> tokens = RandomTokens(config, 23);
        CpuBackend backend(2);
        const std::vector<float> adapted = Logits(backend, model, adapter, tokens, {20, 1, 1, 1});
        const double nmse = Nmse(adapted, ReferenceTransformer(*model, adapter.get()).Logits(tokens));
        INFO(config.name << " NMSE " << nmse);
        CHECK(nmse < 1e-11);
        CHECK(Nmse(adapted, ReferenceTransformer(*model).Logits(tokens)) > 1e-3); // the adapter does matter
    }
}

TEST_CASE("A prompt of 64 tokens has the bits of 64 steps, on any instruction set, threads and cut")
{
    for (const ModelConfig& config : kConfigs)
    {
        const auto model = RandomModel(config, 8);
        const auto adapter = RandomAdapter(config, 4, 1.5F, DType::F32, 9);
        const std::vector<TokenId> tokens = RandomTokens(config, 64);
        CpuBackend reference(1, *SupportedKernels().front());
        const std::vector<float> expected =
            Logits(reference, model, adapter, tokens, std::vector<std::size_t>(64, 1));
        for (const Kernels* kernels : SupportedKernels())
        {
            for (const std::size_t threads : {1, 2, 3})
            {
                CpuBackend backend(threads, *kernels);
                INFO(config.name << " " << kernels->name << " " << threads << " threads");
                CHECK(SameBits(Logits(backend, model, adapter, tokens, {64}), expected));
                CHECK(SameBits(Logits(backend, model, adapter, tokens, {5, 17, 1, 1, 2, 33, 3, 2}), expected));
            }
        }
    }
}

TEST_CASE("Work that is shared between threads has the bits of one thread")
{
    ModelConfig config = OddLlama(); // large enough for products and attention to be shared
    config.layers = 2;
    config.hidden = 330;
    config.heads = 9;
    config.kvHeads = 3;
    config.headDim = 40;
    config.ffn = 700;
    config.vocab = 1001;
    const auto model = RandomModel(config, 10);
    const std::vector<TokenId> tokens = RandomTokens(config, 64);
    CpuBackend reference(1);
    const std::vector<float> expected = Logits(reference, model, nullptr, tokens, {64});
    for (const std::size_t threads : {2, 3, 5})
    {
        CpuBackend backend(threads);
        INFO(threads << " threads");
        CHECK(SameBits(Logits(backend, model, nullptr, tokens, {40, 23, 1}), expected));
    }
}

TEST_CASE("Layers may be split between caches")
{
    const auto model = RandomModel(OddLlama(), 11);
    const std::vector<TokenId> tokens = RandomTokens(model->config, 9);
    CpuBackend backend(1);
    CHECK(SameBits(Logits(backend, model, nullptr, tokens, {8, 1}, 2), Logits(backend, model, nullptr, tokens, {9})));
}

TEST_CASE("A cache made of copied entries goes on with the bits of the first")
{
    for (const ModelConfig& config : kConfigs)
    {
        CAPTURE(config.name);
        const auto weights = RandomModel(config, 21);
        const std::vector<TokenId> tokens = RandomTokens(config, 9);
        const std::vector<float> whole = Logits(*std::make_unique<CpuBackend>(1), weights, nullptr, tokens, {9});
        CpuBackend backend(1);
        const auto model = backend.Resident(weights);
        const auto first = backend.NewCache(*model, 0, 3, 16);
        const auto second = backend.NewCache(*model, 0, 3, 16);
        const auto forward = [&](std::size_t position, std::size_t rows, KvCache& cache) {
            Tensor hidden = backend.Embed(*model, std::span(tokens).subspan(position, rows), position).value;
            for (std::size_t layer = 0; layer < 3; ++layer)
            {
                const Projections projections = backend.Project(*model, layer, hidden).value;
                hidden = backend.FinishLayer(*model, layer, hidden, projections, cache).value;
            }
            return backend.Head(*model, hidden).value;
        };
        forward(0, 8, *first);
        // Layer by layer and piece by piece: 0 to 2, then 3 to 7.
        using Layers = std::pair<std::size_t, std::size_t>;
        for (const auto& [firstLayer, lastLayer] : {Layers{0, 1}, Layers{1, 3}})
        {
            const Tensor early = backend.Snapshot(*first, firstLayer, lastLayer, 0, 3).value;
            const auto late = backend.Snapshot(*first, firstLayer, lastLayer, 3, 5);
            CHECK(late.value.Rows() == 2 * (lastLayer - firstLayer) * 5);
            CHECK(late.work.bytesRead == late.value.Elements() * 4);
            CHECK(late.work.bytesWritten == late.work.bytesRead);
            CHECK(backend.Restore(*second, firstLayer, lastLayer, early).value == 3);
            CHECK(backend.Restore(*second, firstLayer, lastLayer, late.value).work == late.work);
        }
        CHECK(second->Position(2) == 8);
        const Tensor logits = forward(8, 1, *second);
        const std::vector<float> last(whole.end() - static_cast<std::ptrdiff_t>(config.vocab), whole.end());
        CHECK(SameBits(std::vector<float>(logits.Values().begin(), logits.Values().end()), last));

        CHECK_THROWS_AS(backend.Snapshot(*first, 0, 4, 0, 1), std::logic_error);
        CHECK_THROWS_AS(backend.Snapshot(*first, 2, 2, 0, 1), std::logic_error);
        CHECK_THROWS_AS(backend.Snapshot(*first, 0, 3, 7, 2), std::logic_error);
        CHECK_THROWS_AS(backend.Snapshot(*first, 0, 3, 0, 0), std::logic_error);
        CHECK_THROWS_AS(backend.Restore(*second, 0, 3, Tensor::Zeros(7, config.KvWidth())), std::logic_error);
        CHECK_THROWS_AS(backend.Restore(*second, 0, 3, Tensor::Zeros(6, config.KvWidth() + 1)), std::logic_error);
        CHECK_THROWS_AS(backend.Restore(*second, 0, 3, Tensor::Zeros(60, config.KvWidth())), std::logic_error);
        CHECK_THROWS_AS(backend.Restore(*second, 0, 3, Tensor::Phantom(6, config.KvWidth())), std::logic_error);
        CHECK(second->Position(2) == 9);
    }
}

TEST_CASE("The CPU backend and the shape backend report the same work")
{
    for (const ModelConfig& config : kConfigs)
    {
        CpuBackend cpu(1);
        ShapeBackend shape(DType::F32);
        std::vector<Work> works[2];
        const auto run = [&](Backend& backend, const std::shared_ptr<const Model>& weights, std::vector<Work>& work) {
            const auto model = backend.Resident(weights);
            const auto cache = backend.NewCache(*model, 0, 1, 6);
            for (const std::size_t rows : {4, 1})
            {
                const std::vector<TokenId> tokens(rows, 1);
                const auto embedded = backend.Embed(*model, tokens, cache->Length(0));
                const auto projected = backend.Project(*model, 0, embedded.value);
                const auto finished = backend.FinishLayer(*model, 0, embedded.value, projected.value, *cache);
                const auto logits = backend.Head(*model, finished.value);
                work.insert(work.end(), {embedded.work, projected.work, finished.work, logits.work});
            }
        };
        run(cpu, RandomModel(config, 12), works[0]);
        run(shape, RandomModel(config, 12), works[1]);
        CHECK((works[0] == works[1]));
    }
}

TEST_CASE("A pruned cache keeps the reference transformer's heavy hitters, and logits agree with it")
{
    for (const ModelConfig& config : kConfigs)
    {
        for (const std::size_t denominator : {2, 3, 64})
        {
            const auto model = RandomModel(config, 14);
            const std::vector<TokenId> tokens = RandomTokens(config, 64);
            std::vector<std::size_t> calls(14, 1);
            calls.front() = 40;
            calls.back() = 12;
            std::vector<ReferenceTransformer::Held> held;
            const auto expected =
                ReferenceTransformer(*model, nullptr, {1, denominator, calls}).Logits(tokens, &held);

            CpuBackend backend(2);
            const auto resident = backend.Resident(model);
            const auto cache = TrackingCache(backend, *resident);
            const double keep = 1.0 / static_cast<double>(denominator);
            const std::vector<float> logits =
                PrunedLogits(backend, *resident, *cache, tokens, Steps({40}, {12}), keep);
            const double nmse = Nmse(logits, expected);
            INFO(config.name << " 1/" << denominator << " NMSE " << nmse);
            CHECK(nmse < 1e-11);
            CHECK(Nmse(logits, ReferenceTransformer(*model).Logits(tokens)) > 1e-6); // pruning does matter

            // Keys tell positions apart: they are rotated, or come from learned positions.
            for (std::size_t layer = 0; layer < config.layers; ++layer)
            {
                const std::size_t length = (64 + denominator - 1) / denominator;
                REQUIRE(cache->Length(layer) == length);
                CHECK(cache->Position(layer) == 64);
                REQUIRE(held[layer].positions.size() == length);
                for (std::size_t kvHead = 0; kvHead < config.kvHeads; ++kvHead)
                {
                    const auto columns = Eigen::seqN(kvHead * config.headDim, config.headDim);
                    const auto& own = dynamic_cast<const CpuKvCache&>(*cache);
                    const std::size_t elements = length * config.headDim;
                    CHECK(Nmse({own.Keys(layer, kvHead), elements}, held[layer].keys(Eigen::all, columns)) < 1e-11);
                    CHECK(Nmse({own.Values(layer, kvHead), elements}, held[layer].values(Eigen::all, columns)) < 1e-11);
                }
            }
        }
    }
}

TEST_CASE("A pruned cache gives the same bits on any instruction set, threads and cut of a step into calls")
{
    ModelConfig shared = OddLlama(); // large enough for attention to be shared between threads
    shared.name = "shared-llama";
    shared.layers = 2;
    shared.hidden = 330;
    shared.heads = 9;
    shared.kvHeads = 3;
    shared.headDim = 40;
    std::vector<ModelConfig> configs = kConfigs;
    configs.push_back(shared);
    for (const ModelConfig& config : configs)
    {
        const auto model = RandomModel(config, 15);
        const std::vector<TokenId> tokens = RandomTokens(config, 64);
        const auto logits = [&](CpuBackend& backend, const std::vector<std::vector<std::size_t>>& steps) {
            const auto resident = backend.Resident(model);
            return PrunedLogits(backend, *resident, *TrackingCache(backend, *resident), tokens, steps, 0.5);
        };
        CpuBackend reference(1, *SupportedKernels().front());
        const std::vector<float> expected = logits(reference, Steps(std::vector<std::size_t>(40, 1), {12}));
        for (const Kernels* kernels : SupportedKernels())
        {
            for (const std::size_t threads : {1, 2, 3})
            {
                CpuBackend backend(threads, *kernels);
                INFO(config.name << " " << kernels->name << " " << threads << " threads");
                CHECK(SameBits(logits(backend, Steps({40}, {12})), expected));
                CHECK(SameBits(logits(backend, Steps({5, 17, 1, 2, 15}, {7, 5})), expected));
            }
        }
    }
}

TEST_CASE("A cache that tracks attention and keeps all has the bits of one that does not track")
{
    for (const ModelConfig& config : kConfigs)
    {
        const auto model = RandomModel(config, 16);
        const std::vector<TokenId> tokens = RandomTokens(config, 64);
        CpuBackend backend(2);
        const auto resident = backend.Resident(model);
        const auto cache = TrackingCache(backend, *resident);
        const auto pruned = PrunedLogits(backend, *resident, *cache, tokens, Steps({40}, {12}), 1.0);
        CHECK(cache->Length(0) == 64);
        CHECK(SameBits(pruned, Logits(backend, model, nullptr, tokens, {64})));
    }
}

TEST_CASE("Of equal attention the older entry goes first, and the newest stays without any")
{
    ModelConfig config = OddOpt(); // without rotation a key is kept as it is
    config.layers = 1;
    const std::size_t width = config.KvWidth();
    const std::vector<Attention> sums{5, 3, 3, 9, 3, 0};
    const auto kept = [&](std::size_t count) {
        CpuKvCache cache(config, 0, 1, 6);
        cache.TrackAttention();
        Tensor key = Tensor::Zeros(6, width);
        std::iota(key.Values().begin(), key.Values().end(), 0.0F);
        Tensor value = Tensor::Zeros(6, width);
        std::iota(value.Values().begin(), value.Values().end(), 1000.0F);
        cache.Append(0, key, value);
        cache.AddAttention(0, sums);
        cache.Grow(0, 6);
        cache.Prune(0, count);
        cache.Shrink(0, count);

        std::vector<std::size_t> entries;
        for (std::size_t i = 0; i < count; ++i)
        {
            const float* first = cache.Keys(0, 0) + i * config.headDim;
            entries.push_back(static_cast<std::size_t>(*first) / width);
            for (std::size_t kvHead = 0; kvHead < config.kvHeads; ++kvHead)
            {
                for (std::size_t j = 0; j < config.headDim; ++j)
                {
                    const std::size_t at = i * config.headDim + j;
                    const auto element = static_cast<float>(entries.back() * width + kvHead * config.headDim + j);
                    CHECK(cache.Keys(0, kvHead)[at] == element);
                    CHECK(cache.Values(0, kvHead)[at] == 1000.0F + element);
                }
            }
        }
        return entries;
    };
    CHECK(kept(1) == std::vector<std::size_t>{5});
    CHECK(kept(2) == std::vector<std::size_t>{3, 5});
    CHECK(kept(3) == std::vector<std::size_t>{0, 3, 5});
    CHECK(kept(4) == std::vector<std::size_t>{0, 3, 4, 5});
    CHECK(kept(5) == std::vector<std::size_t>{0, 2, 3, 4, 5});
}

TEST_CASE("Entries take the attention they got along when others are dropped")
{
    ModelConfig config = OddOpt();
    config.layers = 1;
    CpuKvCache cache(config, 0, 1, 6);
    cache.TrackAttention();
    const auto append = [&](float first, const std::vector<Attention>& sums, std::size_t kept) {
        Tensor rows = Tensor::Zeros(2, config.KvWidth());
        rows.Row(0)[0] = first;
        rows.Row(1)[0] = first + 1.0F;
        cache.Append(0, rows, rows);
        cache.AddAttention(0, sums);
        cache.Grow(0, 2);
        cache.Prune(0, kept);
        cache.Shrink(0, kept);
        return std::vector<float>{cache.Values(0, 0)[0], cache.Values(0, 0)[(kept - 1) * config.headDim]};
    };
    CHECK(append(0.0F, {10, 20}, 1) == std::vector<float>{1, 1});       // with 20
    CHECK(append(2.0F, {1, 15, 5}, 2) == std::vector<float>{1, 3});     // of 21, 15, and the newest with 5
    CHECK(append(4.0F, {0, 20, 22, 0}, 2) == std::vector<float>{3, 5}); // of 21, 25, 22, and the newest
}

TEST_CASE("Attention is added up in units of 2^-36")
{
    constexpr float kUnit = 0x1p-36F;
    const std::vector<float> weights{0.5F, std::numeric_limits<float>::quiet_NaN(), 1.0F, 1.75F * kUnit, 0.75F * kUnit};
    std::vector<Attention> sums{1, 2, 3, 4, 5};
    AddAttention(weights.data(), weights.size(), sums.data());
    CHECK(sums == std::vector<Attention>{(1ULL << 35) + 1, 2, (1ULL << 36) + 3, 5, 5});
}

TEST_CASE("The CPU backend samples from real logits")
{
    CpuBackend backend(1);
    Tensor logits = Tensor::Zeros(1, 5);
    logits.Row(0)[3] = 1.0F;
    CHECK(backend.Sample(logits, {}, 0.0).value == 3);
}

TEST_CASE("The CPU backend refuses phantoms, shapes without weights and handles of another backend")
{
    CpuBackend cpu(1);
    ShapeBackend shape(DType::F32);
    const auto weights = RandomModel(OddLlama(), 13);
    const auto model = cpu.Resident(weights);
    const auto cache = cpu.NewCache(*model, 0, 3, 4);
    const Tensor hidden = Tensor::Zeros(1, 50);
    const Tensor phantom = Tensor::Phantom(1, 50);
    const Projections projections = cpu.Project(*model, 0, hidden).value;

    CHECK_THROWS_AS(cpu.Project(*model, 0, phantom), std::logic_error);
    CHECK_THROWS_AS(cpu.Head(*model, phantom), std::logic_error);
    CHECK_THROWS_AS(cpu.FinishLayer(*model, 0, phantom, projections, *cache), std::logic_error);
    Projections hollow = projections;
    hollow.value = Tensor::Phantom(1, 20);
    CHECK_THROWS_AS(cpu.FinishLayer(*model, 0, hidden, hollow, *cache), std::logic_error);
    CHECK(cache->Length(0) == 0);

    Model shapeOnly;
    shapeOnly.config = weights->config;
    CHECK_THROWS_AS(cpu.Resident(std::make_shared<const Model>(shapeOnly)), std::logic_error);
    CHECK_THROWS_AS(cpu.Resident(std::make_shared<const Adapter>(), weights->config), std::logic_error);

    const auto phantomModel = shape.Resident(weights);
    const auto phantomCache = shape.NewCache(*phantomModel, 0, 3, 4);
    CHECK_THROWS_AS(cpu.Project(*phantomModel, 0, hidden), std::logic_error);
    CHECK_THROWS_AS(cpu.FinishLayer(*model, 0, hidden, projections, *phantomCache), std::logic_error);
    const auto phantomAdapter = shape.Resident(RandomAdapter(weights->config, 2, 1.0F, DType::F32, 1), weights->config);
    CHECK_THROWS_AS(cpu.Adapt(*phantomAdapter, 0, hidden), std::logic_error);

    phantomCache->TrackAttention();
    phantomCache->Grow(0, 2);
    CHECK_THROWS_AS(cpu.Prune(*phantomCache, 0, 0.5), std::logic_error);
    CHECK(phantomCache->Length(0) == 2);
}
