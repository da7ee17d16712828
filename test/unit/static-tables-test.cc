// SPDX-License-Identifier: GPL-2.0-only
#include "codec/static-tables.h"
#include "support/catch.h"
#include "support/codec-rows.h"

#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

/// Share of the magnitudes below \p t under the densities of static-tables.h, by their integrals.
double
Below(unsigned shape, double mean, double t)
{
    switch (shape)
    {
    case 0:
        return std::erf(t / (mean * std::sqrt(std::acos(-1.0))));
    case 1:
        return 1.0 - std::exp(-t / mean);
    default: {
        const double root = std::sqrt(6.0 * t / mean);
        return 1.0 - (1.0 + root) * std::exp(-root);
    }
    }
}

} // namespace

TEST_CASE("Every static table sums to 4096, knows every symbol but the negative zero, and follows its density", "[codec]")
{
    for (unsigned bits = 1; bits <= 7; bits++)
    {
        for (unsigned index = 0; index < kStaticTables; index++)
        {
            const RansFrequencies& table = StaticTable(bits, index);
            const unsigned symbols = 2U << bits;
            REQUIRE(std::accumulate(std::begin(table.of), std::end(table.of), 0) == 4096);
            const double mean = std::pow(2.0, index % kStaticWidths / 4.0) / 16.0;
            const double all = Below(index / kStaticWidths, mean, symbols / 2 - 0.5);
            for (unsigned i = 0; i < 256; i++)
            {
                CHECK((table.of[i] > 0) == (i < symbols && i != 1));
            }
            INFO("Q " << bits << ", index " << index);
            double distance = 0.0;
            for (unsigned code = 1; code < symbols / 2; code++)
            {
                REQUIRE(std::abs(table.of[2 * code] - table.of[2 * code + 1]) <= 8); // what 4096 in all asks for
                const double share = (Below(index / kStaticWidths, mean, code + 0.5) -
                                      Below(index / kStaticWidths, mean, code - 0.5)) / all / 2.0;
                // what is rare gets 1/4096 all the same
                distance += std::abs(table.of[2 * code] / 4096.0 - std::max(share, 1.0 / 4096.0));
            }
            // rounding, and for narrow densities the midpoint rule
            CHECK(distance < 0.5 * symbols / 2 / 4096.0 + 0.02);
        }
    }
}

TEST_CASE("The static tables are part of the format and never change", "[codec]")
{
    std::uint64_t hash = 0xCBF29CE484222325; // FNV-1a
    for (unsigned bits = 1; bits <= 7; bits++)
    {
        for (unsigned index = 0; index < kStaticTables; index++)
        {
            for (const std::uint16_t f : StaticTable(bits, index).of)
            {
                hash = (hash ^ f) * 0x100000001B3;
            }
        }
    }
    CHECK(hash == 0x2721B6C469C2B429);
}

TEST_CASE("The size that a table promises is that of the stream, and the choice is near the best of all", "[codec]")
{
    CodecRows rows(1);
    for (const double width : {0.2, 0.7, 2.0, 9.0})
    {
        std::vector<std::uint32_t> histogram(32, 0);
        std::vector<std::uint8_t> symbols;
        for (const float x : rows.Laplace(5000))
        {
            const auto code = static_cast<unsigned>(std::min(std::abs(x) * width + 0.5, 15.0));
            const auto symbol = static_cast<std::uint8_t>(code == 0 ? 0 : 2 * code + (x < 0.0F ? 1 : 0));
            histogram[symbol]++;
            symbols.push_back(symbol);
        }
        const StaticChoice choice = BestStaticTable(4, histogram);
        std::uint64_t best = kNotCodable;
        for (unsigned index = 0; index < kStaticTables; index++)
        {
            best = std::min(best, CodedSize(histogram, StaticTable(4, index)));
        }
        CHECK(choice.size == CodedSize(histogram, StaticTable(4, choice.index)));
        CHECK(static_cast<double>(choice.size) <= 1.02 * static_cast<double>(best));
        std::vector<std::byte> stream;
        RansEncode(symbols, MakeRansEncodeTable(StaticTable(4, choice.index)), 1, stream);
        // a state of 32 bits, of which 15 to 31 are in use
        CHECK(static_cast<double>(stream.size()) == Approx(static_cast<double>(choice.size) / 4096.0 / 8.0 + 3.0).margin(2.0));
        histogram[1] = 1;
        CHECK(CodedSize(histogram, StaticTable(4, choice.index)) == kNotCodable);
        CHECK(BestStaticTable(4, histogram).size == kNotCodable);
    }
}
