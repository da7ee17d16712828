// SPDX-License-Identifier: GPL-2.0-only
#include "codec/rans.h"

#include "codec/codec-kernels.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <memory>
#include <numeric>
#include <type_traits>

namespace splitllm
{

static_assert(std::endian::native == std::endian::little, "streams are copied as little-endian");

namespace
{

/// Words that a kernel may overwrite before those that it writes.
constexpr std::size_t kSlack = 16;

/// What \p call gives for \p lanes as a compile-time constant.
template <typename Call>
auto
WithLanes(unsigned lanes, Call call)
{
    assert(IsRansLanes(lanes));
    switch (lanes)
    {
    case 4:
        return call(std::integral_constant<unsigned, 4>());
    case 8:
        return call(std::integral_constant<unsigned, 8>());
    case 16:
        return call(std::integral_constant<unsigned, 16>());
    case kRansMaxLanes:
        return call(std::integral_constant<unsigned, kRansMaxLanes>());
    default:
        return call(std::integral_constant<unsigned, 1>());
    }
}

/// Puts symbols [first, last) into their lanes, last to first. \return the place of the last word
template <unsigned kLanes>
std::uint16_t*
PutSymbols(std::span<const std::uint8_t> symbols,
           std::size_t first,
           std::size_t last,
           const RansEncodeTable& table,
           std::uint32_t* states,
           std::uint16_t* top)
{
    std::uint32_t x[kLanes]; // a copy, which may stay in registers
    std::copy_n(states, kLanes, x);
    const auto put = [&](std::size_t i, unsigned lane) {
        // Stored always and kept where a word leaves: which happens cannot be predicted.
        top -= RansPut(x[lane], table.symbols[symbols[i]], top[-1]) ? 1 : 0;
    };
    std::size_t i = last;
    for (; i > first && i % kLanes != 0; i--)
    {
        put(i - 1, (i - 1) % kLanes);
    }
    for (; i >= first + kLanes; i -= kLanes)
    {
#pragma GCC unroll 8 // so that the states stay in registers
        for (unsigned back = 1; back <= kLanes; back++)
        {
            put(i - back, kLanes - back);
        }
    }
    std::copy_n(x, kLanes, states);
    return top;
}

/// Takes symbols [first, end) out of their lanes. \return whether there were words enough
template <unsigned kLanes>
bool
TakeSymbols(std::span<std::uint8_t> symbols,
            std::size_t first,
            const RansDecodeTable& table,
            std::uint32_t* states,
            const std::byte*& words,
            const std::byte* end)
{
    std::uint32_t x[kLanes];
    std::copy_n(states, kLanes, x);
    const std::byte* at = words;
    const std::size_t n = symbols.size();
    std::size_t i = first;
    // As long as there is a word for every lane, none needs a check, and reading one always is faster than a branch.
    for (; i + kLanes <= n && end - at >= static_cast<std::ptrdiff_t>(2 * kLanes); i += kLanes)
    {
#pragma GCC unroll 8
        for (unsigned lane = 0; lane < kLanes; lane++)
        {
            symbols[i + lane] = RansTake(x[lane], table.slots);
            std::uint16_t word;
            std::memcpy(&word, at, sizeof word);
            const std::uint32_t low = x[lane] < kRansLow ? 1 : 0;
            if constexpr (kLanes <= 8) // the states are in registers, and this is a conditional move
            {
                x[lane] = low != 0 ? x[lane] << 16 | word : x[lane];
            }
            else // that would be a branch, which cannot be predicted
            {
                x[lane] = x[lane] << 16 * low | (word & (0 - low));
            }
            at += 2 * low;
        }
    }
    for (; i < n; i++)
    {
        std::uint32_t& state = x[i % kLanes];
        symbols[i] = RansTake(state, table.slots);
        if (state < kRansLow)
        {
            if (at == end)
            {
                return false;
            }
            std::uint16_t word;
            std::memcpy(&word, at, sizeof word);
            at += 2;
            state = state << 16 | word;
        }
    }
    std::copy_n(x, kLanes, states);
    words = at;
    return true;
}

} // namespace

void
CountSymbols(std::span<const std::uint8_t> symbols,
             unsigned alphabet,
             std::span<std::uint32_t, kRansMaxSymbols> histogram,
             const CodecKernels& kernels)
{
    if (alphabet <= 16)
    {
        std::ranges::fill(histogram, 0);
        kernels.count16(symbols.data(), symbols.size(), histogram.data());
        return;
    }
    // Four tables take turns: adding to one place twice in a row would wait for the first sum.
    std::uint32_t counts[4][kRansMaxSymbols] = {};
    std::size_t i = 0;
    for (; i + 4 <= symbols.size(); i += 4)
    {
        for (std::size_t j = 0; j < 4; j++)
        {
            counts[j][symbols[i + j]]++;
        }
    }
    for (; i < symbols.size(); i++)
    {
        counts[0][symbols[i]]++;
    }
    for (std::size_t symbol = 0; symbol < kRansMaxSymbols; symbol++)
    {
        histogram[symbol] = counts[0][symbol] + counts[1][symbol] + counts[2][symbol] + counts[3][symbol];
    }
}

RansFrequencies
NormaliseFrequencies(std::span<const std::uint64_t> counts)
{
    assert(counts.size() <= kRansMaxSymbols);
    const std::uint64_t total = std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
    assert(total > 0 && total < std::uint64_t{1} << 51);
    // What is rarer than 1/4096 gets that much, and the others share the rest.
    std::uint64_t rare = 0;
    std::uint64_t common = 0;
    for (const std::uint64_t count : counts)
    {
        const bool isRare = IsRare(count, total);
        rare += isRare && count > 0 ? 1 : 0;
        common += isRare ? 0 : count;
    }
    RansFrequencies frequencies;
    std::int32_t missing = kRansTotal;
    for (std::size_t i = 0; i < counts.size(); i++)
    {
        if (counts[i] > 0)
        {
            frequencies.of[i] = static_cast<std::uint16_t>(FrequencyGuess(counts[i], total, rare, common));
            missing -= frequencies.of[i];
        }
    }
    while (missing != 0)
    {
        std::uint16_t& most = *std::max_element(std::begin(frequencies.of), std::end(frequencies.of));
        const std::int32_t change = FrequencyChange(missing, most);
        most = static_cast<std::uint16_t>(most + change);
        missing -= change;
    }
    return frequencies;
}

RansEncodeTable
MakeRansEncodeTable(const RansFrequencies& frequencies)
{
    RansEncodeTable table{};
    std::uint32_t start = 0;
    for (unsigned i = 0; i < kRansMaxSymbols; i++)
    {
        if (const std::uint32_t f = frequencies.of[i]; f > 0)
        {
            table.symbols[i] = MakeRansEncodeSymbol(f, start);
            table.alphabet = i + 1;
            start += f;
        }
    }
    assert(start == kRansTotal);
    return table;
}

RansDecodeTable
MakeRansDecodeTable(const RansFrequencies& frequencies)
{
    RansDecodeTable table;
    std::uint32_t* slot = table.slots;
    for (std::uint32_t i = 0; i < kRansMaxSymbols; i++)
    {
        const std::uint32_t f = frequencies.of[i];
        for (std::uint32_t place = 0; place < f; place++)
        {
            *slot++ = RansSlot(i, f, place);
        }
    }
    assert(slot == table.slots + kRansTotal);
    return table;
}

void
RansEncode(std::span<const std::uint8_t> symbols,
           const RansEncodeTable& table,
           unsigned lanes,
           std::vector<std::byte>& stream,
           const CodecKernels& kernels)
{
    std::uint32_t states[kRansMaxLanes];
    std::fill_n(states, lanes, kRansLow);
    // A symbol sends out one word at most: a state below 2^31 is below 2^15 after one, and no symbol is rarer than 2^-12.
    const std::size_t most = symbols.size() + kSlack;
    const auto buffer = std::make_unique_for_overwrite<std::uint16_t[]>(most);
    std::uint16_t* const end = buffer.get() + most;
    std::uint16_t* words = end;
    words = WithLanes(lanes, [&](auto constant) {
        constexpr unsigned kLanes = constant;
        if constexpr (kLanes == kRansMaxLanes)
        {
            const std::size_t steps = symbols.size() / kLanes;
            std::uint16_t* const top = PutSymbols<kLanes>(symbols, steps * kLanes, symbols.size(), table, states, words);
            return kernels.ransPut32(symbols.data(), steps, table, states, top);
        }
        else
        {
            return PutSymbols<kLanes>(symbols, 0, symbols.size(), table, states, words);
        }
    });
    const std::size_t at = stream.size();
    const std::size_t stateBytes = lanes * sizeof(std::uint32_t);
    const std::size_t wordBytes = static_cast<std::size_t>(end - words) * sizeof(std::uint16_t);
    stream.resize(at + stateBytes + wordBytes);
    std::memcpy(stream.data() + at, states, stateBytes);
    if (wordBytes > 0)
    {
        std::memcpy(stream.data() + at + stateBytes, words, wordBytes);
    }
}

bool
RansDecode(std::span<const std::byte> stream,
           const RansDecodeTable& table,
           unsigned lanes,
           std::span<std::uint8_t> symbols,
           const CodecKernels& kernels)
{
    const std::size_t stateBytes = lanes * sizeof(std::uint32_t);
    if (stream.size() < stateBytes || stream.size() % 2 != 0)
    {
        return false;
    }
    std::uint32_t states[kRansMaxLanes];
    std::memcpy(states, stream.data(), stateBytes);
    const auto isState = [](std::uint32_t x) { return x >= kRansLow && x < kRansLow << 16; };
    if (!std::all_of(states, states + lanes, isState))
    {
        return false;
    }
    const std::byte* words = stream.data() + stateBytes;
    const std::byte* const end = stream.data() + stream.size();
    const bool enough = WithLanes(lanes, [&](auto constant) {
        constexpr unsigned kLanes = constant;
        std::size_t made = 0;
        if constexpr (kLanes == kRansMaxLanes)
        {
            made = kernels.ransTake32(symbols.data(), symbols.size() / kLanes, table, states, words, end) * kLanes;
        }
        return TakeSymbols<kLanes>(symbols, made, table, states, words, end);
    });
    return enough && words == end && std::all_of(states, states + lanes, [](std::uint32_t x) { return x == kRansLow; });
}

} // namespace splitllm
