// SPDX-License-Identifier: GPL-2.0-only
#include "base/input-error.h"
#include "compute/cpu/cpu-backend.h"
#include "compute/quantised-matrix.h"
#include "compute/footprint.h"
#include "compute/shape-backend.h"
#include "compute/weight-precision.h"
#include "support/catch.h"
#include "support/dequantised.h"
#include "support/random-model.h"
#include "support/reference-transformer.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

ModelConfig
SmallLlama()
{
    ModelConfig config;
    config.name = "small-llama";
    config.layers = 4;
    config.hidden = 96;
    config.heads = 4;
    config.kvHeads = 2;
    config.headDim = 16; // query width 64, key/value width 32
    config.ffn = 160;
    config.vocab = 101;
    config.maxPositions = 128;
    config.ropeTheta = 500.0;
    config.dtype = DType::BF16;
    return config;
}

ModelConfig
SmallOpt()
{
    ModelConfig config = SmallLlama();
    config.name = "small-opt";
    config.family = Family::Opt;
    config.biases = true;
    config.heads = config.kvHeads = 6;
    config.dtype = DType::F16;
    return config;
}

const std::vector<ModelConfig> kConfigs{SmallLlama(), SmallOpt()};

std::vector<TokenId>
RandomTokens(const ModelConfig& config, std::size_t count)
{
    Random random(99);
    std::vector<TokenId> tokens(count);
    std::ranges::generate(tokens, [&] { return static_cast<TokenId>(random.Below(config.vocab)); });
    return tokens;
}

/// Logits of all tokens, computed in calls of the given numbers of rows.
std::vector<float>
Logits(Backend& backend,
       const ResidentModel& model,
       const std::vector<TokenId>& tokens,
       const std::vector<std::size_t>& chunks)
{
    const std::size_t layers = model.Config().layers;
    const auto cache = backend.NewCache(model, 0, layers, tokens.size());
    std::vector<float> logits;
    std::size_t position = 0;
    for (const std::size_t chunk : chunks)
    {
        Tensor hidden = backend.Embed(model, std::span(tokens).subspan(position, chunk), position).value;
        for (std::size_t layer = 0; layer < layers; ++layer)
        {
            const Projections projections = backend.Project(model, layer, hidden).value;
            hidden = backend.FinishLayer(model, layer, hidden, projections, *cache).value;
        }
        const Tensor rows = backend.Head(model, hidden).value;
        logits.insert(logits.end(), rows.Values().begin(), rows.Values().end());
        position += chunk;
    }
    REQUIRE(position == tokens.size());
    return logits;
}

bool
SameBits(const std::vector<float>& a, const std::vector<float>& b)
{
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

ArrayView
MatrixOf(const std::vector<float>& values, std::size_t columns)
{
    return {DType::F32, {values.size() / columns, columns}, reinterpret_cast<const std::byte*>(values.data())};
}

std::string
ReasonOf(const std::function<void()>& body)
{
    try
    {
        body();
    }
    catch (const std::logic_error& error)
    {
        return error.what();
    }
    return "";
}

} // namespace

TEST_CASE("Four bits a weight lie where the format says")
{
    std::vector<float> row(32);
    for (int i = 0; i < 16; ++i)
    {
        row[i] = -4.0F + 0.5F * static_cast<float>(i);
        row[16 + i] = -4.0F + 0.5F * static_cast<float>(15 - i);
    }
    const QuantisedMatrix matrix(MatrixOf(row, 32), 4, 32);
    CHECK(matrix.scales == std::vector<std::uint16_t>{0x3800, 0xc400}); // 0.5 and -4 in fp16
    REQUIRE(matrix.codes.size() == 16);
    for (int i = 0; i < 16; ++i)
    {
        CHECK(int{matrix.codes[i]} == i + 16 * (15 - i));
    }
    CHECK(matrix.Bytes() == 16 + 4);
}

TEST_CASE("Eight bits a weight lie in the order of the columns, ties going to the even code")
{
    std::vector<float> row(64, 255.0F);
    row[0] = 0.0F;
    row[1] = 0.5F;
    row[2] = 1.5F;
    row[3] = 2.5F;
    row[63] = 254.5F;
    const QuantisedMatrix matrix(MatrixOf(row, 64), 8, 64);
    CHECK(matrix.scales == std::vector<std::uint16_t>{0x3c00, 0});
    CHECK(std::vector<int>(matrix.codes.begin(), matrix.codes.begin() + 5) == std::vector<int>{0, 0, 2, 2, 255});
    CHECK(int{matrix.codes[63]} == 254);
}

TEST_CASE("A group of equal weights has codes of zero")
{
    std::vector<float> row(64, -0.75F);
    std::fill(row.begin() + 32, row.end(), 0.0F);
    for (const unsigned bits : {4, 8})
    {
        const QuantisedMatrix matrix(MatrixOf(row, 64), bits, 32);
        CHECK(matrix.scales == std::vector<std::uint16_t>{0, 0xba00, 0, 0});
        CHECK(std::ranges::count(matrix.codes, 0) == static_cast<std::ptrdiff_t>(64 * bits / 8));
    }
}

TEST_CASE("Every weight has the code nearest to it")
{
    RandomArrays arrays(20);
    constexpr std::size_t kColumns = 384;
    for (const DType dtype : {DType::F32, DType::F16, DType::BF16})
    {
        const ArrayView weights = arrays.Make(dtype, {5, kColumns}, 0.3F, 0.05F);
        for (const unsigned bits : {4, 8})
        {
            for (const std::size_t group : {32, 64, 128})
            {
                const QuantisedMatrix matrix(weights, bits, group);
                REQUIRE(matrix.codes.size() == 5 * kColumns * bits / 8);
                REQUIRE(matrix.scales.size() == 5 * kColumns / group * 2);
                std::vector<float> row(kColumns);
                std::size_t wrong = 0;
                for (std::size_t r = 0; r < 5; ++r)
                {
                    WidenRow(weights, r, row.data());
                    for (std::size_t c = 0; c < kColumns; ++c)
                    {
                        const auto begin = row.begin() + static_cast<std::ptrdiff_t>(c / group * group);
                        const double low = *std::min_element(begin, begin + static_cast<std::ptrdiff_t>(group));
                        const double high = *std::max_element(begin, begin + static_cast<std::ptrdiff_t>(group));
                        const double step = (high - low) / ((1 << bits) - 1);
                        // half a step, and what fp16 takes from the minimum and from the scale at the highest code
                        const double allowed = step / 2 + (std::abs(low) + (high - low)) * 0x1p-11;
                        wrong += std::abs(Dequantised(matrix, kColumns, r, c) - row[c]) > allowed;
                    }
                }
                INFO(NameOf(dtype) << " " << bits << " bits in groups of " << group);
                CHECK(wrong == 0);
            }
        }
    }
}

TEST_CASE("What cannot be quantised is refused")
{
    std::vector<float> row(96, 0.5F);
    CHECK_THROWS_AS(QuantisedMatrix(MatrixOf(row, 96), 5, 32), std::logic_error);
    CHECK_THROWS_AS(QuantisedMatrix(MatrixOf(row, 96), 4, 64), std::logic_error);
    CHECK_THROWS_AS(QuantisedMatrix(MatrixOf(row, 96), 4, 48), std::logic_error);
    CHECK_THROWS_AS(QuantisedMatrix(MatrixOf(row, 96), 4, 0), std::logic_error);
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -65536.0F})
    {
        row[70] = bad;
        CHECK_THROWS_AS(QuantisedMatrix(MatrixOf(row, 96), 8, 32), InputError);
    }
    row[70] = -65504.0F;
    row[71] = 65504.0F;
    CHECK_NOTHROW(QuantisedMatrix(MatrixOf(row, 96), 4, 32));
}

TEST_CASE("Precision says which layers have how many bits")
{
    const ModelConfig config = SmallLlama();
    const auto bits = [&](const WeightPrecision& precision) {
        std::vector<unsigned> all;
        for (std::size_t layer = 0; layer < precision.Layers(); ++layer)
        {
            all.push_back(precision.Bits(layer));
            CHECK(precision.Quantised(layer) == (all.back() != 16));
        }
        return all;
    };
    using Bits = std::vector<unsigned>;
    CHECK(bits(WeightPrecision(config)) == Bits{16, 16, 16, 16});
    CHECK(bits(WeightPrecision::Front(config, 3, 4, 32)) == Bits{4, 4, 4, 16});
    CHECK(bits(WeightPrecision::Back(config, 3, 8, 32)) == Bits{16, 16, 16, 8});
    CHECK(bits(WeightPrecision::FrontBack(config, 1, 8, 4, 32)) == Bits{8, 4, 4, 4});
    CHECK(bits(WeightPrecision::FrontBack(config, 2, 4, 16, 32)) == Bits{4, 4, 16, 16});
    CHECK(WeightPrecision::Front(config, 0, 4, 32) == WeightPrecision(config));
    CHECK(WeightPrecision::Back(config, 4, 4, 32) == WeightPrecision(config));
}

TEST_CASE("A precision that no kernel has is refused with what is accepted")
{
    ModelConfig config = SmallLlama(); // widths 96, 64 and 160: groups of 32 alone
    CHECK(AcceptedGroups(config) == std::vector<std::size_t>{32});
    const auto refused = [&](const std::function<void()>& body, const char* reason) {
        return ReasonOf(body).find(reason) != std::string::npos;
    };
    CHECK(refused([&] { WeightPrecision::Front(config, 2, 5, 32); }, "is 5; accepted: 4, 8, 16"));
    CHECK(refused([&] { WeightPrecision::Back(config, 2, 32, 32); }, "accepted: 4, 8, 16"));
    CHECK(refused([&] { WeightPrecision::Front(config, 5, 4, 32); }, "is 5; accepted: 0 to 4"));
    CHECK(refused([&] { WeightPrecision::Front(config, 2, 4); }, "is 64; accepted: 32"));
    CHECK_NOTHROW(WeightPrecision::Front(config, 0, 4)); // no layer has groups

    CHECK(AcceptedWeightBits(DType::F32) == std::vector<unsigned>{4, 8, 32});
    CHECK(AcceptedWeightBits(DType::BF16) == std::vector<unsigned>{4, 8, 16});
    CHECK(AcceptedWeightBits(DType::I8) == std::vector<unsigned>{4, 8});
    CHECK_FALSE(WeightPrecision::Front(NamedShape("llama-7b", DType::I8), 3, 8).Quantised(0));
    CHECK(AcceptedGroups(NamedShape("smollm2-135m", DType::BF16)) == std::vector<std::size_t>{32, 64});
    CHECK(AcceptedGroups(NamedShape("llama-2-7b", DType::F16)) == std::vector<std::size_t>{32, 64, 128});
    ModelConfig narrow = config; // hidden, query and MLP width limit the group, each on its own
    for (std::size_t limited = 0; limited < 3; ++limited)
    {
        narrow.hidden = limited == 0 ? 64 : 128;
        narrow.headDim = limited == 1 ? 16 : 32; // four heads
        narrow.ffn = limited == 2 ? 64 : 128;
        CHECK(AcceptedGroups(narrow) == std::vector<std::size_t>{32, 64});
    }
    config.ffn = 77;
    CHECK(refused([&] { WeightPrecision::Front(config, 1, 4, 32); }, "accepted: none"));

    ShapeBackend backend(DType::F16);
    ModelConfig deeper = SmallLlama();
    deeper.layers = 5;
    CHECK_THROWS_AS(backend.Resident(RandomModel(SmallLlama(), 1), WeightPrecision(deeper)), std::logic_error);
}

TEST_CASE("Logits of quantised layers agree with the reference transformer on their dequantised weights")
{
    for (const ModelConfig& config : kConfigs)
    {
        const auto model = RandomModel(config, 21);
        const std::vector<TokenId> tokens = RandomTokens(config, 41);
        const auto stored = ReferenceTransformer(*model).Logits(tokens);
        for (const WeightPrecision& precision : {WeightPrecision::Front(config, 2, 4, 32),
                                                 WeightPrecision::Back(config, 3, 8, 32),
                                                 WeightPrecision::FrontBack(config, 1, 4, 8, 32)})
        {
            CpuBackend backend(2);
            const auto resident = backend.Resident(model, precision);
            const std::vector<float> logits = Logits(backend, *resident, tokens, {30, 1, 10});
            const auto expected = ReferenceTransformer(*DequantisedModel(model, precision)).Logits(tokens);
            const double nmse = Nmse(logits, expected);
            INFO(config.name << " bits of layer 1: " << precision.Bits(0) << ", NMSE " << nmse);
            CHECK(nmse < 1e-11);
            CHECK(Nmse(logits, stored) > 1e-7); // quantisation does matter
        }
    }
}

TEST_CASE("A model with no quantised layer has the bits of the stored one")
{
    for (const ModelConfig& config : kConfigs)
    {
        const auto model = RandomModel(config, 22);
        const std::vector<TokenId> tokens = RandomTokens(config, 20);
        CpuBackend backend(1);
        const std::vector<float> stored = Logits(backend, *backend.Resident(model), tokens, {20});
        const auto none = backend.Resident(model, WeightPrecision::FrontBack(config, 2, 16, 16, 32));
        CHECK(SameBits(Logits(backend, *none, tokens, {20}), stored));
        CHECK(none->Precision() == WeightPrecision(config));
        const auto back = backend.Resident(model, WeightPrecision::Back(config, 3, 4, 32));
        CHECK_FALSE(SameBits(Logits(backend, *back, tokens, {20}), stored));
    }
}

TEST_CASE("Layers that are not quantised compute the bits of the stored model")
{
    const ModelConfig config = SmallLlama();
    const auto model = RandomModel(config, 23);
    CpuBackend backend(1);
    const auto stored = backend.Resident(model);
    const auto front = backend.Resident(model, WeightPrecision::Front(config, 2, 4, 32));
    Tensor hidden = Tensor::Zeros(3, config.hidden);
    Random random(24);
    std::ranges::generate(hidden.Values(), [&] { return random.Uniform(); });
    for (std::size_t layer = 0; layer < config.layers; ++layer)
    {
        const auto finish = [&](const ResidentModel& resident) {
            const auto cache = backend.NewCache(resident, 0, config.layers, 3);
            const Projections projections = backend.Project(resident, layer, hidden).value;
            const Tensor next = backend.FinishLayer(resident, layer, hidden, projections, *cache).value;
            return std::vector<float>(next.Values().begin(), next.Values().end());
        };
        CHECK(SameBits(finish(*stored), finish(*front)) == (layer >= 2));
    }
}

TEST_CASE("Quantised layers give the same bits on any instruction set, threads and cut of a prompt")
{
    ModelConfig shared = SmallLlama(); // large enough for products to be shared between threads
    shared.name = "shared-llama";
    shared.layers = 2;
    shared.hidden = 320;
    shared.ffn = 704;
    std::vector<ModelConfig> configs = kConfigs;
    configs.push_back(shared);
    for (const ModelConfig& config : configs)
    {
        const auto model = RandomModel(config, 25);
        const std::vector<TokenId> tokens = RandomTokens(config, 64);
        const WeightPrecision precision = WeightPrecision::FrontBack(config, 1, 4, 8, 32);
        CpuBackend reference(1, *SupportedKernels().front());
        const std::vector<float> expected =
            Logits(reference, *reference.Resident(model, precision), tokens, std::vector<std::size_t>(64, 1));
        for (const Kernels* kernels : SupportedKernels())
        {
            for (const std::size_t threads : {1, 2, 3})
            {
                CpuBackend backend(threads, *kernels);
                const auto resident = backend.Resident(model, precision);
                INFO(config.name << " " << kernels->name << " " << threads << " threads");
                CHECK(SameBits(Logits(backend, *resident, tokens, {64}), expected));
                CHECK(SameBits(Logits(backend, *resident, tokens, {5, 17, 1, 1, 2, 33, 3, 2}), expected));
            }
        }
    }
}

TEST_CASE("The CPU backend and the shape backend report the same work of quantised layers")
{
    for (const ModelConfig& config : kConfigs)
    {
        const auto weights = RandomModel(config, 26);
        const WeightPrecision precision = WeightPrecision::FrontBack(config, 1, 4, 8, 32);
        const auto works = [&](Backend& backend) {
            const auto model = backend.Resident(weights, precision);
            const auto cache = backend.NewCache(*model, 0, 2, 3);
            const Tensor hidden = Tensor::Zeros(3, config.hidden);
            std::vector<Work> work;
            for (const std::size_t layer : {0, 1})
            {
                const auto projected = backend.Project(*model, layer, hidden);
                work.push_back(projected.work);
                work.push_back(backend.FinishLayer(*model, layer, hidden, projected.value, *cache).work);
            }
            return work;
        };
        CpuBackend cpu(1);
        ShapeBackend shape(DType::F32);
        CHECK((works(cpu) == works(shape)));
    }
}

TEST_CASE("The bytes of quantised layers are those that the CPU backend holds")
{
    for (const ModelConfig& config : kConfigs)
    {
        const auto model = RandomModel(config, 27);
        for (const unsigned bits : {4, 8})
        {
            const LayerWeights& layer = model->layers.front();
            std::size_t codes = 0;
            std::size_t scales = 0;
            for (const LinearWeights* linear :
                 {&layer.query, &layer.key, &layer.value, &layer.output, &layer.gate, &layer.up, &layer.down})
            {
                if (linear->weight.data != nullptr)
                {
                    const QuantisedMatrix matrix(linear->weight, bits, 32);
                    codes += matrix.codes.size();
                    scales += matrix.Bytes() - matrix.codes.size();
                }
            }
            const WeightPrecision precision = WeightPrecision::Front(config, 3, bits, 32);
            const WeightPrecision none(config);
            const WeightBytes stored = LayerBytes(config, none, 0, 1);
            const std::uint64_t vectors = stored.weights - codes * 16 / bits;
            CHECK(stored.scales == 0);
            CHECK(stored.weights == LayerBytes(config, 1));
            CHECK((LayerBytes(config, precision, 0, 1) == WeightBytes{codes + vectors, scales}));
            CHECK((LayerBytes(config, precision, 1, 4) ==
                   WeightBytes{2 * (codes + vectors) + stored.weights, 2 * scales}));
        }
    }
}

TEST_CASE("Error grows with fewer bits and more quantised layers")
{
    const ModelConfig config = SmallLlama();
    const auto model = RandomModel(config, 28);
    const std::vector<TokenId> tokens = RandomTokens(config, 60);
    const auto exact = ReferenceTransformer(*model).Logits(tokens);
    CpuBackend backend(2);
    const auto error = [&](const WeightPrecision& precision) {
        return Nmse(Logits(backend, *backend.Resident(model, precision), tokens, {60}), exact);
    };
    const double four = error(WeightPrecision::Front(config, 2, 4, 32));
    CHECK(error(WeightPrecision::Front(config, 2, 8, 32)) < four / 50); // steps are 17 times finer
    CHECK(error(WeightPrecision::Front(config, 1, 4, 32)) < four);
    CHECK(error(WeightPrecision::Front(config, 4, 4, 32)) > four);
}

TEST_CASE("SmolLM2's predictions move further with fewer bits and more quantised layers", "[smollm2]")
{
    const char* folder = std::getenv("SPLITLLM_MODELS");
    const std::filesystem::path file =
        std::filesystem::path(folder != nullptr ? folder : SPLITLLM_MODEL_DIR) / "smollm2-135m-instruct";
    if (!std::filesystem::exists(file / "model.safetensors"))
    {
        WARN("skipped: no SmolLM2 in " << file << "; scripts/import-model makes it");
        return;
    }
    const auto model = Model::Load(file);
    CpuBackend backend;
    // "What is the capital of France, and what is it known for?"
    const std::vector<TokenId> tokens{1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 28,
                                      284, 732, 314, 357, 1343, 327, 47, 2, 198, 1, 520, 9531, 198};
    const auto logits = [&](const WeightPrecision& precision) {
        return Logits(backend, *backend.Resident(model, precision), tokens, {tokens.size()});
    };
    const std::vector<float> stored = logits(WeightPrecision(model->config));
    // Kullback-Leibler divergence of the prediction of every token's successor, in nats, on average
    const auto divergence = [&](std::size_t l, unsigned bits) {
        const std::vector<float> quantised = logits(WeightPrecision::Front(model->config, l, bits));
        const std::size_t vocab = model->config.vocab;
        const auto logSum = [&](const std::vector<float>& all, std::size_t row) {
            double sum = 0.0;
            for (std::size_t i = 0; i < vocab; ++i)
            {
                sum += std::exp(double{all[row * vocab + i]});
            }
            return std::log(sum);
        };
        double sum = 0.0;
        for (std::size_t row = 0; row < tokens.size(); ++row)
        {
            const double p = logSum(stored, row);
            const double q = logSum(quantised, row);
            for (std::size_t i = row * vocab; i < (row + 1) * vocab; ++i)
            {
                sum += std::exp(stored[i] - p) * ((stored[i] - p) - (quantised[i] - q));
            }
        }
        return sum / static_cast<double>(tokens.size());
    };
    const double ten4 = divergence(10, 4);
    const double all4 = divergence(30, 4);
    const double all8 = divergence(30, 8);
    INFO("10 layers of 4 bits " << ten4 << ", 30 of 4 bits " << all4 << ", 30 of 8 bits " << all8);
    CHECK(all8 > 0.0);
    CHECK(10 * all8 < ten4);
    CHECK(ten4 < all4);
    CHECK(all4 < 1.0); // still the same model
}
