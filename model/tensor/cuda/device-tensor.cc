// SPDX-License-Identifier: GPL-2.0-only
#include "tensor/cuda/device-tensor.h"

#include <utility>

namespace splitllm
{

Tensor
OnDevice(std::size_t rows, std::size_t cols, DeviceArray<float> values)
{
    return Tensor::OnDevice(rows, cols, std::make_shared<const DeviceTensor>(std::move(values)));
}

DeviceInput::DeviceInput(const Tensor& tensor, const std::shared_ptr<CudaStream>& stream)
    : m_stream(stream)
{
    if (const auto* there = dynamic_cast<const DeviceTensor*>(tensor.Device().get()))
    {
        m_there = tensor.Device();
        m_data = there->Values().Data();
        stream->Follow(*there->Values().Stream());
    }
    else
    {
        m_copy = DeviceArray<float>(stream, tensor.Values());
        m_data = m_copy.Data();
    }
}

DeviceInput::~DeviceInput()
{
    if (m_there)
    {
        // Its memory goes back in the order of its own stream.
        static_cast<const DeviceTensor&>(*m_there).Values().Stream()->Follow(*m_stream);
    }
}

} // namespace splitllm
