// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TENSOR_H
#define SPLITLLM_TENSOR_H

#include "tensor/dtype.h"

#include <cstddef>
#include <span>
#include <vector>

namespace splitllm
{

/**
 * A matrix of fp32 activations, one row a token, contiguous and row-major.
 *
 * A phantom tensor has a shape and no bytes: shape mode computes with phantoms what numeric mode computes with
 * numbers. Copies share nothing; a moved-from tensor is 0 x 0.
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

    /// All elements, row by row. Empty for a phantom.
    std::span<float> Values()
    {
        return m_values;
    }

    std::span<const float> Values() const
    {
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
    std::size_t m_rows = 0;
    std::size_t m_cols = 0;
    bool m_phantom = false;
    std::vector<float> m_values;
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
