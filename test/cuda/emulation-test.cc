// SPDX-License-Identifier: GPL-2.0-only
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#ifdef SPLITLLM_CUDA_EMULATION

#include "support/catch.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

// The emulation's own tests: what every other test of CUDA code relies on when no GPU is there.

namespace
{

using splitllm::emulation::Launch;
using splitllm::emulation::Order;

constexpr unsigned kFull = 0xffffffffU;

/// An order for the length of a scope.
class ScopedOrder
{
  public:
    explicit ScopedOrder(Order order)
        : m_before(splitllm::emulation::GetOrder())
    {
        splitllm::emulation::SetOrder(order);
    }

    ~ScopedOrder()
    {
        splitllm::emulation::SetOrder(m_before);
    }

    ScopedOrder(const ScopedOrder&) = delete;
    ScopedOrder& operator=(const ScopedOrder&) = delete;

  private:
    Order m_before;
};

constexpr Order kForward{};
constexpr Order kReverse{.kind = Order::Kind::Reverse};

template <class Check>
void
InEveryOrder(Check check)
{
    std::vector<Order> orders{kForward, kReverse};
    for (std::uint64_t seed = 1; seed <= 5; ++seed)
    {
        orders.push_back({.kind = Order::Kind::Shuffled, .seed = seed});
    }
    for (const Order& order : orders)
    {
        const ScopedOrder scoped(order);
        INFO("order " << static_cast<int>(order.kind) << ", seed " << order.seed);
        check();
    }
}

/// What a launch throws; empty if nothing.
template <class... Parameters, class... Arguments>
std::string
FaultOf(void (*kernel)(Parameters...), dim3 grid, dim3 block, Arguments... arguments)
{
    try
    {
        Launch(kernel, grid, block, 0, nullptr, arguments...);
    }
    catch (const std::logic_error& error)
    {
        return error.what();
    }
    return "";
}

// ---- Kernels ----

__device__ int
WarpSum(int value)
{
    for (int offset = 16; offset > 0; offset /= 2)
    {
        value += __shfl_xor_sync(kFull, value, offset);
    }
    return value;
}

/// sums[b]: of the values of block b, each added once for every thread of the block.
__global__ void
SumBlocks(const int* values, int* sums)
{
    __shared__ int partial[32];
    const int sum = WarpSum(values[blockIdx.x * blockDim.x + threadIdx.x]);
    if (threadIdx.x % 32 == 0)
    {
        partial[threadIdx.x / 32] = sum;
    }
    __syncthreads();
    int total = 0;
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp)
    {
        total += partial[warp];
    }
    atomicAdd(&sums[blockIdx.x], total);
}

__global__ void
PrefixSum(int* values)
{
    int value = values[threadIdx.x];
    for (unsigned offset = 1; offset < 32; offset *= 2)
    {
        const int below = __shfl_up_sync(kFull, value, offset);
        value += threadIdx.x % 32 >= offset ? below : 0;
    }
    values[threadIdx.x] = value;
}

/// What each lane gets by each shuffle of its lane number.
struct Shuffled
{
    std::array<int, 32> indexed, up, down, crossed;
};

__global__ void
Shuffle(Shuffled* result, int operand, int width)
{
    const auto lane = static_cast<int>(threadIdx.x);
    result->indexed[threadIdx.x] = __shfl_sync(kFull, lane, lane + operand, width);
    result->up[threadIdx.x] = __shfl_up_sync(kFull, lane, static_cast<unsigned>(operand), width);
    result->down[threadIdx.x] = __shfl_down_sync(kFull, lane, static_cast<unsigned>(operand), width);
    result->crossed[threadIdx.x] = __shfl_xor_sync(kFull, lane, operand, width);
}

__global__ void
ShuffleTypes(double* doubles, unsigned long long* words, float* floats, int* promoted)
{
    const unsigned lane = threadIdx.x;
    doubles[lane] = __shfl_xor_sync(kFull, 1.0 / (lane + 1), 1);
    words[lane] = __shfl_xor_sync(kFull, 0x100000001ULL * lane, 1);
    floats[lane] = __shfl_xor_sync(kFull, -0.5F * static_cast<float>(lane), 1);
    promoted[lane] = __shfl_xor_sync(kFull, static_cast<signed char>(-static_cast<int>(lane)), 1);
}

/// Lanes that go different ways and meet again; each way has its own mask.
__global__ void
Diverge(unsigned* ballots, int* sums)
{
    const unsigned lane = threadIdx.x;
    const bool odd = lane % 2 == 1;
    const unsigned mine = __ballot_sync(kFull, odd);
    int sum = static_cast<int>(lane);
    if (odd)
    {
        for (int offset = 2; offset < 32; offset *= 2)
        {
            sum += __shfl_xor_sync(mine, sum, offset);
        }
    }
    else
    {
        sum = 100 * __any_sync(~mine, lane == 30) + 10 * __all_sync(~mine, lane < 30) + __all_sync(~mine, lane < 31);
    }
    __syncwarp();
    ballots[lane] = __ballot_sync(kFull, sum > 100 || lane == 4);
    sums[lane] = sum;
}

__global__ void
Reverse(int* values)
{
    int* staged = static_cast<int*>(splitllm::emulation::DynamicShared());
    staged[threadIdx.x] = values[threadIdx.x];
    __syncthreads();
    values[threadIdx.x] = staged[blockDim.x - 1 - threadIdx.x];
}

__global__ void
ReverseWithoutBarrier(int* values)
{
    int* staged = static_cast<int*>(splitllm::emulation::DynamicShared());
    staged[threadIdx.x] = values[threadIdx.x];
    values[threadIdx.x] = staged[blockDim.x - 1 - threadIdx.x];
}

__global__ void
KeepShared(unsigned* kept, unsigned words)
{
    auto* shared = static_cast<unsigned*>(splitllm::emulation::DynamicShared());
    for (unsigned i = threadIdx.x; i < words; i += blockDim.x)
    {
        kept[blockIdx.x * words + i] = shared[i];
        shared[i] = i;
    }
}

/// Block predicates after all threads from `first` on have left.
__global__ void
CountBlock(unsigned first, int* counts, int* ands, int* ors)
{
    const unsigned thread = threadIdx.x;
    if (thread >= first)
    {
        return;
    }
    const int count = __syncthreads_count(thread % 3 == 0);
    counts[thread] = count;
    ands[thread] = 10 * __syncthreads_and(thread < first) + __syncthreads_and(thread != 1);
    ors[thread] = 10 * __syncthreads_or(thread == 1) + __syncthreads_or(thread >= first);
}

/// Writes where each thread of a grid stands.
__global__ void
Stand(unsigned* places)
{
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    places[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1000 * block + thread;
}

__global__ void
MeetAnother()
{
    if (threadIdx.x == 3)
    {
        __ballot_sync(kFull, 1);
    }
    else
    {
        __syncwarp();
    }
}

__global__ void
ForgetHalf()
{
    if (threadIdx.x < 16)
    {
        __syncwarp();
    }
    else
    {
        __syncthreads();
    }
}

__global__ void
LeaveBefore()
{
    if (threadIdx.x == 5)
    {
        return;
    }
    __syncwarp();
}

__global__ void
ReadOutsideMask()
{
    if (threadIdx.x < 16)
    {
        __shfl_sync(0xffffU, threadIdx.x, 20);
    }
}

__global__ void
NotInMask()
{
    __syncwarp(0xfffffffeU);
}

__global__ void
MixBarriers()
{
    if (threadIdx.x < 32)
    {
        __syncthreads();
    }
    else
    {
        __syncthreads_or(1);
    }
}

} // namespace

// ---- Warps and blocks ----

TEST_CASE("Threads of an emulated block add up what a loop adds up, in every order", "[emulation]")
{
    constexpr unsigned kBlocks = 5;
    constexpr unsigned kThreads = 224;
    std::vector<int> values(std::size_t{kBlocks} * kThreads);
    for (std::size_t i = 0; i < values.size(); ++i)
    {
        values[i] = static_cast<int>(i * i % 1009) - 300;
    }
    InEveryOrder([&] {
        std::vector<int> sums(kBlocks);
        REQUIRE(Launch(SumBlocks, kBlocks, kThreads, 0, nullptr, values.data(), sums.data()) == cudaSuccess);
        for (unsigned block = 0; block < kBlocks; ++block)
        {
            const auto first = values.begin() + block * kThreads;
            CHECK(sums[block] == static_cast<int>(kThreads) * std::accumulate(first, first + kThreads, 0));
        }
    });
}

TEST_CASE("Each warp of an emulated block scans for itself", "[emulation]")
{
    InEveryOrder([] {
        std::vector<int> values(96);
        std::iota(values.begin(), values.end(), 1);
        REQUIRE(Launch(PrefixSum, 1, 96, 0, nullptr, values.data()) == cudaSuccess);
        for (int i = 0; i < 96; ++i)
        {
            const int first = i / 32 * 32 + 1;
            CHECK(values[i] == (first + i + 1) * (i + 2 - first) / 2);
        }
    });
}

TEST_CASE("Emulated shuffles stay inside their segment", "[emulation]")
{
    for (const int width : {1, 2, 4, 8, 16, 32})
    {
        for (const int operand : {0, 1, 3, 5, 16, 31})
        {
            Shuffled result{};
            REQUIRE(Launch(Shuffle, 1, 32, 0, nullptr, &result, operand, width) == cudaSuccess);
            for (int lane = 0; lane < 32; ++lane)
            {
                INFO("lane " << lane << ", width " << width << ", operand " << operand);
                const int segment = lane / width * width;
                const int crossed = lane ^ operand;
                CHECK(result.indexed[lane] == segment + (lane + operand) % width);
                CHECK(result.up[lane] == (lane - segment >= operand ? lane - operand : lane));
                CHECK(result.down[lane] == (lane - segment + operand < width ? lane + operand : lane));
                CHECK(result.crossed[lane] == (crossed < segment + width ? crossed : lane));
            }
        }
    }
}

TEST_CASE("Emulated shuffles move values of four and of eight bytes, and promote smaller ones", "[emulation]")
{
    std::array<double, 32> doubles{};
    std::array<unsigned long long, 32> words{};
    std::array<float, 32> floats{};
    std::array<int, 32> promoted{};
    REQUIRE(Launch(ShuffleTypes, 1, 32, 0, nullptr, doubles.data(), words.data(), floats.data(), promoted.data()) ==
            cudaSuccess);
    for (int lane = 0; lane < 32; ++lane)
    {
        const int other = lane ^ 1;
        CHECK(doubles[lane] == 1.0 / (other + 1));
        CHECK(words[lane] == 0x100000001ULL * static_cast<unsigned>(other));
        CHECK(floats[lane] == -0.5F * static_cast<float>(other));
        CHECK(promoted[lane] == -other);
    }
}

TEST_CASE("Lanes of an emulated warp that part meet their own and then all again", "[emulation]")
{
    InEveryOrder([] {
        std::array<unsigned, 32> ballots{};
        std::array<int, 32> sums{};
        REQUIRE(Launch(Diverge, 1, 32, 0, nullptr, ballots.data(), sums.data()) == cudaSuccess);
        for (int lane = 0; lane < 32; ++lane)
        {
            CHECK(sums[lane] == (lane % 2 == 1 ? 256 : 101)); // 1 + 3 + ... + 31
            CHECK(ballots[lane] == kFull);
        }
    });
}

TEST_CASE("An emulated barrier holds a block until all threads have come", "[emulation]")
{
    constexpr unsigned kThreads = 77;
    InEveryOrder([] {
        std::vector<int> values(kThreads);
        std::iota(values.begin(), values.end(), 0);
        REQUIRE(Launch(Reverse, 1, kThreads, kThreads * sizeof(int), nullptr, values.data()) == cudaSuccess);
        for (unsigned i = 0; i < kThreads; ++i)
        {
            CHECK(values[i] == static_cast<int>(kThreads - 1 - i));
        }
    });
}

TEST_CASE("A missing barrier shows in one of the emulation's orders", "[emulation]")
{
    constexpr unsigned kThreads = 64;
    const auto run = [](Order order) {
        const ScopedOrder scoped(order);
        std::vector<int> values(kThreads);
        std::iota(values.begin(), values.end(), 0);
        REQUIRE(Launch(ReverseWithoutBarrier, 1, kThreads, kThreads * sizeof(int), nullptr, values.data()) ==
                cudaSuccess);
        return values;
    };
    const std::vector<int> forward = run(kForward);
    const std::vector<int> reverse = run(kReverse);
    CHECK(forward != reverse);
    // the lower half reads what nobody has written, the upper half what the lower has
    CHECK(forward[0] == static_cast<int>(0xcdcdcdcdU));
    CHECK(forward[kThreads - 1] == 0);
    CHECK(reverse[0] == static_cast<int>(kThreads - 1));
    CHECK(reverse[kThreads - 1] == static_cast<int>(0xcdcdcdcdU));
}

TEST_CASE("A block finds its dynamic shared memory poisoned, not as the one before left it", "[emulation]")
{
    constexpr unsigned kWords = 37;
    std::vector<unsigned> kept(3 * kWords);
    REQUIRE(Launch(KeepShared, 3, 32, kWords * sizeof(unsigned), nullptr, kept.data(), kWords) == cudaSuccess);
    CHECK(std::count(kept.begin(), kept.end(), 0xcdcdcdcdU) == 3 * kWords);
}

TEST_CASE("An emulated barrier counts the threads that are left", "[emulation]")
{
    constexpr unsigned kThreads = 100;
    constexpr unsigned kStaying = 41;
    InEveryOrder([&] {
        std::vector<int> counts(kStaying);
        std::vector<int> ands(kStaying);
        std::vector<int> ors(kStaying);
        REQUIRE(Launch(CountBlock, 1, kThreads, 0, nullptr, kStaying, counts.data(), ands.data(), ors.data()) ==
                cudaSuccess);
        CHECK(counts == std::vector<int>(kStaying, 14)); // 0, 3, ..., 39
        CHECK(ands == std::vector<int>(kStaying, 10));
        CHECK(ors == std::vector<int>(kStaying, 10));
    });
}

TEST_CASE("Every thread of a three-dimensional grid runs once, at its own place", "[emulation]")
{
    const dim3 grid(3, 2, 4);
    const dim3 block(5, 3, 2);
    InEveryOrder([&] {
        std::vector<unsigned> places(24 * 30);
        REQUIRE(Launch(Stand, grid, block, 0, nullptr, places.data()) == cudaSuccess);
        for (unsigned i = 0; i < places.size(); ++i)
        {
            CHECK(places[i] == 1000 * (i / 30) + i % 30);
        }
    });
}

TEST_CASE("Collectives that do not fit together are errors that say who met what", "[emulation]")
{
    const std::string where = "emulated kernel, block (0,0,0): ";
    CHECK(FaultOf(MeetAnother, 1, 32) ==
          where + "thread (3,0,0) at __ballot_sync(mask 0xffffffff) meets thread (0,0,0) at __syncwarp(mask "
                  "0xffffffff)");
    CHECK(FaultOf(ForgetHalf, 1, 32) ==
          where + "no thread can go on: threads (0,0,0) to (15,0,0) wait at __syncwarp(mask 0xffffffff); threads "
                  "(16,0,0) to (31,0,0) wait at __syncthreads");
    CHECK(FaultOf(LeaveBefore, 1, 32) ==
          where + "thread (0,0,0) at __syncwarp(mask 0xffffffff) waits for thread (5,0,0), which has exited");
    CHECK(FaultOf(ReadOutsideMask, 1, 32) ==
          where + "thread (0,0,0) at __shfl_sync(mask 0xffff) reads lane 20, which its mask does not name");
    CHECK(FaultOf(NotInMask, 1, 32) ==
          where + "thread (0,0,0) at __syncwarp(mask 0xfffffffe) is not named in its mask");
    CHECK(FaultOf(MixBarriers, 1, 64) ==
          where + "thread (0,0,0) at __syncthreads meets thread (32,0,0) at __syncthreads_or");
    {
        const ScopedOrder scoped(kReverse);
        CHECK(FaultOf(LeaveBefore, 1, 33) ==
              where + "thread (32,0,0) at __syncwarp(mask 0xffffffff) names lane 1, which has exited or never was");
        CHECK(FaultOf(LeaveBefore, 2, 32).find("block (1,0,0): ") != std::string::npos);
    }
    // and nothing of it is left
    std::vector<int> values(32, 1);
    REQUIRE(Launch(PrefixSum, 1, 32, 0, nullptr, values.data()) == cudaSuccess);
    CHECK(values[31] == 32);
}

#endif // SPLITLLM_CUDA_EMULATION
