// SPDX-License-Identifier: GPL-2.0-only
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#ifdef SPLITLLM_CUDA_EMULATION

#include "address-sanitizer.h"
#include "support/catch.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <ctime>
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

/// Lazy streams for the length of a scope.
class ScopedLaziness
{
  public:
    ScopedLaziness()
    {
        splitllm::emulation::SetPace(splitllm::emulation::Pace::Lazy);
    }

    ~ScopedLaziness()
    {
        splitllm::emulation::SetPace(m_before);
    }

    ScopedLaziness(const ScopedLaziness&) = delete;
    ScopedLaziness& operator=(const ScopedLaziness&) = delete;

  private:
    splitllm::emulation::Pace m_before = splitllm::emulation::GetPace();
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

/// Values in device memory.
template <class T>
class Values
{
  public:
    explicit Values(const std::vector<T>& values)
        : m_size(values.size())
    {
        REQUIRE(cudaMalloc(&m_device, Bytes()) == cudaSuccess);
        REQUIRE(cudaMemcpy(m_device, values.data(), Bytes(), cudaMemcpyHostToDevice) == cudaSuccess);
    }

    /// Zeros.
    explicit Values(std::size_t size)
        : Values(std::vector<T>(size))
    {
    }

    ~Values()
    {
        cudaFree(m_device);
    }

    Values(const Values&) = delete;
    Values& operator=(const Values&) = delete;

    T* Device() const
    {
        return m_device;
    }

    std::vector<T> Host() const
    {
        std::vector<T> values(m_size);
        REQUIRE(cudaMemcpy(values.data(), m_device, Bytes(), cudaMemcpyDeviceToHost) == cudaSuccess);
        return values;
    }

  private:
    std::size_t Bytes() const
    {
        return m_size * sizeof(T);
    }

    std::size_t m_size;
    T* m_device = nullptr;
};

/// 0, 1, 2, ...
std::vector<int>
Numbers(std::size_t count)
{
    std::vector<int> numbers(count);
    std::iota(numbers.begin(), numbers.end(), 0);
    return numbers;
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
    ballots[lane] = __ballot_sync(kFull, sum > 200 || lane == 2 || lane == 4);
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

/// The largest of a block's values, found over and over: seven switches of every thread each time.
__global__ void
FindLargest(int* values, int rounds)
{
    __shared__ int largest[32];
    int value = values[threadIdx.x];
    for (int round = 0; round < rounds; ++round)
    {
        for (int offset = 16; offset > 0; offset /= 2)
        {
            value = max(value, __shfl_xor_sync(kFull, value, offset));
        }
        if (threadIdx.x % 32 == 0)
        {
            largest[threadIdx.x / 32] = value;
        }
        __syncthreads();
        value = largest[threadIdx.x % (blockDim.x / 32)];
        __syncthreads();
    }
    values[threadIdx.x] = value;
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
LeaveBefore(unsigned leaving)
{
    if (threadIdx.x == leaving)
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

__global__ void
Scale(float* values, float factor)
{
    values[threadIdx.x] *= factor;
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
    const Values<int> device(values);
    InEveryOrder([&] {
        const Values<int> sums(kBlocks);
        REQUIRE(Launch(SumBlocks, kBlocks, kThreads, 0, nullptr, device.Device(), sums.Device()) == cudaSuccess);
        for (unsigned block = 0; block < kBlocks; ++block)
        {
            const auto first = values.begin() + block * kThreads;
            CHECK(sums.Host()[block] == static_cast<int>(kThreads) * std::accumulate(first, first + kThreads, 0));
        }
    });
}

TEST_CASE("Each warp of an emulated block scans for itself", "[emulation]")
{
    InEveryOrder([] {
        const Values<int> values(Numbers(96));
        REQUIRE(Launch(PrefixSum, 1, 96, 0, nullptr, values.Device()) == cudaSuccess);
        const std::vector<int> sums = values.Host();
        for (int i = 0; i < 96; ++i)
        {
            const int first = i / 32 * 32;
            CHECK(sums[i] == (first + i) * (i + 1 - first) / 2);
        }
    });
}

TEST_CASE("How long an emulated thread's switch takes", "[.][emulation-speed]")
{
    for (const unsigned threads : {32U, 128U, 256U, 1024U})
    {
        const int rounds = 200000 / static_cast<int>(threads);
        double best = INFINITY;
        for (int repeat = 0; repeat < 15; ++repeat)
        {
            const Values<int> values(Numbers(threads));
            const std::clock_t start = std::clock(); // of the processor's time: other programs do not count
            REQUIRE(Launch(FindLargest, 1, threads, 0, nullptr, values.Device(), rounds) == cudaSuccess);
            const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
            best = std::min(best, 1e9 * seconds / (7.0 * rounds * threads));
            CHECK(values.Host() == std::vector<int>(threads, static_cast<int>(threads) - 1));
        }
        WARN(threads << " threads a block: " << best << " ns a switch");
    }
}

TEST_CASE("Emulated shuffles stay inside their segment", "[emulation]")
{
    for (const int width : {1, 2, 4, 8, 16, 32})
    {
        for (const int operand : {0, 1, 3, 5, 16, 31})
        {
            const Values<Shuffled> results(1);
            REQUIRE(Launch(Shuffle, 1, 32, 0, nullptr, results.Device(), operand, width) == cudaSuccess);
            const Shuffled result = results.Host()[0];
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
    const Values<double> doubles(32);
    const Values<unsigned long long> words(32);
    const Values<float> floats(32);
    const Values<int> promoted(32);
    REQUIRE(Launch(ShuffleTypes,
                   1,
                   32,
                   0,
                   nullptr,
                   doubles.Device(),
                   words.Device(),
                   floats.Device(),
                   promoted.Device()) == cudaSuccess);
    for (int lane = 0; lane < 32; ++lane)
    {
        const int other = lane ^ 1;
        CHECK(doubles.Host()[lane] == 1.0 / (other + 1));
        CHECK(words.Host()[lane] == 0x100000001ULL * static_cast<unsigned>(other));
        CHECK(floats.Host()[lane] == -0.5F * static_cast<float>(other));
        CHECK(promoted.Host()[lane] == -other);
    }
}

TEST_CASE("Lanes of an emulated warp that part meet their own and then all again", "[emulation]")
{
    InEveryOrder([] {
        const Values<unsigned> ballots(32);
        const Values<int> sums(32);
        REQUIRE(Launch(Diverge, 1, 32, 0, nullptr, ballots.Device(), sums.Device()) == cudaSuccess);
        for (int lane = 0; lane < 32; ++lane)
        {
            CHECK(sums.Host()[lane] == (lane % 2 == 1 ? 256 : 101)); // 1 + 3 + ... + 31
        }
        CHECK(ballots.Host() == std::vector<unsigned>(32, 0xaaaaaabeU)); // the odd lanes, 2 and 4
    });
}

TEST_CASE("An emulated barrier holds a block until all threads have come", "[emulation]")
{
    constexpr unsigned kThreads = 77;
    InEveryOrder([] {
        const Values<int> values(Numbers(kThreads));
        REQUIRE(Launch(Reverse, 1, kThreads, kThreads * sizeof(int), nullptr, values.Device()) == cudaSuccess);
        std::vector<int> expected = Numbers(kThreads);
        std::reverse(expected.begin(), expected.end());
        CHECK(values.Host() == expected);
    });
}

TEST_CASE("A missing barrier shows in one of the emulation's orders", "[emulation]")
{
    constexpr unsigned kThreads = 64;
    const auto run = [](Order order) {
        const ScopedOrder scoped(order);
        const Values<int> values(Numbers(kThreads));
        REQUIRE(Launch(ReverseWithoutBarrier, 1, kThreads, kThreads * sizeof(int), nullptr, values.Device()) ==
                cudaSuccess);
        return values.Host();
    };
    const std::vector<int> forward = run(kForward);
    const std::vector<int> reverse = run(kReverse);
    CHECK(forward != reverse);
    // who comes first reads what nobody has written, who comes last what the first has
    CHECK(forward[0] == static_cast<int>(0xcdcdcdcdU));
    CHECK(forward[kThreads - 1] == 0);
    CHECK(reverse[0] == static_cast<int>(kThreads - 1));
    CHECK(reverse[kThreads - 1] == static_cast<int>(0xcdcdcdcdU));
}

TEST_CASE("A block finds its dynamic shared memory poisoned, not as the one before left it", "[emulation]")
{
    constexpr unsigned kWords = 37;
    const Values<unsigned> kept(3 * kWords);
    REQUIRE(Launch(KeepShared, 3, 32, kWords * sizeof(unsigned), nullptr, kept.Device(), kWords) == cudaSuccess);
    CHECK(kept.Host() == std::vector<unsigned>(3 * kWords, 0xcdcdcdcdU));
}

TEST_CASE("An emulated barrier counts the threads that are left", "[emulation]")
{
    constexpr unsigned kThreads = 100;
    constexpr unsigned kStaying = 41;
    InEveryOrder([&] {
        const Values<int> counts(kStaying);
        const Values<int> ands(kStaying);
        const Values<int> ors(kStaying);
        REQUIRE(Launch(CountBlock,
                       1,
                       kThreads,
                       0,
                       nullptr,
                       kStaying,
                       counts.Device(),
                       ands.Device(),
                       ors.Device()) == cudaSuccess);
        CHECK(counts.Host() == std::vector<int>(kStaying, 14)); // 0, 3, ..., 39
        CHECK(ands.Host() == std::vector<int>(kStaying, 10));
        CHECK(ors.Host() == std::vector<int>(kStaying, 10));
    });
}

TEST_CASE("Every thread of a three-dimensional grid runs once, at its own place", "[emulation]")
{
    const dim3 grid(3, 2, 4);
    const dim3 block(5, 3, 2);
    InEveryOrder([&] {
        const Values<unsigned> places(24 * 30);
        REQUIRE(Launch(Stand, grid, block, 0, nullptr, places.Device()) == cudaSuccess);
        std::vector<unsigned> expected;
        for (unsigned i = 0; i < 24 * 30; ++i)
        {
            expected.push_back(1000 * (i / 30) + i % 30);
        }
        CHECK(places.Host() == expected);
    });
}

TEST_CASE("A kernel is not given memory that a GPU cannot reach", "[emulation]")
{
    std::array<float, 2> host{1, 1};
    CHECK_THROWS_AS(Launch(Scale, 1, 1, 0, nullptr, host.data(), 2.0F), std::logic_error);
    CHECK(host[0] == 1.0F);
    const Values<float> device({3.0F, 4.0F});
    CHECK(Launch(Scale, 1, 1, 0, nullptr, device.Device() + 1, 2.0F) == cudaSuccess);
    CHECK(device.Host() == std::vector<float>{3, 8});
    float* pinned = nullptr;
    REQUIRE(cudaMallocHost(&pinned, sizeof(float)) == cudaSuccess);
    *pinned = 5.0F;
    CHECK(Launch(Scale, 1, 1, 0, nullptr, pinned, 2.0F) == cudaSuccess);
    CHECK(*pinned == 10.0F);
    CHECK(cudaFreeHost(pinned) == cudaSuccess);
    CHECK_THROWS_AS(Launch(Scale, 1, 1, 0, nullptr, pinned, 2.0F), std::logic_error);
    CHECK(FaultOf(KeepShared, 1, 1, nullptr, 0U).empty()); // null is for a kernel to know
}

TEST_CASE("Collectives that do not fit together are errors that say who met what", "[emulation]")
{
    const ScopedOrder forward(kForward);
    const std::string where = "emulated kernel, block (0,0,0): ";
    CHECK(FaultOf(MeetAnother, 1, 32) ==
          where + "thread (3,0,0) at __ballot_sync(mask 0xffffffff) meets thread (0,0,0) at __syncwarp(mask "
                  "0xffffffff)");
    CHECK(FaultOf(ForgetHalf, 1, 32) ==
          where + "no thread can go on: threads (0,0,0) to (15,0,0) wait at __syncwarp(mask 0xffffffff); threads "
                  "(16,0,0) to (31,0,0) wait at __syncthreads");
    CHECK(FaultOf(LeaveBefore, 1, 32, 5U) ==
          where + "thread (0,0,0) at __syncwarp(mask 0xffffffff) waits for thread (5,0,0), which has exited");
    CHECK(FaultOf(LeaveBefore, 1, 32, 0U) ==
          where + "thread (1,0,0) at __syncwarp(mask 0xffffffff) names lane 0, which has exited or never was");
    CHECK(FaultOf(ReadOutsideMask, 1, 32) ==
          where + "thread (0,0,0) at __shfl_sync(mask 0xffff) reads lane 20, which its mask does not name");
    CHECK(FaultOf(NotInMask, 1, 32) ==
          where + "thread (0,0,0) at __syncwarp(mask 0xfffffffe) is not named in its mask");
    CHECK(FaultOf(MixBarriers, 1, 64) ==
          where + "thread (0,0,0) at __syncthreads meets thread (32,0,0) at __syncthreads_or");
    {
        const ScopedOrder scoped(kReverse);
        CHECK(FaultOf(LeaveBefore, 1, 33, 5U) ==
              where + "thread (32,0,0) at __syncwarp(mask 0xffffffff) names lane 1, which has exited or never was");
        CHECK(FaultOf(LeaveBefore, 2, 32, 5U).find("block (1,0,0): ") != std::string::npos);
    }
    // and nothing of it is left
    const Values<int> values(std::vector<int>(32, 1));
    REQUIRE(Launch(PrefixSum, 1, 32, 0, nullptr, values.Device()) == cudaSuccess);
    CHECK(values.Host()[31] == 32);
}

// ---- The runtime ----

TEST_CASE("The emulated runtime refuses launches that CUDA refuses, with CUDA's codes", "[emulation]")
{
    const Values<float> values(std::vector<float>{1.0F});
    const auto launch = [&](dim3 grid, dim3 block, std::size_t shared, cudaStream_t stream = nullptr) {
        const cudaError_t error = Launch(Scale, grid, block, shared, stream, values.Device(), 2.0F);
        CHECK(cudaPeekAtLastError() == error);
        CHECK(cudaGetLastError() == error);
        CHECK(cudaGetLastError() == cudaSuccess);
        return error;
    };
    CHECK(launch(0, 1, 0) == cudaErrorInvalidConfiguration);
    CHECK(launch(1, 0, 0) == cudaErrorInvalidConfiguration);
    CHECK(launch(1, 1025, 0) == cudaErrorInvalidConfiguration);
    CHECK(launch(1, dim3(32, 32, 2), 0) == cudaErrorInvalidConfiguration);
    CHECK(launch(1, dim3(1, 1, 65), 0) == cudaErrorInvalidConfiguration);
    CHECK(launch(dim3(1, 65536), 1, 0) == cudaErrorInvalidConfiguration);
    int elsewhere = 0;
    CHECK(launch(1, 1, 0, reinterpret_cast<cudaStream_t>(&elsewhere)) == cudaErrorInvalidResourceHandle);

    CHECK(launch(1, 1, 48 * 1024 + 1) == cudaErrorInvalidValue);
    CHECK(cudaFuncSetAttribute(Scale, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 * 1024 + 1) ==
          cudaErrorInvalidValue);
    cudaGetLastError();
    CHECK(values.Host()[0] == 1.0F); // nothing of it ran
    CHECK(cudaFuncSetAttribute(Scale, cudaFuncAttributeMaxDynamicSharedMemorySize, 50 * 1024) == cudaSuccess);
    CHECK(launch(1, 1, 50 * 1024) == cudaSuccess);
    CHECK(launch(1, 1, 50 * 1024 + 1) == cudaErrorInvalidValue);
    CHECK(launch(1, 1, 0) == cudaSuccess);
    CHECK(values.Host()[0] == 4.0F);
    CHECK(std::string(cudaGetErrorName(cudaErrorInvalidValue)) == "cudaErrorInvalidValue");
    CHECK(std::string(cudaGetErrorString(cudaErrorMemoryAllocation)) == "out of memory");
}

TEST_CASE("The emulated device says what it is", "[emulation]")
{
    int count = 0;
    CHECK(cudaGetDeviceCount(&count) == cudaSuccess);
    CHECK(count == 1);
    CHECK(cudaSetDevice(0) == cudaSuccess);
    CHECK(cudaSetDevice(1) == cudaErrorInvalidDevice);
    cudaGetLastError();
    cudaDeviceProp properties;
    CHECK(cudaGetDeviceProperties(&properties, 0) == cudaSuccess);
    CHECK(std::string(properties.name) == "emulated GPU");
    int major = 0;
    int shared = 0;
    CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess);
    CHECK(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0) == cudaSuccess);
    CHECK(10 * major + properties.minor == 75);
    CHECK(static_cast<std::size_t>(shared) == properties.sharedMemPerBlockOptin);
}

TEST_CASE("Emulated device memory starts as NaN, is counted, and has an end", "[emulation]")
{
    const std::size_t before = splitllm::emulation::MemoryHeld();
    float* values = nullptr;
    REQUIRE(cudaMalloc(&values, 7 * sizeof(float)) == cudaSuccess);
    CHECK(splitllm::emulation::MemoryHeld() == before + 28);
    std::array<float, 7> host{};
    REQUIRE(cudaMemcpy(host.data(), values, sizeof host, cudaMemcpyDeviceToHost) == cudaSuccess);
    CHECK(std::all_of(host.begin(), host.end(), [](float value) { return std::isnan(value); }));
    REQUIRE(cudaMemset(values, 0, 12) == cudaSuccess);
    REQUIRE(cudaMemcpy(host.data(), values, sizeof host, cudaMemcpyDefault) == cudaSuccess);
    CHECK(std::count(host.begin(), host.end(), 0.0F) == 3);

    std::size_t available = 0;
    std::size_t total = 0;
    REQUIRE(cudaMemGetInfo(&available, &total) == cudaSuccess);
    CHECK(total - available == before + 28);
    splitllm::emulation::SetMemory(before + 128);
    void* more = nullptr;
    CHECK(cudaMalloc(&more, 101) == cudaErrorMemoryAllocation);
    CHECK(more == nullptr);
    CHECK(cudaMallocAsync(&more, 101, nullptr) == cudaErrorMemoryAllocation);
    CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
    CHECK(cudaMallocAsync(&more, 100, nullptr) == cudaSuccess);
    CHECK(cudaFreeAsync(more, nullptr) == cudaSuccess);
    splitllm::emulation::SetMemory(total);

    CHECK(cudaFree(values) == cudaSuccess);
    CHECK(cudaFree(values) == cudaErrorInvalidValue);
    CHECK(cudaFree(nullptr) == cudaSuccess);
    CHECK(cudaGetLastError() == cudaErrorInvalidValue);
    CHECK(splitllm::emulation::MemoryHeld() == before);
}

#ifdef SPLITLLM_ADDRESS_SANITIZER
TEST_CASE("The address sanitizer keeps the host off device memory", "[emulation]")
{
    const Values<int> values(Numbers(3));
    CHECK(__asan_address_is_poisoned(values.Device()) == 1);
    CHECK(__asan_address_is_poisoned(values.Device() + 2) == 1);
    CHECK(values.Host() == Numbers(3));
    CHECK(__asan_address_is_poisoned(values.Device()) == 1);
}
#endif

TEST_CASE("Emulated copies must lie inside device memory", "[emulation]")
{
    std::byte* device = nullptr;
    REQUIRE(cudaMalloc(&device, 100) == cudaSuccess);
    std::array<std::byte, 128> host{};
    CHECK(cudaMemcpy(device + 60, host.data(), 40, cudaMemcpyHostToDevice) == cudaSuccess);
    CHECK(cudaMemcpy(device + 60, host.data(), 41, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    CHECK(cudaMemcpy(host.data(), device + 100, 1, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
    CHECK(cudaMemcpy(host.data(), host.data() + 64, 4, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
    CHECK(cudaMemcpy(device, device + 50, 4, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    CHECK(cudaMemcpy(device, device + 50, 50, cudaMemcpyDeviceToDevice) == cudaSuccess);
    CHECK(cudaMemcpy(device, nullptr, 0, cudaMemcpyHostToDevice) == cudaSuccess);
    CHECK(cudaMemset(device + 1, 0, 100) == cudaErrorInvalidValue);
    CHECK(cudaMemcpyAsync(device, host.data(), 4, static_cast<cudaMemcpyKind>(5)) == cudaErrorInvalidMemcpyDirection);
    cudaGetLastError();

    // three rows of 4 bytes, 7 bytes apart on the device, 5 on the host
    for (std::size_t i = 0; i < host.size(); ++i)
    {
        host[i] = static_cast<std::byte>(i);
    }
    CHECK(cudaMemset(device, 0, 100) == cudaSuccess);
    CHECK(cudaMemcpy2D(device + 82, 7, host.data(), 5, 4, 3, cudaMemcpyHostToDevice) == cudaSuccess);
    CHECK(cudaMemcpy2D(device + 83, 7, host.data(), 5, 4, 3, cudaMemcpyHostToDevice) == cudaErrorInvalidValue);
    CHECK(cudaMemcpy2D(device, 3, host.data(), 5, 4, 3, cudaMemcpyHostToDevice) == cudaErrorInvalidPitchValue);
    cudaGetLastError();
    std::array<std::byte, 18> back{};
    CHECK(cudaMemcpy(back.data(), device + 82, 18, cudaMemcpyDeviceToHost) == cudaSuccess);
    for (std::size_t i = 0; i < back.size(); ++i)
    {
        CHECK(back[i] == (i % 7 < 4 ? static_cast<std::byte>(i / 7 * 5 + i % 7) : std::byte{0}));
    }
    CHECK(cudaFree(device) == cudaSuccess);
    CHECK(cudaMemcpy(back.data(), device, 1, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
    cudaGetLastError();

    void* pinned = nullptr;
    CHECK(cudaMallocHost(&pinned, 10) == cudaSuccess);
    CHECK(cudaFree(pinned) == cudaErrorInvalidValue);
    CHECK(cudaFreeHost(pinned) == cudaSuccess);
    CHECK(cudaFreeHost(pinned) == cudaErrorInvalidValue);
    cudaGetLastError();
}

TEST_CASE("Emulated events tell the time between them, once recorded", "[emulation]")
{
    cudaStream_t stream = nullptr;
    cudaEvent_t start = nullptr;
    cudaEvent_t end = nullptr;
    cudaEvent_t untimed = nullptr;
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    REQUIRE(cudaEventCreate(&start) == cudaSuccess);
    REQUIRE(cudaEventCreate(&end) == cudaSuccess);
    REQUIRE(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming) == cudaSuccess);
    float milliseconds = -1.0F;
    CHECK(cudaEventRecord(start, stream) == cudaSuccess);
    CHECK(cudaEventElapsedTime(&milliseconds, start, end) == cudaErrorInvalidResourceHandle);
    const Values<float> values(std::vector<float>(1024, 1.0F));
    CHECK(Launch(Scale, 1, 1024, 0, stream, values.Device(), 3.0F) == cudaSuccess);
    CHECK(cudaEventRecord(end, stream) == cudaSuccess);
    CHECK(cudaEventSynchronize(end) == cudaSuccess);
    CHECK(cudaEventElapsedTime(&milliseconds, start, end) == cudaSuccess);
    CHECK(milliseconds > 0.0F);
    CHECK(values.Host()[1023] == 3.0F);
    float back = 0.0F;
    CHECK(cudaEventElapsedTime(&back, end, start) == cudaSuccess);
    CHECK(back == -milliseconds);
    CHECK(cudaEventRecord(untimed, stream) == cudaSuccess);
    CHECK(cudaEventElapsedTime(&back, start, untimed) == cudaErrorInvalidResourceHandle);
    CHECK(cudaEventDestroy(start) == cudaSuccess);
    CHECK(cudaEventDestroy(start) == cudaErrorInvalidResourceHandle);
    CHECK(cudaEventDestroy(end) == cudaSuccess);
    CHECK(cudaEventDestroy(untimed) == cudaSuccess);
    CHECK(cudaStreamDestroy(stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaErrorInvalidResourceHandle);
    cudaGetLastError();
}

TEST_CASE("A lazy stream does nothing before something waits for it, and then all in turn", "[emulation]")
{
    const ScopedLaziness lazy;
    const std::size_t before = splitllm::emulation::MemoryHeld();
    cudaStream_t first = nullptr;
    cudaStream_t second = nullptr;
    cudaEvent_t marked = nullptr;
    REQUIRE(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking) == cudaSuccess);
    REQUIRE(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking) == cudaSuccess);
    REQUIRE(cudaEventCreate(&marked) == cudaSuccess);
    float* device = nullptr;
    float* pinned = nullptr;
    REQUIRE(cudaMallocAsync(&device, 2 * sizeof(float), first) == cudaSuccess);
    REQUIRE(cudaMallocHost(&pinned, sizeof(float)) == cudaSuccess);
    float pageable = 3.0F;
    *pinned = 5.0F;
    CHECK(cudaMemcpyAsync(device, &pageable, sizeof(float), cudaMemcpyHostToDevice, first) == cudaSuccess);
    CHECK(cudaMemcpyAsync(device + 1, pinned, sizeof(float), cudaMemcpyHostToDevice, first) == cudaSuccess);
    pageable = 300.0F; // has been taken
    *pinned = 7.0F;    // has not
    CHECK(Launch(Scale, 1, 2, 0, first, device, 2.0F) == cudaSuccess);
    CHECK(cudaEventRecord(marked, first) == cudaSuccess);
    CHECK(Launch(Scale, 1, 2, 0, first, device, 100.0F) == cudaSuccess);
    const auto now = [&] { // the default stream does not wait for this one
        float value = 0.0F;
        CHECK(cudaMemcpy(&value, device, sizeof value, cudaMemcpyDeviceToHost) == cudaSuccess);
        return value;
    };
    CHECK(std::isnan(now()));
    CHECK(cudaEventQuery(marked) == cudaErrorNotReady);
    float elapsed = 0.0F;
    CHECK(cudaEventElapsedTime(&elapsed, marked, marked) == cudaErrorNotReady);

    // the second stream does what precedes the mark, no more
    std::array<float, 2> out{};
    CHECK(cudaStreamWaitEvent(second, marked) == cudaSuccess);
    CHECK(cudaMemcpyAsync(out.data(), device, sizeof out, cudaMemcpyDeviceToHost, second) == cudaSuccess);
    CHECK(out == std::array<float, 2>{});
    CHECK(cudaStreamSynchronize(second) == cudaSuccess);
    CHECK(out == std::array<float, 2>{6, 14});
    CHECK(cudaEventElapsedTime(&elapsed, marked, marked) == cudaSuccess);

    CHECK(cudaStreamQuery(first) == cudaErrorNotReady); // and does one thing more
    CHECK(cudaStreamQuery(first) == cudaSuccess);
    CHECK(now() == 600.0F);
    std::size_t available = 0;
    std::size_t total = 0;
    CHECK(cudaFreeAsync(device, first) == cudaSuccess);
    CHECK(cudaMemGetInfo(&available, &total) == cudaSuccess);
    CHECK(total - available == before + 8);
    CHECK(splitllm::emulation::MemoryHeld() == before); // which waits
    CHECK(cudaMemGetInfo(&available, &total) == cudaSuccess);
    CHECK(total - available == before);
    CHECK(cudaFreeHost(pinned) == cudaSuccess);
    CHECK(cudaEventDestroy(marked) == cudaSuccess);
    CHECK(cudaStreamDestroy(first) == cudaSuccess);
    CHECK(cudaStreamDestroy(second) == cudaSuccess);
    cudaGetLastError();
}

TEST_CASE("The default stream waits for blocking streams alone, however lazy", "[emulation]")
{
    const ScopedLaziness lazy;
    cudaStream_t blocking = nullptr;
    cudaStream_t other = nullptr;
    REQUIRE(cudaStreamCreate(&blocking) == cudaSuccess);
    REQUIRE(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking) == cudaSuccess);
    const Values<float> values({1, 1});
    CHECK(Launch(Scale, 1, 1, 0, blocking, values.Device(), 2.0F) == cudaSuccess);
    CHECK(Launch(Scale, 1, 1, 0, other, values.Device() + 1, 2.0F) == cudaSuccess);
    CHECK(Launch(Scale, 1, 2, 0, nullptr, values.Device(), 10.0F) == cudaSuccess);
    CHECK(values.Host() == std::vector<float>{20, 10});
    CHECK(cudaDeviceSynchronize() == cudaSuccess);
    CHECK(values.Host() == std::vector<float>{20, 20});
    // what fails comes out where the host waits
    CHECK(Launch(LeaveBefore, 1, 32, 0, other, 5U) == cudaSuccess);
    CHECK_THROWS_AS(cudaStreamSynchronize(other), std::logic_error);
    CHECK(cudaStreamSynchronize(other) == cudaSuccess);
    CHECK(cudaStreamDestroy(blocking) == cudaSuccess);
    CHECK(cudaStreamDestroy(other) == cudaSuccess);
}

// ---- Graphs ----

TEST_CASE("An emulated graph repeats what a stream was given, on what memory holds then", "[emulation]")
{
    cudaStream_t stream = nullptr;
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    float* device = nullptr;
    REQUIRE(cudaMalloc(&device, 4 * sizeof(float)) == cudaSuccess);
    std::array<float, 4> in{1, 2, 3, 4};
    std::array<float, 4> out{};
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    float factor = 2.0F;
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
    CHECK(cudaMemcpyAsync(device, in.data(), sizeof in, cudaMemcpyHostToDevice, stream) == cudaSuccess);
    CHECK(Launch(Scale, 1, 4, 0, stream, device, factor) == cudaSuccess);
    CHECK(Launch(Scale, 1, 2, 0, stream, device, 10.0F) == cudaSuccess);
    CHECK(cudaMemcpyAsync(out.data(), device, sizeof out, cudaMemcpyDeviceToHost, stream) == cudaSuccess);
    cudaStreamCaptureStatus status{};
    CHECK(cudaStreamIsCapturing(stream, &status) == cudaSuccess);
    CHECK(status == cudaStreamCaptureStatusActive);
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    CHECK(out == std::array<float, 4>{}); // nothing ran
    factor = 5.0F;                        // arguments count as they were
    REQUIRE(cudaGraphInstantiate(&executable, graph) == cudaSuccess);
    CHECK(cudaGraphDestroy(graph) == cudaSuccess);
    CHECK(cudaGraphLaunch(executable, stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(out == std::array<float, 4>{20, 40, 6, 8});
    in = {-1, 0, 1, 0.5};
    CHECK(cudaGraphLaunch(executable, stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(out == std::array<float, 4>{-20, 0, 2, 1});
    CHECK(cudaGraphExecDestroy(executable) == cudaSuccess);
    CHECK(cudaGraphLaunch(executable, stream) == cudaErrorInvalidValue);
    CHECK(cudaGraphDestroy(graph) == cudaErrorInvalidValue);
    cudaGetLastError();
    CHECK(cudaFree(device) == cudaSuccess);
    CHECK(cudaStreamDestroy(stream) == cudaSuccess);
}

TEST_CASE("What a capture forbids gives CUDA's errors and spoils it", "[emulation]")
{
    cudaStream_t stream = nullptr;
    cudaStream_t other = nullptr;
    cudaEvent_t forked = nullptr;
    cudaEvent_t joined = nullptr;
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    REQUIRE(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking) == cudaSuccess);
    REQUIRE(cudaEventCreateWithFlags(&forked, cudaEventDisableTiming) == cudaSuccess);
    REQUIRE(cudaEventCreateWithFlags(&joined, cudaEventDisableTiming) == cudaSuccess);
    const Values<float> value(std::vector<float>{1.0F});
    cudaGraph_t graph = nullptr;
    const auto begin = [&] { REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess); };
    const auto fork = [&] {
        REQUIRE(cudaEventRecord(forked, stream) == cudaSuccess);
        REQUIRE(cudaStreamWaitEvent(other, forked) == cudaSuccess);
        REQUIRE(Launch(Scale, 1, 1, 0, other, value.Device(), 3.0F) == cudaSuccess);
    };

    CHECK(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal) == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorIllegalState);

    begin();
    CHECK(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported);
    CHECK(Launch(Scale, 1, 1, 0, stream, value.Device(), 3.0F) == cudaErrorStreamCaptureInvalidated);
    CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
    CHECK(graph == nullptr);

    begin();
    void* memory = nullptr;
    CHECK(cudaMalloc(&memory, 1) == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);

    begin();
    fork();
    CHECK(cudaEventSynchronize(forked) == cudaErrorCapturedEvent);
    CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureUnjoined);

    begin();
    fork();
    CHECK(cudaEventRecord(joined, other) == cudaSuccess);
    CHECK(cudaStreamWaitEvent(stream, joined) == cudaSuccess);
    CHECK(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    CHECK(Launch(Scale, 1, 1, 0, other, value.Device(), 3.0F) == cudaSuccess); // no longer part of it
    CHECK(cudaStreamSynchronize(other) == cudaSuccess);
    CHECK(value.Host()[0] == 3.0F);
    cudaGraphExec_t executable = nullptr;
    CHECK(cudaGraphInstantiate(&executable, graph) == cudaSuccess);
    CHECK(cudaGraphLaunch(executable, stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(value.Host()[0] == 9.0F);
    CHECK(cudaGraphExecDestroy(executable) == cudaSuccess);
    CHECK(cudaGraphDestroy(graph) == cudaSuccess);

    // work after the event that was waited for is not joined
    begin();
    fork();
    CHECK(cudaEventRecord(joined, other) == cudaSuccess);
    CHECK(Launch(Scale, 1, 1, 0, other, value.Device(), 3.0F) == cudaSuccess);
    CHECK(cudaStreamWaitEvent(stream, joined) == cudaSuccess);
    CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureUnjoined);

    cudaGetLastError();
    CHECK(cudaEventDestroy(forked) == cudaSuccess);
    CHECK(cudaEventDestroy(joined) == cudaSuccess);
    CHECK(cudaStreamDestroy(other) == cudaSuccess);
    CHECK(cudaStreamDestroy(stream) == cudaSuccess);
}

// ---- cuBLAS ----

namespace
{

/// op(X) of a matrix stored column by column.
float
At(const std::vector<float>& matrix, int leading, bool transposed, int row, int column)
{
    return transposed ? matrix[row * leading + column] : matrix[column * leading + row];
}

std::vector<std::uint16_t>
HalvesOf(const std::vector<float>& values)
{
    std::vector<std::uint16_t> halves;
    for (const float value : values)
    {
        halves.push_back(__half_as_ushort(__float2half_rn(value)));
    }
    return halves;
}

/// Multiples of 1/8 up to 8: their products are exact in fp32, and they fit into fp16 and TF32.
std::vector<float>
Eighths(std::size_t count, std::uint32_t seed)
{
    std::vector<float> values(count);
    for (float& value : values)
    {
        seed = seed * 1664525U + 1013904223U;
        value = (static_cast<float>(seed >> 25) - 64.0F) / 8.0F;
    }
    return values;
}

} // namespace

TEST_CASE("Emulated cuBLAS multiplies as a plain loop does, with every transpose", "[emulation]")
{
    constexpr int kM = 5;
    constexpr int kN = 7;
    constexpr int kK = 11;
    constexpr int kBatch = 3;
    cublasHandle_t handle = nullptr;
    REQUIRE(cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS);
    for (const bool transposedA : {false, true})
    {
        for (const bool transposedB : {false, true})
        {
            for (const bool half : {false, true})
            {
                INFO("transposed: " << transposedA << transposedB << ", fp16: " << half);
                const int lda = (transposedA ? kK : kM) + 2;
                const int ldb = (transposedB ? kN : kK) + 1;
                const int ldc = kM + 3;
                const int strideA = lda * (transposedA ? kM : kK) + 4;
                const int strideB = ldb * (transposedB ? kK : kN) + 5;
                const int strideC = ldc * kN + 6;
                const std::vector<float> a = Eighths(kBatch * strideA, 1);
                const std::vector<float> b = Eighths(kBatch * strideB, 2);
                const std::vector<float> before = Eighths(kBatch * strideC, 3);
                const Values<float> floatsA(a);
                const Values<float> floatsB(b);
                const Values<std::uint16_t> halvesA(HalvesOf(a));
                const Values<std::uint16_t> halvesB(HalvesOf(b));
                const Values<float> c(before);
                const float alpha = 0.5F;
                const float beta = -2.0F;
                REQUIRE(cublasGemmStridedBatchedEx(handle,
                                                   transposedA ? CUBLAS_OP_T : CUBLAS_OP_N,
                                                   transposedB ? CUBLAS_OP_T : CUBLAS_OP_N,
                                                   kM,
                                                   kN,
                                                   kK,
                                                   &alpha,
                                                   half ? static_cast<const void*>(halvesA.Device()) : floatsA.Device(),
                                                   half ? CUDA_R_16F : CUDA_R_32F,
                                                   lda,
                                                   strideA,
                                                   half ? static_cast<const void*>(halvesB.Device()) : floatsB.Device(),
                                                   half ? CUDA_R_16F : CUDA_R_32F,
                                                   ldb,
                                                   strideB,
                                                   &beta,
                                                   c.Device(),
                                                   CUDA_R_32F,
                                                   ldc,
                                                   strideC,
                                                   kBatch,
                                                   CUBLAS_COMPUTE_32F,
                                                   CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS);
                std::vector<float> expected = before;
                for (int batch = 0; batch < kBatch; ++batch)
                {
                    const std::vector<float> itsA(a.begin() + batch * strideA, a.begin() + (batch + 1) * strideA);
                    const std::vector<float> itsB(b.begin() + batch * strideB, b.begin() + (batch + 1) * strideB);
                    for (int row = 0; row < kM; ++row)
                    {
                        for (int column = 0; column < kN; ++column)
                        {
                            float sum = 0;
                            for (int i = 0; i < kK; ++i)
                            {
                                sum += At(itsA, lda, transposedA, row, i) * At(itsB, ldb, transposedB, i, column);
                            }
                            float& result = expected[batch * strideC + column * ldc + row];
                            result = alpha * sum + beta * result;
                        }
                    }
                }
                CHECK(c.Host() == expected);
            }
        }
    }
    CHECK(cublasDestroy(handle) == CUBLAS_STATUS_SUCCESS);
}

TEST_CASE("Emulated TF32 drops thirteen bits, and what cuBLAS is not given is refused", "[emulation]")
{
    cublasHandle_t handle = nullptr;
    REQUIRE(cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS);
    const float a = 1.0F + 0x1p-10F + 0x1p-11F + 0x1p-23F;
    const float b = -3.0F;
    const float one = 1.0F;
    const float zero = 0.0F;
    const Values<float> devices({a, b, NAN});
    const auto c = [&] { return devices.Host()[2]; };
    const auto multiply = [&](cudaDataType type, cublasComputeType_t compute, cudaDataType typeB = CUDA_R_32F) {
        return cublasGemmEx(handle,
                            CUBLAS_OP_N,
                            CUBLAS_OP_N,
                            1,
                            1,
                            1,
                            &one,
                            devices.Device(),
                            type,
                            1,
                            devices.Device() + 1,
                            typeB,
                            1,
                            &zero,
                            devices.Device() + 2,
                            CUDA_R_32F,
                            1,
                            compute,
                            CUBLAS_GEMM_DEFAULT);
    };
    CHECK(multiply(CUDA_R_32F, CUBLAS_COMPUTE_32F) == CUBLAS_STATUS_SUCCESS);
    CHECK(c() == a * b); // C was no number: with beta = 0 it is not read
    CHECK(multiply(CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32) == CUBLAS_STATUS_SUCCESS);
    CHECK(c() == -3.0F * (1.0F + 0x1p-10F));
    CHECK(cublasSetMathMode(handle, CUBLAS_TF32_TENSOR_OP_MATH) == CUBLAS_STATUS_SUCCESS);
    CHECK(cudaMemset(devices.Device() + 2, 0, sizeof(float)) == cudaSuccess);
    CHECK(multiply(CUDA_R_32F, CUBLAS_COMPUTE_32F) == CUBLAS_STATUS_SUCCESS);
    CHECK(c() == -3.0F * (1.0F + 0x1p-10F));
    CHECK(multiply(CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_16BF) == CUBLAS_STATUS_NOT_SUPPORTED);
    CHECK(multiply(CUDA_R_16F, CUBLAS_COMPUTE_32F, CUDA_R_32F) == CUBLAS_STATUS_NOT_SUPPORTED);
    CHECK(multiply(CUDA_R_32F, CUBLAS_COMPUTE_16F) == CUBLAS_STATUS_NOT_SUPPORTED);
    CHECK_THROWS_AS(cublasGemmEx(handle,
                                 CUBLAS_OP_N,
                                 CUBLAS_OP_N,
                                 1,
                                 1,
                                 1,
                                 &one,
                                 &a, // the host's
                                 CUDA_R_32F,
                                 1,
                                 devices.Device() + 1,
                                 CUDA_R_32F,
                                 1,
                                 &zero,
                                 devices.Device() + 2,
                                 CUDA_R_32F,
                                 1,
                                 CUBLAS_COMPUTE_32F,
                                 CUBLAS_GEMM_DEFAULT),
                    std::logic_error);

    // in a capture it is kept for the graph
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    CHECK(cublasSetStream(handle, stream) == CUBLAS_STATUS_SUCCESS);
    CHECK(cudaMemset(devices.Device() + 2, 0, sizeof(float)) == cudaSuccess);
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
    CHECK(multiply(CUDA_R_32F, CUBLAS_COMPUTE_32F_PEDANTIC) == CUBLAS_STATUS_SUCCESS);
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    CHECK(c() == 0.0F);
    REQUIRE(cudaGraphInstantiate(&executable, graph) == cudaSuccess);
    CHECK(cudaGraphLaunch(executable, stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(c() == a * b);
    CHECK(cudaGraphExecDestroy(executable) == cudaSuccess);
    CHECK(cudaGraphDestroy(graph) == cudaSuccess);
    CHECK(cudaStreamDestroy(stream) == cudaSuccess);
    CHECK(cublasDestroy(handle) == CUBLAS_STATUS_SUCCESS);
}

// ---- Numbers ----

TEST_CASE("Emulated intrinsics give what CUDA's manual says", "[emulation]")
{
    CHECK(__float2int_rn(2.5F) == 2);
    CHECK(__float2int_rn(-3.5F) == -4);
    CHECK(__float2int_rn(3e9F) == 2147483647);
    CHECK(__float2int_rn(-3e9F) == -2147483647 - 1);
    CHECK(__float2int_rn(-0x1p31F) == -2147483647 - 1);
    CHECK(__float2int_rn(NAN) == 0);
    CHECK(__float2uint_rn(-1.0F) == 0);
    CHECK(__float2uint_rn(4294967040.0F) == 4294967040U);
    CHECK(__float2uint_rn(5e9F) == 4294967295U);
    CHECK(__popc(0xf0f00001U) == 9);
    CHECK(__ffs(0) == 0);
    CHECK(__ffs(0x40) == 7);
    CHECK(__clz(0) == 32);
    CHECK(__clz(0x8000) == 16);
    CHECK(__umulhi(0x80000000U, 6) == 3);
    CHECK(__mul24(-3, 0x1000005) == -15); // bits above the lowest 24 do not count
    CHECK(__mul24(0x800000, 2) == -0x1000000);
    CHECK(__umul24(0xff000003U, 5) == 15);
    CHECK(__half2float(__float2half_rn(65519.0F)) == 65504.0F);
    CHECK(__half_as_ushort(__float2half_rn(65520.0F)) == 0x7c00);
    CHECK(__half2float(__ushort_as_half(1)) == 0x1p-24F);
    CHECK(__bfloat162float(__float2bfloat16_rn(1.0F + 0x1p-8F)) == 1.0F);            // a tie goes to even
    CHECK(__bfloat162float(__float2bfloat16_rn(1.0F + 0x1.8p-7F)) == 1.0F + 0x1p-6F); // and this one up
    CHECK(__bfloat16_as_ushort(__float2bfloat16_rn(-INFINITY)) == 0xff80);
    int word = 5;
    CHECK(atomicAdd(&word, -7) == 5);
    CHECK(atomicMax(&word, -3) == -2);
    CHECK(atomicMin(&word, -9) == -2);
    CHECK(atomicExch(&word, 12) == -9);
    CHECK(atomicOr(&word, 3) == 12);
    CHECK(atomicAnd(&word, 6) == 15);
    CHECK(atomicCAS(&word, 5, 1) == 6);
    CHECK(atomicCAS(&word, 6, 1) == 6);
    CHECK(word == 1);
    unsigned top = 0xffffffffU;
    CHECK(atomicAdd(&top, 2) == 0xffffffffU);
    CHECK(top == 1);
}

#endif // SPLITLLM_CUDA_EMULATION
