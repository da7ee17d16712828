// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CONTAINER_ARITHMETIC_H
#define SPLITLLM_CONTAINER_ARITHMETIC_H

#include "base/host-device.h"
#include "codec/rans.h"

#include <cstddef>
#include <cstdint>

/// \file
/// Sizes and bits of a container (tensor-container.h) that every encoder and decoder must make alike, on a CPU or a GPU.

namespace splitllm
{

constexpr std::uint32_t kInfinityBits = 0x7F800000;      //!< of fp32
constexpr std::uint64_t kNotCodable = ~std::uint64_t{0}; //!< a size that no coding has: some symbol has no frequency
constexpr std::size_t kColumnsPerByte = 4096;            //!< most columns for each byte of a row's record and body
constexpr std::size_t kContainerHeaderBytes = 20;
constexpr std::size_t kRecordBytes = 16; //!< of a row

SPLITLLM_HOST_DEVICE constexpr std::uint64_t
RoundUp4(std::uint64_t bytes)
{
    return (bytes + 3) / 4 * 4;
}

/// Bytes of the column of an element above.
SPLITLLM_HOST_DEVICE constexpr std::size_t
ColumnBytes(std::uint64_t cols)
{
    return cols > 65536 ? 4 : 2;
}

/// Bytes of \p cols symbols of \p bits bits of magnitude and a sign, packed.
SPLITLLM_HOST_DEVICE constexpr std::uint64_t
PackedSymbolBytes(std::uint64_t cols, unsigned bits)
{
    return (cols * (bits + 1) + 7) / 8;
}

/// Whether a row of \p cols may come from so few bytes.
SPLITLLM_HOST_DEVICE constexpr bool
IsJustified(std::uint64_t cols, std::uint64_t bodyBytes)
{
    return cols <= kColumnsPerByte * (kRecordBytes + bodyBytes);
}

/**
 * The lanes of a stream of about \p bytes: 32, 16, 8 or 4, the most whose states are no more than 1/24 of it, else 1. Few
 * lanes cost time, many cost bytes.
 */
SPLITLLM_HOST_DEVICE constexpr unsigned
LanesFor(std::uint64_t bytes)
{
    constexpr unsigned kShare = 24;
    unsigned lanes = kRansMaxLanes;
    while (lanes > 1 && bytes < kShare * lanes * sizeof(std::uint32_t))
    {
        lanes = lanes > 4 ? lanes / 2 : 1;
    }
    return lanes;
}

/// Bytes that words take, as they are expected, of a stream whose CodedSize is \p size.
SPLITLLM_HOST_DEVICE constexpr std::uint64_t
WordBytes(std::uint64_t size)
{
    return size / 4096 / 8;
}

/// The same with the states of its lanes.
SPLITLLM_HOST_DEVICE constexpr std::uint64_t
StreamBytes(std::uint64_t size)
{
    return WordBytes(size) + 4 * LanesFor(WordBytes(size));
}

/// Where the sections of a container begin.
struct ContainerLayout
{
    std::uint64_t records;
    std::uint64_t counts; //!< this and the next two: only where elements are above
    std::uint64_t columns;
    std::uint64_t values;
    std::uint64_t bodies;
    std::uint64_t size; //!< of the container
};

/**
 * \param tableBytes of the table of the message
 * \param above elements above the threshold
 * \param valueBytes of each of them
 * \param bodyBytes of all bodies, each rounded up to a multiple of 4
 */
SPLITLLM_HOST_DEVICE constexpr ContainerLayout
LayoutOf(std::uint64_t rows,
         std::uint64_t cols,
         std::uint64_t tableBytes,
         std::uint64_t above,
         std::uint64_t valueBytes,
         std::uint64_t bodyBytes)
{
    ContainerLayout layout{};
    layout.records = kContainerHeaderBytes + RoundUp4(tableBytes);
    layout.counts = layout.records + rows * kRecordBytes;
    layout.columns = layout.counts + (above > 0 ? rows * sizeof(std::uint32_t) : 0);
    layout.values = layout.columns + RoundUp4(above * ColumnBytes(cols));
    layout.bodies = layout.values + RoundUp4(above * valueBytes);
    layout.size = layout.bodies + bodyBytes;
    return layout;
}

/// Bits of a table, least significant first.
struct TableBits
{
    std::uint32_t value;
    unsigned count; //!< up to 19
};

constexpr unsigned kWidthBits = 4; //!< a frequency has up to 13 bits

/// How many bits \p f has up to its highest one.
SPLITLLM_HOST_DEVICE constexpr unsigned
FrequencyWidth(std::uint32_t f)
{
    unsigned width = 0;
    while (f >> width != 0)
    {
        width++;
    }
    return width;
}

/**
 * What stands for frequency \p f in a table behind one of width \p before. "0": as wide, "10" one less, "110" one more,
 * "111" and kWidthBits: any width. Neighbours are alike, and far out frequencies of 0 and 1 take turns. Then the bits
 * below the highest one.
 */
SPLITLLM_HOST_DEVICE constexpr TableBits
BitsOfFrequency(std::uint32_t f, unsigned before)
{
    const unsigned width = FrequencyWidth(f);
    TableBits bits{0b111 | width << 3, 3 + kWidthBits};
    if (width == before)
    {
        bits = {0b0, 1};
    }
    else if (width + 1 == before)
    {
        bits = {0b01, 2};
    }
    else if (width == before + 1)
    {
        bits = {0b011, 3};
    }
    if (width > 1)
    {
        bits.value |= (f - (1U << (width - 1))) << bits.count;
        bits.count += width - 1;
    }
    return bits;
}

} // namespace splitllm

#endif // SPLITLLM_CONTAINER_ARITHMETIC_H
