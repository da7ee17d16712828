// SPDX-License-Identifier: GPL-2.0-only
#include "tensor/tensor.h"

#include <cassert>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <utility>

namespace splitllm
{

Tensor::Tensor(Tensor&& other) noexcept
    : m_rows(std::exchange(other.m_rows, 0)),
      m_cols(std::exchange(other.m_cols, 0)),
      m_phantom(std::exchange(other.m_phantom, false)),
      m_device(std::exchange(other.m_device, nullptr)),
      m_values(std::exchange(other.m_values, {}))
{
}

Tensor&
Tensor::operator=(Tensor&& other) noexcept
{
    Tensor moved(std::move(other)); // so that moving to itself keeps the value
    std::swap(m_rows, moved.m_rows);
    std::swap(m_cols, moved.m_cols);
    std::swap(m_phantom, moved.m_phantom);
    std::swap(m_device, moved.m_device);
    std::swap(m_values, moved.m_values);
    return *this;
}

Tensor
Tensor::Zeros(std::size_t rows, std::size_t cols)
{
    Tensor tensor = Phantom(rows, cols);
    tensor.m_phantom = false;
    tensor.m_values.resize(rows * cols);
    return tensor;
}

Tensor
Tensor::Phantom(std::size_t rows, std::size_t cols)
{
    Tensor tensor;
    tensor.m_rows = rows;
    tensor.m_cols = cols;
    tensor.m_phantom = true;
    return tensor;
}

Tensor
Tensor::OnDevice(std::size_t rows, std::size_t cols, std::shared_ptr<const DeviceValues> values)
{
    assert(values != nullptr);
    Tensor tensor = Phantom(rows, cols);
    tensor.m_phantom = false;
    tensor.m_device = std::move(values);
    return tensor;
}

void
Tensor::Fetch() const
{
    if (m_device != nullptr && m_values.empty())
    {
        m_values.resize(Elements());
        m_device->CopyTo(m_values);
    }
}

std::span<float>
Tensor::Row(std::size_t row)
{
    assert(!m_phantom && row < m_rows);
    return Values().subspan(row * m_cols, m_cols);
}

std::span<const float>
Tensor::Row(std::size_t row) const
{
    assert(!m_phantom && row < m_rows);
    return Values().subspan(row * m_cols, m_cols);
}

Tensor
Tensor::Slice(std::size_t first, std::size_t count) const
{
    assert(first <= m_rows && count <= m_rows - first);
    Tensor slice = Phantom(count, m_cols);
    if (!m_phantom)
    {
        const auto values = Values().subspan(first * m_cols, count * m_cols);
        slice.m_phantom = false;
        slice.m_values.assign(values.begin(), values.end());
    }
    return slice;
}

void
Tensor::Append(const Tensor& other)
{
    assert(m_rows == 0 || m_cols == other.m_cols);
    const auto behind = other.Values();
    Values(); // brings them here while the shape is that of the device's
    m_phantom = (m_phantom && m_rows > 0) || other.m_phantom;
    m_cols = other.m_cols;
    m_rows += other.m_rows;
    m_values.insert(m_values.end(), behind.begin(), behind.end());
}

Tensor&
Tensor::operator+=(const Tensor& other)
{
    assert(m_rows == other.m_rows && m_cols == other.m_cols);
    if (m_phantom || other.m_phantom)
    {
        return *this = Phantom(m_rows, m_cols);
    }
    const auto addends = other.Values();
    const auto sums = Values();
    for (std::size_t i = 0; i < sums.size(); ++i)
    {
        sums[i] += addends[i];
    }
    return *this;
}

std::size_t
ArrayView::Elements() const
{
    std::size_t elements = 1;
    for (const std::size_t length : shape)
    {
        elements *= length;
    }
    return elements;
}

void
WidenRow(const ArrayView& view, std::size_t row, float* to)
{
    const std::size_t n = view.shape.at(1);
    const std::byte* from = view.data + row * n * SizeOf(view.dtype);
    if (view.dtype == DType::F32)
    {
        std::memcpy(to, from, n * sizeof(float));
        return;
    }
    if (view.dtype != DType::F16 && view.dtype != DType::BF16)
    {
        throw std::logic_error("weights are neither fp32 nor fp16 nor bf16");
    }
    const auto* bits = reinterpret_cast<const std::uint16_t*>(from);
    for (std::size_t i = 0; i < n; ++i)
    {
        to[i] = view.dtype == DType::F16 ? FromF16(bits[i]) : FromBf16(bits[i]);
    }
}

std::vector<float>
Widened(const ArrayView& view)
{
    std::vector<float> values(view.data == nullptr ? 0 : view.Elements());
    if (!values.empty())
    {
        WidenRow({view.dtype, {1, values.size()}, view.data}, 0, values.data());
    }
    return values;
}

} // namespace splitllm
