// SPDX-License-Identifier: GPL-2.0-only
#include "compute/footprint.h"
#include "compute/shape-backend.h"
#include "llm/adapter.h"
#include "support/catch.h"

#include <chrono>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

using namespace splitllm;

namespace
{

std::shared_ptr<const Model>
ShapeOf(const ModelConfig& config)
{
    Model model;
    model.config = config;
    return std::make_shared<const Model>(std::move(model));
}

ModelConfig
Llama7b()
{
    ModelConfig config;
    config.name = "llama-7b";
    config.layers = 32;
    config.hidden = 4096;
    config.heads = 32;
    config.kvHeads = 32;
    config.headDim = 128;
    config.ffn = 11008;
    config.vocab = 32000;
    config.maxPositions = 2048;
    config.dtype = DType::F16;
    return config;
}

/// Small numbers that are all different, so that no term of a formula can stand for another.
ModelConfig
SmallLlama()
{
    ModelConfig config;
    config.layers = 2;
    config.hidden = 10;
    config.heads = 6;
    config.kvHeads = 3;
    config.headDim = 2; // query width 12, key/value width 6
    config.ffn = 7;
    config.vocab = 11;
    config.maxPositions = 20;
    config.dtype = DType::BF16;
    return config;
}

ModelConfig
SmallOpt()
{
    ModelConfig config = SmallLlama();
    config.family = Family::Opt;
    config.biases = true;
    config.heads = config.kvHeads = 5; // query and key/value width 10
    return config;
}

/// The work of one whole layer on \p rows rows after \p before positions.
Work
LayerWork(Backend& backend, const ModelConfig& config, std::size_t before, std::size_t rows)
{
    const auto model = backend.Resident(ShapeOf(config));
    const auto cache = backend.NewCache(*model, 0, 1, before + rows);
    if (before > 0)
    {
        cache->Grow(0, before);
    }
    const Tensor hidden = Tensor::Phantom(rows, config.hidden);
    const auto projected = backend.Project(*model, 0, hidden);
    Work work = projected.work;
    work += backend.FinishLayer(*model, 0, hidden, projected.value, *cache).work;
    return work;
}

} // namespace

TEST_CASE("A LLaMA-7B layer costs what its 202383360 parameters say")
{
    // 4 * 4096^2 (Q, K, V, output) + 3 * 4096 * 11008 (MLP) + 2 * 4096 (norms)
    constexpr std::uint64_t kParameters = 67108864 + 135266304 + 8192;
    static_assert(kParameters == 202383360);
    constexpr std::uint64_t kLinear = kParameters - 8192;

    ShapeBackend backend(DType::F16);
    SECTION("decoding one token after 19")
    {
        const Work work = LayerWork(backend, Llama7b(), 19, 1);
        // two norms of 4 * 4096; rotation 3 * 8192; scaling 4096; softmax 4 * 32 heads * 20; SiLU and product
        // 5 * 11008; two residuals of 4096
        constexpr std::uint64_t kElementwise = 32768 + 24576 + 4096 + 2560 + 55040 + 8192;
        CHECK(work.flops == 2 * kLinear + 4 * 4096 * 20 + kElementwise);
        // all weights; in: hidden twice, Q, K, V; the cache's 19 keys and values; all fp16
        CHECK(work.bytesRead == 2 * kParameters + 2 * (2 * 4096 + 3 * 4096 + 2 * 19 * 4096));
        // out: normed state, Q, K, V, next state, and one key and value into the cache
        CHECK(work.bytesWritten == 2 * (4096 + 3 * 4096 + 4096 + 2 * 4096));
        CHECK(work.launches == 4 + 13);
    }
    SECTION("a prompt of 100 tokens reads the weights once")
    {
        const Work work = LayerWork(backend, Llama7b(), 0, 100);
        constexpr std::uint64_t kContext = 5050; // 1 + 2 + ... + 100
        constexpr std::uint64_t kElementwise = 100 * (32768 + 24576 + 4096 + 55040 + 8192) + 4 * 32 * kContext;
        CHECK(work.flops == 2 * 100 * kLinear + 4 * 4096 * kContext + kElementwise);
        CHECK(work.bytesRead == 2 * kParameters + 100 * 2 * 5 * 4096);
        CHECK(work.bytesWritten == 100 * 2 * 7 * 4096);
        CHECK(work.launches == 17);
    }
}

TEST_CASE("Every operation's work on a small LLaMA is what a count by hand gives")
{
    ShapeBackend backend(DType::F32);
    const ModelConfig config = SmallLlama();
    const auto model = backend.Resident(ShapeOf(config));
    const auto cache = backend.NewCache(*model, 1, 2, 9);
    const Tensor hidden = Tensor::Phantom(3, 10);
    const TokenId tokens[] = {1, 2, 3};

    const auto embedded = backend.Embed(*model, tokens, 4);
    CHECK(embedded.value.IsPhantom());
    CHECK(embedded.value.Rows() == 3);
    CHECK(embedded.value.Cols() == 10);
    CHECK(embedded.operation == Operation::Embed);
    CHECK(embedded.rows == 3);
    CHECK(embedded.work == Work{0, 3 * 4 + 3 * 10 * 2, 3 * 10 * 4, 1});

    // 12 + 2 * 6 = 24 columns out of 10
    const auto projected = backend.Project(*model, 1, hidden);
    CHECK(projected.value.input.Cols() == 10);
    CHECK(projected.value.query.Cols() == 12);
    CHECK(projected.value.key.Cols() == 6);
    CHECK(projected.value.value.Cols() == 6);
    CHECK(projected.work == Work{3 * (40 + 2 * 240), 2 * (10 + 240) + 3 * 10 * 4, 3 * 34 * 4, 4, 2 * (10 + 240)});

    // 5 + 6 + 7 positions attended to; MLP matrices of 70
    cache->Grow(1, 4);
    const auto finished = backend.FinishLayer(*model, 1, hidden, projected.value, *cache);
    CHECK(finished.value.Cols() == 10);
    CHECK(cache->Length(1) == 7);
    const std::uint64_t attention = 3 * 12 + 2 * (2 * 12 * 18) + 4 * 6 * 18;
    CHECK(finished.work.flops == 3 * 3 * 18 + attention + 3 * 2 * 120 + 3 * 40 + 3 * (6 * 70 + 5 * 7) + 2 * 3 * 10);
    CHECK(finished.work.bytesRead == 2 * (120 + 10 + 210) + 4 * (3 * 34 + 2 * 6 * 4));
    CHECK(finished.work.bytesWritten == 4 * (3 * 10 + 3 * 12));
    CHECK(finished.work.launches == 13);
    CHECK(finished.work.weightBytes == 2 * (120 + 10 + 210));

    const auto logits = backend.Head(*model, hidden);
    CHECK(logits.value.Cols() == 11);
    CHECK(logits.work == Work{3 * (40 + 2 * 110), 2 * (10 + 110) + 4 * 30, 4 * 33, 2, 2 * (10 + 110)});

    const auto greedy = backend.Sample(Tensor::Phantom(1, 11), {}, 0.5);
    CHECK(greedy.value == 0);
    CHECK(greedy.work == Work{11, 44, 4, 1});
    CHECK(backend.Sample(Tensor::Phantom(1, 11), {.temperature = 0.7}, 0.5).work.flops == 55);
}

TEST_CASE("Every operation's work on a small OPT is what a count by hand gives")
{
    ShapeBackend backend(DType::F16);
    const ModelConfig config = SmallOpt();
    const auto model = backend.Resident(ShapeOf(config));
    const TokenId token = 7;
    CHECK(backend.Embed(*model, {&token, 1}, 0).work == Work{10, 4 + 2 * 10 * 2, 10 * 2, 2});

    // norm 7 * 10; Q, K, V 3 * 10 x 10 and their biases; norm's two vectors
    const Tensor hidden = Tensor::Phantom(2, 10);
    const auto projected = backend.Project(*model, 0, hidden);
    CHECK(projected.work == Work{2 * (70 + 600 + 30), 2 * (20 + 300 + 30) + 2 * 20, 2 * 2 * 40, 4, 2 * (20 + 300 + 30)});

    // no rotation; contexts 1 + 2; output 10 x 10 with bias; MLP 10 x 7 twice with biases 7 and 10; ReLU 7
    const auto cache = backend.NewCache(*model, 0, 2, 2);
    const Work work = backend.FinishLayer(*model, 0, hidden, projected.value, *cache).work;
    const std::uint64_t attention = 2 * 10 + 2 * (2 * 10 * 3) + 4 * 5 * 3;
    CHECK(work.flops == attention + 2 * (200 + 10) + 2 * 70 + 2 * (2 * 140 + 17 + 7) + 2 * 2 * 10);
    CHECK(work.bytesRead == 2 * (100 + 10 + 20 + 140 + 17) + 2 * (2 * 40));
    CHECK(work.bytesWritten == 2 * (2 * 10 + 2 * 20));
    CHECK(work.launches == 11);
    CHECK(work.weightBytes == 2 * (100 + 10 + 20 + 140 + 17));

    CHECK(backend.Head(*model, hidden).work == Work{2 * (70 + 220), 2 * (20 + 110) + 2 * 20, 2 * 22, 2, 2 * (20 + 110)});
}

TEST_CASE("A quantised layer reads codes, scales and stored vectors")
{
    // d 64, q 96, kv 32, f 128: Q, K and V of 64 x 160 = 10240 parameters, the rest 96 x 64 + 3 x 64 x 128 = 30720
    ModelConfig config = SmallLlama();
    config.hidden = 64;
    config.heads = 6;
    config.kvHeads = 2;
    config.headDim = 16;
    config.ffn = 128;
    ShapeBackend backend(DType::F16);
    const Tensor hidden = Tensor::Phantom(3, 64);
    const auto read = [&](const WeightPrecision& precision, std::size_t layer) {
        const auto model = backend.Resident(ShapeOf(config), precision);
        const auto cache = backend.NewCache(*model, layer, layer + 1, 3);
        const auto projected = backend.Project(*model, layer, hidden);
        const Work finished = backend.FinishLayer(*model, layer, hidden, projected.value, *cache).work;
        return std::pair(projected.work.bytesRead, finished.bytesRead);
    };
    // a norm of 64 in bf16; the hidden state, and with it Q, K and V, in fp16
    const std::uint64_t project = 2 * 64 + 2 * 3 * 64;
    const std::uint64_t finish = 2 * 64 + 2 * 3 * (64 + 160);
    const auto int4 = WeightPrecision::Front(config, 1, 4, 32);
    CHECK(read(int4, 0) == std::pair(project + 5120 + 4 * 320, finish + 15360 + 4 * 960));
    CHECK(read(int4, 1) == std::pair(project + 20480, finish + 61440));
    const auto int8 = WeightPrecision::Back(config, 1, 8, 32);
    CHECK(read(int8, 0) == std::pair(project + 20480, finish + 61440));
    CHECK(read(int8, 1) == std::pair(project + 10240 + 4 * 320, finish + 30720 + 4 * 960));

    // nothing else changes
    const auto stored = backend.Resident(ShapeOf(config));
    const auto quantised = backend.Resident(ShapeOf(config), int4);
    Work expected = backend.Project(*stored, 0, hidden).work;
    expected.bytesRead = project + 5120 + 4 * 320;
    expected.weightBytes = 2 * 64 + 5120 + 4 * 320;
    CHECK(backend.Project(*quantised, 0, hidden).work == expected);

    // memory: the same, and two norms
    CHECK((LayerBytes(config, int4, 0, 1) == WeightBytes{5120 + 15360 + 2 * 2 * 64, 4 * (320 + 960)}));
    CHECK(LayerBytes(config, int4, 0, 1).Total() == 20480 + 256 + 5120);
}

TEST_CASE("LoRA's work counts A and B of all three projections")
{
    ShapeBackend backend(DType::F32);
    Adapter lora;
    lora.rank = 2;
    lora.layers.resize(2);
    lora.layers.front().query.a.dtype = DType::BF16;
    const auto adapter = backend.Resident(std::make_shared<const Adapter>(lora), SmallLlama());

    // r (3 d + q + 2 kv) = 2 * (30 + 24) = 108 parameters a layer
    CHECK(adapter->Bytes() == 2 * 108 * 2);
    const auto deltas = backend.Adapt(*adapter, 1, Tensor::Phantom(3, 10));
    CHECK(deltas.work == Work{3 * (2 * 108 + 24), 2 * 108 + 4 * 30, 4 * 3 * 24, 6});

    Projections projections{.input = Tensor::Phantom(3, 10),
                            .query = Tensor::Phantom(3, 12),
                            .key = Tensor::Phantom(3, 6),
                            .value = Tensor::Phantom(3, 6)};
    const auto merged = backend.Merge(std::move(projections), deltas.value);
    CHECK(merged.value.input.Cols() == 10);
    CHECK(merged.work == Work{72, 2 * 4 * 72, 4 * 72, 3});
}

TEST_CASE("Rows of two sessions in one operation cost what they cost in one, but for what they attend to")
{
    ShapeBackend backend(DType::F16);
    for (const ModelConfig& config : {SmallLlama(), SmallOpt(), Llama7b()})
    {
        const auto model = backend.Resident(ShapeOf(config));
        const auto project = [&](std::size_t rows) {
            return backend.Project(*model, 0, Tensor::Phantom(rows, config.hidden)).work;
        };
        CHECK(project(3).Join(project(4)) == project(7));
        const auto head = [&](std::size_t rows) {
            return backend.Head(*model, Tensor::Phantom(rows, config.hidden)).work;
        };
        CHECK(head(1).Join(head(1)).Join(head(5)) == head(7));

        // One row that sees 6 entries beside one that sees 10, and two rows that see 6 and 7.
        const auto finish = [&](std::size_t before, std::size_t rows) {
            Work work = LayerWork(backend, config, before, rows);
            const Work projected = project(rows);
            work.flops -= projected.flops;
            work.bytesRead -= projected.bytesRead;
            work.bytesWritten -= projected.bytesWritten;
            work.launches -= projected.launches;
            work.weightBytes -= projected.weightBytes;
            return work;
        };
        const Work joined = finish(5, 1).Join(finish(9, 1));
        const Work alone = finish(5, 2);
        const std::uint64_t seen = 10 - 7;
        CHECK(joined.flops == alone.flops + seen * (4 * config.QueryWidth() + 4 * config.heads));
        CHECK(joined.bytesRead == alone.bytesRead + 9 * 2 * config.KvWidth() * 2); // the other session's cache
        CHECK(joined.bytesWritten == alone.bytesWritten);
        CHECK(joined.launches == alone.launches);
        CHECK(joined.weightBytes == alone.weightBytes);
        CHECK(joined.caches == 2);
        CHECK(alone.caches == 1);
    }
    // Each session brings an adapter of its own.
    CHECK(Work{10, 108, 4, 6}.Join(Work{20, 208, 5, 6}) == Work{30, 316, 9, 6});
    // Nothing to do beside something.
    CHECK(Work{7, 56, 8, 2}.Join({}) == Work{7, 56, 8, 2});
}

TEST_CASE("Tracked attention and pruning cost what a count by hand gives")
{
    ShapeBackend backend(DType::F16);
    const ModelConfig config = SmallLlama();
    const auto model = backend.Resident(ShapeOf(config));
    const auto plain = backend.NewCache(*model, 1, 2, 9);
    const auto cache = backend.NewCache(*model, 1, 2, 9);
    cache->TrackAttention();
    const Tensor hidden = Tensor::Phantom(3, 10);
    const Projections projected = backend.Project(*model, 1, hidden).value;

    // Sums of 8 bytes; 6 query heads whose rows see 5 + 6 + 7 entries.
    plain->Grow(1, 4);
    cache->Grow(1, 4);
    Work work = backend.FinishLayer(*model, 1, hidden, projected, *plain).work;
    work += Work{6 * 18, 8 * 4, 8 * 7, 1};
    CHECK(backend.FinishLayer(*model, 1, hidden, projected, *cache).work == work);

    // Of 7 entries with 6 keys and 6 values in fp16 each, ceil(0.7 * 7) = 5 stay: 2 fill the places of those dropped.
    const auto pruned = backend.Prune(*cache, 1, 0.7);
    CHECK(pruned.value == 2);
    CHECK(pruned.operation == Operation::Prune);
    CHECK(pruned.rows == 7);
    CHECK(pruned.work == Work{7, 8 * 7 + 2 * 24, 2 * (8 + 24), 2});
    CHECK(ActivationBytes(config, Operation::Prune, 7, DType::F16) == 8 * 7);
    CHECK(cache->Length(1) == 5);
    CHECK(cache->Position(1) == 7);

    // ceil(0.2 * 7) = 2 of 5 stay and move.
    CHECK(backend.Prune(*cache, 1, 0.2).work == Work{5, 8 * 5 + 2 * 24, 2 * (8 + 24), 2});
    const auto nothing = backend.Prune(*cache, 1, 0.2);
    CHECK(nothing.value == 0);
    CHECK(nothing.work == Work{});

    // Rows attend to what is left: 3 + 4 + 5, at positions 7 to 9.
    const auto shorter = backend.NewCache(*model, 1, 2, 9);
    shorter->Grow(1, 2);
    work = backend.FinishLayer(*model, 1, hidden, projected, *shorter).work;
    work += Work{6 * 12, 8 * 2, 8 * 5, 1};
    CHECK(backend.FinishLayer(*model, 1, hidden, projected, *cache).work == work);
    CHECK(cache->Length(1) == 5);
    CHECK(cache->Position(1) == 10);
}

TEST_CASE("A share of the positions is rounded up, and is at least one")
{
    CHECK(KeptEntries(0.5, 18) == 9);
    CHECK(KeptEntries(0.5, 19) == 10);
    CHECK(KeptEntries(0.07, 100) == 7); // 0.07 * 100 is a little above 7 in doubles
    CHECK(KeptEntries(0.7, 131072) == 91751);
    CHECK(KeptEntries(1.0, 16777215) == 16777215);
    CHECK(KeptEntries(1e-300, 100) == 1);
    CHECK(KeptEntries(0.5, 0) == 1);
}

TEST_CASE("A pruned cache has room for as many entries as it dropped, up to the model's last position")
{
    ShapeBackend backend(DType::F32);
    const auto model = backend.Resident(ShapeOf(SmallLlama()));
    const auto cache = backend.NewCache(*model, 0, 2, 4);
    cache->TrackAttention();
    const Tensor hidden = Tensor::Phantom(2, 10);
    const Projections projected = backend.Project(*model, 0, hidden).value;
    for (std::size_t position = 0; position < 20; position += 2) // the model has 20 positions
    {
        CHECK(cache->Position(0) == position);
        backend.FinishLayer(*model, 0, hidden, projected, *cache);
        backend.Prune(*cache, 0, 0.1);
        CHECK(cache->Length(0) == (position < 10 ? 1 : 2));
    }
    CHECK_THROWS_AS(backend.FinishLayer(*model, 0, hidden, projected, *cache), std::logic_error);
    CHECK(cache->Position(1) == 0);
}

TEST_CASE("A backend refuses to prune what it does not know how to")
{
    ShapeBackend backend(DType::F32);
    const auto model = backend.Resident(ShapeOf(SmallLlama()));
    const auto cache = backend.NewCache(*model, 0, 1, 4);
    CHECK_THROWS_AS(backend.Prune(*cache, 0, 0.5), std::logic_error);
    cache->Grow(0, 3);
    CHECK_THROWS_AS(cache->TrackAttention(), std::logic_error);

    const auto tracking = backend.NewCache(*model, 0, 1, 4);
    tracking->TrackAttention();
    tracking->Grow(0, 3);
    for (const double keep : {0.0, -0.5, 1.5, std::numeric_limits<double>::quiet_NaN()})
    {
        CHECK_THROWS_AS(backend.Prune(*tracking, 0, keep), std::logic_error);
    }
    CHECK_THROWS_AS(backend.Prune(*tracking, 1, 0.5), std::logic_error);
    CHECK_THROWS_AS(tracking->Shrink(0, 4), std::logic_error);
    CHECK(tracking->Length(0) == 3);
}

TEST_CASE("A backend refuses wrong shapes, layers, positions and caches")
{
    ShapeBackend backend(DType::F32);
    const auto model = backend.Resident(ShapeOf(SmallLlama()));
    const auto cache = backend.NewCache(*model, 0, 1, 4);
    const Tensor hidden = Tensor::Phantom(2, 10);
    const Projections projected = backend.Project(*model, 0, hidden).value;
    const std::vector<TokenId> tokens{1, 2};

    CHECK_THROWS_AS(backend.Project(*model, 2, hidden), std::logic_error);
    CHECK_THROWS_AS(backend.Project(*model, 0, Tensor::Phantom(2, 9)), std::logic_error);
    CHECK_THROWS_AS(backend.Project(*model, 0, Tensor::Phantom(0, 10)), std::logic_error);
    CHECK_THROWS_AS(backend.Head(*model, Tensor::Phantom(1, 11)), std::logic_error);

    CHECK_THROWS_AS(backend.Embed(*model, {}, 0), std::logic_error);
    CHECK_THROWS_AS(backend.Embed(*model, std::vector<TokenId>{11}, 0), std::logic_error);
    CHECK_NOTHROW(backend.Embed(*model, tokens, 18));
    CHECK_THROWS_AS(backend.Embed(*model, tokens, 19), std::logic_error);
    CHECK_THROWS_AS(backend.Embed(*model, tokens, static_cast<std::size_t>(-1)), std::logic_error);

    CHECK_THROWS_AS(backend.NewCache(*model, 0, 3, 1), std::logic_error);
    CHECK_THROWS_AS(backend.NewCache(*model, 1, 1, 1), std::logic_error);
    CHECK_THROWS_AS(backend.NewCache(*model, 0, 1, 0), std::logic_error);
    CHECK_THROWS_AS(backend.FinishLayer(*model, 1, hidden, projected, *cache), std::logic_error);
    CHECK_THROWS_AS(backend.FinishLayer(*model, 0, Tensor::Phantom(1, 10), projected, *cache), std::logic_error);
    CHECK_NOTHROW(backend.FinishLayer(*model, 0, hidden, projected, *cache));
    CHECK_NOTHROW(backend.FinishLayer(*model, 0, hidden, projected, *cache));
    CHECK_THROWS_AS(backend.FinishLayer(*model, 0, hidden, projected, *cache), std::logic_error);
    CHECK(cache->Length(0) == 4);
    CHECK_THROWS_AS(cache->Grow(0, 1), std::logic_error);

    const auto roomy = backend.NewCache(*model, 0, 1, 100);
    roomy->Grow(0, 19);
    CHECK_THROWS_AS(backend.FinishLayer(*model, 0, hidden, projected, *roomy), std::logic_error);

    CHECK_THROWS_AS(backend.Sample(Tensor::Phantom(2, 11), {}, 0.0), std::logic_error);
}

TEST_CASE("Every operation takes as long as its backend's clock says")
{
    /// Its n-th operation takes n microseconds.
    class CountingBackend : public ShapeBackend
    {
      public:
        using ShapeBackend::ShapeBackend;

      protected:
        std::chrono::nanoseconds Clock(const std::function<void()>& operation) override
        {
            operation();
            return std::chrono::microseconds(++m_operations);
        }

      private:
        int m_operations = 0;
    };

    CountingBackend backend(DType::F32);
    const ModelConfig config = SmallLlama();
    const auto model = backend.Resident(ShapeOf(config));
    Adapter lora;
    lora.rank = 2;
    BottleneckAdapter narrow;
    narrow.width = 3;
    Exits untrained;
    untrained.layers = {1};
    SideNetwork network;
    network.width = 3;
    network.inner = 5;
    const auto adapter = backend.Resident(std::make_shared<const Adapter>(lora), config);
    const auto bottleneck = backend.Resident(std::make_shared<const BottleneckAdapter>(narrow), config);
    const auto exits = backend.Resident(std::make_shared<const Exits>(untrained), config);
    const auto side = backend.Resident(std::make_shared<const SideNetwork>(network), config);
    const auto cache = backend.NewCache(*model, 0, 2, 9);
    cache->TrackAttention();
    const auto copies = backend.NewCache(*model, 0, 2, 9);
    const Tensor hidden = Tensor::Phantom(1, config.hidden);
    const Tensor logits = Tensor::Phantom(1, config.vocab);
    const TokenId token = 3;

    std::vector<std::pair<Operation, std::chrono::nanoseconds>> took;
    const auto note = [&](const auto& computed) { took.emplace_back(computed.operation, computed.elapsed); };
    note(backend.Embed(*model, {&token, 1}, 0));
    const auto projected = backend.Project(*model, 0, hidden);
    note(projected);
    const auto deltas = backend.Adapt(*adapter, 0, hidden);
    note(deltas);
    note(backend.Merge(projected.value, deltas.value));
    note(backend.FinishLayer(*model, 0, hidden, projected.value, *cache));
    KvCache* const caches[] = {cache.get()};
    note(backend.Attend(*model, 1, projected.value, caches));
    note(backend.FeedForward(*model, 1, hidden));
    note(backend.Bottleneck(*bottleneck, 1, Sublayer::Attention, hidden));
    note(backend.Prune(*cache, 0, 0.5));
    const auto snapshot = backend.Snapshot(*cache, 0, 2, 0, 1);
    note(snapshot);
    note(backend.Restore(*copies, 0, 2, snapshot.value));
    note(backend.Fork(*cache));
    note(backend.Head(*model, hidden));
    note(backend.Exit(*model, *exits, 0, hidden));
    const auto states = std::vector(config.layers, hidden);
    const auto read = backend.SideInput(*side, states);
    note(read);
    note(backend.Side(*side, read.value));
    note(backend.Combine(hidden, hidden));
    note(backend.Gate(*side, hidden));
    note(backend.Sample(logits, {}, 0.5));
    note(backend.Search(logits, 2));

    CHECK(took.size() == 20); // all operations but those of codecs and policies: calibrate, encode, decode
    for (std::size_t i = 0; i < took.size(); i++)
    {
        INFO(NameOf(took[i].first));
        CHECK(took[i].second == std::chrono::microseconds(i + 1));
    }
}

TEST_CASE("Operations have the names that timing tables use")
{
    CHECK(NameOf(Operation::Embed) == "embed");
    CHECK(NameOf(Operation::Project) == "project");
    CHECK(NameOf(Operation::Adapt) == "adapt");
    CHECK(NameOf(Operation::Merge) == "merge");
    CHECK(NameOf(Operation::FinishLayer) == "finish-layer");
    CHECK(NameOf(Operation::Prune) == "prune");
    CHECK(NameOf(Operation::Head) == "head");
    CHECK(NameOf(Operation::Sample) == "sample");
    CHECK(NameOf(Operation::Exit) == "exit");
}
