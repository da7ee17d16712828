// SPDX-License-Identifier: GPL-2.0-only
#include "codec/static-tables.h"

#include "base/deterministic-math.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <memory>

namespace splitllm
{

namespace
{

constexpr unsigned kMostBits = 7;
constexpr unsigned kMagnitudes = 1U << kMostBits;

/// All tables, and the mean magnitude of each in units of 1 / kRansTotal.
struct Family
{
    RansFrequencies tables[kMostBits][kStaticTables];
    std::uint64_t means[kMostBits][kStaticTables];
};

/// Share of each magnitude, in integers of a common unit that does not matter.
std::array<std::uint64_t, kMagnitudes>
Masses(unsigned shape, double mean)
{
    // Mean of exp(-(t / w)^p): w / sqrt(pi), w, 6 w.
    constexpr double kWidthOfMean[kStaticShapes] = {1.7724538509055159, 1.0, 1.0 / 6.0};
    constexpr int kPoints = 8; // midpoint rule, in each half of a unit
    const double width = mean * kWidthOfMean[shape];
    std::array<std::uint64_t, kMagnitudes> masses{};
    for (unsigned i = 0; i < 2 * kMagnitudes - 1; i++)
    {
        double sum = 0.0;
        for (int point = 0; point < kPoints; point++)
        {
            const double t = (i + (point + 0.5) / kPoints) / 2.0 / width;
            sum += deterministic::Exp(-(shape == 0 ? t * t : shape == 1 ? t : std::sqrt(t)));
        }
        // halves 0 | 1 2 | 3 4 | ... belong to magnitudes 0, 1, 2, ...; of magnitude 0 the other half is beyond zero
        masses[(i + 1) / 2] += static_cast<std::uint64_t>(sum * 0x1p36);
    }
    return masses;
}

std::unique_ptr<const Family>
MakeFamily()
{
    auto family = std::make_unique<Family>();
    // 2^(k / 4)
    constexpr double kQuarters[4] = {1.0, 1.1892071150027210, 1.4142135623730951, 1.6817928305074290};
    for (unsigned index = 0; index < kStaticTables; index++)
    {
        const unsigned k = index % kStaticWidths;
        const double mean = kQuarters[k % 4] * (1U << k / 4) / 16.0;
        const auto masses = Masses(index / kStaticWidths, mean);
        for (unsigned bits = 1; bits <= kMostBits; bits++)
        {
            std::array<std::uint64_t, kRansMaxSymbols> counts{};
            counts[0] = 2 * masses[0] + 1; // both sides of zero
            for (unsigned magnitude = 1; magnitude < 1U << bits; magnitude++)
            {
                counts[2 * magnitude] = counts[2 * magnitude + 1] = masses[magnitude] + 1;
            }
            const RansFrequencies table = NormaliseFrequencies(counts);
            std::uint64_t mean12 = 0;
            for (unsigned i = 0; i < kRansMaxSymbols; i++)
            {
                mean12 += table.of[i] * (i / 2);
            }
            family->tables[bits - 1][index] = table;
            family->means[bits - 1][index] = mean12;
        }
    }
    return family;
}

const Family&
TheFamily()
{
    static const std::unique_ptr<const Family> family = MakeFamily();
    return *family;
}

std::array<std::uint16_t, kRansTotal + 1>
MakeCosts()
{
    std::array<std::uint16_t, kRansTotal + 1> costs{};
    const double unit = 4096.0 / deterministic::Log(2.0);
    for (std::uint32_t f = 1; f <= kRansTotal; f++)
    {
        costs[f] = static_cast<std::uint16_t>(deterministic::Log(static_cast<double>(kRansTotal) / f) * unit + 0.5);
    }
    return costs;
}

} // namespace

const RansFrequencies&
StaticTable(unsigned bits, unsigned index)
{
    assert(bits >= 1 && bits <= kMostBits && index < kStaticTables);
    return TheFamily().tables[bits - 1][index];
}

std::span<const std::uint64_t, kStaticTables>
StaticMeans(unsigned bits)
{
    assert(bits >= 1 && bits <= kMostBits);
    return TheFamily().means[bits - 1];
}

std::span<const std::uint16_t, kRansTotal + 1>
SymbolCosts()
{
    static const std::array<std::uint16_t, kRansTotal + 1> costs = MakeCosts();
    return costs;
}

std::uint64_t
CodedSize(std::span<const std::uint32_t> histogram, const RansFrequencies& frequencies)
{
    const auto costs = SymbolCosts();
    std::uint64_t size = 0;
    for (std::size_t i = 0; i < histogram.size(); i++)
    {
        if (histogram[i] > 0 && frequencies.of[i] == 0)
        {
            return kNotCodable;
        }
        size += std::uint64_t{histogram[i]} * costs[frequencies.of[i]];
    }
    return size;
}

StaticChoice
BestStaticTable(unsigned bits, std::span<const std::uint32_t> histogram)
{
    assert(histogram.size() == std::size_t{2} << bits);
    std::uint64_t count = 0;
    std::uint64_t magnitudes = 0;
    for (std::size_t i = 0; i < histogram.size(); i++)
    {
        count += histogram[i];
        magnitudes += i / 2 * histogram[i];
    }
    const std::uint64_t mean = magnitudes * kRansTotal / std::max<std::uint64_t>(count, 1);
    StaticChoice best;
    for (unsigned shape = 0; shape < kStaticShapes; shape++)
    {
        const std::uint64_t* means = StaticMeans(bits).data() + shape * kStaticWidths;
        const auto wider = static_cast<unsigned>(std::lower_bound(means, means + kStaticWidths, mean) - means);
        for (unsigned k = wider == 0 ? 0 : wider - 1; k <= std::min(wider, kStaticWidths - 1); k++)
        {
            const unsigned index = shape * kStaticWidths + k;
            const std::uint64_t size = CodedSize(histogram, StaticTable(bits, index));
            if (size < best.size)
            {
                best = {index, size};
            }
        }
    }
    return best;
}

} // namespace splitllm
