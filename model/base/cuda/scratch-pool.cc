// SPDX-License-Identifier: GPL-2.0-only
#include "base/cuda/scratch-pool.h"

#include "base/out-of-memory.h"

#include <utility>

namespace splitllm
{

namespace
{

/// Sizes that are close to each other share memory.
std::size_t
Rounded(std::size_t elements)
{
    constexpr std::size_t kStep = std::size_t{1} << 12;
    return (elements + kStep - 1) / kStep * kStep;
}

} // namespace

Scratch::Scratch(ScratchPool& pool, DeviceArray<float> memory)
    : m_pool(pool),
      m_memory(std::move(memory))
{
}

Scratch::~Scratch()
{
    const std::size_t size = m_memory.Size();
    m_pool.m_free.emplace(size, std::move(m_memory));
}

ScratchPool::ScratchPool(std::shared_ptr<CudaStream> stream)
    : m_stream(std::move(stream))
{
}

Scratch
ScratchPool::Take(std::size_t elements)
{
    const std::size_t size = Rounded(elements);
    const auto found = m_free.lower_bound(size);
    if (found != m_free.end() && found->first <= 2 * size)
    {
        DeviceArray<float> memory = std::move(found->second);
        m_free.erase(found);
        return {*this, std::move(memory)};
    }
    try
    {
        return {*this, DeviceArray<float>(m_stream, size)};
    }
    catch (const OutOfMemory&)
    {
        m_free.clear(); // what others left may be what is missing
        return {*this, DeviceArray<float>(m_stream, size)};
    }
}

} // namespace splitllm
