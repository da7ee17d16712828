// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CUDA_STREAM_H
#define SPLITLLM_CUDA_STREAM_H

#include <cuda_runtime_api.h>

namespace splitllm
{

/// A queue of a GPU's work. What one stream is given runs in turn; streams run beside each other.
class CudaStream
{
  public:
    CudaStream();
    ~CudaStream();
    CudaStream(const CudaStream&) = delete;
    CudaStream& operator=(const CudaStream&) = delete;

    cudaStream_t Get() const
    {
        return m_stream;
    }

    /// Lets what comes next here wait for all that \p other was given so far. Does not hold up the host.
    void Follow(const CudaStream& other);

    /// Holds up the host until all is done. \throws CudaError, also for what failed earlier
    void Synchronise() const;

  private:
    cudaStream_t m_stream = nullptr;
    cudaEvent_t m_reached = nullptr; //!< marks a place for others to wait for
};

} // namespace splitllm

#endif // SPLITLLM_CUDA_STREAM_H
