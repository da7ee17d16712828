// SPDX-License-Identifier: GPL-2.0-only
#include "codec/cuda/container-encode.h"

#include "base/cuda/block-scan.h"
#include "base/cuda/launch.h"
#include "base/cuda/warp.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstring>

namespace splitllm
{

namespace
{

#include "codec/codec-kernels-inl.h"

constexpr unsigned kRowThreads = 256;    //!< of a block that has a row of many
constexpr unsigned kOneRowThreads = 512;  //!< of the block that has the only row
constexpr unsigned kMostBlocks = 1U << 20; //!< rows beyond take turns
constexpr unsigned kStreamWarps = 4;     //!< of a block that makes streams
constexpr unsigned kStreamRows = 4;      //!< rows whose streams a warp makes, side by side if their lanes fit
constexpr unsigned kAhead = 8;           //!< steps whose symbols are loaded before they are needed
constexpr unsigned kMostWarps = 32;      //!< of a block

/// What the threads of a block tell each other.
struct BlockScratch
{
    std::uint32_t words[kMostWarps];
    unsigned long long sums[kMostWarps];
    std::uint32_t histogram[kRansMaxSymbols];
    std::uint32_t table[kTableWords];
    std::uint64_t sizes[kStaticShapes]; //!< of the best static table of each shape
    std::uint32_t tables[kStaticShapes];
    std::uint32_t decision;
};

std::uint32_t
Blocks(std::uint64_t items, std::uint64_t each)
{
    return static_cast<std::uint32_t>(std::min<std::uint64_t>((items + each - 1) / each, kMostBlocks));
}

__device__ __forceinline__ std::uint64_t
MaskWords(const EncodeJob& job)
{
    return (job.cols + kWarp - 1) / kWarp;
}

/// The symbols that rows can have: as many as Qbar bits make.
__device__ __forceinline__ unsigned
Alphabet(const EncodeJob& job)
{
    return 1U << job.parameters.tabQ.bits;
}

/// The bits of \p value in the exact type.
__device__ __forceinline__ std::uint32_t
ExactBits(float value, DType exact)
{
    return exact == DType::F32   ? __float_as_uint(value)
           : exact == DType::F16 ? __half_as_ushort(__float2half_rn(value))
                                 : __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

__device__ __forceinline__ bool
IsFiniteExact(std::uint32_t bits, DType exact)
{
    return exact == DType::F32   ? (bits & 0x7F800000) != 0x7F800000
           : exact == DType::F16 ? (bits & 0x7C00) != 0x7C00
                                 : (bits & 0x7F80) != 0x7F80;
}

/// A QuantiserStep and what it takes to divide by its scale faster.
struct GpuStep
{
    QuantiserStep step;
    float power;      //!< of two, that brings the scale near 1
    float scale;      //!< brought there
    float reciprocal; //!< of that, rounded
};

__device__ __forceinline__ GpuStep
StepOf(const QuantiserScale& scale, unsigned bits, std::uint32_t threshold)
{
    if (scale.flat)
    {
        return {{1.0F, 0.0F, 0.0F, threshold}, 1.0F, 1.0F, 1.0F}; // the code 0 everywhere
    }
    const std::uint32_t exponent = 254 - (__float_as_uint(scale.scale) >> 23);
    const float power = __uint_as_float(max(exponent, 1U) << 23);
    const float near = scale.scale * power;
    return {{scale.scale, static_cast<float>(scale.zero), GreatestCode(bits), threshold}, power, near, 1.0F / near};
}

/**
 * CodeOf. The quotient is that of a division, bit by bit, unless it is below 2^-29 and no code depends on its bits: the
 * first guess is wrong by 1.5 units in the last place at most, the second by less than one, and a correction by the exact
 * remainder then rounds to nearest (Markstein 1990). Nothing underflows: the scale is between 2^-22 and 4.
 */
__device__ __forceinline__ std::uint8_t
CodeOf(std::uint32_t bits, const GpuStep& step)
{
    const float magnitude = MagnitudeBelow(bits, step.step.threshold) * step.power;
    float quotient = magnitude * step.reciprocal;
#pragma unroll
    for (int i = 0; i < 2; i++)
    {
        quotient = __fmaf_rn(__fmaf_rn(-quotient, step.scale, magnitude), step.reciprocal, quotient);
    }
    return CodeOfQuotient(quotient, step.step);
}

/// The range of a row, in every thread of the block.
__device__ RowRange
BlockRange(const float* x, std::uint64_t cols, std::uint32_t threshold, BlockScratch& scratch)
{
    constexpr std::uint32_t kMost = 0x7FFFFFFF;
    std::uint32_t least = kMost;
    std::uint32_t most = 0;
    std::uint32_t peak = 0;
    std::uint32_t above = 0;
    const float* const end = x + cols;
#pragma unroll 4
    for (const float* at = x + threadIdx.x; at < end; at += blockDim.x)
    {
        const std::uint32_t bits = MagnitudeBits(*at);
        const bool below = bits < threshold;
        const std::uint32_t kept = below ? bits : 0;
        peak = max(peak, bits);
        most = max(most, kept);
        least = min(least, kept);
        above += below ? 0 : 1;
    }
    RowRange range;
    range.least = kMost - BlockMax(kMost - least, std::uint32_t{0}, scratch.words);
    range.most = BlockMax(most, std::uint32_t{0}, scratch.words);
    range.peak = BlockMax(peak, std::uint32_t{0}, scratch.words);
    range.above = BlockSum(above, scratch.words);
    return range;
}

/// Algorithm 1: the bits of the last configuration within Delta, in every thread of the block.
__device__ unsigned
ChooseBits(const EncodeJob& job, const float* x, float least, float most, BlockScratch& scratch)
{
    const unsigned first = job.parameters.tabQ.bits - 1;
    const GpuStep firstStep = StepOf(ScaleOf(least, most, first), first, job.threshold);
    unsigned bits = first;
    while (bits > LowestBits(first))
    {
        const unsigned trial = bits - 1;
        const GpuStep step = StepOf(ScaleOf(least, most, trial), trial, job.threshold);
        std::uint32_t distance = 0; // a thread has at most 2^24 elements of a row, and codes are below 2^7
        const float* const end = x + job.cols;
#pragma unroll 4
        for (const float* at = x + threadIdx.x; at < end; at += blockDim.x)
        {
            const std::uint32_t magnitude = MagnitudeBits(*at);
            distance += CodeDistance(CodeOf(magnitude, firstStep), CodeOf(magnitude, step), first - trial);
        }
        const std::uint64_t sum = BlockSum<unsigned long long>(distance, scratch.sums);
        if (threadIdx.x == 0) // one thread divides: some GPUs have few units for fp64
        {
            scratch.decision = IsDistorted(sum, job.cols, trial, job.parameters.tabQ) ? 1 : 0;
        }
        __syncthreads();
        const bool distorted = scratch.decision != 0;
        __syncthreads();
        if (distorted)
        {
            break;
        }
        bits = trial;
    }
    return bits;
}

/// How often a warp met each symbol: lane i counts i, i + 32, ...
struct WarpCounts
{
    std::uint32_t of[kRansMaxSymbols / kWarp];
};

/**
 * Counts the symbols, of \p bits bits, of a warp's active lanes. One ballot a bit tells each lane who has one of its
 * symbols. Lanes that no symbol belongs to count anything.
 * \param active the lanes that have a symbol
 * \param others for each of the low 5 bits: all ones in the lanes whose symbols do not have it
 */
__device__ __forceinline__ void
CountInWarp(std::uint32_t symbol, std::uint32_t active, unsigned bits, const std::uint32_t (&others)[5], WarpCounts& counts)
{
    std::uint32_t mine = active;
#pragma unroll
    for (unsigned bit = 0; bit < 4; bit++)
    {
        mine &= __ballot_sync(kAllLanes, (symbol & 1U << bit) != 0) ^ others[bit];
    }
    if (bits > 4)
    {
        mine &= __ballot_sync(kAllLanes, (symbol & 16) != 0) ^ others[4];
    }
    if (bits <= 5)
    {
        counts.of[0] += __popc(mine);
        return;
    }
    const std::uint32_t set5 = __ballot_sync(kAllLanes, symbol >> 5 & 1);
    const std::uint32_t set6 = __ballot_sync(kAllLanes, symbol >> 6 & 1);
    const std::uint32_t set7 = __ballot_sync(kAllLanes, symbol >> 7 & 1);
#pragma unroll
    for (unsigned high = 0; high < 8; high++)
    {
        const std::uint32_t low = ((high & 1) != 0 ? set5 : ~set5) & ((high & 2) != 0 ? set6 : ~set6);
        counts.of[high] += __popc(mine & low & ((high & 4) != 0 ? set7 : ~set7));
    }
}

/// Writes the symbols of a row and the bits of its elements above, and counts the symbols in scratch.histogram.
__device__ void
WriteSymbols(const EncodeJob& job, std::uint64_t row, const QuantiserScale& scale, unsigned bits, BlockScratch& scratch)
{
    const bool entropy = job.parameters.entropy;
    const bool signedZero = scale.zero != 0;
    const unsigned lane = threadIdx.x % kWarp;
    const GpuStep step = StepOf(scale, bits, job.threshold);
    WarpCounts counts{};
    std::uint32_t others[5];
    for (unsigned bit = 0; bit < 5; bit++)
    {
        others[bit] = (lane >> bit & 1) != 0 ? 0 : kAllLanes;
    }
    for (unsigned i = threadIdx.x; i < kRansMaxSymbols; i += blockDim.x)
    {
        scratch.histogram[i] = 0;
    }
    bool refused = false;
    const float* x = job.x + row * job.cols + threadIdx.x;
    std::uint8_t* symbols = job.symbols + row * job.cols + threadIdx.x;
    std::uint32_t* aboves = job.above + row * MaskWords(job) + threadIdx.x / kWarp;
    const unsigned warps = blockDim.x / kWarp;
    // The next kWarp elements of this warp, of which the active lanes have one each.
    const auto write = [&](std::uint32_t actives) {
        const bool active = (actives >> lane & 1) != 0;
        const float value = active ? *x : 0.0F;
        const std::uint32_t magnitude = MagnitudeBits(value);
        const std::uint8_t symbol = SymbolOf(value, CodeOf(magnitude, step), signedZero);
        if (active)
        {
            *symbols = symbol;
        }
        if (job.above != nullptr)
        {
            const bool above = active && magnitude >= job.threshold;
            const std::uint32_t mask = __ballot_sync(kAllLanes, above);
            if (lane == 0)
            {
                *aboves = mask;
            }
            if (mask != 0)
            {
                refused |= above && !IsFiniteExact(ExactBits(value, job.parameters.exact), job.parameters.exact);
            }
            aboves += warps;
        }
        if (entropy)
        {
            CountInWarp(symbol, actives, bits + 1, others, counts);
        }
        x += warps * kWarp;
        symbols += warps * kWarp;
    };
    const auto whole = static_cast<unsigned>(job.cols / kWarp);
    unsigned group = threadIdx.x / kWarp;
#pragma unroll 2
    for (; group < whole; group += warps)
    {
        write(kAllLanes);
    }
    if (group == whole && job.cols % kWarp != 0)
    {
        write((1U << job.cols % kWarp) - 1);
    }
    if (refused)
    {
        job.message->refused = 1;
    }
    __syncthreads();
    if (entropy)
    {
        for (unsigned high = 0; high < kRansMaxSymbols / kWarp; high++)
        {
            const unsigned symbol = high * kWarp + lane;
            if (counts.of[high] > 0 && symbol < 2U << bits)
            {
                atomicAdd(&scratch.histogram[symbol], counts.of[high]);
            }
        }
        __syncthreads();
    }
}

/// CodedSize of a histogram, in every lane of a warp.
__device__ std::uint64_t
WarpCodedSize(const std::uint32_t* histogram,
              unsigned alphabet,
              const RansFrequencies& frequencies,
              const std::uint16_t* costs)
{
    unsigned long long size = 0;
    bool codable = true;
    for (unsigned symbol = threadIdx.x % kWarp; symbol < alphabet; symbol += kWarp)
    {
        const std::uint32_t count = histogram[symbol];
        const unsigned f = frequencies.of[symbol];
        codable &= count == 0 || f > 0;
        size += std::uint64_t{count} * costs[f];
    }
    codable = __all_sync(kAllLanes, codable) != 0;
    size = WarpSum(size);
    return codable ? size : kNotCodable;
}

/// BestStaticTable, one shape a warp; thread 0 writes it to \p plan.
__device__ void
ChooseStaticTable(const EncodeJob& job, RowPlan& plan, unsigned bits, BlockScratch& scratch)
{
    const unsigned warp = threadIdx.x / kWarp;
    const unsigned lane = threadIdx.x % kWarp;
    const unsigned alphabet = 2U << bits;
    if (warp < kStaticShapes)
    {
        unsigned long long magnitudes = 0;
        for (unsigned symbol = lane; symbol < alphabet; symbol += kWarp)
        {
            magnitudes += symbol / 2 * std::uint64_t{scratch.histogram[symbol]};
        }
        const std::uint64_t mean = WarpSum(magnitudes) * kRansTotal / job.cols;
        const std::uint64_t first = (bits - 1) * std::uint64_t{kStaticTables} + warp * kStaticWidths;
        unsigned wider = 0; // the first width whose mean is not below
        for (unsigned k = lane; k < 2 * kWarp; k += kWarp)
        {
            wider += __popc(__ballot_sync(kAllLanes, k < kStaticWidths && job.statics.means[first + k] < mean));
        }
        std::uint64_t best = kNotCodable;
        unsigned table = 0;
        for (unsigned k = wider == 0 ? 0 : wider - 1; k <= min(wider, kStaticWidths - 1); k++)
        {
            const std::uint64_t size =
                WarpCodedSize(scratch.histogram, alphabet, job.statics.tables[first + k], job.statics.costs);
            if (size < best)
            {
                best = size;
                table = warp * kStaticWidths + k;
            }
        }
        if (lane == 0)
        {
            scratch.sizes[warp] = best;
            scratch.tables[warp] = table;
        }
    }
    __syncthreads();
    if (threadIdx.x == 0)
    {
        plan.table = 0;
        plan.tableSize = kNotCodable;
        for (unsigned shape = 0; shape < kStaticShapes; shape++)
        {
            if (scratch.sizes[shape] < plan.tableSize)
            {
                plan.tableSize = scratch.sizes[shape];
                plan.table = scratch.tables[shape];
            }
        }
    }
}

/// What PrepareRow does, by a block.
__device__ void
QuantiseRow(const EncodeJob& job, std::uint64_t row, BlockScratch& scratch)
{
    const float* x = job.x + row * job.cols;
    RowPlan& plan = job.plans[row];
    const RowRange range = BlockRange(x, job.cols, job.threshold, scratch);
    if (range.peak >= kInfinityBits)
    {
        if (threadIdx.x == 0)
        {
            job.message->refused = 1; // what follows makes something of a row without elements
            plan = RowPlan{};
            plan.bits = 1;
            plan.constant = true;
        }
        return;
    }
    const float least = __uint_as_float(range.least);
    const float most = __uint_as_float(range.most);
    const unsigned bits = ChooseBits(job, x, least, most, scratch);
    const QuantiserScale scale = ScaleOf(least, most, bits);
    WriteSymbols(job, row, scale, bits, scratch);
    bool constant = false;
    if (job.parameters.entropy)
    {
        const unsigned symbol = threadIdx.x;
        const std::uint32_t count = symbol < kRansMaxSymbols ? scratch.histogram[symbol] : 0;
        constant = __syncthreads_or(count == job.cols) != 0;
        if (symbol < Alphabet(job))
        {
            job.histograms[row * Alphabet(job) + symbol] = count;
            if (!constant && count > 0)
            {
                atomicAdd(&job.message->counts[symbol], static_cast<unsigned long long>(count));
            }
        }
        if (!constant)
        {
            ChooseStaticTable(job, plan, bits, scratch);
        }
    }
    if (threadIdx.x == 0)
    {
        plan.scale = scale.scale;
        plan.zero = scale.zero;
        plan.bits = bits;
        plan.above = static_cast<std::uint32_t>(range.above);
        plan.constant = constant;
    }
}

__global__ void
__launch_bounds__(kRowThreads) QuantiseKernel(const EncodeJob job)
{
    __shared__ BlockScratch scratch;
    for (std::uint64_t row = blockIdx.x; row < job.rows; row += gridDim.x)
    {
        QuantiseRow(job, row, scratch);
        __syncthreads();
    }
}

/// NormaliseFrequencies of the message's counts, and the table as it is written, by a block of kRansMaxSymbols or more.
__device__ void
MakeMessageTable(MessagePlan& message, BlockScratch& scratch)
{
    const unsigned symbol = threadIdx.x;
    const unsigned long long count = symbol < kRansMaxSymbols ? message.counts[symbol] : 0;
    const unsigned long long total = BlockSum(count, scratch.sums);
    if (total == 0)
    {
        return; // tableBytes is 0
    }
    const bool isRare = IsRare(count, total);
    const std::uint32_t rare = BlockSum(std::uint32_t{isRare && count > 0}, scratch.words);
    const unsigned long long common = BlockSum(isRare ? 0 : count, scratch.sums);
    std::uint32_t f = count > 0 ? FrequencyGuess(count, total, rare, common) : 0;
    std::int32_t missing = static_cast<std::int32_t>(kRansTotal - BlockSum(f, scratch.words));
    while (missing != 0)
    {
        // of equal frequencies the lowest symbol's
        const std::uint32_t key = symbol < kRansMaxSymbols ? f << 8 | (kRansMaxSymbols - 1 - symbol) : 0;
        const std::uint32_t best = BlockMax(key, std::uint32_t{0}, scratch.words);
        const std::int32_t change = FrequencyChange(missing, static_cast<std::int32_t>(best >> 8));
        f += symbol == kRansMaxSymbols - 1 - (best & 0xFF) ? static_cast<std::uint32_t>(change) : 0;
        missing -= change;
    }
    const unsigned symbols = BlockMax(f > 0 ? symbol + 1 : 0, 0U, scratch.words);
    if (symbol < kRansMaxSymbols)
    {
        message.table.of[symbol] = static_cast<std::uint16_t>(f);
        scratch.histogram[symbol] = f;
    }
    if (symbol < kTableWords)
    {
        scratch.table[symbol] = symbol == 0 ? symbols - 1 : 0;
    }
    __syncthreads();
    TableBits bits{0, 0};
    if (symbol < symbols)
    {
        bits = BitsOfFrequency(f, symbol == 0 ? 0 : FrequencyWidth(scratch.histogram[symbol - 1]));
    }
    std::uint32_t written = 0;
    const std::uint32_t at = 8 + BlockExclusiveSum(bits.count, written, scratch.words);
    const std::uint64_t placed = std::uint64_t{bits.value} << at % 32;
    if (bits.count > 0)
    {
        atomicOr(&scratch.table[at / 32], static_cast<std::uint32_t>(placed));
        if (placed >> 32 != 0)
        {
            atomicOr(&scratch.table[at / 32 + 1], static_cast<std::uint32_t>(placed >> 32));
        }
    }
    __syncthreads();
    if (symbol < kTableWords)
    {
        message.tableWords[symbol] = scratch.table[symbol];
    }
    if (symbol == 0)
    {
        message.tableBytes = (8 + written + 7) / 8;
    }
}

__global__ void
__launch_bounds__(kRansMaxSymbols) MessageTableKernel(MessagePlan* message)
{
    __shared__ BlockScratch scratch;
    MakeMessageTable(*message, scratch);
}

/// What the table of the message saves in a row, by a warp.
__device__ void
CountSavings(const EncodeJob& job, std::uint64_t row)
{
    RowPlan& plan = job.plans[row];
    MessagePlan& message = *job.message;
    if (plan.constant || message.tableBytes == 0)
    {
        return;
    }
    const std::uint64_t ownSize = WarpCodedSize(
        job.histograms + row * Alphabet(job), 2U << plan.bits, message.table, job.statics.costs);
    if (threadIdx.x % kWarp == 0)
    {
        const std::uint64_t packed = PackedSymbolBytes(job.cols, plan.bits);
        const std::uint64_t coded = plan.tableSize == kNotCodable ? packed : StreamBytes(plan.tableSize);
        const std::uint64_t other = min(packed, coded);
        const std::uint64_t own = StreamBytes(ownSize);
        plan.ownSize = ownSize;
        if (own < other)
        {
            atomicAdd(&message.saved, static_cast<unsigned long long>(other - own));
        }
    }
}

__global__ void
__launch_bounds__(kRowThreads) SavingsKernel(const EncodeJob job)
{
    const std::uint64_t warps = std::uint64_t{gridDim.x} * (blockDim.x / kWarp);
    std::uint64_t row = std::uint64_t{blockIdx.x} * (blockDim.x / kWarp) + threadIdx.x / kWarp;
    for (; row < job.rows; row += warps)
    {
        CountSavings(job, row);
    }
}

/// Whether the table of the message is worth its bytes.
__device__ __forceinline__ bool
HasMessageTable(const MessagePlan& message)
{
    return message.saved > RoundUp4(message.tableBytes);
}

/// The first choice of EncodeRow: a record without the length of its body.
__device__ RowRecord
ChooseBody(const EncodeJob& job, std::uint64_t row)
{
    const RowPlan& plan = job.plans[row];
    RowRecord record{plan.scale, plan.zero, 0, static_cast<std::uint8_t>(plan.bits), RowBody::Packed, 0, 0};
    if (!job.parameters.entropy)
    {
        return record;
    }
    if (plan.constant)
    {
        if (IsJustified(job.cols, 0))
        {
            record.body = RowBody::Constant;
            record.argument = job.symbols[row * job.cols];
        }
        return record;
    }
    const std::uint64_t own = HasMessageTable(*job.message) ? plan.ownSize : kNotCodable;
    const std::uint64_t size = min(own, plan.tableSize);
    if (size != kNotCodable)
    {
        const bool isOwn = own < plan.tableSize;
        record.body = isOwn ? RowBody::MessageTable : RowBody::StaticTable;
        record.argument = isOwn ? 0 : static_cast<std::uint8_t>(plan.table);
        record.lanes = static_cast<std::uint8_t>(LanesFor(WordBytes(size)));
    }
    return record;
}

/// MakeRansEncodeTable for symbols below \p alphabet, by a warp.
__device__ void
MakeEncodeTable(const RansFrequencies& frequencies, unsigned alphabet, RansPutting* table)
{
    std::uint32_t start = 0;
    for (unsigned first = 0; first < alphabet; first += kWarp)
    {
        const unsigned symbol = first + threadIdx.x % kWarp;
        const std::uint32_t f = symbol < alphabet ? frequencies.of[symbol] : 0;
        const std::uint32_t upTo = WarpInclusiveSum(f);
        if (f > 0)
        {
            table[symbol] = Unpacked(MakeRansEncodeSymbol(f, start + upTo - f));
        }
        start += __shfl_sync(kAllLanes, upTo, static_cast<int>(kWarp - 1));
    }
}

/// A rANS stream.
struct StreamSource
{
    const std::uint8_t* symbols;
    const RansPutting* table;
    std::uint16_t* words; //!< one place for each symbol
};

/**
 * Puts the symbols of the warp's streams, of \p kLanes lanes each, into their states, from the last to the first.
 * \param cols symbols of each stream
 * \param x the state of this lane's
 * \return the words of this lane's stream
 */
template <unsigned kLanes>
__device__ __forceinline__ std::uint32_t
PutStreams(const StreamSource stream, std::uint64_t cols, std::uint32_t& x)
{
    const unsigned lane = threadIdx.x % kLanes; // of the stream
    const unsigned before = threadIdx.x % kWarp - lane;
    const std::uint32_t together = (kLanes == kWarp ? kAllLanes : (1U << kLanes) - 1) << before;
    const std::uint32_t above = together & ~((2U << threadIdx.x % kWarp) - 1); // their words leave before
    std::uint16_t* top = stream.words + cols; // where the last word is; a pointer takes one instruction to move
    x = kRansLow;
    const auto put = [&](const RansPutting& symbol) {
        std::uint16_t word;
        const bool leaves = RansPut(x, symbol, word);
        const std::uint32_t leaving = __ballot_sync(kAllLanes, leaves);
        if (leaves)
        {
            *(top - 1 - __popc(leaving & above)) = word;
        }
        top -= __popc(leaving & together);
    };
    if (cols % kLanes != 0)
    {
        // The lanes that have no symbol any more put one of frequency 4096, which leaves a state as it is.
        const bool active = lane < cols % kLanes;
        put(active ? stream.table[stream.symbols[cols - cols % kLanes + lane]]
                   : Unpacked(MakeRansEncodeSymbol(kRansTotal, 0)));
    }
    std::uint64_t steps = cols / kLanes;
    for (; steps % kAhead != 0; steps--)
    {
        put(stream.table[stream.symbols[(steps - 1) * kLanes + lane]]);
    }
    if (steps == 0)
    {
        return static_cast<std::uint32_t>(stream.words + cols - top);
    }
    // The symbols of the next steps are loaded before these are put, and table entries before the first of them is.
    const std::uint8_t* next = stream.symbols + (steps - kAhead) * kLanes + lane;
    std::uint32_t symbols[kAhead];
#pragma unroll
    for (unsigned i = 0; i < kAhead; i++)
    {
        symbols[i] = next[i * kLanes];
    }
    for (; steps > 0; steps -= kAhead)
    {
        RansPutting entries[kAhead];
#pragma unroll
        for (unsigned i = 0; i < kAhead; i++)
        {
            entries[i] = stream.table[symbols[i]];
        }
        if (steps > kAhead)
        {
            next -= kAhead * kLanes;
#pragma unroll
            for (unsigned i = 0; i < kAhead; i++)
            {
                symbols[i] = next[i * kLanes];
            }
        }
#pragma unroll
        for (unsigned i = kAhead; i-- > 0;)
        {
            put(entries[i]);
        }
    }
    return static_cast<std::uint32_t>(stream.words + cols - top);
}

/// PutStreams for any number of lanes.
__device__ __forceinline__ std::uint32_t
PutStreams(unsigned lanes, const StreamSource& stream, std::uint64_t cols, std::uint32_t& x)
{
    switch (lanes)
    {
    case 32:
        return PutStreams<32>(stream, cols, x);
    case 16:
        return PutStreams<16>(stream, cols, x);
    case 8:
        return PutStreams<8>(stream, cols, x);
    case 4:
        return PutStreams<4>(stream, cols, x);
    default:
        return PutStreams<1>(stream, cols, x);
    }
}

/**
 * What EncodeRow does, for up to kStreamRows rows by a warp.
 * \param tables shared memory of the warp, Alphabet(job) entries for each row
 */
__device__ void
EncodeRows(const EncodeJob& job, std::uint64_t firstRow, unsigned rows, RansPutting* tables)
{
    const unsigned lane = threadIdx.x % kWarp;
    const unsigned alphabet = Alphabet(job);
    RowRecord records[kStreamRows];
#pragma unroll
    for (unsigned i = 0; i < kStreamRows; i++)
    {
        if (i < rows)
        {
            records[i] = ChooseBody(job, firstRow + i);
            if (records[i].lanes > 0)
            {
                const RansFrequencies& table =
                    records[i].body == RowBody::MessageTable
                        ? job.message->table
                        : job.statics.tables[(records[i].bits - 1) * kStaticTables + records[i].argument];
                MakeEncodeTable(table, alphabet, tables + i * alphabet);
            }
        }
        else
        {
            records[i].lanes = 0;
        }
    }
    __syncwarp();
    for (unsigned first = 0; first < rows;)
    {
        // Rows of as many lanes as the first of them, as many as there is room for.
        unsigned lanes = 0;
        unsigned end = first;
#pragma unroll
        for (unsigned i = 0; i < kStreamRows; i++)
        {
            lanes = i == first ? records[i].lanes : lanes;
            const bool fits = i == first || (lanes > 0 && (i + 1 - first) * lanes <= kWarp);
            end += i == end && i < rows && fits && records[i].lanes == lanes ? 1 : 0;
        }
        std::uint32_t made = 0; // words
        if (lanes > 0)
        {
            // Lanes that are left over do again what those of the first row do, and write the same.
            const unsigned mine = first + lane / lanes < end ? first + lane / lanes : first;
            const std::uint64_t row = firstRow + mine;
            const StreamSource stream{
                job.symbols + row * job.cols, tables + mine * alphabet, job.words + row * job.cols};
            std::uint32_t x;
            made = PutStreams(lanes, stream, job.cols, x);
            job.states[row * kRansMaxLanes + lane % lanes] = x;
        }
#pragma unroll
        for (unsigned i = 0; i < kStreamRows; i++)
        {
            if (i >= first && i < end)
            {
                const std::uint32_t words = __shfl_sync(kAllLanes, made, static_cast<int>((i - first) * lanes));
                const std::uint64_t bytes = lanes * sizeof(std::uint32_t) + words * std::uint64_t{sizeof(std::uint16_t)};
                const std::uint64_t packed = PackedSymbolBytes(job.cols, records[i].bits);
                RowRecord record = records[i];
                record.bodyBytes = lanes > 0 ? static_cast<std::uint32_t>(bytes) : 0;
                if (record.body == RowBody::Packed || (lanes > 0 && (bytes >= packed || !IsJustified(job.cols, bytes))))
                {
                    record.body = RowBody::Packed;
                    record.lanes = 0;
                    record.argument = 0;
                    record.bodyBytes = static_cast<std::uint32_t>(packed);
                }
                if (lane == 0)
                {
                    job.plans[firstRow + i].record = record;
                }
            }
        }
        first = end;
    }
}

__global__ void
__launch_bounds__(kStreamWarps* kWarp) StreamsKernel(const EncodeJob job)
{
    SPLITLLM_DYNAMIC_SHARED(RansPutting, tables);
    const unsigned warp = threadIdx.x / kWarp;
    const std::uint64_t stride = std::uint64_t{gridDim.x} * kStreamWarps * kStreamRows;
    for (std::uint64_t row = (std::uint64_t{blockIdx.x} * kStreamWarps + warp) * kStreamRows; row < job.rows; row += stride)
    {
        const auto rows = static_cast<unsigned>(min(job.rows - row, std::uint64_t{kStreamRows}));
        EncodeRows(job, row, rows, tables + warp * kStreamRows * Alphabet(job));
        __syncwarp();
    }
}

/// Finds the places of all rows and the size of the container, by a block.
__device__ void
LayOutRows(const EncodeJob& job, BlockScratch& scratch)
{
    MessagePlan& message = *job.message;
    unsigned long long above = 0;
    unsigned long long bodies = 0;
    for (std::uint64_t first = 0; first < job.rows; first += blockDim.x)
    {
        const std::uint64_t row = first + threadIdx.x;
        RowPlan* const plan = row < job.rows ? job.plans + row : nullptr;
        const unsigned long long rowAbove = plan == nullptr ? 0 : plan->above;
        const unsigned long long rowBody = plan == nullptr ? 0 : RoundUp4(plan->record.bodyBytes);
        unsigned long long sum = 0;
        const unsigned long long aboveAt = above + BlockExclusiveSum(rowAbove, sum, scratch.sums);
        above += sum;
        const unsigned long long bodyAt = bodies + BlockExclusiveSum(rowBody, sum, scratch.sums);
        bodies += sum;
        if (plan != nullptr)
        {
            plan->aboveAt = aboveAt;
            plan->bodyAt = bodyAt;
        }
    }
    if (threadIdx.x == 0)
    {
        if (!HasMessageTable(message))
        {
            message.tableBytes = 0;
        }
        message.above = above;
        message.size = LayoutOf(job.rows, job.cols, message.tableBytes, above, job.valueBytes, bodies).size;
    }
}

__global__ void
__launch_bounds__(kOneRowThreads) LayoutKernel(const EncodeJob job)
{
    __shared__ BlockScratch scratch;
    LayOutRows(job, scratch);
}

/// Zeros from \p first up to the next multiple of 4.
__device__ void
Fill(std::byte* container, std::uint64_t first)
{
    for (std::uint64_t at = first; at < RoundUp4(first); at++)
    {
        container[at] = std::byte{0};
    }
}

/// Writes columns and values of a row's elements above, by a block.
__device__ void
WriteAbove(const EncodeJob& job, std::uint64_t row, const ContainerLayout& layout, std::byte* container, BlockScratch& scratch)
{
    std::uint64_t at = job.plans[row].aboveAt;
    for (std::uint64_t first = 0; first < MaskWords(job); first += blockDim.x)
    {
        const std::uint64_t word = first + threadIdx.x;
        std::uint32_t mask = word < MaskWords(job) ? job.above[row * MaskWords(job) + word] : 0;
        std::uint32_t found = 0;
        std::uint64_t to = at + BlockExclusiveSum(static_cast<std::uint32_t>(__popc(mask)), found, scratch.words);
        at += found;
        for (; mask != 0; mask &= mask - 1, to++)
        {
            const std::uint64_t column = word * kWarp + static_cast<unsigned>(__ffs(static_cast<int>(mask)) - 1);
            if (ColumnBytes(job.cols) == 2)
            {
                reinterpret_cast<std::uint16_t*>(container + layout.columns)[to] = static_cast<std::uint16_t>(column);
            }
            else
            {
                reinterpret_cast<std::uint32_t*>(container + layout.columns)[to] = static_cast<std::uint32_t>(column);
            }
            const std::uint32_t bits = ExactBits(job.x[row * job.cols + column], job.parameters.exact);
            if (job.valueBytes == 2)
            {
                reinterpret_cast<std::uint16_t*>(container + layout.values)[to] = static_cast<std::uint16_t>(bits);
            }
            else
            {
                reinterpret_cast<std::uint32_t*>(container + layout.values)[to] = bits;
            }
        }
    }
}

/// Byte \p at of \p cols symbols of \p width bits each, packed.
__device__ std::byte
PackedByte(const std::uint8_t* symbols, std::uint64_t cols, unsigned width, std::uint64_t at)
{
    const std::uint64_t bit = at * 8;
    std::uint64_t i = bit / width;
    const auto skipped = static_cast<unsigned>(bit - i * width); // of the first symbol
    std::uint32_t byte = symbols[i] >> skipped;
    for (unsigned filled = width - skipped; filled < 8 && ++i < cols; filled += width)
    {
        byte |= std::uint32_t{symbols[i]} << filled;
    }
    return static_cast<std::byte>(byte);
}

/// Writes what belongs to a row, by a block; with the first row also what belongs to the message.
__device__ void
AssembleRow(const EncodeJob& job, std::uint64_t row, std::byte* container, BlockScratch& scratch)
{
    const RowPlan& plan = job.plans[row];
    const MessagePlan& message = *job.message;
    const ContainerLayout layout = LayoutOf(job.rows, job.cols, message.tableBytes, message.above, job.valueBytes, 0);
    if (row == 0)
    {
        if (threadIdx.x == 0)
        {
            *reinterpret_cast<ContainerHeader*>(container) =
                MakeContainerHeader(job.rows, job.cols, message.above > 0, message.tableBytes, job.parameters);
            Fill(container, layout.columns + message.above * ColumnBytes(job.cols));
            Fill(container, layout.values + message.above * job.valueBytes);
        }
        // the last word is filled up with zeros
        for (std::uint32_t word = threadIdx.x; word < (message.tableBytes + 3) / 4; word += blockDim.x)
        {
            reinterpret_cast<std::uint32_t*>(container + kContainerHeaderBytes)[word] = message.tableWords[word];
        }
    }
    const RowRecord record = plan.record;
    if (threadIdx.x == 0)
    {
        reinterpret_cast<RowRecord*>(container + layout.records)[row] = record;
        if (message.above > 0)
        {
            reinterpret_cast<std::uint32_t*>(container + layout.counts)[row] = plan.above;
        }
        Fill(container, layout.bodies + plan.bodyAt + record.bodyBytes);
    }
    if (plan.above > 0)
    {
        WriteAbove(job, row, layout, container, scratch);
    }
    std::byte* const body = container + layout.bodies + plan.bodyAt;
    if (record.body == RowBody::Packed)
    {
        for (std::uint64_t at = threadIdx.x; at < record.bodyBytes; at += blockDim.x)
        {
            body[at] = PackedByte(job.symbols + row * job.cols, job.cols, record.bits + 1U, at);
        }
    }
    else if (record.lanes > 0)
    {
        if (threadIdx.x < record.lanes)
        {
            reinterpret_cast<std::uint32_t*>(body)[threadIdx.x] = job.states[row * kRansMaxLanes + threadIdx.x];
        }
        const std::uint32_t words = (record.bodyBytes - record.lanes * 4U) / 2;
        auto* const to = reinterpret_cast<std::uint16_t*>(body + record.lanes * 4U);
        const std::uint16_t* const from = job.words + (row + 1) * job.cols - words;
        for (std::uint32_t i = threadIdx.x; i < words; i += blockDim.x)
        {
            to[i] = from[i];
        }
    }
}

__global__ void
__launch_bounds__(kRowThreads, 4) AssembleKernel(const EncodeJob job, std::byte* container)
{
    __shared__ BlockScratch scratch;
    for (std::uint64_t row = blockIdx.x; row < job.rows; row += gridDim.x)
    {
        AssembleRow(job, row, container, scratch);
    }
}

__global__ void
__launch_bounds__(kOneRowThreads, 1) EncodeRowKernel(const EncodeJob job, std::byte* container)
{
    __shared__ BlockScratch scratch;
    SPLITLLM_DYNAMIC_SHARED(RansPutting, tables);
    MessagePlan& message = *job.message;
    if (threadIdx.x < kRansMaxSymbols)
    {
        message.counts[threadIdx.x] = 0;
    }
    if (threadIdx.x == 0)
    {
        message.saved = 0;
        message.tableBytes = 0;
        message.refused = 0;
    }
    __syncthreads();
    QuantiseRow(job, 0, scratch);
    __syncthreads();
    if (job.parameters.entropy)
    {
        MakeMessageTable(message, scratch);
        __syncthreads();
    }
    if (threadIdx.x < kWarp)
    {
        if (job.parameters.entropy)
        {
            CountSavings(job, 0);
            __syncwarp();
        }
        EncodeRows(job, 0, 1, tables);
    }
    __syncthreads();
    LayOutRows(job, scratch);
    __syncthreads();
    AssembleRow(job, 0, container, scratch);
}

} // namespace

std::size_t
MostBytesOfRow(const EncodeJob& job)
{
    const std::uint64_t table = kTableWords * sizeof(std::uint32_t);
    // A body is no longer than packed symbols of 8 bits.
    return LayoutOf(1, job.cols, table, job.cols, job.valueBytes, RoundUp4(job.cols)).size;
}

void
LaunchQuantise(const EncodeJob& job, cudaStream_t stream)
{
    CheckCuda(cudaMemsetAsync(job.message, 0, sizeof *job.message, stream), "cudaMemsetAsync");
    Launch(QuantiseKernel, Blocks(job.rows, 1), kRowThreads, 0, stream, job);
}

void
LaunchMessageTable(const EncodeJob& job, cudaStream_t stream)
{
    Launch(MessageTableKernel, 1, kRansMaxSymbols, 0, stream, job.message);
    Launch(SavingsKernel, Blocks(job.rows, kRowThreads / kWarp), kRowThreads, 0, stream, job);
}

void
LaunchStreams(const EncodeJob& job, cudaStream_t stream)
{
    const std::size_t tableBytes = sizeof(RansPutting) << job.parameters.tabQ.bits;
    Launch(StreamsKernel,
           Blocks(job.rows, kStreamWarps * kStreamRows),
           kStreamWarps * kWarp,
           kStreamWarps * kStreamRows * tableBytes,
           stream,
           job);
}

void
LaunchLayout(const EncodeJob& job, cudaStream_t stream)
{
    Launch(LayoutKernel, 1, kOneRowThreads, 0, stream, job);
}

void
LaunchAssemble(const EncodeJob& job, std::byte* container, cudaStream_t stream)
{
    Launch(AssembleKernel, Blocks(job.rows, 1), kRowThreads, 0, stream, job, container);
}

void
LaunchEncodeRow(const EncodeJob& job, std::byte* container, cudaStream_t stream)
{
    Launch(EncodeRowKernel, 1, kOneRowThreads, sizeof(RansPutting) << job.parameters.tabQ.bits, stream, job, container);
}

} // namespace splitllm
