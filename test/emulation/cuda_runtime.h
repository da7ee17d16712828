// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_EMULATION_CUDA_RUNTIME_H
#define SPLITLLM_EMULATION_CUDA_RUNTIME_H

/// Stands in for the CUDA toolkit's header of this name: the part of the runtime API (CUDA 13.0) that the project uses,
/// with the toolkit's names, values and error codes, executed on the CPU (cuda-emulation.h). Found first on the include
/// path, it makes any C++ compiler take CUDA sources that launch their kernels by a function.
#define SPLITLLM_CUDA_EMULATION 1

#include <cmath>
#include <cstddef>

// ---- Qualifiers ----

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static // one block runs at a time
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define CUDART_VERSION 13000
#define CUDART_CB

// ---- Vector types, with CUDA's sizes and alignments ----

// NOLINTBEGIN(readability-identifier-naming)
#define SPLITLLM_VECTOR_2(Name, Type, bytes)                                                                           \
    struct alignas(bytes) Name                                                                                         \
    {                                                                                                                  \
        Type x, y;                                                                                                     \
    };                                                                                                                 \
    constexpr Name make_##Name(Type x, Type y)                                                                         \
    {                                                                                                                  \
        return {x, y};                                                                                                 \
    }
#define SPLITLLM_VECTOR_3(Name, Type)                                                                                  \
    struct Name                                                                                                        \
    {                                                                                                                  \
        Type x, y, z;                                                                                                  \
    };                                                                                                                 \
    constexpr Name make_##Name(Type x, Type y, Type z)                                                                 \
    {                                                                                                                  \
        return {x, y, z};                                                                                              \
    }
#define SPLITLLM_VECTOR_4(Name, Type, bytes)                                                                           \
    struct alignas(bytes) Name                                                                                         \
    {                                                                                                                  \
        Type x, y, z, w;                                                                                               \
    };                                                                                                                 \
    constexpr Name make_##Name(Type x, Type y, Type z, Type w)                                                         \
    {                                                                                                                  \
        return {x, y, z, w};                                                                                           \
    }
SPLITLLM_VECTOR_2(char2, signed char, 2)
SPLITLLM_VECTOR_2(uchar2, unsigned char, 2)
SPLITLLM_VECTOR_2(short2, short, 4)
SPLITLLM_VECTOR_2(ushort2, unsigned short, 4)
SPLITLLM_VECTOR_2(int2, int, 8)
SPLITLLM_VECTOR_2(uint2, unsigned, 8)
SPLITLLM_VECTOR_2(float2, float, 8)
SPLITLLM_VECTOR_2(longlong2, long long, 16)
SPLITLLM_VECTOR_2(ulonglong2, unsigned long long, 16)
SPLITLLM_VECTOR_2(double2, double, 16)
SPLITLLM_VECTOR_3(int3, int)
SPLITLLM_VECTOR_3(uint3, unsigned)
SPLITLLM_VECTOR_3(float3, float)
SPLITLLM_VECTOR_4(char4, signed char, 4)
SPLITLLM_VECTOR_4(uchar4, unsigned char, 4)
SPLITLLM_VECTOR_4(short4, short, 8)
SPLITLLM_VECTOR_4(ushort4, unsigned short, 8)
SPLITLLM_VECTOR_4(int4, int, 16)
SPLITLLM_VECTOR_4(uint4, unsigned, 16)
SPLITLLM_VECTOR_4(float4, float, 16)
#undef SPLITLLM_VECTOR_2
#undef SPLITLLM_VECTOR_3
#undef SPLITLLM_VECTOR_4

/// Extents of a grid or of a block.
struct dim3
{
    unsigned x, y, z;

    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1)
        : x(x),
          y(y),
          z(z)
    {
    }

    constexpr dim3(uint3 extents)
        : x(extents.x),
          y(extents.y),
          z(extents.z)
    {
    }

    constexpr operator uint3() const
    {
        return {x, y, z};
    }
};

// ---- Errors ----

enum cudaError
{
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInitializationError = 3,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidPitchValue = 12,
    cudaErrorInvalidMemcpyDirection = 21,
    cudaErrorInsufficientDriver = 35,
    cudaErrorInvalidDeviceFunction = 98,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorIllegalState = 401,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchOutOfResources = 701,
    cudaErrorLaunchFailure = 719,
    cudaErrorNotSupported = 801,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorStreamCaptureMerge = 902,
    cudaErrorStreamCaptureUnmatched = 903,
    cudaErrorStreamCaptureUnjoined = 904,
    cudaErrorStreamCaptureIsolation = 905,
    cudaErrorStreamCaptureImplicit = 906,
    cudaErrorCapturedEvent = 907,
    cudaErrorUnknown = 999,
};
using cudaError_t = cudaError;

const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);
/// The last error of the calling thread, which is then forgotten.
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();

// ---- The device ----

/// The fields of CUDA 13.0's cudaDeviceProp that describe the emulated device.
struct cudaDeviceProp
{
    char name[256];
    std::size_t totalGlobalMem;
    std::size_t sharedMemPerBlock;
    int regsPerBlock;
    int warpSize;
    std::size_t memPitch;
    int maxThreadsPerBlock;
    int maxThreadsDim[3];
    int maxGridSize[3];
    std::size_t totalConstMem;
    int major;
    int minor;
    int multiProcessorCount;
    int integrated;
    int canMapHostMemory;
    int concurrentKernels;
    int ECCEnabled;
    int asyncEngineCount;
    int unifiedAddressing;
    int memoryBusWidth;
    int l2CacheSize;
    int maxThreadsPerMultiProcessor;
    std::size_t sharedMemPerMultiprocessor;
    int regsPerMultiprocessor;
    int managedMemory;
    int cooperativeLaunch;
    std::size_t sharedMemPerBlockOptin;
    int maxBlocksPerMultiProcessor;
    std::size_t reservedSharedMemPerBlock;
    int memoryPoolsSupported;
};

enum cudaDeviceAttr
{
    cudaDevAttrMaxThreadsPerBlock = 1,
    cudaDevAttrMaxSharedMemoryPerBlock = 8,
    cudaDevAttrWarpSize = 10,
    cudaDevAttrMaxRegistersPerBlock = 12,
    cudaDevAttrClockRate = 13,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrMemoryClockRate = 36,
    cudaDevAttrGlobalMemoryBusWidth = 37,
    cudaDevAttrL2CacheSize = 38,
    cudaDevAttrMaxThreadsPerMultiProcessor = 39,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
    cudaDevAttrMaxBlocksPerMultiprocessor = 106,
    cudaDevAttrMemoryPoolsSupported = 115,
};

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaRuntimeGetVersion(int* version);
cudaError_t cudaDeviceSynchronize();

// ---- Memory ----

using cudaStream_t = struct CUstream_st*;

enum cudaMemcpyKind
{
    cudaMemcpyHostToHost = 0,
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3,
    cudaMemcpyDefault = 4,
};

constexpr unsigned cudaHostAllocDefault = 0;
constexpr unsigned cudaHostAllocPortable = 1;
constexpr unsigned cudaHostAllocMapped = 2;
constexpr unsigned cudaHostAllocWriteCombined = 4;

using cudaMemPool_t = struct CUmemPoolHandle_st*;

enum cudaMemPoolAttr
{
    cudaMemPoolReuseFollowEventDependencies = 1,
    cudaMemPoolReuseAllowOpportunistic = 2,
    cudaMemPoolReuseAllowInternalDependencies = 3,
    cudaMemPoolAttrReleaseThreshold = 4,
};

cudaError_t cudaMemGetInfo(std::size_t* available, std::size_t* total);
cudaError_t cudaMalloc(void** pointer, std::size_t bytes);
cudaError_t cudaFree(void* pointer);
cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream);
cudaError_t cudaMallocHost(void** pointer, std::size_t bytes, unsigned flags = 0);
cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void* pointer);

template <class T>
cudaError_t
cudaMalloc(T** pointer, std::size_t bytes)
{
    return cudaMalloc(reinterpret_cast<void**>(pointer), bytes);
}

template <class T>
cudaError_t
cudaMallocAsync(T** pointer, std::size_t bytes, cudaStream_t stream)
{
    return cudaMallocAsync(reinterpret_cast<void**>(pointer), bytes, stream);
}

template <class T>
cudaError_t
cudaMallocHost(T** pointer, std::size_t bytes, unsigned flags = 0)
{
    return cudaMallocHost(reinterpret_cast<void**>(pointer), bytes, flags);
}

template <class T>
cudaError_t
cudaHostAlloc(T** pointer, std::size_t bytes, unsigned flags)
{
    return cudaHostAlloc(reinterpret_cast<void**>(pointer), bytes, flags);
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void* to,
                            const void* from,
                            std::size_t bytes,
                            cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemcpy2D(void* to,
                         std::size_t toPitch,
                         const void* from,
                         std::size_t fromPitch,
                         std::size_t width,
                         std::size_t height,
                         cudaMemcpyKind kind);
cudaError_t cudaMemcpy2DAsync(void* to,
                              std::size_t toPitch,
                              const void* from,
                              std::size_t fromPitch,
                              std::size_t width,
                              std::size_t height,
                              cudaMemcpyKind kind,
                              cudaStream_t stream = nullptr);
cudaError_t cudaMemset(void* pointer, int value, std::size_t bytes);
cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t stream = nullptr);
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void* value);
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, std::size_t bytesToKeep);

// ---- Streams and events ----

using cudaEvent_t = struct CUevent_st*;

constexpr unsigned cudaStreamDefault = 0;
constexpr unsigned cudaStreamNonBlocking = 1;
constexpr unsigned cudaEventDefault = 0;
constexpr unsigned cudaEventBlockingSync = 1;
constexpr unsigned cudaEventDisableTiming = 2;

cudaError_t cudaStreamCreate(cudaStream_t* stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreate(cudaEvent_t* event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end);

// ---- Graphs ----

using cudaGraph_t = struct CUgraph_st*;
using cudaGraphExec_t = struct CUgraphExec_st*;

enum cudaStreamCaptureMode
{
    cudaStreamCaptureModeGlobal = 0,
    cudaStreamCaptureModeThreadLocal = 1,
    cudaStreamCaptureModeRelaxed = 2,
};

enum cudaStreamCaptureStatus
{
    cudaStreamCaptureStatusNone = 0,
    cudaStreamCaptureStatusActive = 1,
    cudaStreamCaptureStatusInvalidated = 2,
};

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long flags = 0);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);

// ---- Kernels ----

enum cudaFuncAttribute
{
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaFuncAttributePreferredSharedMemoryCarveout = 9,
};

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value);

template <class... P>
cudaError_t
cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value)
{
    return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}

/// The type of an operand of cuBLAS.
enum cudaDataType_t
{
    CUDA_R_32F = 0,
    CUDA_R_16F = 2,
    CUDA_R_8I = 3,
    CUDA_R_32I = 10,
    CUDA_R_16BF = 14,
};
using cudaDataType = cudaDataType_t;

// NOLINTEND(readability-identifier-naming)

#include "device-functions.h"

#include "cuda-emulation.h"

#endif // SPLITLLM_EMULATION_CUDA_RUNTIME_H
