// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CUDA_EMULATION_H
#define SPLITLLM_CUDA_EMULATION_H

#include "cuda_runtime.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

/// Executes CUDA kernels on the CPU, thread by thread, with exact warp collectives and block barriers.
namespace splitllm::emulation
{

/// In which order the blocks of a grid and the threads of a block run. A correct kernel computes the same in each; one
/// that lacks a barrier does not. A thread runs until it waits for others.
struct Order
{
    enum class Kind
    {
        Forward,  //!< the lowest thread that can go on
        Reverse,  //!< the highest
        Shuffled, //!< any
    };

    Kind kind = Kind::Forward;
    std::uint64_t seed = 0; //!< of Shuffled
};

/// The order of later launches. At first it is what the environment variable SPLITLLM_EMULATION_ORDER says: forward (as
/// without it), reverse, or a seed; std::invalid_argument if it says anything else.
Order GetOrder();
void SetOrder(Order order);

/// When a stream does what it is given. Correct programs compute the same either way.
enum class Pace
{
    Eager, //!< at once
    Lazy,  //!< when something waits for it, so that a wait that is missing shows
};

/// The pace of all streams. At first it is what the environment variable SPLITLLM_EMULATION_PACE says: eager (as without
/// it) or lazy; std::invalid_argument if it says anything else. The default stream is always eager. Setting it waits for
/// all streams.
Pace GetPace();
void SetPace(Pace pace);

/// Sets the capacity of the device's memory; what is allocated stays. 8 GiB at first.
void SetMemory(std::size_t bytes);

/// Bytes of device memory that are allocated now.
std::size_t MemoryHeld();

/// A kernel with its arguments, for one thread.
using ThreadBody = std::function<void()>;

/// Work of a stream; what it returns is the stream's error.
using Operation = std::function<cudaError_t()>;

/// Runs the operation in the order of the stream, or keeps it if the stream is being captured. Its error becomes the
/// thread's last one.
cudaError_t Submit(cudaStream_t stream, Operation operation);

/// Launch, with the kernel's address as its identity.
cudaError_t LaunchThreads(const void* kernel,
                          ThreadBody body,
                          dim3 grid,
                          dim3 block,
                          std::size_t sharedBytes,
                          cudaStream_t stream);

/// What kernel<<<grid, block, sharedBytes, stream>>>(arguments...) does, with the error that cudaGetLastError() then
/// gives. Throws std::logic_error where threads wait for each other in a way that CUDA does not define.
template <class... Parameters, class... Arguments>
cudaError_t
Launch(void (*kernel)(Parameters...),
       dim3 grid,
       dim3 block,
       std::size_t sharedBytes,
       cudaStream_t stream,
       Arguments&&... arguments)
{
    static_assert((std::is_trivially_copyable_v<std::remove_reference_t<Parameters>> && ...),
                  "a kernel's arguments are copied to the device byte by byte");
    static_assert((!std::is_reference_v<Parameters> && ...), "a kernel cannot see the host's variables");
    std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
    return LaunchThreads(reinterpret_cast<const void*>(kernel),
                         [kernel, values] { std::apply(kernel, values); },
                         grid,
                         block,
                         sharedBytes,
                         stream);
}

/// The dynamic shared memory of the running block, aligned to 16 bytes, filled with 0xCD before each block.
void* DynamicShared();

} // namespace splitllm::emulation

#endif // SPLITLLM_CUDA_EMULATION_H
