// SPDX-License-Identifier: GPL-2.0-only
#include "codec/tensor-container.h"
#include "compute/cpu/cpu-backend.h"
#include "llm/model.h"
#include "support/catch.h"
#include "support/codec-rows.h"
#include "support/tab-q-reference.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <optional>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

/// The argument at which the normal distribution function is \p p, by bisection of std::erfc.
double
NormalQuantile(double p)
{
    double low = -10.0;
    double high = 10.0;
    while (true)
    {
        const double middle = (low + high) / 2.0;
        if (middle <= low || middle >= high)
        {
            return middle;
        }
        (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
    }
}

} // namespace

// What Algorithm 1 gives for a token of 4096 normal quantiles, from the formulas alone.
TEST_CASE("OPSC: TAB-Q of a normal token with tau = 5, Qbar = 8, Delta = 0.2", "[papers][codec]")
{
    constexpr std::size_t kCols = 4096;
    Tensor token = Tensor::Zeros(1, kCols);
    std::vector<float> row(kCols);
    for (std::size_t j = 0; j < kCols; j++)
    {
        row[j] = static_cast<float>(NormalQuantile((static_cast<double>(j) + 0.5) / kCols));
        token.Row(0)[j] = row[j];
    }
    const ContainerParameters parameters{.tabQ = {8, 0.2, false}, .exact = DType::F16, .entropy = true};
    const std::vector<std::byte> bytes = EncodeContainer(token, 5.0F, parameters);
    ContainerHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    RowRecord record;
    std::memcpy(&record, bytes.data() + sizeof header + (header.tableBytes + 3) / 4 * 4, sizeof record);

    CHECK((header.flags & kHasAbove) == 0);
    CHECK(record.bits == 6);
    CHECK(record.scale == Approx(0.058223).epsilon(0.0002));
    CHECK(record.zero == 0);
    const TabQReference reference = ReferenceTabQ(row, 8, 0.2, false, 5.0F);
    REQUIRE(reference.distortion.size() == 2);
    CHECK(reference.distortion[0] == Approx(0.1465).epsilon(0.01));
    CHECK(reference.distortion[1] == Approx(0.2168).epsilon(0.01));

    // The codec's own choice turns at the same distortions.
    const auto bitsFor = [&](double delta) {
        return PrepareRow(row, 0, 5.0F, {.tabQ = {8, delta, false}, .exact = DType::F16, .entropy = true}).quantised.bits;
    };
    CHECK(bitsFor(0.1465 * 0.99) == 7);
    CHECK(bitsFor(0.1465 * 1.01) == 6);
    CHECK(bitsFor(0.2168 * 0.99) == 6);
    CHECK(bitsFor(0.2168 * 1.01) < 6);

    const Tensor back = DecodeContainer(bytes, kCols);
    double error = 0.0;
    for (std::size_t j = 0; j < kCols; j++)
    {
        error += std::pow(static_cast<double>(row[j]) - static_cast<double>(back.Row(0)[j]), 2.0);
    }
    CHECK(error / kCols == Approx(0.000283).epsilon(0.01));

    const PreparedRow prepared = PrepareRow(row, 0, 5.0F, parameters);
    CHECK(EntropyBytes(prepared.quantised.symbols) * 8.0 / kCols == Approx(6.146).epsilon(0.0005));
    const std::size_t coded = header.tableBytes + record.bodyBytes;
    INFO("table, states and words: " << coded << " bytes");
    CHECK(coded >= 3147);
    CHECK(coded <= 3147 * 1.05);
}

TEST_CASE("OPSC: SmolLM2's hidden states take table, states and words near their entropy", "[papers][codec][smollm2]")
{
    const char* folder = std::getenv("SPLITLLM_MODELS");
    const std::filesystem::path models = folder != nullptr ? folder : SPLITLLM_MODEL_DIR;
    if (!std::filesystem::exists(models / "smollm2-135m-instruct/model.safetensors"))
    {
        WARN("skipped: no SmolLM2 in " << models << "; scripts/import-model makes it");
        return;
    }
    constexpr std::size_t kLayers = 16;
    CpuBackend backend(1);
    const auto model = backend.Resident(Model::Load(models / "smollm2-135m-instruct"));
    const auto cache = backend.NewCache(*model, 1, kLayers + 1, 64);
    std::vector<TokenId> tokens;
    for (TokenId i = 0; i < 48; i++)
    {
        tokens.push_back(100 + 811 * i);
    }
    Tensor hidden = backend.Embed(*model, tokens, 0).value;
    for (std::size_t layer = 1; layer <= kLayers; layer++)
    {
        const Projections projections = backend.Project(*model, layer, hidden).value;
        hidden = backend.FinishLayer(*model, layer, hidden, projections, *cache).value;
    }
    std::vector<float> magnitudes(hidden.Values().begin(), hidden.Values().end());
    std::ranges::for_each(magnitudes, [](float& x) { x = std::abs(x); });
    std::ranges::sort(magnitudes);
    const float tau = magnitudes[magnitudes.size() * 999 / 1000];
    for (const std::optional<float> threshold : {std::optional(tau), std::optional<float>()})
    {
        double entropies = 0.0;
        double bytes = 0.0;
        for (std::size_t row = 0; row < hidden.Rows(); row++)
        {
            const Tensor token = hidden.Slice(row, 1);
            const ContainerParameters parameters{.tabQ = {4, 0.2, false}, .exact = DType::F16, .entropy = true};
            const double entropy =
                EntropyBytes(PrepareRow(token.Row(0), 0, threshold, parameters).quantised.symbols);
            const std::vector<std::byte> container = EncodeContainer(token, threshold, parameters);
            ContainerHeader header;
            std::memcpy(&header, container.data(), sizeof header);
            RowRecord record;
            std::memcpy(&record, container.data() + sizeof header + (header.tableBytes + 3) / 4 * 4, sizeof record);
            const double coded = header.tableBytes + record.bodyBytes;
            INFO("row " << row << ": entropy " << entropy << " bytes, coded " << coded);
            // a state takes 4 bytes, more than 15 % where an outlier leaves little else
            CHECK(coded <= std::max(entropy * 1.15, entropy + 5.0));
            entropies += entropy;
            bytes += coded;
        }
        INFO("48 tokens: entropy " << entropies << " bytes, coded " << bytes << ", tau " << threshold.value_or(0.0F));
        CHECK(bytes <= entropies * 1.15);
    }
}
