// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_EMULATION_DEVICE_FUNCTIONS_H
#define SPLITLLM_EMULATION_DEVICE_FUNCTIONS_H

/// What CUDA declares for device code, as far as the project uses it: the indices, the collectives, atomics and
/// arithmetic intrinsics. Everything is defined for compute capability 7.5.

#include "cuda_runtime.h"

#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

// NOLINTBEGIN(readability-identifier-naming)

// ---- Indices of the running thread ----

extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
inline constexpr int warpSize = 32;

// ---- Collectives ----

namespace splitllm::emulation
{

/// What threads of a warp or of a block do together.
enum class Collective : std::uint8_t
{
    Shuffle,
    ShuffleUp,
    ShuffleDown,
    ShuffleXor,
    Ballot,
    Any,
    All,
    SyncWarp,
    SyncThreads,
    SyncThreadsCount,
    SyncThreadsAnd,
    SyncThreadsOr,
};

/// Waits until all lanes of the mask have called this with the same collective and mask; returns what the collective
/// gives the calling lane. value: what the lane brings; lane and width: operands of a shuffle.
std::uint64_t MeetWarp(Collective collective, unsigned mask, std::uint64_t value, int lane = 0, int width = 32);

/// Waits until all threads of the block that have not exited have called this with the same collective.
int MeetBlock(Collective collective, int predicate = 0);

/// A shuffle moves 4 or 8 bytes; smaller integers are promoted as in a call of CUDA's overloads.
template <class T>
auto
ShuffleValue(Collective collective, unsigned mask, T value, int lane, int width)
{
    using Promoted = decltype(+value);
    static_assert(std::is_arithmetic_v<Promoted> && (sizeof(Promoted) == 4 || sizeof(Promoted) == 8));
    const auto promoted = static_cast<Promoted>(value);
    std::uint64_t bits = 0;
    std::memcpy(&bits, &promoted, sizeof promoted);
    bits = MeetWarp(collective, mask, bits, lane, width);
    Promoted result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

} // namespace splitllm::emulation

template <class T>
auto
__shfl_sync(unsigned mask, T value, int lane, int width = warpSize)
{
    return splitllm::emulation::ShuffleValue(splitllm::emulation::Collective::Shuffle, mask, value, lane, width);
}

template <class T>
auto
__shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize)
{
    return splitllm::emulation::ShuffleValue(splitllm::emulation::Collective::ShuffleUp,
                                             mask,
                                             value,
                                             static_cast<int>(delta),
                                             width);
}

template <class T>
auto
__shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize)
{
    return splitllm::emulation::ShuffleValue(splitllm::emulation::Collective::ShuffleDown,
                                             mask,
                                             value,
                                             static_cast<int>(delta),
                                             width);
}

template <class T>
auto
__shfl_xor_sync(unsigned mask, T value, int laneMask, int width = warpSize)
{
    return splitllm::emulation::ShuffleValue(splitllm::emulation::Collective::ShuffleXor, mask, value, laneMask, width);
}

inline unsigned
__ballot_sync(unsigned mask, int predicate)
{
    return static_cast<unsigned>(
        splitllm::emulation::MeetWarp(splitllm::emulation::Collective::Ballot, mask, predicate != 0));
}

inline int
__any_sync(unsigned mask, int predicate)
{
    return static_cast<int>(splitllm::emulation::MeetWarp(splitllm::emulation::Collective::Any, mask, predicate != 0));
}

inline int
__all_sync(unsigned mask, int predicate)
{
    return static_cast<int>(splitllm::emulation::MeetWarp(splitllm::emulation::Collective::All, mask, predicate != 0));
}

inline void
__syncwarp(unsigned mask = 0xffffffffU)
{
    splitllm::emulation::MeetWarp(splitllm::emulation::Collective::SyncWarp, mask, 0);
}

inline void
__syncthreads()
{
    splitllm::emulation::MeetBlock(splitllm::emulation::Collective::SyncThreads);
}

inline int
__syncthreads_count(int predicate)
{
    return splitllm::emulation::MeetBlock(splitllm::emulation::Collective::SyncThreadsCount, predicate);
}

inline int
__syncthreads_and(int predicate)
{
    return splitllm::emulation::MeetBlock(splitllm::emulation::Collective::SyncThreadsAnd, predicate);
}

inline int
__syncthreads_or(int predicate)
{
    return splitllm::emulation::MeetBlock(splitllm::emulation::Collective::SyncThreadsOr, predicate);
}

// ---- Memory ----

// Threads of a block take turns, so that what one writes the next one reads; the compiler must not move it.
inline void
__threadfence_block()
{
    asm volatile("" ::: "memory");
}

inline void
__threadfence()
{
    asm volatile("" ::: "memory");
}

template <class T>
T
__ldg(const T* address)
{
    return *address;
}

namespace splitllm::emulation
{

/// What an atomic of CUDA works on. Not float: the order of additions would show.
template <class T>
concept Atomic = std::same_as<T, int> || std::same_as<T, unsigned> || std::same_as<T, unsigned long long>;

} // namespace splitllm::emulation

template <splitllm::emulation::Atomic T>
T
atomicAdd(T* address, std::type_identity_t<T> value)
{
    return std::exchange(*address, static_cast<T>(static_cast<std::make_unsigned_t<T>>(*address) + value));
}

template <splitllm::emulation::Atomic T>
T
atomicMax(T* address, std::type_identity_t<T> value)
{
    return std::exchange(*address, *address < value ? value : *address);
}

template <splitllm::emulation::Atomic T>
T
atomicMin(T* address, std::type_identity_t<T> value)
{
    return std::exchange(*address, value < *address ? value : *address);
}

template <splitllm::emulation::Atomic T>
T
atomicOr(T* address, std::type_identity_t<T> value)
{
    return std::exchange(*address, *address | value);
}

template <splitllm::emulation::Atomic T>
T
atomicAnd(T* address, std::type_identity_t<T> value)
{
    return std::exchange(*address, *address & value);
}

template <splitllm::emulation::Atomic T>
T
atomicExch(T* address, std::type_identity_t<T> value)
{
    return std::exchange(*address, value);
}

template <splitllm::emulation::Atomic T>
T
atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value)
{
    return std::exchange(*address, *address == expected ? value : *address);
}

// ---- Integers ----

inline int
__popc(unsigned value)
{
    return std::popcount(value);
}

inline int
__popcll(unsigned long long value)
{
    return std::popcount(value);
}

/// The position of the lowest set bit, counted from 1; 0 without one.
inline int
__ffs(int value)
{
    return value == 0 ? 0 : std::countr_zero(static_cast<unsigned>(value)) + 1;
}

inline int
__ffsll(long long value)
{
    return value == 0 ? 0 : std::countr_zero(static_cast<unsigned long long>(value)) + 1;
}

inline int
__clz(int value)
{
    return std::countl_zero(static_cast<unsigned>(value));
}

inline int
__clzll(long long value)
{
    return std::countl_zero(static_cast<unsigned long long>(value));
}

inline unsigned
__umulhi(unsigned a, unsigned b)
{
    return static_cast<unsigned>((std::uint64_t{a} * b) >> 32);
}

inline int
__mulhi(int a, int b)
{
    return static_cast<int>((std::int64_t{a} * b) >> 32);
}

/// The low 32 bits of the product of the low 24 bits, which are signed.
inline int
__mul24(int a, int b)
{
    const auto low = [](int value) { return std::int64_t{static_cast<int>(static_cast<unsigned>(value) << 8)} >> 8; };
    return static_cast<int>(static_cast<std::uint32_t>(low(a) * low(b)));
}

inline unsigned
__umul24(unsigned a, unsigned b)
{
    return (a & 0xffffffU) * (b & 0xffffffU);
}

// ---- Numbers as bits ----

inline unsigned
__float_as_uint(float value)
{
    return std::bit_cast<unsigned>(value);
}

inline float
__uint_as_float(unsigned bits)
{
    return std::bit_cast<float>(bits);
}

inline int
__float_as_int(float value)
{
    return std::bit_cast<int>(value);
}

inline float
__int_as_float(int bits)
{
    return std::bit_cast<float>(bits);
}

// ---- Arithmetic that is rounded to nearest, ties to even, and never contracted ----

inline float
__fadd_rn(float a, float b)
{
    return a + b;
}

inline float
__fsub_rn(float a, float b)
{
    return a - b;
}

inline float
__fmul_rn(float a, float b)
{
    return a * b;
}

inline float
__fdiv_rn(float a, float b)
{
    return a / b;
}

inline float
__fsqrt_rn(float value)
{
    return std::sqrt(value);
}

inline float
__fmaf_rn(float a, float b, float c)
{
    return std::fma(a, b, c);
}

/// To the nearest integer; what is too large becomes the largest, NaN becomes 0.
inline int
__float2int_rn(float value)
{
    if (value != value)
    {
        return 0;
    }
    if (value >= 0x1p31F)
    {
        return std::numeric_limits<int>::max();
    }
    return value < -0x1p31F ? std::numeric_limits<int>::min() : static_cast<int>(std::nearbyint(value));
}

inline unsigned
__float2uint_rn(float value)
{
    if (!(value > 0.0F))
    {
        return 0;
    }
    return value >= 0x1p32F ? std::numeric_limits<unsigned>::max() : static_cast<unsigned>(std::nearbyint(value));
}

inline float
__int2float_rn(int value)
{
    return static_cast<float>(value);
}

inline float
__uint2float_rn(unsigned value)
{
    return static_cast<float>(value);
}

// ---- min and max, which CUDA has without std:: ----

#define SPLITLLM_MIN_MAX(Type)                                                                                         \
    constexpr Type min(Type a, Type b)                                                                                 \
    {                                                                                                                  \
        return b < a ? b : a;                                                                                          \
    }                                                                                                                  \
    constexpr Type max(Type a, Type b)                                                                                 \
    {                                                                                                                  \
        return a < b ? b : a;                                                                                          \
    }
SPLITLLM_MIN_MAX(int)
SPLITLLM_MIN_MAX(unsigned)
SPLITLLM_MIN_MAX(long)
SPLITLLM_MIN_MAX(unsigned long)
SPLITLLM_MIN_MAX(long long)
SPLITLLM_MIN_MAX(unsigned long long)
#undef SPLITLLM_MIN_MAX

inline float
min(float a, float b)
{
    return std::fmin(a, b);
}

inline float
max(float a, float b)
{
    return std::fmax(a, b);
}

// NOLINTEND(readability-identifier-naming)

#endif // SPLITLLM_EMULATION_DEVICE_FUNCTIONS_H
