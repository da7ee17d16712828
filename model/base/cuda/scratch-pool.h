// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SCRATCH_POOL_H
#define SPLITLLM_SCRATCH_POOL_H

#include "base/cuda/device-array.h"

#include <cstddef>
#include <map>
#include <memory>

namespace splitllm
{

class ScratchPool;

/// Memory for intermediate results on one stream. It goes back to its pool, for what the stream is given next.
class Scratch
{
  public:
    Scratch(ScratchPool& pool, DeviceArray<float> memory);
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    float* Data() const
    {
        return m_memory.Data();
    }

  private:
    ScratchPool& m_pool;
    DeviceArray<float> m_memory;
};

/// Keeps a stream's memory for intermediate results, so that the second time nothing has to be allocated (which a graph
/// that is being captured must not do).
class ScratchPool
{
  public:
    explicit ScratchPool(std::shared_ptr<CudaStream> stream);

    /// At least \p elements that hold anything. \throws OutOfMemory
    Scratch Take(std::size_t elements);

  private:
    friend class Scratch;

    std::shared_ptr<CudaStream> m_stream;
    std::multimap<std::size_t, DeviceArray<float>> m_free; //!< by size
};

} // namespace splitllm

#endif // SPLITLLM_SCRATCH_POOL_H
