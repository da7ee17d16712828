// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CONTAINER_DECODE_H
#define SPLITLLM_CONTAINER_DECODE_H

#include "codec/tensor-container.h"

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

/**
 * \file
 * The kernels that decode a container on a GPU, as functions that put them into a stream. All pointers are to the GPU's
 * memory. The host has found and checked the sections (ReadContainerSections); what columns, values and bodies hold is
 * checked here.
 */
namespace splitllm
{

/// A row's record, and where its parts lie.
struct RowSource
{
    RowRecord record;
    std::uint32_t above;    //!< its elements above
    std::uint64_t body;     //!< first byte, in the container
    std::uint64_t aboveAt;  //!< elements above in the rows before
};

/// Rows whose streams have the same table and lanes: a block's work.
struct StreamGroup
{
    std::uint32_t first; //!< in DecodeJob::order
    std::uint32_t rows;  //!< at most StreamRowsOfBlock
    std::uint32_t lanes;
    std::uint32_t table; //!< in DecodeJob::tables; kOwnTable: that of the message
};

constexpr std::uint32_t kOwnTable = ~std::uint32_t{0};

/// A container that becomes a tensor.
struct DecodeJob
{
    const std::byte* container; //!< aligned to 4
    std::uint64_t rows;
    std::uint64_t cols;
    DType exact;
    std::uint32_t valueBytes; //!< of an exact value
    const RowSource* sources; //!< rows
    const std::uint32_t* order; //!< the rows with streams, as the groups name them, then the other rows
    std::uint64_t streams;      //!< how many rows have one
    const StreamGroup* groups;
    std::uint64_t groupCount;
    const RansFrequencies* tables; //!< the static ones
    const RansFrequencies* own;    //!< that of the message; null: it has none
    std::uint64_t columnsAt;       //!< in the container; of the elements above
    std::uint64_t valuesAt;
    float* x;              //!< rows x cols, what becomes of it
    std::uint32_t* failed; //!< not 0 afterwards: the container is malformed, and x holds anything
};

/// Rows with streams of \p lanes that a block decodes.
std::uint32_t StreamRowsOfBlock(unsigned lanes);

/// Decodes the rows with streams.
void LaunchDecodeStreams(const DecodeJob& job, cudaStream_t stream);

/// Decodes the other rows.
void LaunchUnpack(const DecodeJob& job, cudaStream_t stream);

/// Puts the elements above to their places, after both others.
void LaunchPlaceAbove(const DecodeJob& job, cudaStream_t stream);

} // namespace splitllm

#endif // SPLITLLM_CONTAINER_DECODE_H
