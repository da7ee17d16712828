// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_DEVICE_TENSOR_H
#define SPLITLLM_DEVICE_TENSOR_H

#include "base/cuda/device-array.h"
#include "tensor/tensor.h"

#include <cstddef>
#include <memory>

namespace splitllm
{

/// A tensor's elements in a GPU's memory.
class DeviceTensor final : public DeviceValues
{
  public:
    /// \param values row by row, as they are when their stream has come so far
    explicit DeviceTensor(DeviceArray<float> values)
        : m_values(std::move(values))
    {
    }

    void CopyTo(std::span<float> to) const override
    {
        m_values.Download(to);
    }

    const DeviceArray<float>& Values() const
    {
        return m_values;
    }

  private:
    DeviceArray<float> m_values;
};

/// rows x cols of \p values.
Tensor OnDevice(std::size_t rows, std::size_t cols, DeviceArray<float> values);

/**
 * The elements of a tensor, for one kernel or a few on a stream: those that are on the GPU already, else a copy of those
 * of this host. While it lives the memory does, and what the stream was given until it ends comes before the memory is
 * used otherwise.
 */
class DeviceInput
{
  public:
    /// \param tensor no phantom. \throws OutOfMemory
    DeviceInput(const Tensor& tensor, const std::shared_ptr<CudaStream>& stream);
    ~DeviceInput();
    DeviceInput(const DeviceInput&) = delete;
    DeviceInput& operator=(const DeviceInput&) = delete;

    const float* Data() const
    {
        return m_data;
    }

  private:
    std::shared_ptr<CudaStream> m_stream;
    std::shared_ptr<const DeviceValues> m_there; //!< where they were on the GPU
    DeviceArray<float> m_copy;                   //!< where they were not
    const float* m_data;
};

} // namespace splitllm

#endif // SPLITLLM_DEVICE_TENSOR_H
