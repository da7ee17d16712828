// SPDX-License-Identifier: GPL-2.0-only
#include "codec/tab-q.h"
#include "support/catch.h"
#include "support/codec-rows.h"
#include "support/tab-q-reference.h"

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kTiny = std::numeric_limits<float>::denorm_min();

QuantisedRow
Quantised(const std::vector<float>& row, const TabQParameters& parameters, float tau, const CodecKernels& kernels)
{
    const auto threshold = std::bit_cast<std::uint32_t>(tau);
    const RowRange range = kernels.range(row.data(), row.size(), threshold);
    return QuantiseTabQ(row, range, threshold, parameters, kernels);
}

/// Compares with Algorithm 1 as written down, in every instruction set.
void
CheckAgainstReference(const std::vector<float>& row, const TabQParameters& parameters, float tau = kInfinity)
{
    const TabQReference expected = ReferenceTabQ(row, parameters.bits, parameters.delta, parameters.normalised, tau);
    for (const InstructionSet set : SupportedInstructionSets())
    {
        INFO(NameOf(set) << ", " << row.size() << " elements, Qbar " << parameters.bits << ", Delta " << parameters.delta);
        const QuantisedRow quantised = Quantised(row, parameters, tau, CodecKernelsFor(set));
        REQUIRE(quantised.bits == expected.bits);
        REQUIRE(quantised.scale == expected.s);
        REQUIRE(static_cast<float>(quantised.zero) == expected.z);
        REQUIRE(quantised.symbols.size() == row.size());
        std::vector<float> values(std::size_t{2} << quantised.bits);
        ValuesOfSymbols(quantised.scale, quantised.zero, values);
        for (std::size_t i = 0; i < row.size(); i++)
        {
            const std::uint8_t symbol = quantised.symbols[i];
            REQUIRE(symbol < values.size());
            REQUIRE(symbol / 2 == expected.magnitudes[i]);
            // the same bits: no -0 where the sign is dropped
            REQUIRE(std::bit_cast<std::uint32_t>(values[symbol]) == std::bit_cast<std::uint32_t>(expected.Value(i)));
        }
    }
}

} // namespace

TEST_CASE("TAB-Q is Algorithm 1, whatever the size, the bits and the tolerance", "[codec]")
{
    CodecRows rows(1);
    for (const std::size_t size : kCodecSizes)
    {
        for (unsigned bits = kTabQLeastBits; bits <= kTabQMostBits; bits++)
        {
            for (const double delta : {0.0, 0.05, 0.2, 100.0})
            {
                CheckAgainstReference(rows.Gauss(size), {bits, delta, false});
                CheckAgainstReference(rows.HeavyTails(size), {bits, delta, false}, 1.5F);
            }
            CheckAgainstReference(rows.Laplace(size), {bits, 0.01, true});
        }
    }
}

TEST_CASE("TAB-Q is Algorithm 1 on rows that are hard to scale", "[codec]")
{
    CodecRows rows(2);
    const auto shifted = [&](float centre, float spread) {
        std::vector<float> row = rows.Gauss(577);
        for (float& x : row)
        {
            x = (x < 0.0F ? -1.0F : 1.0F) * centre + spread * x;
        }
        return row;
    };
    std::vector<float> outlier = rows.Gauss(576);
    outlier[100] = -1e30F;
    std::vector<float> ulp(33, 1e30F);
    ulp[5] = std::nextafter(1e30F, 0.0F);
    std::vector<float> subnormal(577);
    for (std::size_t i = 0; i < subnormal.size(); i++)
    {
        subnormal[i] = static_cast<float>(i) * (i % 2 == 0 ? kTiny : -kTiny);
    }
    const std::vector<std::vector<float>> hard{
        std::vector<float>(577, 0.0F),        std::vector<float>(577, -0.0F), std::vector<float>(577, -3.7F),
        {1.0F, -1.0F, 1.0F},                  {kTiny, 0.0F, -kTiny},          {kTiny, -2 * kTiny, 2 * kTiny},
        {kLargest, -kLargest, 0.0F, 1.0F},    {kLargest, -kLargest},          {kLargest, std::nextafter(kLargest, 0.0F)},
        std::vector<float>(33, kLargest),     {0.0F},                         {-5.0F},
        outlier,                              ulp,                            subnormal,
        shifted(100.0F, 1.0F),                shifted(1e6F, 1e-1F),           shifted(1e-38F, 1e-40F),
        {2.5F, 3.5F, 4.5F, 5.5F, 10.5F, 9.5F}};
    for (const std::vector<float>& row : hard)
    {
        for (unsigned bits = kTabQLeastBits; bits <= kTabQMostBits; bits++)
        {
            for (const float tau : {kInfinity, 3.0F})
            {
                CheckAgainstReference(row, {bits, 0.2, false}, tau);
                CheckAgainstReference(row, {bits, 0.0, false}, tau);
            }
        }
    }
}

TEST_CASE("A row of equal magnitudes is exact, signs included, and zeros lose their signs", "[codec]")
{
    for (const float value : {3.7F, kTiny, kLargest, 1e-39F})
    {
        const std::vector<float> row{value, -value, -value, value, value};
        const QuantisedRow quantised = Quantised(row, {}, kInfinity, BestCodecKernels());
        std::vector<float> values(std::size_t{2} << quantised.bits);
        ValuesOfSymbols(quantised.scale, quantised.zero, values);
        for (std::size_t i = 0; i < row.size(); i++)
        {
            CHECK(values[quantised.symbols[i]] == row[i]);
        }
    }
    const QuantisedRow zeros = Quantised({0.0F, -0.0F, 0.0F}, {}, kInfinity, BestCodecKernels());
    CHECK(zeros.symbols == std::vector<std::uint8_t>{0, 0, 0});
    CHECK(zeros.scale == 0.0F);
}

TEST_CASE("No element is further off than half a step, and never more than the range", "[codec]")
{
    CodecRows rows(3);
    for (unsigned bits = kTabQLeastBits; bits <= kTabQMostBits; bits++)
    {
        const std::vector<float> row = rows.HeavyTails(577);
        const QuantisedRow quantised = Quantised(row, {bits, 0.2, false}, kInfinity, BestCodecKernels());
        std::vector<float> values(std::size_t{2} << quantised.bits);
        ValuesOfSymbols(quantised.scale, quantised.zero, values);
        for (std::size_t i = 0; i < row.size(); i++)
        {
            CHECK(std::abs(row[i] - values[quantised.symbols[i]]) <= 0.5001F * quantised.scale);
        }
    }
}

TEST_CASE("A value beyond the largest float is the largest float, whatever scale a sender claims", "[codec]")
{
    std::vector<float> values(16);
    ValuesOfSymbols(kLargest, -2147483647 - 1, values);
    CHECK(values[0] == kLargest);
    CHECK(values[1] == -kLargest);
    CHECK(values[15] == -kLargest);
}
