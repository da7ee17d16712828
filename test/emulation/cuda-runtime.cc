// SPDX-License-Identifier: GPL-2.0-only
#include "address-sanitizer.h"
#include "block-executor.h"
#include "cuda-emulation.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
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

/// What a stream has been given and has not done yet.
struct Queue
{
    std::deque<Operation> pending;
    std::size_t done = 0; //!< operations

    std::size_t Given() const
    {
        return done + pending.size();
    }

    /// Does what was given up to `position`; stops at an error.
    cudaError_t RunUntil(std::size_t position);
};

/// A place in a stream's work that an event marks.
struct Recording
{
    std::shared_ptr<Queue> queue;
    std::size_t position = 0; //!< in the queue; in a capture, operations that it had
    std::chrono::steady_clock::time_point time;
    std::shared_ptr<Capture> capture; //!< null outside a capture
    cudaStream_t stream = nullptr;

    bool IsReached() const
    {
        return queue->done >= position;
    }
};

} // namespace

struct CUstream_st
{
    bool blocking = true; //!< waits for the default stream, and it for this
    std::shared_ptr<Queue> queue = std::make_shared<Queue>();
    std::shared_ptr<Capture> capture{}; //!< null outside a capture
};

struct CUevent_st
{
    unsigned flags = cudaEventDefault;
    std::shared_ptr<Recording> recording{}; //!< the latest; null before the first
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
    splitllm::emulation::Pace pace = splitllm::emulation::Pace::Eager;
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

splitllm::emulation::Pace
PaceOfEnvironment()
{
    using splitllm::emulation::Pace;
    const char* value = std::getenv("SPLITLLM_EMULATION_PACE");
    const std::string text = value == nullptr ? "eager" : value;
    if (text != "eager" && text != "lazy")
    {
        throw std::invalid_argument("SPLITLLM_EMULATION_PACE: eager or lazy, not \"" + text + '"');
    }
    return text == "lazy" ? Pace::Lazy : Pace::Eager;
}

Device&
TheDevice()
{
    static Device device;
    static const bool prepared = [] {
        device.order = OrderOfEnvironment();
        device.pace = PaceOfEnvironment();
        splitllm::emulation::RunInOrder(device.order);
        return true;
    }();
    static_cast<void>(prepared);
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

/// While it lives, the device's memory can be touched; otherwise the address sanitizer takes it for freed, as no host
/// can touch a GPU's.
class OnDevice
{
  public:
    OnDevice()
    {
        if (m_depth++ == 0)
        {
            Allow();
        }
    }

    ~OnDevice()
    {
        if (--m_depth == 0)
        {
            Forbid();
        }
    }

    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;

  private:
    static void Allow();
    static void Forbid();

    inline static int m_depth = 0; //!< operations under way, one in another
};

#ifdef SPLITLLM_ADDRESS_SANITIZER

void
OnDevice::Allow()
{
    for (const auto& [address, allocation] : TheDevice().memory)
    {
        __asan_unpoison_memory_region(allocation.memory.get(), allocation.bytes);
    }
}

void
OnDevice::Forbid()
{
    for (const auto& [address, allocation] : TheDevice().memory)
    {
        __asan_poison_memory_region(allocation.memory.get(), allocation.bytes);
    }
}

#else

void
OnDevice::Allow()
{
}

void
OnDevice::Forbid()
{
}

#endif

cudaError_t
Queue::RunUntil(std::size_t position)
{
    while (done < position)
    {
        const Operation operation = std::move(pending.front());
        pending.pop_front();
        ++done;
        const OnDevice onDevice;
        if (const cudaError_t error = operation(); error != cudaSuccess)
        {
            return error;
        }
    }
    return cudaSuccess;
}

/// Does all that the chosen streams were given.
template <class Choose>
cudaError_t
Drain(const LockedDevice& device, Choose isChosen)
{
    cudaError_t error = cudaSuccess;
    device->streams.ForEach([&](const CUstream_st& stream) {
        if (isChosen(stream) && error == cudaSuccess)
        {
            error = stream.queue->RunUntil(stream.queue->Given());
        }
    });
    return error;
}

cudaError_t
DrainAll(const LockedDevice& device)
{
    return Drain(device, [](const CUstream_st&) { return true; });
}

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

/// Whether a copy takes what it reads at once, as it does from memory of the host that is not page-locked.
bool
IsStaged(cudaStream_t stream, const void* from, std::size_t bytes)
{
    const LockedDevice device;
    const CUstream_st* target = StreamOf(device, stream);
    return device->pace == splitllm::emulation::Pace::Lazy && target != nullptr && !target->capture && bytes > 0 &&
           !IsOnDevice(device, from) && !IsInside(device->hostMemory, from, bytes);
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
    const auto check = [=](const void* source) {
        const LockedDevice device;
        const bool toDevice = kind == cudaMemcpyDefault ? IsOnDevice(device, to)
                                                        : kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
        const bool fromDevice = kind == cudaMemcpyDefault
                                    ? IsOnDevice(device, source)
                                    : kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
        const cudaError_t error = CheckSide(device, to, rows.Extent(toPitch), toDevice);
        return error != cudaSuccess ? error : CheckSide(device, source, rows.Extent(fromPitch), fromDevice);
    };
    if (const cudaError_t error = check(from); error != cudaSuccess)
    {
        return Report(error);
    }
    std::shared_ptr<std::vector<std::byte>> staged;
    if (IsStaged(stream, from, rows.Extent(fromPitch)))
    {
        const auto* first = static_cast<const std::byte*>(from);
        staged = std::make_shared<std::vector<std::byte>>(first, first + rows.Extent(fromPitch));
    }
    return splitllm::emulation::Submit(stream, [=] {
        const void* source = staged ? staged->data() : from;
        const cudaError_t error = check(source);
        for (std::size_t row = 0; row < rows.height && rows.width > 0 && error == cudaSuccess; ++row)
        {
            std::memmove(static_cast<std::byte*>(to) + row * toPitch,
                         static_cast<const std::byte*>(source) + row * fromPitch,
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

Pace
GetPace()
{
    const LockedDevice device;
    return device->pace;
}

void
SetPace(Pace pace)
{
    const LockedDevice device;
    Report(DrainAll(device));
    device->pace = pace;
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
    Report(DrainAll(device)); // what streams are yet to free is no leak
    return device->held;
}

void
CheckPointers(const std::vector<const void*>& pointers)
{
    const LockedDevice device;
    for (const void* pointer : pointers)
    {
        // one that points behind the last element is right where there are none to touch
        if (pointer != nullptr && !IsInside(device->memory, pointer, 0) && !IsInside(device->hostMemory, pointer, 0))
        {
            throw std::logic_error("emulated kernel: a pointer among its arguments leads to no memory of the device");
        }
    }
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
    if (stream == nullptr)
    {
        if (const cudaError_t error = Drain(device, [](const CUstream_st& other) { return other.blocking; });
            error != cudaSuccess)
        {
            return Report(error);
        }
    }
    target->queue->pending.push_back(std::move(operation));
    const bool waits = device->pace == Pace::Lazy && stream != nullptr;
    return Report(waits ? cudaSuccess : target->queue->RunUntil(target->queue->Given()));
}

cudaError_t
LaunchThreads(KernelCall call, dim3 grid, dim3 block, std::size_t sharedBytes, cudaStream_t stream)
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
    const auto limit = device->dynamicShared.find(call.kernel);
    if (sharedBytes > (limit == device->dynamicShared.end() ? kDefaultDynamicShared : limit->second))
    {
        return Report(cudaErrorInvalidValue);
    }
    return Submit(stream, [=, call = std::move(call)] {
        CheckPointers(call.pointers);
        RunGrid(call.body, grid, block, sharedBytes);
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
    return Report(device->captures.empty() ? DrainAll(device) : cudaErrorStreamCaptureUnsupported);
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
    const OnDevice onDevice; // so that what is new is out of the host's reach afterwards
    *pointer = nullptr;
    if (bytes == 0)
    {
        return cudaSuccess;
    }
    const auto fits = [&] { return bytes <= device->capacity - std::min(device->held, device->capacity); };
    if (!fits())
    {
        // what streams are yet to free
        if (const cudaError_t error = DrainAll(device); error != cudaSuccess || !fits())
        {
            return error != cudaSuccess ? error : cudaErrorMemoryAllocation;
        }
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
    const OnDevice onDevice;
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
    if (IsForbiddenByCapture(device))
    {
        return Report(cudaErrorStreamCaptureUnsupported);
    }
    const cudaError_t error = DrainAll(device); // waits for the device
    return Report(error != cudaSuccess ? error : FreeOnDevice(device, pointer));
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
    if (target->capture)
    {
        return Report(cudaErrorStreamCaptureUnsupported);
    }
    if (pointer != nullptr && device->memory.find(reinterpret_cast<std::uintptr_t>(pointer)) == device->memory.end())
    {
        return Report(cudaErrorInvalidValue);
    }
    return splitllm::emulation::Submit(stream, [pointer] { return FreeOnDevice(LockedDevice(), pointer); });
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
    if (const cudaError_t error = DrainAll(device); error != cudaSuccess)
    {
        return Report(error);
    }
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
    *stream = LockedDevice()->streams.Create({.blocking = flags != cudaStreamNonBlocking});
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
    const cudaError_t error = stream->queue->RunUntil(stream->queue->Given());
    device->streams.Destroy(stream);
    return Report(error);
}

namespace
{

/// How a call waits for work.
enum class Wait
{
    UntilDone,
    NotAtAll, //!< but each time that it asks, the stream does a little more
};

cudaError_t
WaitFor(Queue& queue, std::size_t position, Wait wait)
{
    if (wait == Wait::UntilDone || queue.done >= position)
    {
        return Report(queue.RunUntil(position));
    }
    const cudaError_t error = queue.RunUntil(queue.done + 1);
    return Report(error != cudaSuccess ? error : cudaErrorNotReady);
}

cudaError_t
WaitForStream(cudaStream_t stream, Wait wait)
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
    if (stream == nullptr)
    {
        return Report(Drain(device, [](const CUstream_st& other) { return other.blocking; }));
    }
    return WaitFor(*target->queue, target->queue->Given(), wait);
}

cudaError_t
WaitForEvent(cudaEvent_t event, Wait wait)
{
    const LockedDevice device;
    if (!device->events.Holds(event))
    {
        return Report(cudaErrorInvalidResourceHandle);
    }
    if (!event->recording)
    {
        return cudaSuccess;
    }
    if (event->recording->capture)
    {
        return Report(cudaErrorCapturedEvent);
    }
    return WaitFor(*event->recording->queue, event->recording->position, wait);
}

} // namespace

cudaError_t
cudaStreamSynchronize(cudaStream_t stream)
{
    return WaitForStream(stream, Wait::UntilDone);
}

cudaError_t
cudaStreamQuery(cudaStream_t stream)
{
    return WaitForStream(stream, Wait::NotAtAll);
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
    const std::shared_ptr<Recording> recording = event->recording;
    if (!recording)
    {
        return cudaSuccess;
    }
    if (!recording->capture && !target->capture)
    {
        return splitllm::emulation::Submit(stream,
                                           [recording] { return recording->queue->RunUntil(recording->position); });
    }
    if (!recording->capture)
    {
        return Report(cudaErrorStreamCaptureIsolation); // a graph cannot wait for what happened before it
    }
    if (!target->capture && stream == nullptr)
    {
        return Report(cudaErrorStreamCaptureImplicit);
    }
    Capture& capture = *recording->capture;
    if (!target->capture)
    {
        target->capture = recording->capture;
    }
    else if (target->capture != recording->capture)
    {
        return Report(cudaErrorStreamCaptureMerge);
    }
    const auto waitedFor = capture.unjoined.find(recording->stream);
    if (waitedFor != capture.unjoined.end() && waitedFor->second <= recording->position)
    {
        capture.unjoined.erase(waitedFor);
    }
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
    auto recording = std::make_shared<Recording>();
    recording->queue = target->queue;
    recording->capture = target->capture;
    recording->stream = stream;
    event->recording = recording;
    if (target->capture)
    {
        recording->position = target->capture->operations.size();
        return cudaSuccess;
    }
    recording->position = target->queue->Given() + 1; // what follows
    return splitllm::emulation::Submit(stream, [recording] {
        recording->time = std::chrono::steady_clock::now();
        return cudaSuccess;
    });
}

cudaError_t
cudaEventSynchronize(cudaEvent_t event)
{
    return WaitForEvent(event, Wait::UntilDone);
}

cudaError_t
cudaEventQuery(cudaEvent_t event)
{
    return WaitForEvent(event, Wait::NotAtAll);
}

cudaError_t
cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end)
{
    const LockedDevice device;
    for (const cudaEvent_t event : {start, end})
    {
        if (!device->events.Holds(event) || !event->recording || (event->flags & cudaEventDisableTiming) != 0)
        {
            return Report(cudaErrorInvalidResourceHandle);
        }
        if (event->recording->capture)
        {
            return Report(cudaErrorCapturedEvent);
        }
    }
    if (!start->recording->IsReached() || !end->recording->IsReached())
    {
        return Report(cudaErrorNotReady);
    }
    *milliseconds = std::chrono::duration<float, std::milli>(end->recording->time - start->recording->time).count();
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
