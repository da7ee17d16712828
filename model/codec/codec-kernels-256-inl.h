// SPDX-License-Identifier: GPL-2.0-only
// What the codec's kernels for AVX2 and AVX-512 share: rANS decoding with 32 lanes in four registers of 256 bits.
// Included by both, inside an unnamed namespace, with their flags. Take8 is each one's own.

constexpr std::size_t kLanes = 32;

inline __m256i
LoadBits(const void* from)
{
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

/// The 32 lanes of four registers.
inline void
StoreStates(__m256i a, __m256i b, __m256i c, __m256i d, std::uint32_t* states)
{
    for (const __m256i lanes : {a, b, c, d})
    {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(states), lanes);
        states += 8;
    }
}

/// slots[at], lane by lane: loads and shuffles are faster than the gather instruction on many CPUs, and nowhere much slower.
inline __m256i
Gather(const std::uint32_t* slots, __m256i at)
{
    alignas(32) std::uint32_t i[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(i), at);
    const auto slot = [&](std::size_t lane) { return static_cast<int>(slots[i[lane]]); };
    return _mm256_setr_epi32(slot(0), slot(1), slot(2), slot(3), slot(4), slot(5), slot(6), slot(7));
}

/// RansTake for 8 lanes, with the words that follow.
inline void Take8(__m256i& x, const std::uint32_t* slots, std::uint8_t* symbols, const std::byte*& words);

std::size_t
RansTake32(std::uint8_t* symbols,
           std::size_t steps,
           const RansDecodeTable& table,
           std::uint32_t* states,
           const std::byte*& words,
           const std::byte* end)
{
    // by name: an array would stay in memory
    __m256i a = LoadBits(states);
    __m256i b = LoadBits(states + 8);
    __m256i c = LoadBits(states + 16);
    __m256i d = LoadBits(states + 24);
    const std::byte* at = words;
    std::size_t step = 0;
    for (; step < steps && end - at >= static_cast<std::ptrdiff_t>(2 * kLanes); step++, symbols += kLanes)
    {
        Take8(a, table.slots, symbols, at);
        Take8(b, table.slots, symbols + 8, at);
        Take8(c, table.slots, symbols + 16, at);
        Take8(d, table.slots, symbols + 24, at);
    }
    StoreStates(a, b, c, d, states);
    words = at;
    return step;
}
