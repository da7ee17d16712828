// SPDX-License-Identifier: GPL-2.0-only
#include "base/cuda/stream.h"

#include "base/cuda/cuda-error.h"

namespace splitllm
{

CudaStream::CudaStream()
{
    CheckCuda(cudaStreamCreateWithFlags(&m_stream, cudaStreamNonBlocking), "cudaStreamCreate");
    CheckCuda(cudaEventCreateWithFlags(&m_reached, cudaEventDisableTiming), "cudaEventCreate");
}

CudaStream::~CudaStream()
{
    cudaEventDestroy(m_reached);
    cudaStreamDestroy(m_stream);
}

void
CudaStream::Follow(const CudaStream& other)
{
    if (&other == this)
    {
        return;
    }
    CheckCuda(cudaEventRecord(other.m_reached, other.m_stream), "cudaEventRecord");
    CheckCuda(cudaStreamWaitEvent(m_stream, other.m_reached, 0), "cudaStreamWaitEvent");
}

void
CudaStream::Synchronise() const
{
    CheckCuda(cudaStreamSynchronize(m_stream), "cudaStreamSynchronize");
}

} // namespace splitllm
