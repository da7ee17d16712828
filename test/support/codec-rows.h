// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_CODEC_ROWS_H
#define SPLITLLM_TEST_CODEC_ROWS_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace splitllm::test
{

/// Rows as codecs meet them, the same on every run.
class CodecRows
{
  public:
    explicit CodecRows(std::uint64_t seed)
        : m_bits(seed)
    {
    }

    /// In (0, 1).
    double Uniform()
    {
        return (static_cast<double>(m_bits() >> 11) + 0.5) * 0x1p-53;
    }

    std::vector<float> Gauss(std::size_t n)
    {
        std::vector<float> row(n);
        for (float& x : row)
        {
            x = static_cast<float>(std::sqrt(-2.0 * std::log(Uniform())) * std::cos(6.283185307179586 * Uniform()));
        }
        return row;
    }

    std::vector<float> Laplace(std::size_t n)
    {
        std::vector<float> row(n);
        for (float& x : row)
        {
            const double magnitude = -std::log(Uniform());
            x = static_cast<float>(Uniform() < 0.5 ? magnitude : -magnitude);
        }
        return row;
    }

    /// Mixed widths, as hidden states have them: most elements are small, some channels are ten times as large.
    std::vector<float> HeavyTails(std::size_t n)
    {
        std::vector<float> row = Gauss(n);
        for (std::size_t i = 0; i < n; i++)
        {
            row[i] *= static_cast<float>(std::exp(0.8 * Gauss(1)[0]));
        }
        return row;
    }

    /// \p count symbols, symbol i with weight \p weights[i].
    std::vector<std::uint8_t> Symbols(std::size_t count, const std::vector<double>& weights)
    {
        std::discrete_distribution<int> draw(weights.begin(), weights.end());
        std::vector<std::uint8_t> symbols(count);
        for (std::uint8_t& symbol : symbols)
        {
            symbol = static_cast<std::uint8_t>(draw(m_bits));
        }
        return symbols;
    }

  private:
    std::mt19937_64 m_bits;
};

/// Empirical entropy of \p symbols, in bytes for all of them together.
inline double
EntropyBytes(std::span<const std::uint8_t> symbols)
{
    std::vector<double> counts(256, 0.0);
    for (const std::uint8_t symbol : symbols)
    {
        counts[symbol] += 1.0;
    }
    double bits = 0.0;
    for (const double count : counts)
    {
        bits += count > 0.0 ? count * std::log2(static_cast<double>(symbols.size()) / count) : 0.0;
    }
    return bits / 8.0;
}

/// Sizes around those where something changes: lanes, vectors, blocks.
inline const std::vector<std::size_t> kCodecSizes{1,   2,   3,   4,   5,    7,    8,    15,   16,   17,   31,   32,   33,
                                                  63,  64,  65,  127, 128,  129,  575,  576,  577,  2048, 4095, 4096, 4097};

} // namespace splitllm::test

#endif // SPLITLLM_TEST_CODEC_ROWS_H
