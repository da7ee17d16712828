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
#include <vector>

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

/// Bytes of device memory that are allocated when all streams have done their work, for which it waits.
std::size_t MemoryHeld();

/// A kernel with its arguments, for one thread.
using ThreadBody = std::function<void()>;

/// Work of a stream; what it returns is the stream's error.
using Operation = std::function<cudaError_t()>;

/// Runs the operation in the order of the stream, or keeps it if the stream is being captured. Its error becomes the
/// thread's last one.
cudaError_t Submit(cudaStream_t stream, Operation operation);

/// Throws std::logic_error if a pointer leads neither into the device's memory nor into page-locked memory, where alone
/// a GPU can read and write. A null pointer is no fault.
void CheckPointers(const std::vector<const void*>& pointers);

/// A kernel and its arguments.
struct KernelCall
{
    const void* kernel = nullptr;      //!< what it is known by
    std::vector<const void*> pointers; //!< those of its arguments that are pointers
    ThreadBody body;

    /// Keeps an argument that is a pointer.
    template <class T>
    void Note(const T& argument)
    {
        if constexpr (std::is_pointer_v<T>)
        {
            pointers.push_back(argument);
        }
    }
};

/// Launch, whatever the kernel's parameters.
cudaError_t LaunchThreads(KernelCall call, dim3 grid, dim3 block, std::size_t sharedBytes, cudaStream_t stream);

/// What kernel<<<grid, block, sharedBytes, stream>>>(arguments...) does, with the error that cudaGetLastError() then
/// gives. Throws std::logic_error where threads wait for each other in a way that CUDA does not define, and where
/// CheckPointers does for an argument.
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
    const std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
    KernelCall call{reinterpret_cast<const void*>(kernel), {}, [kernel, values] { std::apply(kernel, values); }};
    std::apply([&](const Parameters&... value) { (call.Note(value), ...); }, values);
    return LaunchThreads(std::move(call), grid, block, sharedBytes, stream);
}

/// The dynamic shared memory of the running block, aligned to 16 bytes, filled with 0xCD before each block.
void* DynamicShared();

} // namespace splitllm::emulation

#endif // SPLITLLM_CUDA_EMULATION_H
