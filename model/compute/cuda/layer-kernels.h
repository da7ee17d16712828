// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_LAYER_KERNELS_H
#define SPLITLLM_LAYER_KERNELS_H

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <span>

/**
 * \file
 * The kernels of layers, as functions that put them into a stream. All pointers are to the GPU's memory, all matrices
 * row by row, activations fp32. w rows are w tokens.
 *
 * Sums are taken in an order that does not depend on w, so that up to kFewRows rows a row's bits do not depend on the
 * rows beside it.
 */
namespace splitllm
{

/// Rows up to which a matrix is read once and multiplied by our own kernels; more go to cuBLAS.
constexpr std::size_t kFewRows = 8;

/// How the elements of a matrix are stored.
enum class WeightForm : std::uint8_t
{
    F32,
    F16,
    Bf16,
    Int8, //!< codes with a scale and a minimum for each group, as QuantisedMatrix has them
    Int4,
};

/// A matrix, and what is added to its products.
struct DeviceMatrix
{
    const void* weights = nullptr;         //!< out x in; null: there is none
    const std::uint16_t* scales = nullptr; //!< of codes: scale and minimum in fp16 for each row and group
    const float* bias = nullptr;           //!< [out]; null: none
    std::uint32_t out = 0;
    std::uint32_t in = 0;
    std::uint32_t group = 0; //!< columns that share a scale
    WeightForm form = WeightForm::F32;
};

/// A norm's vectors. RMSNorm has no shift.
struct DeviceNorm
{
    const float* scale = nullptr; //!< [d]; null: all 1
    const float* shift = nullptr; //!< [d]; null: RMSNorm
    float eps = 0.0F;
};

/// y = matrix x + bias, for w rows.
struct Product
{
    DeviceMatrix matrix;
    const float* x = nullptr; //!< w x in
    float* y = nullptr;       //!< w x out
};

/// What becomes of a product before it is written.
enum class Finish : std::uint8_t
{
    None,
    Add,   //!< y = product + addend
    Scale, //!< y = product * factor
    Relu,  //!< y = max(product, 0)
    Silu,  //!< y = product / (1 + exp(-product))
};

/// What a Finish works with.
struct FinishWith
{
    Finish finish = Finish::None;
    const float* addend = nullptr; //!< w x out; may be y itself
    float factor = 1.0F;
};

/// Elements that a launch of Multiply may have products for.
constexpr std::size_t kMostProducts = 3;

/**
 * Up to kMostProducts products by matrices of one form and as many columns, in one launch: a warp takes two rows of a
 * matrix, and reads them once for all w.
 * \param w 1 to kFewRows
 * \param rms not null: x is RMS-normed on the way, by this scale and eps; every product then has the same x
 * \param normed where the normed x goes, w x in; null: nowhere
 */
void MultiplyFew(std::span<const Product> products,
                 std::size_t w,
                 const DeviceNorm* rms,
                 float* normed,
                 const FinishWith& with,
                 cudaStream_t stream);

/**
 * inner = silu(gate x) * (up x), both matrices [f, d] of one form, without biases.
 * \param w 1 to kFewRows
 * \param rms as in MultiplyFew
 */
void GatedFew(const DeviceMatrix& gate,
              const DeviceMatrix& up,
              const float* x,
              std::size_t w,
              const DeviceNorm* rms,
              float* inner,
              cudaStream_t stream);

/// y = the norm of x, w x n.
void Normalise(const DeviceNorm& norm, const float* x, std::size_t w, std::size_t n, float* y, cudaStream_t stream);

/// The matrix as fp32, out x in, each element rounded to the nearest TF32 (10 bits of mantissa).
void ExpandTf32(const DeviceMatrix& matrix, float* to, cudaStream_t stream);

/// \p n elements rounded to the nearest TF32.
void RoundTf32(const float* from, std::size_t n, float* to, cudaStream_t stream);

/// What is left to do with a product that cuBLAS made: y = the Finish of product + bias. Both w x out, and may be one.
void FinishRows(const float* product,
                std::size_t w,
                std::size_t out,
                const float* bias,
                const FinishWith& with,
                float* y,
                cudaStream_t stream);

/// gate = silu(gate) * up, \p n elements.
void SiluTimes(float* gate, const float* up, std::size_t n, cudaStream_t stream);

/// y = a + b, \p n elements; y may be one of them.
void Add(const float* a, const float* b, std::size_t n, float* y, cudaStream_t stream);

/// Adds row i of \p addend, w x n, to row rows[i] of \p sum; no row is there twice.
void AddRows(const float* addend, const std::uint32_t* rows, std::size_t w, std::size_t n, float* sum, cudaStream_t stream);

/// Copies \p columns elements of each of w rows, which begin \p fromStride elements apart, to rows \p toStride apart.
void CopyColumns(const float* from,
                 std::size_t w,
                 std::size_t columns,
                 std::size_t fromStride,
                 float* to,
                 std::size_t toStride,
                 cudaStream_t stream);

/// h = embedding of each token; with \p positions' table also that of positions[i] + 2 (OPT). w x d.
struct EmbeddingTables
{
    DeviceMatrix tokens;    //!< vocabulary x d, as stored
    DeviceMatrix positions; //!< no weights: none
};

void EmbedTokens(const EmbeddingTables& tables,
           const std::uint32_t* tokens,
           const std::uint32_t* positions,
           std::size_t w,
           float* hidden,
           cudaStream_t stream);

} // namespace splitllm

#endif // SPLITLLM_LAYER_KERNELS_H
