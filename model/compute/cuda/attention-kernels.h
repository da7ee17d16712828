// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_ATTENTION_KERNELS_H
#define SPLITLLM_ATTENTION_KERNELS_H

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

/// \file
/// Attention over KV caches, as functions that put kernels into a stream. All pointers are to the GPU's memory.
namespace splitllm
{

/// Widths of attention. group = heads / kvHeads query heads share a key/value head.
struct AttentionShape
{
    std::uint32_t heads = 0;
    std::uint32_t kvHeads = 0;
    std::uint32_t headDim = 0; //!< at most kMostHeadDim
};

constexpr std::size_t kMostHeadDim = 256;
constexpr std::size_t kMostGroup = 16; //!< query heads that share a key/value head
constexpr std::size_t kChunk = 128;    //!< entries that a block attends to; their sums are joined afterwards

/// Where a row of a call has its keys and values: one layer of one cache.
struct KvPlace
{
    float* keys = nullptr;   //!< kvHeads x capacity x headDim; keys are turned to their positions
    float* values = nullptr; //!< the same
    std::uint64_t* attention = nullptr; //!< [capacity], units of 2^-36; null where nobody tracks it
    std::uint32_t capacity = 0;
    std::uint32_t entry = 0;    //!< where this row's key and value go; it attends to entries 0 to this
    std::uint32_t position = 0; //!< which it is turned to
};

/// Cosines and sines, positions x headDim / 2 each; null where positions are not rotary.
struct RotaryAngles
{
    const float* cosines = nullptr;
    const float* sines = nullptr;
};

/**
 * Turns queries and keys to their positions and appends keys and values to the caches.
 * \param queries w x heads * headDim, as projected
 * \param turned the same, turned and scaled by 1 / sqrt(headDim)
 */
void AppendRows(const AttentionShape& shape,
                const RotaryAngles& angles,
                const KvPlace* places,
                std::size_t w,
                const float* queries,
                const float* keys,
                const float* values,
                float* turned,
                cudaStream_t stream);

/// Elements of the memory that Attend needs beside its results, for w rows and at most \p entries a row.
std::size_t AttendScratch(const AttentionShape& shape, std::size_t w, std::size_t entries);

/**
 * The attended values of w rows, softmax(q k) v over the entries up to each row's own.
 * \param entries at least the largest place's entry + 1
 * \param scratch AttendScratch elements
 * \param attended w x heads * headDim
 */
void Attend(const AttentionShape& shape,
            const KvPlace* places,
            std::size_t w,
            std::size_t entries,
            const float* turned,
            float* scratch,
            float* attended,
            cudaStream_t stream);

/**
 * Adds the attention that every entry got from these rows to its cache's sums, behind Attend with the same arguments.
 * The rows are one cache's next positions if \p oneCache, else each has its own.
 */
void TrackAttention(const AttentionShape& shape,
                    const KvPlace* places,
                    std::size_t w,
                    std::size_t entries,
                    bool oneCache,
                    const float* turned,
                    const float* scratch,
                    cudaStream_t stream);

/// Moves entries kept[0] < kept[1] < ... of a layer to the front: keys, values and sums. \p places is one place.
void KeepEntries(const AttentionShape& shape,
                 const KvPlace& place,
                 const std::uint32_t* kept,
                 std::size_t count,
                 cudaStream_t stream);

/// Copies entries [first, first + count) to rows of kvHeads * headDim each.
void ReadEntries(const AttentionShape& shape,
                 const KvPlace& place,
                 std::size_t first,
                 std::size_t count,
                 float* keys,
                 float* values,
                 cudaStream_t stream);

/// The inverse: from such rows to entries [place.entry, place.entry + count). Their attention starts from 0.
void WriteEntries(const AttentionShape& shape,
                  const KvPlace& place,
                  std::size_t count,
                  const float* keys,
                  const float* values,
                  cudaStream_t stream);

} // namespace splitllm

#endif // SPLITLLM_ATTENTION_KERNELS_H
