// SPDX-License-Identifier: GPL-2.0-only
#include "codec/codec-kernels.h"
#include "support/catch.h"
#include "support/codec-rows.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// \p row from an odd address, with a value before and after it that would show if it were read.
class Between
{
  public:
    explicit Between(const std::vector<float>& row)
        : m_all(row.size() + 2, std::numeric_limits<float>::quiet_NaN())
    {
        std::copy(row.begin(), row.end(), m_all.begin() + 1);
    }

    const float* Data() const
    {
        return m_all.data() + 1;
    }

  private:
    std::vector<float> m_all;
};

} // namespace

TEST_CASE("Every instruction set finds the range of a row, and nothing outside of it", "[codec]")
{
    CodecRows rows(1);
    for (const std::size_t size : kCodecSizes)
    {
        const std::vector<float> row = rows.HeavyTails(size);
        // an element that equals tau is above
        for (const float tau : {kInfinity, 1.0F, 1e-3F, std::abs(row.front()), std::abs(row.back())})
        {
            float least = kInfinity;
            float most = 0.0F;
            float peak = 0.0F;
            std::size_t above = 0;
            for (const float x : row)
            {
                const float kept = std::abs(x) < tau ? std::abs(x) : 0.0F;
                least = std::min(least, kept);
                most = std::max(most, kept);
                peak = std::max(peak, std::abs(x));
                above += std::abs(x) >= tau ? 1 : 0;
            }
            for (const InstructionSet set : SupportedInstructionSets())
            {
                INFO(NameOf(set) << ", " << size << " elements, tau " << tau);
                const Between between(row);
                const RowRange range = CodecKernelsFor(set).range(between.Data(), size, std::bit_cast<std::uint32_t>(tau));
                REQUIRE(range.least == std::bit_cast<std::uint32_t>(least));
                REQUIRE(range.most == std::bit_cast<std::uint32_t>(most));
                REQUIRE(range.peak == std::bit_cast<std::uint32_t>(peak));
                REQUIRE(range.above == above);
            }
        }
    }
}

TEST_CASE("Every instruction set rounds a level half to even and keeps it inside the codes", "[codec]")
{
    // x / 2 + z is exact, so the level is known
    std::vector<float> row;
    for (int i = -700; i <= 700; i++)
    {
        row.push_back(static_cast<float>(i) / 2.0F);
    }
    for (const InstructionSet set : SupportedInstructionSets())
    {
        for (const float zero : {0.0F, -3.0F})
        {
            const QuantiserStep step{2.0F, zero, 127.0F, std::bit_cast<std::uint32_t>(300.0F)};
            std::vector<std::uint8_t> codes(row.size() + 1, 0xEE);
            CodecKernelsFor(set).quantise(row.data(), row.size(), step, codes.data());
            for (std::size_t i = 0; i < row.size(); i++)
            {
                const double magnitude = std::abs(row[i]) < 300.0F ? std::abs(row[i]) : 0.0;
                const double level = std::nearbyint(magnitude / 2.0 + zero);
                REQUIRE(codes[i] == static_cast<int>(std::clamp(level, 0.0, 127.0)));
            }
            CHECK(codes.back() == 0xEE);
        }
    }
}

TEST_CASE("Every instruction set counts, compares and signs codes alike", "[codec]")
{
    CodecRows rows(2);
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{33}, std::size_t{577}, std::size_t{100001}})
    {
        const std::vector<std::uint8_t> symbols = rows.Symbols(size, {9, 3, 1, 1, 0.01, 5, 2, 1, 1, 1, 1, 1, 1, 1, 1, 4});
        const std::vector<std::uint8_t> codes = rows.Symbols(size, std::vector<double>(128, 1.0));
        const std::vector<float> row = rows.Gauss(size);
        for (const InstructionSet set : SupportedInstructionSets())
        {
            INFO(NameOf(set) << ", " << size << " symbols");
            const CodecKernels& kernels = CodecKernelsFor(set);
            std::vector<std::uint32_t> histogram(16, 7);
            kernels.count16(symbols.data(), size, histogram.data());
            for (std::uint8_t symbol = 0; symbol < 16; symbol++)
            {
                REQUIRE(histogram[symbol] == 7 + std::count(symbols.begin(), symbols.end(), symbol));
            }
            for (unsigned shift = 0; shift < 7; shift++)
            {
                std::uint64_t sum = 0;
                for (std::size_t i = 0; i < size; i++)
                {
                    sum += static_cast<std::uint64_t>(std::abs((codes[i] >> shift) - symbols[i]));
                }
                REQUIRE(kernels.distortion(codes.data(), symbols.data(), size, shift) == sum);
            }
            for (const bool signedZero : {false, true})
            {
                std::vector<std::uint8_t> withSigns = symbols;
                kernels.addSigns(row.data(), size, signedZero, withSigns.data());
                for (std::size_t i = 0; i < size; i++)
                {
                    const bool negative = std::signbit(row[i]) && (signedZero || symbols[i] > 0);
                    REQUIRE(withSigns[i] == symbols[i] * 2 + (negative ? 1 : 0));
                }
            }
        }
    }
}
