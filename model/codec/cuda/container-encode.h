// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CONTAINER_ENCODE_H
#define SPLITLLM_CONTAINER_ENCODE_H

#include "codec/tensor-container.h"

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

/**
 * \file
 * The kernels that make a container on a GPU, as functions that put them into a stream. All pointers are to the GPU's
 * memory. The bytes are those of EncodeContainer: integers, and the quantiser's arithmetic of codec-kernels-inl.h.
 */
namespace splitllm
{

/// The static tables (static-tables.h) on a GPU.
struct DeviceStaticTables
{
    const RansFrequencies* tables; //!< kStaticTables for each number of bits from 1 on
    const std::uint64_t* means;    //!< as many
    const std::uint16_t* costs;    //!< SymbolCosts
};

/// What the kernels find out about a row.
struct RowPlan
{
    float scale;
    std::int32_t zero;
    std::uint32_t bits;      //!< Q*
    std::uint32_t above;     //!< elements above the threshold
    bool constant;           //!< all symbols are alike (only known with entropy coding)
    std::uint32_t table;     //!< best static table
    std::uint64_t tableSize; //!< CodedSize with it
    std::uint64_t ownSize;   //!< CodedSize with the table of the message
    RowRecord record;
    std::uint64_t aboveAt; //!< elements above in the rows before
    std::uint64_t bodyAt;  //!< bytes of bodies in the rows before
};

/// Words that hold any table as it is written: 8 bits, then at most 19 for each symbol.
constexpr unsigned kTableWords = (8 + 19 * kRansMaxSymbols + 31) / 32;

/// What the kernels find out about a message.
struct MessagePlan
{
    unsigned long long counts[kRansMaxSymbols]; //!< symbols of all rows that are not constant
    unsigned long long saved;                   //!< bytes that a table of the message would save
    RansFrequencies table;                      //!< that table
    std::uint32_t tableWords[kTableWords];      //!< as it is written
    std::uint32_t tableBytes;                   //!< 0: no row has a use for one
    std::uint32_t refused;                      //!< not 0: some value cannot be coded
    std::uint64_t above;                        //!< elements above the threshold
    std::uint64_t size;                         //!< of the container
};

/// A tensor that becomes a container, and the memory to do it in.
struct EncodeJob
{
    const float* x; //!< rows x cols
    std::uint64_t rows;
    std::uint64_t cols;
    std::uint32_t threshold; //!< bits of tau; those of infinity where there is none
    std::uint32_t valueBytes; //!< of an exact value
    ContainerParameters parameters;
    DeviceStaticTables statics;
    std::uint8_t* symbols;     //!< rows x cols
    std::uint32_t* above;      //!< rows x (cols / 32 rounded up): a bit for each element above; null without a threshold
    std::uint32_t* histograms; //!< rows x 2^Qbar
    std::uint16_t* words;      //!< rows x cols: of each row's stream, in the last places
    std::uint32_t* states;     //!< rows x kRansMaxLanes
    RowPlan* plans;            //!< rows
    MessagePlan* message;      //!< one
};

/// The bytes that a container of one row takes at most.
std::size_t MostBytesOfRow(const EncodeJob& job);

/// Clears the message's plan; splits and quantises each row, counts its symbols and finds its static table.
void LaunchQuantise(const EncodeJob& job, cudaStream_t stream);

/// Makes the table of the message, and finds out what it saves. Not without entropy coding.
void LaunchMessageTable(const EncodeJob& job, cudaStream_t stream);

/// Chooses each row's body and makes its rANS stream.
void LaunchStreams(const EncodeJob& job, cudaStream_t stream);

/// Finds each row's places in the container, and its size.
void LaunchLayout(const EncodeJob& job, cudaStream_t stream);

/// Writes the container. \param container as many bytes as the message's plan says, aligned to 4
void LaunchAssemble(const EncodeJob& job, std::byte* container, cudaStream_t stream);

/// All of it in one kernel of one block, for one row. \param container MostBytesOfRow, aligned to 4
void LaunchEncodeRow(const EncodeJob& job, std::byte* container, cudaStream_t stream);

} // namespace splitllm

#endif // SPLITLLM_CONTAINER_ENCODE_H
