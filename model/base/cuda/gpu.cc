// SPDX-License-Identifier: GPL-2.0-only
#include "base/gpu.h"

#include "base/cuda/cuda-error.h"

namespace splitllm
{

std::string
WhyNoCuda()
{
    int devices = 0;
    const cudaError_t status = cudaGetDeviceCount(&devices);
    if (status != cudaSuccess || devices == 0)
    {
        const std::string why = status == cudaSuccess ? "no device" : cudaGetErrorString(status);
        return "no GPU for CUDA: " + why + "; accepted: an NVIDIA GPU of compute capability 7.5 or higher, and its driver";
    }
    cudaDeviceProp device{};
    CheckCuda(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
    if (device.major * 10 + device.minor < 75)
    {
        return "the GPU " + std::string(device.name) + " has compute capability " + std::to_string(device.major) + "." +
               std::to_string(device.minor) + "; accepted: 7.5 or higher";
    }
    return {};
}

std::string
CudaDeviceName()
{
    if (!WhyNoCuda().empty())
    {
        return {};
    }
    cudaDeviceProp device{};
    int driver = 0;
    int runtime = 0;
    CheckCuda(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
    CheckCuda(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
    CheckCuda(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
    const auto version = [](int number) {
        return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
    };
    return std::string(device.name) + ", CUDA driver " + version(driver) + ", runtime " + version(runtime);
}

} // namespace splitllm
