// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_RANS_H
#define SPLITLLM_RANS_H

#include "base/host-device.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

/**
 * \file
 * The range variant of asymmetric numeral systems (Duda 2013): frequencies of 12 bits, states of 31 bits, words of 16.
 *
 * Symbol i of a stream belongs to lane i mod N, and every lane has a state of its own, at least 2^15 between symbols.
 * All lanes share one sequence of words. A stream is the N states as 32-bit integers, then the words, all little-endian,
 * in the order of decoding. Encoding goes backwards, from the last symbol to the first and from the last word to the
 * first. N is 1, 4, 8, 16 or 32. With 4 or 32 lanes it is the order-0 core of CRAM 3.1's rANS Nx16.
 *
 * What is inline here depends on nothing but integers, so that a GPU may share it.
 */
namespace splitllm
{

constexpr unsigned kRansBits = 12;                 //!< of a frequency
constexpr std::uint32_t kRansTotal = 1U << kRansBits; //!< sum of all frequencies
constexpr std::uint32_t kRansLow = 1U << 15;       //!< least state between symbols, and the state that encoding starts from
constexpr unsigned kRansMaxLanes = 32;
constexpr unsigned kRansMaxSymbols = 256;

/// Whether a stream may have \p lanes.
SPLITLLM_HOST_DEVICE constexpr bool
IsRansLanes(unsigned lanes)
{
    return lanes == 1 || lanes == 4 || lanes == 8 || lanes == 16 || lanes == kRansMaxLanes;
}

struct CodecKernels;

/// The loops of the fastest instruction set, codec-kernels.h.
const CodecKernels& BestCodecKernels();

/// How often each symbol occurs, of kRansTotal in all. A frequency of zero: the symbol cannot be coded.
struct RansFrequencies
{
    std::uint16_t of[kRansMaxSymbols] = {};

    bool operator==(const RansFrequencies&) const = default;
};

static_assert(sizeof(RansFrequencies) == 512, "a table that devices share");

/// What putting one symbol takes: its frequency f, the sum of those before it, and a reciprocal for x / f.
struct RansEncodeSymbol
{
    std::uint32_t reciprocal; //!< x / f == (x * reciprocal >> 32) >> shift for every x below 2^31
    std::uint32_t packed;     //!< bits 0-12: f; 13-25: bias; 26-29: shift
};

static_assert(sizeof(RansEncodeSymbol) == 8, "a table that devices share");

struct RansEncodeTable
{
    RansEncodeSymbol symbols[kRansMaxSymbols];
    std::uint32_t alphabet; //!< one more than the highest symbol that can be coded
};

/// For each 12-bit remainder: bits 0-7 its symbol, 8-19 the symbol's frequency - 1, 20-31 the place inside the symbol.
struct RansDecodeTable
{
    std::uint32_t slots[kRansTotal];
};

static_assert(sizeof(RansDecodeTable) == 16384, "a table that devices share");

/// The table entry of a symbol with frequency \p f, at least 1, before which lie \p start of kRansTotal.
SPLITLLM_HOST_DEVICE inline RansEncodeSymbol
MakeRansEncodeSymbol(std::uint32_t f, std::uint32_t start)
{
    if (f == 1)
    {
        // 2^32 / 1 has no 32-bit reciprocal: x * (2^32 - 1) >> 32 is x - 1, and the bias makes good for that
        return {~std::uint32_t{0}, f | (start + kRansTotal - 1) << 13};
    }
    std::uint32_t shift = 0;
    while ((1U << shift) < f)
    {
        shift++;
    }
    const auto reciprocal = static_cast<std::uint32_t>(((std::uint64_t{1} << (shift + 31)) + f - 1) / f);
    return {reciprocal, f | start << 13 | (shift - 1) << 26};
}

/// A RansEncodeSymbol in words of their own, for who has memory but no time.
struct alignas(16) RansPutting
{
    std::uint32_t reciprocal;
    std::uint32_t bias;
    std::uint32_t others; //!< kRansTotal - f: what the other symbols have
    std::uint32_t shift;
};

SPLITLLM_HOST_DEVICE inline RansPutting
Unpacked(RansEncodeSymbol symbol)
{
    return {symbol.reciprocal, symbol.packed >> 13 & 0x1FFF, kRansTotal - (symbol.packed & 0x1FFF), symbol.packed >> 26};
}

/**
 * Puts a symbol into state \p x.
 * \param word where the word goes that leaves the state, if one does
 * \return whether one does
 */
SPLITLLM_HOST_DEVICE inline bool
RansPut(std::uint32_t& x, const RansPutting& symbol, std::uint16_t& word)
{
    const bool leaves = x >= (kRansTotal - symbol.others) << 19;
    word = static_cast<std::uint16_t>(x);
    x = leaves ? x >> 16 : x;
    const auto high = static_cast<std::uint32_t>(std::uint64_t{x} * symbol.reciprocal >> 32);
    x += symbol.bias + (high >> symbol.shift) * symbol.others;
    return leaves;
}

SPLITLLM_HOST_DEVICE inline bool
RansPut(std::uint32_t& x, RansEncodeSymbol symbol, std::uint16_t& word)
{
    return RansPut(x, Unpacked(symbol), word);
}

/// Takes a symbol out of state \p x. Where x is below kRansLow afterwards, x << 16 | next word is the state.
SPLITLLM_HOST_DEVICE inline std::uint8_t
RansTake(std::uint32_t& x, const std::uint32_t* slots)
{
    const std::uint32_t slot = slots[x & (kRansTotal - 1)];
    x = ((slot >> 8 & 0xFFF) + 1) * (x >> kRansBits) + (slot >> 20);
    return static_cast<std::uint8_t>(slot);
}

/// The slot of place \p place, below \p f, of a symbol with frequency \p f.
SPLITLLM_HOST_DEVICE constexpr std::uint32_t
RansSlot(std::uint32_t symbol, std::uint32_t f, std::uint32_t place)
{
    return symbol | (f - 1) << 8 | place << 20;
}

/// Whether a symbol that occurs \p count times of \p total has a share below 1/4096.
SPLITLLM_HOST_DEVICE constexpr bool
IsRare(std::uint64_t count, std::uint64_t total)
{
    return count * kRansTotal < total;
}

/**
 * The first guess of NormaliseFrequencies.
 * \param count of the symbol, not zero; of \p total
 * \param rare how many symbols that occur are rare
 * \param common how often the others occur together
 */
SPLITLLM_HOST_DEVICE constexpr std::uint32_t
FrequencyGuess(std::uint64_t count, std::uint64_t total, std::uint64_t rare, std::uint64_t common)
{
    const std::uint64_t f = IsRare(count, total) ? 1 : (count * (kRansTotal - rare) + common / 2) / common;
    return f > 0 ? static_cast<std::uint32_t>(f) : 1;
}

/**
 * What is added to the greatest frequency \p most where \p missing, not zero, are missing of kRansTotal. Taking all from
 * one would make it rare: at most a quarter of it at a time.
 */
SPLITLLM_HOST_DEVICE constexpr std::int32_t
FrequencyChange(std::int32_t missing, std::int32_t most)
{
    const std::int32_t quarter = most / 4 > 1 ? most / 4 : 1;
    const std::int32_t least = most - 1 < quarter ? 1 - most : -quarter;
    return missing > least ? missing : least;
}

/**
 * How often each symbol occurs.
 * \param symbols fewer than 2^32, all below \p alphabet
 */
void CountSymbols(std::span<const std::uint8_t> symbols,
                  unsigned alphabet,
                  std::span<std::uint32_t, kRansMaxSymbols> histogram,
                  const CodecKernels& kernels = BestCodecKernels());

/**
 * Frequencies in proportion to \p counts, in integers only: 1 where the share is below 1/4096 and not zero, and the rest of
 * the 4096 in proportion among the others, rounded to nearest; what is then missing or too much is the most frequent
 * symbol's, up to a quarter of it, then that of the next.
 * \param counts at most kRansMaxSymbols, of a sum below 2^51; not all zero (asserted)
 */
RansFrequencies NormaliseFrequencies(std::span<const std::uint64_t> counts);

/// Tables for \p frequencies, whose sum must be kRansTotal (asserted).
RansEncodeTable MakeRansEncodeTable(const RansFrequencies& frequencies);
RansDecodeTable MakeRansDecodeTable(const RansFrequencies& frequencies);

/**
 * The stream of \p symbols, appended to \p stream: 4 * lanes bytes and two for each word.
 * \param symbols all with a frequency in the table; a stream of something else decodes to something else
 * \param lanes as IsRansLanes has it (asserted)
 */
void RansEncode(std::span<const std::uint8_t> symbols,
                const RansEncodeTable& table,
                unsigned lanes,
                std::vector<std::byte>& stream,
                const CodecKernels& kernels = BestCodecKernels());

/**
 * Decodes as many symbols as \p symbols has room for.
 * \return whether \p stream is one that RansEncode made: it has exactly the words needed, and every state ends where
 *         encoding starts. If not, what \p symbols holds is not defined.
 */
[[nodiscard]] bool RansDecode(std::span<const std::byte> stream,
                              const RansDecodeTable& table,
                              unsigned lanes,
                              std::span<std::uint8_t> symbols,
                              const CodecKernels& kernels = BestCodecKernels());

} // namespace splitllm

#endif // SPLITLLM_RANS_H
