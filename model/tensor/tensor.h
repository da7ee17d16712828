// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TENSOR_H
#define SPLITLLM_TENSOR_H

#include "tensor/dtype.h"

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace splitllm
{

/// The elements of a tensor where they were computed, if that is not this host.
class DeviceValues
{
  public:
    virtual ~DeviceValues() = default;

    /// Copies all elements, row by row, to \p to.
    virtual void CopyTo(std::span<float> to) const = 0;
};

/**
 * A matrix of fp32 activations, one row a token, contiguous and row-major.
 *
 * A phantom tensor has a shape and no bytes: shape mode computes with phantoms what numeric mode computes with
 * numbers. A tensor that was computed on a device stays there until somebody here asks for its elements. Copies share
 * nothing that can change; a moved-from tensor is 0 x 0.
 */
class Tensor
{
  public:
    Tensor() = default;
    ~Tensor() = default;
    Tensor(const Tensor&) = default;
    Tensor& operator=(const Tensor&) = default;
    Tensor(Tensor&& other) noexcept;
    Tensor& operator=(Tensor&& other) noexcept;

    /// rows x cols zeros.
    static Tensor Zeros(std::size_t rows, std::size_t cols);

    /// rows x cols without storage.
    static Tensor Phantom(std::size_t rows, std::size_t cols);

    /// rows x cols that \p values, not null, holds.
    static Tensor OnDevice(std::size_t rows, std::size_t cols, std::shared_ptr<const DeviceValues> values);

    std::size_t Rows() const
    {
        return m_rows;
    }

    std::size_t Cols() const
    {
        return m_cols;
    }

    std::size_t Elements() const
    {
        return m_rows * m_cols;
    }

    bool IsPhantom() const
    {
        return m_phantom;
    }

    /// Where the elements are on a device; null where nothing but this host has them, or has others by now.
    const std::shared_ptr<const DeviceValues>& Device() const
    {
        return m_device;
    }

    /// All elements, row by row. Empty for a phantom. Whoever may change them has the only copy from then on.
    std::span<float> Values()
    {
        Fetch();
        m_device = nullptr;
        return m_values;
    }

    std::span<const float> Values() const
    {
        Fetch();
        return m_values;
    }

    /// Row \p row; a phantom has none (asserted).
    std::span<float> Row(std::size_t row);
    std::span<const float> Row(std::size_t row) const;

    /// A copy of rows [first, first + count), which must exist (asserted).
    Tensor Slice(std::size_t first, std::size_t count) const;

    /// Puts the rows of \p other, of the same width (asserted unless this has no rows), behind these; phantom if either is.
    void Append(const Tensor& other);

    /// Element-wise sum of equal shapes (asserted); phantom if either side is.
    Tensor& operator+=(const Tensor& other);

  private:
    /// Brings the elements here, unless they are.
    void Fetch() const;

    std::size_t m_rows = 0;
    std::size_t m_cols = 0;
    bool m_phantom = false;
    std::shared_ptr<const DeviceValues> m_device;
    mutable std::vector<float> m_values; //!< empty as long as only the device has them
};

/// Elements that somebody else owns (a mapped file), row-major.
struct ArrayView
{
    DType dtype = DType::F32;
    std::vector<std::size_t> shape;  //!< one entry a dimension
    const std::byte* data = nullptr; //!< aligned to the element size

    /// Product of the shape.
    std::size_t Elements() const;
};

/// Writes row \p row of the matrix \p view (fp32, fp16 or bf16) to \p to, as fp32.
void WidenRow(const ArrayView& view, std::size_t row, float* to);

/// All elements of \p view (fp32, fp16 or bf16) as fp32; none without data.
std::vector<float> Widened(const ArrayView& view);

} // namespace splitllm

#endif // SPLITLLM_TENSOR_H
