// SPDX-License-Identifier: GPL-2.0-only
#include "base/cuda/launch.h"
#include "base/cuda/warp.h"
#include "compute/cuda/attention-kernels.h"
#include "compute/exp.h"

#include <algorithm>
#include <cmath>

namespace splitllm
{

namespace
{

constexpr unsigned kThreads = 128; //!< of a block
constexpr unsigned kWarps = kThreads / kWarp;
constexpr unsigned kLanesAnEntry = 8; //!< lanes that share a query-key product
constexpr unsigned kEntriesAStep = kThreads / kLanesAnEntry;

/// What a block leaves of a chunk for one head: the largest score, the sum of exp(score - largest), and the values
/// weighted so, headDim of them.
constexpr unsigned kChunkHead = 2;

__host__ __device__ inline std::size_t
ChunkStride(const AttentionShape& shape)
{
    return kChunkHead + shape.headDim;
}

__host__ __device__ inline unsigned
Chunks(std::size_t entries)
{
    return static_cast<unsigned>((entries + kChunk - 1) / kChunk);
}

/// Rows of values that threads add up beside each other.
__host__ __device__ inline unsigned
ValueParts(const AttentionShape& shape)
{
    return shape.headDim < kThreads ? kThreads / shape.headDim : 1;
}

/// The part of \p head, headDim elements, that element \p i of a turned one takes: a cos - b sin, or b cos + a sin.
__device__ __forceinline__ float
Turned(const AttentionShape& shape, const RotaryAngles& angles, std::uint32_t position, const float* head, unsigned i)
{
    if (angles.cosines == nullptr)
    {
        return head[i];
    }
    const unsigned pairs = shape.headDim / 2;
    const unsigned pair = i < pairs ? i : i - pairs;
    const float a = head[pair];
    const float b = head[pair + pairs];
    const float cosine = angles.cosines[std::size_t{position} * pairs + pair];
    const float sine = angles.sines[std::size_t{position} * pairs + pair];
    return i < pairs ? a * cosine - b * sine : b * cosine + a * sine;
}

/// Block (i, j) has row i; threads of all j share its elements.
__global__ void
AppendKernel(AttentionShape shape,
             RotaryAngles angles,
             const KvPlace* places,
             const float* queries,
             const float* keys,
             const float* values,
             float scale,
             float* turned)
{
    const KvPlace place = places[blockIdx.x];
    const unsigned queryWidth = shape.heads * shape.headDim;
    const unsigned kvWidth = shape.kvHeads * shape.headDim;
    for (unsigned at = blockIdx.y * blockDim.x + threadIdx.x; at < queryWidth + kvWidth; at += gridDim.y * blockDim.x)
    {
        const unsigned i = at % shape.headDim;
        if (at < queryWidth)
        {
            const std::size_t row = std::size_t{blockIdx.x} * queryWidth;
            turned[row + at] = Turned(shape, angles, place.position, queries + row + at - i, i) * scale;
        }
        else
        {
            const unsigned element = at - queryWidth;
            const std::size_t row = std::size_t{blockIdx.x} * kvWidth;
            const std::size_t to =
                (std::size_t{element / shape.headDim} * place.capacity + place.entry) * shape.headDim + i;
            place.keys[to] = Turned(shape, angles, place.position, keys + row + element - i, i);
            place.values[to] = values[row + element];
        }
    }
    if (place.attention != nullptr && blockIdx.y == 0 && threadIdx.x == 0)
    {
        place.attention[place.entry] = 0;
    }
}

/**
 * Block (chunk, key/value head, row): the chunk's entries for all query heads that share the head. 8 lanes share an
 * entry's product; a thread then adds up values of one element.
 */
__global__ void __launch_bounds__(kThreads)
    AttendKernel(AttentionShape shape, const KvPlace* places, const float* turned, unsigned chunks, float* scratch)
{
    const unsigned chunk = blockIdx.x;
    const unsigned kvHead = blockIdx.y;
    const unsigned row = blockIdx.z;
    const KvPlace place = places[row];
    const unsigned first = chunk * kChunk;
    if (first > place.entry)
    {
        return;
    }
    const unsigned context = place.entry + 1 - first;
    const unsigned count = context < kChunk ? context : static_cast<unsigned>(kChunk);
    const unsigned headDim = shape.headDim;
    const unsigned group = shape.heads / shape.kvHeads;
    SPLITLLM_DYNAMIC_SHARED(float, shared);
    float* query = shared;                             // group x headDim
    float* scores = query + group * headDim;           // group x kChunk
    float* sums = scores + group * unsigned{kChunk};   // parts x group x headDim

    const float* queries = turned + (std::size_t{row} * shape.heads + std::size_t{kvHead} * group) * headDim;
    for (unsigned i = threadIdx.x; i < group * headDim; i += kThreads)
    {
        query[i] = queries[i];
    }
    __syncthreads();

    const std::size_t base = (std::size_t{kvHead} * place.capacity + first) * headDim;
    const unsigned part = threadIdx.x % kLanesAnEntry;
    for (unsigned from = 0; from < count; from += kEntriesAStep)
    {
        const unsigned entry = from + threadIdx.x / kLanesAnEntry;
        const bool there = entry < count;
        const float* key = place.keys + base + std::size_t{there ? entry : 0} * headDim;
        float products[kMostGroup] = {};
        if (headDim % 4 == 0)
        {
            for (unsigned i = part * 4; i < headDim; i += kLanesAnEntry * 4)
            {
                const float4 k = *reinterpret_cast<const float4*>(key + i);
#pragma unroll
                for (unsigned g = 0; g < kMostGroup; ++g)
                {
                    if (g < group)
                    {
                        const float* q = query + g * headDim + i;
                        products[g] = fmaf(q[0], k.x, products[g]);
                        products[g] = fmaf(q[1], k.y, products[g]);
                        products[g] = fmaf(q[2], k.z, products[g]);
                        products[g] = fmaf(q[3], k.w, products[g]);
                    }
                }
            }
        }
        else
        {
            for (unsigned i = part; i < headDim; i += kLanesAnEntry)
            {
#pragma unroll
                for (unsigned g = 0; g < kMostGroup; ++g)
                {
                    products[g] = g < group ? fmaf(query[g * headDim + i], key[i], products[g]) : 0.0F;
                }
            }
        }
#pragma unroll
        for (unsigned g = 0; g < kMostGroup; ++g)
        {
            if (g < group)
            {
                for (unsigned distance = kLanesAnEntry / 2; distance > 0; distance /= 2)
                {
                    products[g] += __shfl_xor_sync(kAllLanes, products[g], static_cast<int>(distance));
                }
                if (there && part == 0)
                {
                    scores[g * unsigned{kChunk} + entry] = products[g];
                }
            }
        }
    }
    __syncthreads();

    // Softmax of the chunk by itself: a warp takes a head.
    const unsigned lane = threadIdx.x % kWarp;
    const std::size_t stride = ChunkStride(shape);
    float* out = scratch + ((std::size_t{row} * shape.heads + std::size_t{kvHead} * group) * chunks + chunk) * stride;
    const std::size_t headStride = chunks * stride;
    for (unsigned g = threadIdx.x / kWarp; g < group; g += kWarps)
    {
        float* its = scores + g * unsigned{kChunk};
        float most = -INFINITY;
        for (unsigned i = lane; i < count; i += kWarp)
        {
            most = its[i] > most ? its[i] : most;
        }
        most = WarpMax(most);
        float sum = 0.0F;
        for (unsigned i = lane; i < count; i += kWarp)
        {
            its[i] = Exp(its[i] - most);
            sum += its[i];
        }
        sum = WarpSum(sum);
        if (lane == 0)
        {
            out[g * headStride] = most;
            out[g * headStride + 1] = sum;
        }
    }
    __syncthreads();

    const unsigned parts = ValueParts(shape);
    const unsigned its = parts == 1 ? 0 : threadIdx.x / headDim;
    for (unsigned i = parts == 1 ? threadIdx.x : threadIdx.x % headDim; i < headDim && its < parts; i += kThreads)
    {
        float weighted[kMostGroup] = {};
        for (unsigned entry = its; entry < count; entry += parts)
        {
            const float value = place.values[base + std::size_t{entry} * headDim + i];
#pragma unroll
            for (unsigned g = 0; g < kMostGroup; ++g)
            {
                if (g < group)
                {
                    weighted[g] = fmaf(scores[g * unsigned{kChunk} + entry], value, weighted[g]);
                }
            }
        }
        for (unsigned g = 0; g < kMostGroup; ++g)
        {
            if (g < group)
            {
                sums[(its * group + g) * headDim + i] = weighted[g];
            }
        }
    }
    __syncthreads();
    for (unsigned at = threadIdx.x; at < group * headDim; at += kThreads)
    {
        float sum = sums[at];
        for (unsigned p = 1; p < parts; ++p)
        {
            sum += sums[p * group * headDim + at];
        }
        out[at / headDim * headStride + kChunkHead + at % headDim] = sum;
    }
}

/// The largest score of a head over its \p chunks, and the sum of exp(score - largest).
__device__ __forceinline__ float2
JoinedSoftmax(const float* scratch, std::size_t stride, unsigned chunks)
{
    float most = scratch[0];
    for (unsigned c = 1; c < chunks; ++c)
    {
        most = scratch[c * stride] > most ? scratch[c * stride] : most;
    }
    float sum = 0.0F;
    for (unsigned c = 0; c < chunks; ++c)
    {
        sum = fmaf(scratch[c * stride + 1], Exp(scratch[c * stride] - most), sum);
    }
    return {most, sum};
}

/// Block (head, row): joins the chunks' sums, in their order.
__global__ void
JoinKernel(AttentionShape shape, const KvPlace* places, const float* scratch, unsigned chunks, float* attended)
{
    const unsigned head = blockIdx.x;
    const unsigned row = blockIdx.y;
    const unsigned used = Chunks(places[row].entry + 1);
    const std::size_t stride = ChunkStride(shape);
    const float* its = scratch + (std::size_t{row} * shape.heads + head) * chunks * stride;
    const float2 softmax = JoinedSoftmax(its, stride, used);
    for (unsigned i = threadIdx.x; i < shape.headDim; i += blockDim.x)
    {
        float sum = 0.0F;
        for (unsigned c = 0; c < used; ++c)
        {
            sum = fmaf(its[c * stride + kChunkHead + i], Exp(its[c * stride] - softmax.x), sum);
        }
        attended[(std::size_t{row} * shape.heads + head) * shape.headDim + i] = sum / softmax.y;
    }
}

/// A thread an entry: the weights that all heads of rows [firstRow, lastRow) give it. Integers, so in any order.
__global__ void
TrackKernel(AttentionShape shape,
            const KvPlace* places,
            unsigned rowsABlock,
            const float* turned,
            const float* scratch,
            unsigned chunks)
{
    const unsigned entry = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned group = shape.heads / shape.kvHeads;
    const std::size_t stride = ChunkStride(shape);
    const unsigned firstRow = blockIdx.y * rowsABlock;
    unsigned long long sum = 0;
    for (unsigned row = firstRow; row < firstRow + rowsABlock; ++row)
    {
        const KvPlace place = places[row];
        for (unsigned head = 0; head < shape.heads && entry <= place.entry; ++head)
        {
            const float* its = scratch + (std::size_t{row} * shape.heads + head) * chunks * stride;
            const float2 softmax = JoinedSoftmax(its, stride, Chunks(place.entry + 1));
            const float* query = turned + (std::size_t{row} * shape.heads + head) * shape.headDim;
            const float* key =
                place.keys + (std::size_t{head / group} * place.capacity + entry) * shape.headDim;
            float score = 0.0F;
            for (unsigned i = 0; i < shape.headDim; ++i)
            {
                score = fmaf(query[i], key[i], score);
            }
            const float weight = Exp(score - softmax.x) / softmax.y;
            // Summed up in another order than before, a weight may be a little above 1; what is no number adds nothing.
            const float kept = weight <= 1.0F ? weight : weight < 2.0F ? 1.0F : 0.0F;
            sum += static_cast<unsigned long long>(kept * 0x1p36F);
        }
    }
    const KvPlace last = places[firstRow + rowsABlock - 1];
    if (entry <= last.entry && last.attention != nullptr)
    {
        last.attention[entry] += sum;
    }
}

/// A thread an element of an entry: moves it for all kept entries in turn, since a place may be the source of another.
__global__ void
KeepKernel(AttentionShape shape, KvPlace place, const std::uint32_t* kept, unsigned count)
{
    const unsigned element = blockIdx.x * blockDim.x + threadIdx.x;
    const unsigned width = shape.kvHeads * shape.headDim;
    if (element < width)
    {
        const std::size_t base =
            std::size_t{element / shape.headDim} * place.capacity * shape.headDim + element % shape.headDim;
        for (unsigned i = 0; i < count; ++i)
        {
            place.keys[base + std::size_t{i} * shape.headDim] = place.keys[base + std::size_t{kept[i]} * shape.headDim];
            place.values[base + std::size_t{i} * shape.headDim] =
                place.values[base + std::size_t{kept[i]} * shape.headDim];
        }
    }
    else if (element == width)
    {
        for (unsigned i = 0; i < count; ++i)
        {
            place.attention[i] = place.attention[kept[i]];
        }
    }
}

/// Block i copies entry first + i.
__global__ void
ReadKernel(AttentionShape shape, KvPlace place, unsigned first, float* keys, float* values)
{
    const unsigned width = shape.kvHeads * shape.headDim;
    for (unsigned at = threadIdx.x; at < width; at += blockDim.x)
    {
        const std::size_t from =
            (std::size_t{at / shape.headDim} * place.capacity + first + blockIdx.x) * shape.headDim + at % shape.headDim;
        keys[std::size_t{blockIdx.x} * width + at] = place.keys[from];
        values[std::size_t{blockIdx.x} * width + at] = place.values[from];
    }
}

__global__ void
WriteKernel(AttentionShape shape, KvPlace place, const float* keys, const float* values)
{
    const unsigned width = shape.kvHeads * shape.headDim;
    for (unsigned at = threadIdx.x; at < width; at += blockDim.x)
    {
        const std::size_t to = (std::size_t{at / shape.headDim} * place.capacity + place.entry + blockIdx.x) *
                                   shape.headDim +
                               at % shape.headDim;
        place.keys[to] = keys[std::size_t{blockIdx.x} * width + at];
        place.values[to] = values[std::size_t{blockIdx.x} * width + at];
    }
    if (place.attention != nullptr && threadIdx.x == 0)
    {
        place.attention[place.entry + blockIdx.x] = 0;
    }
}

} // namespace

void
AppendRows(const AttentionShape& shape,
           const RotaryAngles& angles,
           const KvPlace* places,
           std::size_t w,
           const float* queries,
           const float* keys,
           const float* values,
           float* turned,
           cudaStream_t stream)
{
    const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.headDim)));
    const unsigned width = (shape.heads + shape.kvHeads) * shape.headDim;
    const dim3 grid(static_cast<unsigned>(w), (width + kThreads - 1) / kThreads);
    Launch(AppendKernel, grid, kThreads, 0, stream, shape, angles, places, queries, keys, values, scale, turned);
}

std::size_t
AttendScratch(const AttentionShape& shape, std::size_t w, std::size_t entries)
{
    return w * shape.heads * Chunks(entries) * ChunkStride(shape);
}

void
Attend(const AttentionShape& shape,
       const KvPlace* places,
       std::size_t w,
       std::size_t entries,
       const float* turned,
       float* scratch,
       float* attended,
       cudaStream_t stream)
{
    const unsigned chunks = Chunks(entries);
    const unsigned group = shape.heads / shape.kvHeads;
    const std::size_t shared = sizeof(float) * group * (shape.headDim * (1 + ValueParts(shape)) + kChunk);
    constexpr std::size_t kMostRows = 32768; // of a grid
    for (std::size_t first = 0; first < w; first += kMostRows)
    {
        const auto rows = static_cast<unsigned>(std::min(w - first, kMostRows));
        const std::size_t heads = first * shape.heads;
        float* its = scratch + heads * chunks * ChunkStride(shape);
        Launch(AttendKernel,
               dim3(chunks, shape.kvHeads, rows),
               kThreads,
               shared,
               stream,
               shape,
               places + first,
               turned + heads * shape.headDim,
               chunks,
               its);
        Launch(JoinKernel,
               dim3(shape.heads, rows),
               kThreads,
               0,
               stream,
               shape,
               places + first,
               its,
               chunks,
               attended + heads * shape.headDim);
    }
}

void
TrackAttention(const AttentionShape& shape,
               const KvPlace* places,
               std::size_t w,
               std::size_t entries,
               bool oneCache,
               const float* turned,
               const float* scratch,
               cudaStream_t stream)
{
    const auto rows = static_cast<unsigned>(w);
    const dim3 grid(static_cast<unsigned>((entries + kThreads - 1) / kThreads), oneCache ? 1 : rows);
    Launch(TrackKernel, grid, kThreads, 0, stream, shape, places, oneCache ? rows : 1, turned, scratch, Chunks(entries));
}

void
KeepEntries(const AttentionShape& shape,
            const KvPlace& place,
            const std::uint32_t* kept,
            std::size_t count,
            cudaStream_t stream)
{
    const unsigned blocks = (shape.kvHeads * shape.headDim + 1 + kThreads - 1) / kThreads;
    Launch(KeepKernel, blocks, kThreads, 0, stream, shape, place, kept, static_cast<unsigned>(count));
}

void
ReadEntries(const AttentionShape& shape,
            const KvPlace& place,
            std::size_t first,
            std::size_t count,
            float* keys,
            float* values,
            cudaStream_t stream)
{
    if (count > 0)
    {
        const auto from = static_cast<unsigned>(first);
        Launch(ReadKernel, static_cast<unsigned>(count), kThreads, 0, stream, shape, place, from, keys, values);
    }
}

void
WriteEntries(const AttentionShape& shape,
             const KvPlace& place,
             std::size_t count,
             const float* keys,
             const float* values,
             cudaStream_t stream)
{
    if (count > 0)
    {
        Launch(WriteKernel, static_cast<unsigned>(count), kThreads, 0, stream, shape, place, keys, values);
    }
}

} // namespace splitllm
