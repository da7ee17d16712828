// SPDX-License-Identifier: GPL-2.0-only
#include "block-executor.h"
#include "cuda-emulation.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

using splitllm::emulation::Operation;

namespace
{

/// What streams have been given since a capture began, in the order in which it was given.
struct Capture
{
    cudaStream_t origin = nullptr;
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    std::vector<Operation> operations;
    std::map<cudaStream_t, std::size_t> unjoined; //!< streams that nobody waits for yet: operations up to their last
    bool invalidated = false;
};

} // namespace

struct CUstream_st
{
    std::shared_ptr<Capture> capture{}; //!< null outside a capture
};

struct CUevent_st
{
    unsigned flags = cudaEventDefault;
    bool recorded = false;
    std::chrono::steady_clock::time_point time;
    std::shared_ptr<Capture> capture; //!< that it was recorded in, null if in none
    cudaStream_t stream = nullptr;    //!< that it was recorded in
    std::size_t operations = 0;       //!< that the capture had then
};

struct CUgraph_st
{
    std::vector<Operation> operations;
};

struct CUgraphExec_st
{
    std::vector<Operation> operations;
};

namespace
{

constexpr std::size_t kDefaultDynamicShared = 48 * 1024;
constexpr std::size_t kMaxDynamicShared = 64 * 1024;
constexpr std::size_t kAlignment = 256;

/// Memory of the size asked for and no byte more, so that the address sanitizer sees what goes beyond it.
struct AlignedDelete
{
    void operator()(std::byte* memory) const
    {
        ::operator delete[](memory, std::align_val_t{kAlignment});
    }
};

struct Allocation
{
    std::unique_ptr<std::byte[], AlignedDelete> memory;
    std::size_t bytes = 0;
};

/// Objects of one kind that the caller holds as pointers.
template <class T>
class Handles
{
  public:
    T* Create(T object)
    {
        auto owned = std::make_unique<T>(std::move(object));
        T* handle = owned.get();
        m_objects.emplace(handle, std::move(owned));
        return handle;
    }

    bool Holds(const T* handle) const
    {
        return m_objects.find(handle) != m_objects.end();
    }

    bool Destroy(const T* handle)
    {
        return m_objects.erase(handle) > 0;
    }

    template <class Visit>
    void ForEach(Visit visit)
    {
        for (const auto& [handle, object] : m_objects)
        {
            visit(*object);
        }
    }

  private:
    std::map<const T*, std::unique_ptr<T>> m_objects;
};

/// The emulated device and what the runtime has made on it.
struct Device
{
    std::recursive_mutex mutex; //!< one caller at a time
    std::size_t capacity = std::size_t{8} << 30;
    std::size_t held = 0;
    std::map<std::uintptr_t, Allocation> memory;     //!< by address
    std::map<std::uintptr_t, Allocation> hostMemory; //!< page-locked, by address
    CUstream_st defaultStream;
    Handles<CUstream_st> streams;
    Handles<CUevent_st> events;
    Handles<CUgraph_st> graphs;
    Handles<CUgraphExec_st> executables;
    std::map<const void*, std::size_t> dynamicShared; //!< limits of kernels that asked for more than the default
    std::vector<std::shared_ptr<Capture>> captures;   //!< under way
    splitllm::emulation::Order order;
};

thread_local cudaError_t g_lastError = cudaSuccess;

splitllm::emulation::Order
OrderOfEnvironment()
{
    using splitllm::emulation::Order;
    const char* value = std::getenv("SPLITLLM_EMULATION_ORDER");
    const std::string text = value == nullptr ? "forward" : value;
    if (text == "forward")
    {
        return {};
    }
    if (text == "reverse")
    {
        return {.kind = Order::Kind::Reverse};
    }
    if (text.empty() || text.size() > 18 || text.find_first_not_of("0123456789") != std::string::npos)
    {
        throw std::invalid_argument("SPLITLLM_EMULATION_ORDER: forward, reverse or a number, not \"" + text + '"');
    }
    return {.kind = Order::Kind::Shuffled, .seed = std::stoull(text)};
}

Device&
TheDevice()
{
    static Device device;
    static const bool ordered = [] {
        device.order = OrderOfEnvironment();
        splitllm::emulation::RunInOrder(device.order);
        return true;
    }();
    static_cast<void>(ordered);
    return device;
}

/// The device for one caller.
class LockedDevice
{
  public:
    LockedDevice()
        : m_lock(TheDevice().mutex)
    {
    }

    Device* operator->() const
    {
        return &TheDevice();
    }

  private:
    std::lock_guard<std::recursive_mutex> m_lock;
};

/// Remembers an error as the calling thread's last one.
cudaError_t
Report(cudaError_t error)
{
    if (error != cudaSuccess)
    {
        g_lastError = error;
    }
    return error;
}

/// The stream that a handle names; null if it names none.
CUstream_st*
StreamOf(const LockedDevice& device, cudaStream_t stream)
{
    if (stream == nullptr)
    {
        return &device->defaultStream;
    }
    return device->streams.Holds(stream) ? stream : nullptr;
}

/// The allocation in which the bytes from the pointer on lie.
bool
IsInside(const std::map<std::uintptr_t, Allocation>& memory, const void* pointer, std::size_t bytes)
{
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    auto after = memory.upper_bound(address);
    if (after == memory.begin())
    {
        return false;
    }
    const auto& [start, allocation] = *std::prev(after);
    const std::uintptr_t offset = address - start;
    return offset <= allocation.bytes && bytes <= allocation.bytes - offset && (bytes == 0 || offset < allocation.bytes);
}

/// Whether a pointer points into the device's memory.
bool
IsOnDevice(const LockedDevice& device, const void* pointer)
{
    return IsInside(device->memory, pointer, 1);
}

/// Rows of bytes in memory.
struct Rows
{
    std::size_t width;
    std::size_t height;

    /// From the first byte to the last.
    std::size_t Extent(std::size_t pitch) const
    {
        return width == 0 || height == 0 ? 0 : pitch * (height - 1) + width;
    }
};

cudaError_t
CheckSide(const LockedDevice& device, const void* pointer, std::size_t bytes, bool onDevice)
{
    if (bytes == 0)
    {
        return cudaSuccess;
    }
    const bool right = onDevice ? IsInside(device->memory, pointer, bytes)
                                : pointer != nullptr && !IsOnDevice(device, pointer);
    return right ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t
Copy(void* to,
     std::size_t toPitch,
     const void* from,
     std::size_t fromPitch,
     Rows rows,
     cudaMemcpyKind kind,
     cudaStream_t stream)
{
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
    {
        return Report(cudaErrorInvalidMemcpyDirection);
    }
    if (rows.height > 1 && (toPitch < rows.width || fromPitch < rows.width))
    {
        return Report(cudaErrorInvalidPitchValue);
    }
    const auto check = [=] {
        const LockedDevice device;
        const bool toDevice = kind == cudaMemcpyDefault ? IsOnDevice(device, to)
                                                        : kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
        const bool fromDevice = kind == cudaMemcpyDefault
                                    ? IsOnDevice(device, from)
                                    : kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
        const cudaError_t error = CheckSide(device, to, rows.Extent(toPitch), toDevice);
        return error != cudaSuccess ? error : CheckSide(device, from, rows.Extent(fromPitch), fromDevice);
    };
    if (const cudaError_t error = check(); error != cudaSuccess)
    {
        return Report(error);
    }
    return splitllm::emulation::Submit(stream, [=] {
        const cudaError_t error = check();
        for (std::size_t row = 0; row < rows.height && rows.width > 0 && error == cudaSuccess; ++row)
        {
            std::memmove(static_cast<std::byte*>(to) + row * toPitch,
                         static_cast<const std::byte*>(from) + row * fromPitch,
                         rows.width);
        }
        return error;
    });
}

/// Whether a capture under way forbids a call that works outside streams; if so, the capture is spoilt.
bool
IsForbiddenByCapture(const LockedDevice& device)
{
    bool forbidden = false;
    for (const std::shared_ptr<Capture>& capture : device->captures)
    {
        if (capture->mode != cudaStreamCaptureModeRelaxed)
        {
            capture->invalidated = true;
            forbidden = true;
        }
    }
    return forbidden;
}

} // namespace

namespace splitllm::emulation
{

Order
GetOrder()
{
    const LockedDevice device;
    return device->order;
}

void
SetOrder(Order order)
{
    const LockedDevice device;
    device->order = order;
    RunInOrder(order);
}

void
SetMemory(std::size_t bytes)
{
    const LockedDevice device;
    device->capacity = bytes;
}

std::size_t
MemoryHeld()
{
    const LockedDevice device;
    return device->held;
}

cudaError_t
Submit(cudaStream_t stream, Operation operation)
{
    const LockedDevice device;
    CUstream_st* target = StreamOf(device, stream);
    if (target == nullptr)
    {
        return Report(cudaErrorInvalidResourceHandle);
    }
    if (target->capture)
    {
        if (target->capture->invalidated)
        {
            return Report(cudaErrorStreamCaptureInvalidated);
        }
        target->capture->operations.push_back(std::move(operation));
        if (stream != target->capture->origin)
        {
            target->capture->unjoined[stream] = target->capture->operations.size();
        }
        return cudaSuccess;
    }
    return Report(operation());
}

cudaError_t
LaunchThreads(const void* kernel,
              ThreadBody body,
              dim3 grid,
              dim3 block,
              std::size_t sharedBytes,
              cudaStream_t stream)
{
    const LockedDevice device;
    constexpr unsigned kMaxGridX = std::numeric_limits<int>::max();
    const bool gridFits = grid.x >= 1 && grid.y >= 1 && grid.z >= 1 && grid.x <= kMaxGridX && grid.y <= 65535 &&
                          grid.z <= 65535;
    const bool blockFits = block.x >= 1 && block.y >= 1 && block.z >= 1 && block.x <= 1024 && block.y <= 1024 &&
                           block.z <= 64 && block.x * block.y * block.z <= 1024;
    if (!gridFits || !blockFits)
    {
        return Report(cudaErrorInvalidConfiguration);
    }
    const auto limit = device->dynamicShared.find(kernel);
    if (sharedBytes > (limit == device->dynamicShared.end() ? kDefaultDynamicShared : limit->second))
    {
        return Report(cudaErrorInvalidValue);
    }
    return Submit(stream, [=, body = std::move(body)] {
        RunGrid(body, grid, block, sharedBytes);
        return cudaSuccess;
    });
}

} // namespace splitllm::emulation

// ---- Errors ----

namespace
{

struct ErrorDescription
{
    cudaError_t error;
    const char* name;
    const char* text;
};

constexpr ErrorDescription kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidPitchValue, "cudaErrorInvalidPitchValue", "invalid pitch argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice", "no kernel image for the device"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalState, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported,
     "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated,
     "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge", "operation would result in a merge of captures"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched", "capture was not ended in its stream"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation,
     "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit,
     "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent,
     "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const ErrorDescription*
Describe(cudaError_t error)
{
    const auto* found = std::find_if(std::begin(kErrors), std::end(kErrors), [error](const ErrorDescription& entry) {
        return entry.error == error;
    });
    return found == std::end(kErrors) ? nullptr : found;
}

} // namespace

const char*
cudaGetErrorName(cudaError_t error)
{
    const ErrorDescription* description = Describe(error);
    return description == nullptr ? "unrecognized error code" : description->name;
}

const char*
cudaGetErrorString(cudaError_t error)
{
    const ErrorDescription* description = Describe(error);
    return description == nullptr ? "unrecognized error code" : description->text;
}

cudaError_t
cudaGetLastError()
{
    return std::exchange(g_lastError, cudaSuccess);
}

cudaError_t
cudaPeekAtLastError()
{
    return g_lastError;
}

// ---- The device ----

cudaError_t
cudaGetDeviceCount(int* count)
{
    *count = 1;
    return cudaSuccess;
}

cudaError_t
cudaSetDevice(int device)
{
    return Report(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t
cudaGetDevice(int* device)
{
    *device = 0;
    return cudaSuccess;
}

cudaError_t
cudaGetDeviceProperties(cudaDeviceProp* properties, int device)
{
    if (device != 0)
    {
        return Report(cudaErrorInvalidDevice);
    }
    *properties = {};
    std::strcpy(properties->name, "emulated GPU");
    properties->totalGlobalMem = LockedDevice()->capacity;
    properties->sharedMemPerBlock = kDefaultDynamicShared;
    properties->regsPerBlock = 65536;
    properties->warpSize = warpSize;
    properties->memPitch = std::numeric_limits<int>::max();
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsDim[0] = 1024;
    properties->maxThreadsDim[1] = 1024;
    properties->maxThreadsDim[2] = 64;
    properties->maxGridSize[0] = std::numeric_limits<int>::max();
    properties->maxGridSize[1] = 65535;
    properties->maxGridSize[2] = 65535;
    properties->totalConstMem = 65536;
    properties->major = 7;
    properties->minor = 5;
    properties->multiProcessorCount = 4;
    properties->canMapHostMemory = 1;
    properties->concurrentKernels = 1;
    properties->asyncEngineCount = 1;
    properties->unifiedAddressing = 1;
    properties->memoryBusWidth = 256;
    properties->l2CacheSize = 4 << 20;
    properties->maxThreadsPerMultiProcessor = 1024;
    properties->sharedMemPerMultiprocessor = kMaxDynamicShared;
    properties->regsPerMultiprocessor = 65536;
    properties->sharedMemPerBlockOptin = kMaxDynamicShared;
    properties->maxBlocksPerMultiProcessor = 16;
    properties->memoryPoolsSupported = 1;
    return cudaSuccess;
}

cudaError_t
cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device)
{
    cudaDeviceProp properties;
    if (const cudaError_t error = cudaGetDeviceProperties(&properties, device); error != cudaSuccess)
    {
        return error;
    }
    const auto narrow = [](std::size_t bytes) { return static_cast<int>(bytes); };
    switch (attribute)
    {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = properties.maxThreadsPerBlock;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = narrow(properties.sharedMemPerBlock);
        return cudaSuccess;
    case cudaDevAttrWarpSize:
        *value = properties.warpSize;
        return cudaSuccess;
    case cudaDevAttrMaxRegistersPerBlock:
        *value = properties.regsPerBlock;
        return cudaSuccess;
    case cudaDevAttrClockRate:
        *value = 1000000;
        return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
        *value = properties.multiProcessorCount;
        return cudaSuccess;
    case cudaDevAttrMemoryClockRate:
        *value = 1000000;
        return cudaSuccess;
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = properties.memoryBusWidth;
        return cudaSuccess;
    case cudaDevAttrL2CacheSize:
        *value = properties.l2CacheSize;
        return cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = properties.maxThreadsPerMultiProcessor;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
        *value = properties.major;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *value = properties.minor;
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = narrow(properties.sharedMemPerMultiprocessor);
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = narrow(properties.sharedMemPerBlockOptin);
        return cudaSuccess;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
        *value = properties.maxBlocksPerMultiProcessor;
        return cudaSuccess;
    case cudaDevAttrMemoryPoolsSupported:
        *value = properties.memoryPoolsSupported;
        return cudaSuccess;
    }
    return Report(cudaErrorInvalidValue);
}

cudaError_t
cudaDriverGetVersion(int* version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t
cudaRuntimeGetVersion(int* version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t
cudaDeviceSynchronize()
{
    const LockedDevice device;
    for (const std::shared_ptr<Capture>& capture : device->captures)
    {
        capture->invalidated = true;
    }
    return Report(device->captures.empty() ? cudaSuccess : cudaErrorStreamCaptureUnsupported);
}

// ---- Memory ----

namespace
{

Allocation
Allocate(std::size_t bytes)
{
    Allocation allocation;
    allocation.memory.reset(static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{kAlignment})));
    allocation.bytes = bytes;
    std::memset(allocation.memory.get(), 0xFF, bytes); // NaN in every floating-point type
    return allocation;
}

cudaError_t
AllocateOnDevice(const LockedDevice& device, void** pointer, std::size_t bytes)
{
    *pointer = nullptr;
    if (bytes == 0)
    {
        return cudaSuccess;
    }
    if (bytes > device->capacity - std::min(device->held, device->capacity))
    {
        return cudaErrorMemoryAllocation;
    }
    Allocation allocation = Allocate(bytes);
    *pointer = allocation.memory.get();
    device->held += bytes;
    device->memory.emplace(reinterpret_cast<std::uintptr_t>(*pointer), std::move(allocation));
    return cudaSuccess;
}

cudaError_t
FreeOnDevice(const LockedDevice& device, void* pointer)
{
    if (pointer == nullptr)
    {
        return cudaSuccess;
    }
    const auto found = device->memory.find(reinterpret_cast<std::uintptr_t>(pointer));
    if (found == device->memory.end())
    {
        return cudaErrorInvalidValue;
    }
    device->held -= found->second.bytes;
    device->memory.erase(found);
    return cudaSuccess;
}

} // namespace

cudaError_t
cudaMemGetInfo(std::size_t* available, std::size_t* total)
{
    const LockedDevice device;
    *total = device->capacity;
    *available = device->capacity - std::min(device->held, device->capacity);
    return cudaSuccess;
}

cudaError_t
cudaMalloc(void** pointer, std::size_t bytes)
{
    const LockedDevice device;
    return Report(IsForbiddenByCapture(device) ? cudaErrorStreamCaptureUnsupported
                                               : AllocateOnDevice(device, pointer, bytes));
}

cudaError_t
cudaFree(void* pointer)
{
    const LockedDevice device;
    return Report(IsForbiddenByCapture(device) ? cudaErrorStreamCaptureUnsupported : FreeOnDevice(device, pointer));
}

cudaError_t
cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t stream)
{
    const LockedDevice device;
    const CUstream_st* target = StreamOf(device, stream);
    if (target == nullptr)
    {
        return Report(cudaErrorInvalidResourceHandle);
    }
    // CUDA would make the allocation part of the graph, which is not emulated
    return Report(target->capture ? cudaErrorStreamCaptureUnsupported : AllocateOnDevice(device, pointer, bytes));
}

cudaError_t
cudaFreeAsync(void* pointer, cudaStream_t stream)
{
    const LockedDevice device;
    const CUstream_st* target = StreamOf(device, stream);
    if (target == nullptr)
    {
        return Report(cudaErrorInvalidResourceHandle);
    }
    return Report(target->capture ? cudaErrorStreamCaptureUnsupported : FreeOnDevice(device, pointer));
}

cudaError_t
cudaMallocHost(void** pointer, std::size_t bytes, unsigned)
{
    const LockedDevice device;
    if (IsForbiddenByCapture(device))
    {
        return Report(cudaErrorStreamCaptureUnsupported);
    }
    *pointer = nullptr;
    if (bytes > 0)
    {
        Allocation allocation = Allocate(bytes);
        *pointer = allocation.memory.get();
        device->hostMemory.emplace(reinterpret_cast<std::uintptr_t>(*pointer), std::move(allocation));
    }
    return cudaSuccess;
}

cudaError_t
cudaHostAlloc(void** pointer, std::size_t bytes, unsigned flags)
{
    return cudaMallocHost(pointer, bytes, flags);
}

cudaError_t
cudaFreeHost(void* pointer)
{
    const LockedDevice device;
    const bool held = pointer == nullptr || device->hostMemory.erase(reinterpret_cast<std::uintptr_t>(pointer)) > 0;
    return Report(held ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t
cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
    return Copy(to, bytes, from, bytes, {.width = bytes, .height = 1}, kind, stream);
}

cudaError_t
cudaMemcpy2DAsync(void* to,
                  std::size_t toPitch,
                  const void* from,
                  std::size_t fromPitch,
                  std::size_t width,
                  std::size_t height,
                  cudaMemcpyKind kind,
                  cudaStream_t stream)
{
    return Copy(to, toPitch, from, fromPitch, {.width = width, .height = height}, kind, stream);
}

cudaError_t
cudaMemcpy2D(void* to,
             std::size_t toPitch,
             const void* from,
             std::size_t fromPitch,
             std::size_t width,
             std::size_t height,
             cudaMemcpyKind kind)
{
    const LockedDevice device;
    return IsForbiddenByCapture(device) ? Report(cudaErrorStreamCaptureUnsupported)
                                        : cudaMemcpy2DAsync(to, toPitch, from, fromPitch, width, height, kind);
}

cudaError_t
cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind)
{
    const LockedDevice device;
    return IsForbiddenByCapture(device) ? Report(cudaErrorStreamCaptureUnsupported)
                                        : cudaMemcpyAsync(to, from, bytes, kind);
}

cudaError_t
cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t stream)
{
    const auto check = [=] { return CheckSide(LockedDevice(), pointer, bytes, true); };
    if (const cudaError_t error = check(); error != cudaSuccess)
    {
        return Report(error);
    }
    return splitllm::emulation::Submit(stream, [=] {
        const cudaError_t error = check();
        if (error == cudaSuccess && bytes > 0)
        {
            std::memset(pointer, value, bytes);
        }
        return error;
    });
}

cudaError_t
cudaMemset(void* pointer, int value, std::size_t bytes)
{
    const LockedDevice device;
    return IsForbiddenByCapture(device) ? Report(cudaErrorStreamCaptureUnsupported)
                                        : cudaMemsetAsync(pointer, value, bytes);
}

cudaError_t
cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device)
{
    *pool = reinterpret_cast<cudaMemPool_t>(&TheDevice().memory);
    return Report(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t
cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr, void* value)
{
    const bool known = pool == reinterpret_cast<cudaMemPool_t>(&TheDevice().memory) && value != nullptr;
    return Report(known ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t
cudaMemPoolTrimTo(cudaMemPool_t pool, std::size_t)
{
    const bool known = pool == reinterpret_cast<cudaMemPool_t>(&TheDevice().memory);
    return Report(known ? cudaSuccess : cudaErrorInvalidValue);
}

// ---- Streams and events ----

cudaError_t
cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags)
{
    if (flags > cudaStreamNonBlocking)
    {
        return Report(cudaErrorInvalidValue);
    }
    *stream = LockedDevice()->streams.Create({});
    return cudaSuccess;
}

cudaError_t
cudaStreamCreate(cudaStream_t* stream)
{
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t
cudaStreamDestroy(cudaStream_t stream)
{
    const LockedDevice device;
    if (!device->streams.Holds(stream))
    {
        return Report(cudaErrorInvalidResourceHandle);
    }
    if (stream->capture)
    {
        return Report(cudaErrorStreamCaptureUnsupported);
    }
    device->streams.Destroy(stream);
    return cudaSuccess;
}

namespace
{

/// Waiting for a stream, which has always done its work already.
cudaError_t
AskStream(cudaStream_t stream)
{
    const LockedDevice device;
    const CUstream_st* target = StreamOf(device, stream);
    if (target == nullptr)
    {
        return Report(cudaErrorInvalidResourceHandle);
    }
    if (target->capture)
    {
        target->capture->invalidated = true;
        return Report(cudaErrorStreamCaptureUnsupported);
    }
    return cudaSuccess;
}

cudaError_t
AskEvent(cudaEvent_t event)
{
    const LockedDevice device;
    if (!device->events.Holds(event))
    {
        return Report(cudaErrorInvalidResourceHandle);
    }
    return Report(event->capture ? cudaErrorCapturedEvent : cudaSuccess);
}

} // namespace

cudaError_t
cudaStreamSynchronize(cudaStream_t stream)
{
    return AskStream(stream);
}

cudaError_t
cudaStreamQuery(cudaStream_t stream)
{
    return AskStream(stream);
}

cudaError_t
cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    const LockedDevice device;
    CUstream_st* target = StreamOf(device, stream);
    if (target == nullptr || !device->events.Holds(event))
    {
        return Report(cudaErrorInvalidResourceHandle);
    }
    if (event->capture == target->capture)
    {
        if (target->capture)
        {
            const auto found = target->capture->unjoined.find(event->stream);
            if (found != target->capture->unjoined.end() && found->second <= event->operations)
            {
                target->capture->unjoined.erase(found);
            }
        }
        return cudaSuccess;
    }
    if (!event->capture)
    {
        // a capture cannot wait for what happened before it; an event that was never recorded is no wait
        return Report(event->recorded ? cudaErrorStreamCaptureIsolation : cudaSuccess);
    }
    if (target->capture)
    {
        return Report(cudaErrorStreamCaptureMerge);
    }
    if (stream == nullptr)
    {
        return Report(cudaErrorStreamCaptureImplicit);
    }
    target->capture = event->capture;
    target->capture->unjoined[stream] = target->capture->operations.size();
    return cudaSuccess;
}

cudaError_t
cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags)
{
    CUevent_st made;
    made.flags = flags;
    *event = LockedDevice()->events.Create(made);
    return cudaSuccess;
}

cudaError_t
cudaEventCreate(cudaEvent_t* event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t
cudaEventDestroy(cudaEvent_t event)
{
    return Report(LockedDevice()->events.Destroy(event) ? cudaSuccess : cudaErrorInvalidResourceHandle);
}

cudaError_t
cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    const LockedDevice device;
    const CUstream_st* target = StreamOf(device, stream);
    if (target == nullptr || !device->events.Holds(event))
    {
        return Report(cudaErrorInvalidResourceHandle);
    }
    event->recorded = true;
    event->capture = target->capture;
    event->stream = stream;
    event->operations = target->capture ? target->capture->operations.size() : 0;
    event->time = std::chrono::steady_clock::now();
    return cudaSuccess;
}

cudaError_t
cudaEventSynchronize(cudaEvent_t event)
{
    return AskEvent(event);
}

cudaError_t
cudaEventQuery(cudaEvent_t event)
{
    return AskEvent(event);
}

cudaError_t
cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end)
{
    const LockedDevice device;
    for (const cudaEvent_t event : {start, end})
    {
        if (!device->events.Holds(event) || !event->recorded || (event->flags & cudaEventDisableTiming) != 0)
        {
            return Report(cudaErrorInvalidResourceHandle);
        }
        if (event->capture)
        {
            return Report(cudaErrorCapturedEvent);
        }
    }
    *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
    return cudaSuccess;
}

// ---- Graphs ----

cudaError_t
cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode)
{
    const LockedDevice device;
    if (stream == nullptr)
    {
        return Report(cudaErrorStreamCaptureUnsupported);
    }
    if (!device->streams.Holds(stream))
    {
        return Report(cudaErrorInvalidResourceHandle);
    }
    if (stream->capture)
    {
        return Report(cudaErrorIllegalState);
    }
    stream->capture = std::make_shared<Capture>();
    stream->capture->origin = stream;
    stream->capture->mode = mode;
    device->captures.push_back(stream->capture);
    return cudaSuccess;
}

cudaError_t
cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph)
{
    const LockedDevice device;
    *graph = nullptr;
    if (!device->streams.Holds(stream))
    {
        return Report(cudaErrorInvalidResourceHandle);
    }
    if (!stream->capture)
    {
        return Report(cudaErrorIllegalState);
    }
    if (stream->capture->origin != stream)
    {
        stream->capture->invalidated = true;
        return Report(cudaErrorStreamCaptureUnmatched);
    }
    const std::shared_ptr<Capture> capture = stream->capture;
    std::erase(device->captures, capture);
    device->streams.ForEach([&capture](CUstream_st& other) {
        if (other.capture == capture)
        {
            other.capture = nullptr;
        }
    });
    if (capture->invalidated)
    {
        return Report(cudaErrorStreamCaptureInvalidated);
    }
    if (!capture->unjoined.empty())
    {
        return Report(cudaErrorStreamCaptureUnjoined);
    }
    *graph = device->graphs.Create({std::move(capture->operations)});
    return cudaSuccess;
}

cudaError_t
cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status)
{
    const LockedDevice device;
    const CUstream_st* target = StreamOf(device, stream);
    if (target == nullptr)
    {
        return Report(cudaErrorInvalidResourceHandle);
    }
    *status = !target->capture                ? cudaStreamCaptureStatusNone
              : target->capture->invalidated ? cudaStreamCaptureStatusInvalidated
                                             : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t
cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long)
{
    const LockedDevice device;
    if (!device->graphs.Holds(graph))
    {
        return Report(cudaErrorInvalidValue);
    }
    *executable = device->executables.Create({graph->operations});
    return cudaSuccess;
}

cudaError_t
cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream)
{
    const LockedDevice device;
    if (!device->executables.Holds(executable))
    {
        return Report(cudaErrorInvalidValue);
    }
    return splitllm::emulation::Submit(stream, [operations = executable->operations] {
        for (const Operation& operation : operations)
        {
            if (const cudaError_t error = operation(); error != cudaSuccess)
            {
                return error;
            }
        }
        return cudaSuccess;
    });
}

cudaError_t
cudaGraphExecDestroy(cudaGraphExec_t executable)
{
    return Report(LockedDevice()->executables.Destroy(executable) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t
cudaGraphDestroy(cudaGraph_t graph)
{
    return Report(LockedDevice()->graphs.Destroy(graph) ? cudaSuccess : cudaErrorInvalidValue);
}

// ---- Kernels ----

cudaError_t
cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value)
{
    const LockedDevice device;
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout)
    {
        return Report(value >= -1 && value <= 100 ? cudaSuccess : cudaErrorInvalidValue);
    }
    if (value < 0 || static_cast<std::size_t>(value) > kMaxDynamicShared)
    {
        return Report(cudaErrorInvalidValue);
    }
    device->dynamicShared[kernel] = static_cast<std::size_t>(value);
    return cudaSuccess;
}
