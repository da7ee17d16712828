// SPDX-License-Identifier: GPL-2.0-only
#include "codec/cuda/container-decode.h"

#include "base/cuda/block-scan.h"
#include "base/cuda/launch.h"
#include "base/cuda/warp.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

namespace splitllm
{

namespace
{

constexpr unsigned kStreamWarps = 4;       //!< of a block that decodes streams
constexpr unsigned kRowThreads = 256;      //!< of a block that has a row
constexpr unsigned kMostBlocks = 1U << 20; //!< rows beyond take turns

std::uint32_t
Blocks(std::uint64_t items)
{
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(items, kMostBlocks));
}

/// MakeRansDecodeTable, by a block.
__device__ void
MakeDecodeTable(const RansFrequencies& frequencies, std::uint32_t* starts, std::uint32_t* slots)
{
    const unsigned lane = threadIdx.x % kWarp;
    const unsigned warp = threadIdx.x / kWarp;
    if (warp == 0)
    {
        std::uint32_t start = 0;
        for (unsigned symbol = lane; symbol < kRansMaxSymbols; symbol += kWarp)
        {
            const std::uint32_t f = frequencies.of[symbol];
            const std::uint32_t upTo = WarpInclusiveSum(f);
            starts[symbol] = start + upTo - f;
            start += __shfl_sync(kAllLanes, upTo, static_cast<int>(kWarp - 1));
        }
    }
    __syncthreads();
    for (unsigned symbol = warp; symbol < kRansMaxSymbols; symbol += blockDim.x / kWarp)
    {
        const std::uint32_t f = frequencies.of[symbol];
        for (std::uint32_t place = lane; place < f; place += kWarp)
        {
            slots[starts[symbol] + place] = RansSlot(symbol, f, place);
        }
    }
    __syncthreads();
}

/**
 * Decodes a group's streams, of \p kLanes lanes each, a lane of a warp for each lane of them.
 * \return whether this thread found nothing wrong
 */
template <unsigned kLanes>
__device__ bool
TakeStreams(const DecodeJob& job, const StreamGroup& group, const std::uint32_t* slots)
{
    const unsigned lane = threadIdx.x % kLanes; // of the stream
    const unsigned first = threadIdx.x % kWarp - lane;
    const std::uint32_t together = (kLanes == kWarp ? kAllLanes : (1U << kLanes) - 1) << first;
    const std::uint32_t before = together & ((1U << threadIdx.x % kWarp) - 1); // their words come first
    const bool has = threadIdx.x / kLanes < group.rows;
    const std::uint64_t row = job.order[group.first + (has ? threadIdx.x / kLanes : 0)];
    const RowSource& source = job.sources[row];
    constexpr std::uint32_t kStateBytes = kLanes * 4;
    const std::uint32_t bytes = source.record.bodyBytes;
    bool good = has && bytes >= kStateBytes && bytes % 2 == 0;
    const std::byte* const body = job.container + source.body;
    std::uint32_t x = good ? reinterpret_cast<const std::uint32_t*>(body)[lane] : 0;
    good = good && x >= kRansLow && x < kRansLow << 16;
    const bool works = good; // what is no stream is not decoded
    const auto* const words = reinterpret_cast<const std::uint16_t*>(body + kStateBytes);
    const std::uint32_t count = works ? (bytes - kStateBytes) / 2 : 0;
    const std::uint32_t most = 2U << source.record.bits; // symbols beyond have no values
    const float scale = source.record.scale;
    const std::int32_t zero = source.record.zero;
    float* to = job.x + row * job.cols + lane;
    std::uint32_t next = 0; // word of the stream
    const auto take = [&](bool active) {
        std::uint32_t taken = x;
        const std::uint8_t symbol = RansTake(taken, slots);
        const bool low = active && taken < kRansLow;
        const std::uint32_t lows = __ballot_sync(kAllLanes, low);
        if (low)
        {
            const std::uint32_t at = next + __popc(lows & before);
            taken = at < count ? taken << 16 | words[at] : kRansLow;
        }
        next += __popc(lows & together);
        if (active)
        {
            x = taken;
            good = good && symbol < most;
            *to = ValueOfSymbol(scale, zero, symbol);
        }
        to += kLanes;
    };
    for (std::uint64_t steps = job.cols / kLanes; steps > 0; steps--)
    {
        take(works);
    }
    if (job.cols % kLanes != 0)
    {
        take(works && lane < job.cols % kLanes);
    }
    return !has || (good && next == count && x == kRansLow);
}

/// TakeStreams for any number of lanes.
__device__ bool
TakeStreams(const DecodeJob& job, const StreamGroup& group, const std::uint32_t* slots)
{
    switch (group.lanes)
    {
    case 32:
        return TakeStreams<32>(job, group, slots);
    case 16:
        return TakeStreams<16>(job, group, slots);
    case 8:
        return TakeStreams<8>(job, group, slots);
    case 4:
        return TakeStreams<4>(job, group, slots);
    default:
        return TakeStreams<1>(job, group, slots);
    }
}

__global__ void
__launch_bounds__(kStreamWarps* kWarp) DecodeStreamsKernel(const DecodeJob job)
{
    __shared__ std::uint32_t starts[kRansMaxSymbols];
    __shared__ std::uint32_t slots[kRansTotal];
    for (std::uint64_t group = blockIdx.x; group < job.groupCount; group += gridDim.x)
    {
        const StreamGroup its = job.groups[group];
        MakeDecodeTable(its.table == kOwnTable ? *job.own : job.tables[its.table], starts, slots);
        if (!TakeStreams(job, its, slots))
        {
            *job.failed = 1;
        }
        __syncthreads();
    }
}

/// Symbol \p i of \p bytes of packed symbols of \p width bits each.
__device__ __forceinline__ unsigned
PackedSymbol(const std::byte* body, std::uint32_t bytes, unsigned width, std::uint64_t i)
{
    const std::uint64_t bit = i * width;
    const std::uint64_t at = bit / 8;
    std::uint32_t both = static_cast<std::uint32_t>(body[at]);
    if (at + 1 < bytes)
    {
        both |= static_cast<std::uint32_t>(body[at + 1]) << 8;
    }
    return both >> bit % 8 & ((1U << width) - 1);
}

__global__ void
__launch_bounds__(kRowThreads) UnpackKernel(const DecodeJob job)
{
    for (std::uint64_t place = job.streams + blockIdx.x; place < job.rows; place += gridDim.x)
    {
        const std::uint64_t row = job.order[place];
        const RowSource source = job.sources[row];
        const RowRecord& record = source.record;
        const std::byte* const body = job.container + source.body;
        const unsigned width = record.bits + 1U;
        const bool packed = record.body == RowBody::Packed;
        for (std::uint64_t i = threadIdx.x; i < job.cols; i += blockDim.x)
        {
            const unsigned symbol = packed ? PackedSymbol(body, record.bodyBytes, width, i) : record.argument;
            job.x[row * job.cols + i] = ValueOfSymbol(record.scale, record.zero, symbol);
        }
        const auto used = static_cast<unsigned>(job.cols * width % 8); // bits of the last byte; 0: all
        if (threadIdx.x == 0 && packed && used != 0 && static_cast<unsigned>(body[record.bodyBytes - 1]) >> used != 0)
        {
            *job.failed = 1;
        }
    }
}

__device__ __forceinline__ std::uint32_t
Column(const DecodeJob& job, std::uint64_t i)
{
    const std::byte* const columns = job.container + job.columnsAt;
    return ColumnBytes(job.cols) == 2 ? reinterpret_cast<const std::uint16_t*>(columns)[i]
                                      : reinterpret_cast<const std::uint32_t*>(columns)[i];
}

__device__ __forceinline__ float
ExactValue(const DecodeJob& job, std::uint64_t i)
{
    const std::byte* const values = job.container + job.valuesAt;
    if (job.exact == DType::F32)
    {
        return __uint_as_float(reinterpret_cast<const std::uint32_t*>(values)[i]);
    }
    const std::uint16_t bits = reinterpret_cast<const std::uint16_t*>(values)[i];
    return job.exact == DType::F16 ? __half2float(__ushort_as_half(bits)) : __bfloat162float(__ushort_as_bfloat16(bits));
}

__global__ void
__launch_bounds__(kRowThreads) PlaceAboveKernel(const DecodeJob job)
{
    for (std::uint64_t row = blockIdx.x; row < job.rows; row += gridDim.x)
    {
        const std::uint64_t first = job.sources[row].aboveAt;
        const std::uint32_t count = job.sources[row].above;
        for (std::uint64_t i = threadIdx.x; i < count; i += blockDim.x)
        {
            const std::uint32_t column = Column(job, first + i);
            const float value = ExactValue(job, first + i);
            const bool ascends = i == 0 || Column(job, first + i - 1) < column;
            if (ascends && column < job.cols && (__float_as_uint(value) & kInfinityBits) != kInfinityBits)
            {
                job.x[row * job.cols + column] = value;
            }
            else
            {
                *job.failed = 1;
            }
        }
    }
}

} // namespace

std::uint32_t
StreamRowsOfBlock(unsigned lanes)
{
    return kStreamWarps * kWarp / lanes;
}

void
LaunchDecodeStreams(const DecodeJob& job, cudaStream_t stream)
{
    if (job.groupCount > 0)
    {
        Launch(DecodeStreamsKernel, Blocks(job.groupCount), kStreamWarps * kWarp, 0, stream, job);
    }
}

void
LaunchUnpack(const DecodeJob& job, cudaStream_t stream)
{
    if (job.streams < job.rows)
    {
        Launch(UnpackKernel, Blocks(job.rows - job.streams), kRowThreads, 0, stream, job);
    }
}

void
LaunchPlaceAbove(const DecodeJob& job, cudaStream_t stream)
{
    Launch(PlaceAboveKernel, Blocks(job.rows), kRowThreads, 0, stream, job);
}

} // namespace splitllm
