// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cpu/cpu-backend.h"
#include "compute/cuda-backend.h"
#include "compute/cuda/step-kernels.h"
#include "support/catch.h"
#include "support/gpu.h"
#include "support/nmse.h"
#include "support/odd-models.h"
#include "support/random-model.h"
#include "support/reference-transformer.h"
#include "tensor/cuda/device-tensor.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

/// Widths of several vectors, groups of query heads, and rows of more than one chunk of attention.
ModelConfig
WideLlama()
{
    ModelConfig config = OddLlama();
    config.name = "wide-llama";
    config.hidden = 256;
    config.heads = 8;
    config.kvHeads = 2;
    config.headDim = 32;
    config.ffn = 320;
    config.vocab = 130;
    config.maxPositions = 512;
    return config;
}

ModelConfig
WideOpt()
{
    ModelConfig config = OddOpt();
    config.name = "wide-opt";
    config.hidden = 128;
    config.heads = config.kvHeads = 2;
    config.headDim = 64;
    config.ffn = 192;
    config.maxPositions = 512;
    return config;
}

std::vector<ModelConfig>
AllConfigs()
{
    std::vector<ModelConfig> configs = kConfigs;
    configs.push_back(WideLlama());
    configs.push_back(WideOpt());
    return configs;
}

double
Nmse(const Tensor& actual, const Tensor& expected)
{
    REQUIRE(actual.Rows() == expected.Rows());
    REQUIRE(actual.Cols() == expected.Cols());
    return test::Nmse(actual.Values(), expected.Values());
}

bool
SameBits(const std::vector<float>& a, const std::vector<float>& b)
{
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

constexpr double kFew = 1e-11;  //!< our own kernels: fp32 throughout
constexpr double kMany = 1e-5;  //!< cuBLAS: operands rounded to TF32

/// n steps of one token.
std::vector<std::size_t>
OneByOne(std::size_t n)
{
    return std::vector<std::size_t>(n, 1);
}

Tensor
RandomRows(std::size_t rows, std::size_t cols, std::uint64_t seed)
{
    Random random(seed);
    Tensor tensor = Tensor::Zeros(rows, cols);
    std::ranges::generate(tensor.Values(), [&] { return 3.0F * random.Uniform(); });
    return tensor;
}

/// Rows on both sides of what our own kernels take, and of what they take together.
const std::vector<std::size_t> kRows{1, 2, 3, 4, 5, 8, 9, 21};

double
Bound(std::size_t rows)
{
    return rows <= 8 ? kFew : kMany;
}

} // namespace

TEST_CASE("On the GPU logits agree with the reference transformer, token by token", "[cuda]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaBackend(CudaTimes::None);
    for (const ModelConfig& config : AllConfigs())
    {
        const auto model = RandomModel(config, 5);
        const std::vector<TokenId> tokens = RandomTokens(config, 41);
        const auto expected = ReferenceTransformer(*model).Logits(tokens);
        const double nmse = test::Nmse(Logits(*gpu, model, nullptr, tokens, OneByOne(41)), expected);
        INFO(config.name << " NMSE " << nmse);
        CHECK(nmse < kFew);
    }
}

TEST_CASE("On the GPU logits of a prompt by cuBLAS agree with the reference transformer", "[cuda]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaBackend(CudaTimes::None);
    for (const ModelConfig& config : AllConfigs())
    {
        const auto model = RandomModel(config, 6);
        const auto adapter = RandomAdapter(config, 7, 1.5F, DType::F32, 8);
        const std::vector<TokenId> tokens = RandomTokens(config, 61);
        const auto expected = ReferenceTransformer(*model, adapter.get()).Logits(tokens);
        const double nmse = test::Nmse(Logits(*gpu, model, adapter, tokens, {40, 1, 1, 3, 16}), expected);
        INFO(config.name << " NMSE " << nmse);
        CHECK(nmse < kMany);
    }
}

TEST_CASE("On the GPU a context of several chunks agrees with the CPU", "[cuda]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaBackend(CudaTimes::None);
    CpuBackend cpu(1);
    for (const ModelConfig& config : {WideLlama(), WideOpt()})
    {
        const auto model = RandomModel(config, 9);
        const std::vector<TokenId> tokens = RandomTokens(config, 262);
        const std::vector<std::size_t> calls{127, 1, 1, 127, 1, 5};
        CHECK(test::Nmse(Logits(*gpu, model, nullptr, tokens, calls), Logits(cpu, model, nullptr, tokens, calls)) < kMany);
    }
}

TEST_CASE("On the GPU up to 8 rows have the bits of rows by themselves", "[cuda][slow]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaBackend(CudaTimes::None);
    for (const ModelConfig& config : AllConfigs())
    {
        const auto model = RandomModel(config, 10);
        const auto adapter = RandomAdapter(config, 4, 0.5F, DType::BF16, 11);
        const std::vector<TokenId> tokens = RandomTokens(config, 24);
        const std::vector<float> expected = Logits(*gpu, model, adapter, tokens, OneByOne(24));
        CHECK(SameBits(Logits(*gpu, model, adapter, tokens, {8, 8, 8}), expected));
        CHECK(SameBits(Logits(*gpu, model, adapter, tokens, {2, 3, 4, 5, 6, 4}), expected));
    }
}

TEST_CASE("On the GPU a split between caches, and so between streams, has the bits of the whole", "[cuda]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaBackend(CudaTimes::None);
    for (const ModelConfig& config : AllConfigs())
    {
        const auto model = RandomModel(config, 12);
        const std::vector<TokenId> tokens = RandomTokens(config, 22);
        const std::vector<std::size_t> calls{17, 1, 1, 1, 2};
        const std::vector<float> whole = Logits(*gpu, model, nullptr, tokens, calls);
        CHECK(SameBits(Logits(*gpu, model, nullptr, tokens, calls, 1), whole));
        CHECK(SameBits(Logits(*gpu, model, nullptr, tokens, calls, 2), whole));
    }
}

TEST_CASE("On the GPU quantised layers agree with the CPU's", "[cuda]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaBackend(CudaTimes::None);
    CpuBackend cpu(1);
    ModelConfig config = WideLlama();
    config.ffn = 384;
    const auto model = RandomModel(config, 13);
    for (const unsigned bits : {8U, 4U})
    {
        for (const std::size_t group : {32, 64, 128})
        {
            const WeightPrecision precision = WeightPrecision::Front(config, 2, bits, group);
            const auto there = gpu->Resident(model, precision);
            const auto here = cpu.Resident(model, precision);
            for (const std::size_t rows : kRows)
            {
                const Tensor hidden = RandomRows(rows, config.hidden, rows);
                for (const std::size_t layer : {std::size_t{1}, std::size_t{2}})
                {
                    const auto cache = gpu->NewCache(*there, 0, config.layers, rows);
                    const auto expectedCache = cpu.NewCache(*here, 0, config.layers, rows);
                    const Projections projections = gpu->Project(*there, layer, hidden).value;
                    const Projections expected = cpu.Project(*here, layer, hidden).value;
                    INFO(bits << " bits, groups of " << group << ", layer " << layer << ", " << rows << " rows");
                    CHECK(Nmse(projections.input, expected.input) < kFew);
                    CHECK(Nmse(projections.query, expected.query) < Bound(rows));
                    CHECK(Nmse(projections.key, expected.key) < Bound(rows));
                    CHECK(Nmse(projections.value, expected.value) < Bound(rows));
                    CHECK(Nmse(gpu->FinishLayer(*there, layer, hidden, projections, *cache).value,
                               cpu.FinishLayer(*here, layer, hidden, expected, *expectedCache).value) < Bound(rows));
                }
            }
        }
    }
}

TEST_CASE("On the GPU every operation beside the layers agrees with the CPU's", "[cuda]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaBackend(CudaTimes::None);
    CpuBackend cpu(1);
    for (const ModelConfig& config : AllConfigs())
    {
        const auto model = RandomModel(config, 14);
        const auto exits = RandomExits(config, {1, 2}, 12, DType::F16, 15);
        const auto side = RandomSideNetwork(config, 24, 40, DType::BF16, 16);
        const auto there = gpu->Resident(model);
        const auto here = cpu.Resident(model);
        const auto thereExits = gpu->Resident(exits, config);
        const auto hereExits = cpu.Resident(exits, config);
        const auto thereSide = gpu->Resident(side, config);
        const auto hereSide = cpu.Resident(side, config);
        for (const std::size_t rows : kRows)
        {
            INFO(config.name << ", " << rows << " rows");
            std::vector<Tensor> states;
            for (std::size_t layer = 0; layer < config.layers; ++layer)
            {
                states.push_back(RandomRows(rows, config.hidden, 100 * rows + layer));
            }
            const Tensor& hidden = states.front();
            const double bound = Bound(rows);
            CHECK(Nmse(gpu->Head(*there, hidden).value, cpu.Head(*here, hidden).value) < bound);
            CHECK(Nmse(gpu->Exit(*there, *thereExits, 1, hidden).value,
                       cpu.Exit(*here, *hereExits, 1, hidden).value) < bound);
            CHECK(Nmse(gpu->FeedForward(*there, 1, hidden).value, cpu.FeedForward(*here, 1, hidden).value) < bound);
            const Tensor input = cpu.SideInput(*hereSide, states).value;
            CHECK(Nmse(gpu->SideInput(*thereSide, states).value, input) < bound);
            CHECK(Nmse(gpu->Side(*thereSide, input).value, cpu.Side(*hereSide, input).value) < bound);
            CHECK(Nmse(gpu->Gate(*thereSide, hidden).value, cpu.Gate(*hereSide, hidden).value) < bound);
            const Tensor combined = gpu->Combine(hidden, states.back()).value;
            CHECK(std::ranges::equal(combined.Values(), cpu.Combine(hidden, states.back()).value.Values()));
        }
    }
}

TEST_CASE("On the GPU updates are added to the rows that they belong to, and to no copy", "[cuda]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaBackend(CudaTimes::None);
    CpuBackend cpu(1);
    const ModelConfig config = OddLlama();
    const auto model = gpu->Resident(RandomModel(config, 92));
    const Projections before = gpu->Project(*model, 0, RandomRows(5, config.hidden, 93)).value;
    const Deltas deltas{.query = RandomRows(2, config.QueryWidth(), 94),
                        .key = RandomRows(2, config.KvWidth(), 95),
                        .value = RandomRows(2, config.KvWidth(), 96)};
    const std::vector<std::size_t> rows{3, 1};
    const std::vector<float> untouched(before.query.Values().begin(), before.query.Values().end());
    const Projections after = gpu->Merge(before, deltas, rows).value;
    const Projections expected = cpu.Merge(before, deltas, rows).value;
    CHECK(std::ranges::equal(after.query.Values(), expected.query.Values()));
    CHECK(std::ranges::equal(after.key.Values(), expected.key.Values()));
    CHECK(std::ranges::equal(after.value.Values(), expected.value.Values()));
    CHECK(std::ranges::equal(before.query.Values(), untouched));
    CHECK(after.query.Device() != nullptr);
    const Deltas none{.query = Tensor::Zeros(0, config.QueryWidth()),
                      .key = Tensor::Zeros(0, config.KvWidth()),
                      .value = Tensor::Zeros(0, config.KvWidth())};
    const Projections same = gpu->Merge(before, none, {}).value;
    CHECK(std::ranges::equal(same.query.Values(), untouched));
}

TEST_CASE("On the GPU a cache made of copied entries, and a forked one, go on with the bits of the first", "[cuda]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaBackend(CudaTimes::None);
    for (const ModelConfig& config : AllConfigs())
    {
        const auto model = gpu->Resident(RandomModel(config, 17));
        const auto cache = gpu->NewCache(*model, 0, 2, 12);
        const auto step = [&](KvCache& its, const Tensor& hidden, std::size_t layer) {
            const Projections projections = gpu->Project(*model, layer, hidden).value;
            return gpu->FinishLayer(*model, layer, hidden, projections, its).value;
        };
        const Tensor prompt = RandomRows(9, config.hidden, 18);
        step(*cache, step(*cache, prompt, 0), 1);
        const auto copied = gpu->NewCache(*model, 0, 2, 30);
        gpu->Restore(*copied, 0, 2, gpu->Snapshot(*cache, 0, 2, 0, 4).value);
        Tensor rest = gpu->Snapshot(*cache, 0, 2, 4, 5).value;
        rest.Values(); // by way of the host
        gpu->Restore(*copied, 0, 2, rest);
        const auto forked = gpu->Fork(*cache).value;
        CHECK(copied->Length(1) == 9);
        CHECK(forked->Length(1) == 9);
        for (std::uint64_t token = 0; token < 3; ++token)
        {
            const Tensor hidden = RandomRows(1, config.hidden, 20 + token);
            const Tensor expected = step(*cache, step(*cache, hidden, 0), 1);
            for (KvCache* other : {copied.get(), forked.get()})
            {
                const Tensor actual = step(*other, step(*other, hidden, 0), 1);
                CHECK(std::ranges::equal(actual.Values(), expected.Values()));
            }
        }
    }
}

TEST_CASE("On the GPU rows of several caches have the bits of each cache by itself", "[cuda]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaBackend(CudaTimes::None);
    for (const ModelConfig& config : AllConfigs())
    {
        const auto model = gpu->Resident(RandomModel(config, 21));
        std::vector<std::unique_ptr<KvCache>> together;
        std::vector<std::unique_ptr<KvCache>> alone;
        std::vector<KvCache*> caches;
        for (std::size_t i = 0; i < 5; ++i)
        {
            const auto skipped = gpu->NewCache(*model, 0, 1, 1); // so that the caches have different streams
            const Tensor prompt = RandomRows(2 * i + 1, config.hidden, 30 + i);
            for (auto* its : {&together, &alone})
            {
                its->push_back(gpu->NewCache(*model, 0, 1, 16));
                const Projections projections = gpu->Project(*model, 0, prompt).value;
                gpu->FinishLayer(*model, 0, prompt, projections, *its->back());
            }
            caches.push_back(together.back().get());
        }
        const Tensor hidden = RandomRows(5, config.hidden, 40);
        const Projections projections = gpu->Project(*model, 0, hidden).value;
        const Tensor joined = gpu->FinishLayer(*model, 0, hidden, projections, caches).value;
        for (std::size_t i = 0; i < 5; ++i)
        {
            const Tensor row = hidden.Slice(i, 1);
            const Tensor expected =
                gpu->FinishLayer(*model, 0, row, gpu->Project(*model, 0, row).value, *alone[i]).value;
            CHECK(std::ranges::equal(joined.Row(i), expected.Row(0)));
        }
    }
}

TEST_CASE("On the GPU pruning keeps the entries that the CPU keeps", "[cuda]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaBackend(CudaTimes::None);
    CpuBackend cpu(1);
    for (const ModelConfig& config : AllConfigs())
    {
        const auto model = RandomModel(config, 50);
        std::vector<Tensor> held;
        std::vector<Tensor> states;
        for (Backend* backend : std::initializer_list<Backend*>{gpu.get(), &cpu})
        {
            const auto resident = backend->Resident(model);
            const auto cache = backend->NewCache(*resident, 1, 2, 40);
            cache->TrackAttention();
            Tensor state;
            for (const std::size_t rows : {std::size_t{6}, std::size_t{1}, std::size_t{8}, std::size_t{1}})
            {
                const Tensor hidden = RandomRows(rows, config.hidden, 60 + rows);
                const Projections projections = backend->Project(*resident, 1, hidden).value;
                state = backend->FinishLayer(*resident, 1, hidden, projections, *cache).value;
                backend->Prune(*cache, 1, 0.5);
            }
            CHECK(cache->Length(1) == 8);
            held.push_back(backend->Snapshot(*cache, 1, 2, 0, 8).value);
            states.push_back(state);
        }
        CHECK(Nmse(held[0], held[1]) < kFew);
        CHECK(Nmse(states[0], states[1]) < kFew);
    }
}

TEST_CASE("Greedy decoding by a graph has the tokens of one operation after the other, and the CPU's", "[cuda]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaBackend(CudaTimes::None);
    CpuBackend cpu(1);
    for (const ModelConfig& config : AllConfigs())
    {
        const auto model = RandomModel(config, 95);
        const std::vector<TokenId> prompt = RandomTokens(config, 6);
        std::vector<std::vector<TokenId>> answers;
        for (Backend* backend : std::initializer_list<Backend*>{gpu.get(), &cpu})
        {
            const auto resident = backend->Resident(model);
            const auto cache = backend->NewCache(*resident, 0, config.layers, 40);
            Tensor hidden = backend->Embed(*resident, prompt, 0).value;
            for (std::size_t layer = 0; layer < config.layers; ++layer)
            {
                const Projections projections = backend->Project(*resident, layer, hidden).value;
                hidden = backend->FinishLayer(*resident, layer, hidden, projections, *cache).value;
            }
            const Tensor logits = backend->Head(*resident, hidden.Slice(5, 1)).value;
            std::vector<TokenId>& answer = answers.emplace_back(1, Greedy(logits.Values()));
            for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{13}, std::size_t{2}})
            {
                const std::vector<TokenId> more = backend->Greedy(*resident, *cache, answer.back(), count);
                answer.insert(answer.end(), more.begin(), more.end());
            }
            CHECK(cache->Position(config.layers - 1) == 22);
            // Step by step from here: the cache holds what the graph left.
            TokenId token = answer.back();
            for (std::size_t step = 0; step < 3; ++step)
            {
                hidden = backend->Embed(*resident, {&token, 1}, cache->Position(0)).value;
                for (std::size_t layer = 0; layer < config.layers; ++layer)
                {
                    const Projections projections = backend->Project(*resident, layer, hidden).value;
                    hidden = backend->FinishLayer(*resident, layer, hidden, projections, *cache).value;
                }
                token = Greedy(backend->Head(*resident, hidden).value.Values());
                answer.push_back(token);
            }
            const auto whole = backend->NewCache(*resident, 0, config.layers, 40);
            CHECK_THROWS_AS(backend->Greedy(*resident, *whole, config.vocab, 1), std::logic_error);
            CHECK_THROWS_AS(backend->Greedy(*resident, *whole, 0, 41), std::logic_error);
        }
        INFO(config.name);
        CHECK(answers[0] == answers[1]);
    }
}

TEST_CASE("On the GPU the next token is the first of the largest logits, and no NaN", "[cuda]")
{
    SPLITLLM_NEEDS_GPU();
    const auto stream = std::make_shared<CudaStream>();
    for (const std::size_t n : {std::size_t{1}, std::size_t{33}, std::size_t{1025}, std::size_t{5000}})
    {
        std::vector<float> logits(n, -2.0F);
        logits[n / 2] = logits[n - 1] = logits[n * 2 / 3] = 1.5F;
        logits[0] = n > 1 ? std::numeric_limits<float>::quiet_NaN() : 1.5F;
        const DeviceArray<float> there(stream, logits);
        DeviceArray<DecodingState> state(stream, std::array{DecodingState{.token = 9, .position = 4, .steps = 1}});
        const DeviceArray<std::uint32_t> decoded(stream, 2);
        const DeviceArray<KvPlace> places(stream, std::array{KvPlace{.entry = 7, .position = 8}});
        EndStep(there.Data(), n, state.Data(), decoded.Data(), places.Data(), 1, stream->Get());
        std::vector<DecodingState> after(1);
        std::vector<std::uint32_t> token(1);
        std::vector<KvPlace> place(1);
        state.Download(after);
        decoded.Download(token, 1);
        places.Download(place);
        CHECK(token[0] == n / 2);
        CHECK(after[0].token == n / 2);
        CHECK(after[0].position == 5);
        CHECK(after[0].steps == 2);
        CHECK(place[0].entry == 8);
        CHECK(place[0].position == 9);
    }
}

TEST_CASE("On the GPU weights lie there once, whoever uses them, and go when nobody does", "[cuda]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaBackend(CudaTimes::None);
    const auto used = [] {
        std::size_t free = 0;
        std::size_t total = 0;
        cudaMemGetInfo(&free, &total);
        return total - free;
    };
    ModelConfig config = WideLlama();
    config.vocab = 1 << 18; // 134 MB in the embedding alone, and as many in the head
    config.tiedHead = true;
    const auto model = RandomModel(config, 70);
    const std::size_t before = used();
    const auto first = gpu->Resident(model);
    const std::size_t weights = used() - before;
    CHECK(weights >= config.vocab * config.hidden * 2);
    const auto second = gpu->Resident(model, WeightPrecision::Front(config, 1, 8, 64));
    CHECK(used() - before < weights + weights / 4);
}

TEST_CASE("The CUDA backend refuses phantoms, shapes without weights and handles of another backend", "[cuda]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaBackend(CudaTimes::None);
    CpuBackend cpu(1);
    const auto model = RandomModel(OddLlama(), 80);
    const auto there = gpu->Resident(model);
    const auto here = cpu.Resident(model);
    const Tensor hidden = Tensor::Zeros(1, OddLlama().hidden);
    CHECK_THROWS_AS(gpu->Project(*there, 0, Tensor::Phantom(1, OddLlama().hidden)), std::logic_error);
    CHECK_THROWS_AS(gpu->Project(*here, 0, hidden), std::logic_error);
    const auto cache = cpu.NewCache(*here, 0, 3, 4);
    const Projections projections = gpu->Project(*there, 0, hidden).value;
    CHECK_THROWS_AS(gpu->FinishLayer(*there, 0, hidden, projections, *cache), std::logic_error);
    const auto shape = std::make_shared<Model>();
    shape->config = OddLlama();
    CHECK_THROWS_AS(gpu->Resident(shape), std::logic_error);
}

TEST_CASE("With events every operation of the GPU takes time, and the same bits come out", "[cuda]")
{
    SPLITLLM_NEEDS_GPU();
    const auto timed = MakeCudaBackend(CudaTimes::Events);
    const auto gpu = MakeCudaBackend(CudaTimes::None);
    const auto model = RandomModel(WideLlama(), 90);
    const Tensor hidden = RandomRows(3, WideLlama().hidden, 91);
    const auto there = timed->Resident(model);
    const auto computed = timed->Project(*there, 0, hidden);
    CHECK(computed.elapsed.count() > 0);
    const auto expected = gpu->Project(*gpu->Resident(model), 0, hidden);
    CHECK(expected.elapsed.count() == 0);
    CHECK(std::ranges::equal(computed.value.query.Values(), expected.value.query.Values()));
}
