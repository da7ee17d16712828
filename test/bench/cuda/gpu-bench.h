// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_BENCH_GPU_BENCH_H
#define SPLITLLM_BENCH_GPU_BENCH_H

#include "base/cuda/device-array.h"
#include "compute/cuda-backend.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace splitllm::bench
{

/// Exit status where there is no GPU, as automake's and CTest's programs say "skipped".
constexpr int kSkipped = 77;

/// Seconds that a GPU takes: median and the 10th and 90th percentile.
struct GpuSeconds
{
    double median;
    double low;
    double high;
};

/**
 * How long the GPU takes for what \p work puts into \p stream, without the gaps between launches: \p work is captured as
 * a graph of \p inner calls, whose replays are timed by events. It must not allocate.
 */
inline GpuSeconds
TimeOnGpu(const CudaStream& stream, const std::function<void()>& work, int inner = 20, int repeats = 15)
{
    work(); // so that what is allocated the first time is there
    stream.Synchronise();
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    CheckCuda(cudaStreamBeginCapture(stream.Get(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    for (int i = 0; i < inner; ++i)
    {
        work();
    }
    CheckCuda(cudaStreamEndCapture(stream.Get(), &graph), "cudaStreamEndCapture");
    CheckCuda(cudaGraphInstantiate(&replay, graph, 0), "cudaGraphInstantiate");
    cudaEvent_t begin = nullptr;
    cudaEvent_t end = nullptr;
    CheckCuda(cudaEventCreate(&begin), "cudaEventCreate");
    CheckCuda(cudaEventCreate(&end), "cudaEventCreate");
    std::vector<double> seconds;
    for (int i = 0; i < repeats + 3; ++i)
    {
        CheckCuda(cudaEventRecord(begin, stream.Get()), "cudaEventRecord");
        CheckCuda(cudaGraphLaunch(replay, stream.Get()), "cudaGraphLaunch");
        CheckCuda(cudaEventRecord(end, stream.Get()), "cudaEventRecord");
        CheckCuda(cudaEventSynchronize(end), "cudaEventSynchronize");
        float milliseconds = 0.0F;
        CheckCuda(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime");
        if (i >= 3) // the first warm up
        {
            seconds.push_back(static_cast<double>(milliseconds) * 1e-3 / inner);
        }
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    cudaGraphExecDestroy(replay);
    cudaGraphDestroy(graph);
    std::ranges::sort(seconds);
    return {seconds[seconds.size() / 2], seconds[seconds.size() / 10], seconds[seconds.size() * 9 / 10]};
}

/// Bytes a second that the GPU copies inside of its memory, reads and writes counted: the limit of what moves bytes.
inline double
CopyBandwidth(const std::shared_ptr<CudaStream>& stream)
{
    constexpr std::size_t kBytes = std::size_t{2} << 30; // many times the second-level cache
    const DeviceArray<std::byte> from(stream, kBytes);
    const DeviceArray<std::byte> to(stream, kBytes);
    CheckCuda(cudaMemsetAsync(from.Data(), 0x3C, kBytes, stream->Get()), "cudaMemsetAsync");
    const auto copy = [&] {
        CheckCuda(cudaMemcpyAsync(to.Data(), from.Data(), kBytes, cudaMemcpyDeviceToDevice, stream->Get()), "copy");
    };
    return 2.0 * static_cast<double>(kBytes) / TimeOnGpu(*stream, copy, 2).median;
}

/// The first line of every benchmark: what ran it. \return false, having said so, where there is no GPU
inline bool
AnnounceGpu()
{
    const std::string why = WhyNoCuda();
    std::printf("%s\n", why.empty() ? CudaDeviceName().c_str() : ("skipped: " + why).c_str());
    return why.empty();
}

} // namespace splitllm::bench

#endif // SPLITLLM_BENCH_GPU_BENCH_H
