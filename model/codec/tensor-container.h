// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TENSOR_CONTAINER_H
#define SPLITLLM_TENSOR_CONTAINER_H

#include "codec/container-arithmetic.h"
#include "codec/rans.h"
#include "codec/static-tables.h"
#include "codec/tab-q.h"
#include "tensor/tensor.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

/**
 * \file
 * The bytes of a tensor that went through threshold splitting (TS), TAB-Q and entropy coding. All little-endian; every
 * section and every body starts at a multiple of 4 bytes, and what lies between is zero.
 *
 * | Section      | Bytes                                   | There is one       |
 * |--------------|-----------------------------------------|--------------------|
 * | header       | 20, ContainerHeader                     | always             |
 * | table        | header.tableBytes                       | if that is not 0   |
 * | rows         | 16 each, RowRecord                      | always             |
 * | above counts | 4 for each row                          | with kHasAbove     |
 * | columns      | 2 for each element above, 4 where       | with kHasAbove     |
 * |              | cols > 65536; ascending in a row        |                    |
 * | values       | as many, of header.exact                | with kHasAbove     |
 * | bodies       | record.bodyBytes each                   | always             |
 *
 * A table is bits, least significant first: the number of symbols less 1 (8 bits), then for each symbol the bit width w of
 * its frequency and the w - 1 bits below the highest one; filled up with zeros. The width follows from that of the symbol
 * before, the first from 0: 0 the same, 1 0 one less, 1 1 0 one more, 1 1 1 and 4 bits any other.
 *
 * A body holds the symbols of a row, cols of them: nothing if all are alike, or bits + 1 bits for each, least significant
 * bit first, or a rANS stream (rans.h).
 *
 * A row takes a byte of record and body for every kColumnsPerByte columns, so that what a reader allocates is in
 * proportion to what it was sent.
 */
namespace splitllm
{

constexpr std::uint32_t kContainerMagic = 0x51424154; //!< "TABQ"
constexpr std::uint8_t kContainerVersion = 1;
constexpr std::uint8_t kHasAbove = 1; //!< flag: some elements travel exactly

struct ContainerHeader
{
    std::uint32_t magic;      //!< kContainerMagic
    std::uint8_t version;     //!< kContainerVersion
    std::uint8_t flags;       //!< kHasAbove or 0
    std::uint8_t exact;       //!< DType of the values above
    std::uint8_t bits;        //!< Qbar, 2 to 8
    std::uint32_t rows;       //!< at least 1
    std::uint32_t cols;       //!< at least 1
    std::uint16_t tableBytes; //!< 0 if no row uses a table of the message
    std::uint16_t reserved;   //!< 0
};

static_assert(sizeof(ContainerHeader) == kContainerHeaderBytes && alignof(ContainerHeader) == 4, "it travels as it is");

/// How the symbols of a row are written.
enum class RowBody : std::uint8_t
{
    Constant = 0,     //!< all symbols are `argument`
    Packed = 1,       //!< bits + 1 bits each
    StaticTable = 2,  //!< rANS with static table `argument`
    MessageTable = 3, //!< rANS with the table of the message
};

struct RowRecord
{
    float scale;             //!< s, finite and not negative
    std::int32_t zero;       //!< z, not positive
    std::uint32_t bodyBytes; //!< without what fills it up to a multiple of 4
    std::uint8_t bits;       //!< Q*, 1 to Qbar - 1
    RowBody body;
    std::uint8_t lanes;    //!< of a rANS stream, otherwise 0
    std::uint8_t argument; //!< see RowBody, otherwise 0
};

static_assert(sizeof(RowRecord) == kRecordBytes && alignof(RowRecord) == 4, "it travels as it is");

/// How a container is made.
struct ContainerParameters
{
    TabQParameters tabQ;
    DType exact = DType::F16; //!< type of the values above: F32, F16 or BF16
    bool entropy = true;      //!< false: every body is packed
};

/// What there is to know of a row before its body is written. It depends on no other row.
struct PreparedRow
{
    QuantisedRow quantised;
    std::vector<std::uint32_t> columns; //!< of the elements above, ascending
    std::vector<std::byte> values;      //!< the elements above, in the exact type
    std::array<std::uint32_t, kRansMaxSymbols> histogram{};
    StaticChoice table; //!< kNotCodable without entropy coding and for constant rows
};

/// A body and its record.
struct EncodedRow
{
    RowRecord record{};
    std::vector<std::byte> body;
};

/**
 * First step, for each row by itself: splits and quantises.
 * \param row at least one element
 * \param number of the row, for messages
 * \param tau absolute threshold of TS, positive; nothing: no elements are above
 * \throws EncodeError naming row and column of a value that is not finite, or that overflows the exact type
 */
PreparedRow PrepareRow(std::span<const float> row,
                       std::size_t number,
                       std::optional<float> tau,
                       const ContainerParameters& parameters);

/**
 * Second step, for the message: a table of its own, if the rows together get smaller by more than it takes.
 */
std::optional<RansFrequencies> ChooseMessageTable(std::span<const PreparedRow> rows);

/// Third step, for each row by itself: the shortest body, by the sizes that the tables promise.
EncodedRow EncodeRow(const PreparedRow& row,
                     const std::optional<RansFrequencies>& messageTable,
                     const ContainerParameters& parameters);

/// Last step: the container.
std::vector<std::byte> AssembleContainer(std::size_t cols,
                                         std::span<const PreparedRow> prepared,
                                         std::span<const EncodedRow> rows,
                                         const std::optional<RansFrequencies>& messageTable,
                                         const ContainerParameters& parameters);

/// All steps in turn. \param tensor not a phantom. \throws EncodeError as PrepareRow does, and for an empty tensor
std::vector<std::byte> EncodeContainer(const Tensor& tensor,
                                       std::optional<float> tau,
                                       const ContainerParameters& parameters);

/// The sections of a container, which lie in its bytes.
struct ContainerSections
{
    ContainerHeader header{};
    std::optional<RansFrequencies> table; //!< of the message
    std::vector<RowRecord> records;
    std::vector<std::uint32_t> counts; //!< of the elements above in each row; none without kHasAbove
    std::span<const std::byte> columns;
    std::span<const std::byte> values;
    std::vector<std::span<const std::byte>> bodies;
};

/**
 * Finds the sections in \p bytes, which nothing is known of. They, the table and the records are then as a writer makes
 * them; the columns, values and bodies may hold anything.
 * \throws DecodeError
 */
ContainerSections ReadContainerSections(std::span<const std::byte> bytes, std::size_t cols);

/**
 * The tensor in \p bytes, which nothing is known of: no length is believed before it is checked, and at most
 * 4 * kColumnsPerByte bytes are allocated for each of theirs.
 * \param cols elements of a row, at least 1
 * \throws DecodeError if it is no container of rows of \p cols elements, or is not whole
 */
Tensor DecodeContainer(std::span<const std::byte> bytes, std::size_t cols);

SPLITLLM_HOST_DEVICE inline ContainerHeader
MakeContainerHeader(std::size_t rows,
                    std::size_t cols,
                    bool hasAbove,
                    std::size_t tableBytes,
                    const ContainerParameters& parameters)
{
    return {.magic = kContainerMagic,
            .version = kContainerVersion,
            .flags = hasAbove ? kHasAbove : std::uint8_t{0},
            .exact = static_cast<std::uint8_t>(parameters.exact),
            .bits = static_cast<std::uint8_t>(parameters.tabQ.bits),
            .rows = static_cast<std::uint32_t>(rows),
            .cols = static_cast<std::uint32_t>(cols),
            .tableBytes = static_cast<std::uint16_t>(tableBytes),
            .reserved = 0};
}

/// The header at the front of \p bytes. \throws DecodeError unless it is that of a container of rows of \p cols elements
ContainerHeader ReadContainerHeader(std::span<const std::byte> bytes, std::size_t cols);

} // namespace splitllm

#endif // SPLITLLM_TENSOR_CONTAINER_H
