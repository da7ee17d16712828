// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_DEVICE_ARRAY_H
#define SPLITLLM_DEVICE_ARRAY_H

#include "base/cuda/cuda-error.h"
#include "base/cuda/stream.h"

#include <cuda_runtime_api.h>

#include <cassert>
#include <cstddef>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

namespace splitllm
{

/**
 * Memory of a GPU for \p T. It is given and taken back in the order of a stream, which holds up nobody: what other
 * streams do with it must lie between two Follow() of the two streams.
 */
template <typename T>
class DeviceArray
{
    static_assert(std::is_trivially_copyable_v<T>);

  public:
    DeviceArray() = default;

    /// Of \p size elements that hold anything. \throws OutOfMemory
    DeviceArray(std::shared_ptr<CudaStream> stream, std::size_t size)
        : m_stream(std::move(stream)),
          m_size(size)
    {
        if (size > 0)
        {
            void* data = nullptr;
            CheckCuda(cudaMallocAsync(&data, size * sizeof(T), m_stream->Get()), "cudaMallocAsync");
            m_data = static_cast<T*>(data);
        }
    }

    /// With a copy of \p values. \throws OutOfMemory
    DeviceArray(std::shared_ptr<CudaStream> stream, std::span<const T> values)
        : DeviceArray(std::move(stream), values.size())
    {
        Upload(values);
    }

    DeviceArray(DeviceArray&& other) noexcept
        : m_stream(std::move(other.m_stream)),
          m_data(std::exchange(other.m_data, nullptr)),
          m_size(std::exchange(other.m_size, 0))
    {
    }

    DeviceArray& operator=(DeviceArray&& other) noexcept
    {
        DeviceArray moved(std::move(other));
        std::swap(m_stream, moved.m_stream);
        std::swap(m_data, moved.m_data);
        std::swap(m_size, moved.m_size);
        return *this;
    }

    ~DeviceArray()
    {
        if (m_data != nullptr)
        {
            cudaFreeAsync(m_data, m_stream->Get());
        }
    }

    /// Where it lies on the GPU; null if it is empty.
    T* Data() const
    {
        return m_data;
    }

    std::size_t Size() const
    {
        return m_size;
    }

    /// The stream that it belongs to; null if it was made empty.
    const std::shared_ptr<CudaStream>& Stream() const
    {
        return m_stream;
    }

    /// Copies \p values to the elements from \p first on. They may change as soon as this returns.
    void Upload(std::span<const T> values, std::size_t first = 0)
    {
        assert(first + values.size() <= m_size);
        if (!values.empty())
        {
            CheckCuda(cudaMemcpyAsync(
                          m_data + first, values.data(), values.size_bytes(), cudaMemcpyHostToDevice, m_stream->Get()),
                      "copy to the GPU");
        }
    }

    /// Copies the elements from \p first on to \p to, and waits for that.
    void Download(std::span<T> to, std::size_t first = 0) const
    {
        assert(first + to.size() <= m_size);
        if (!to.empty())
        {
            CheckCuda(
                cudaMemcpyAsync(to.data(), m_data + first, to.size_bytes(), cudaMemcpyDeviceToHost, m_stream->Get()),
                "copy from the GPU");
            m_stream->Synchronise();
        }
    }

  private:
    std::shared_ptr<CudaStream> m_stream;
    T* m_data = nullptr;
    std::size_t m_size = 0;
};

} // namespace splitllm

#endif // SPLITLLM_DEVICE_ARRAY_H
