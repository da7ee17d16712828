// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_KERNELS_H
#define SPLITLLM_KERNELS_H

#include "tensor/dtype.h"

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace splitllm
{

/// Rows of a QuantisedMatrix, from the first one's codes and scales on.
struct QuantisedRows
{
    const std::uint8_t* codes;
    const std::uint16_t* scales;
    std::size_t group; //!< columns that share a scale and a minimum, a multiple of 32
};

/**
 * The inner loops of the CPU backend for one instruction set.
 *
 * Every instruction set gives the same bits (invariant 13), because all of them compute in one order. A reduction over
 * n elements has 16 fp32 lanes: lane i takes the elements i, i + 16, i + 32, ... in that order, a product by one fused
 * multiply-add, and the last n mod 16 elements touch only their own lanes. The lanes are then added as a tree:
 * lane i += lane i + 8, then + 4, + 2, + 1. What is not a reduction is a fixed sequence of fp32 operations for each
 * element. So a row's result depends neither on the rows beside it nor on how a call is tiled.
 *
 * Matrices are row-major without gaps unless a stride (in elements) is given. Nothing needs to be aligned beyond its
 * element type, and nothing outside the stated ranges is read or written.
 */
struct Kernels
{
    /// The name that SPLITLLM_ISA selects: "plain", "avx2" or "avx512".
    std::string_view name;

    /**
     * y[t * yStride + r] = dot(weights row r, x row t) for r in [0, rows), t in [0, tokens).
     *
     * Reads each weight once where \p tokens is 1 (decode, memory-bound); else small tiles of rows and tokens.
     * \param weights rows x n of the type in the name
     * \param x tokens x n
     */
    using MatMul = void (*)(const void* weights,
                            std::size_t rows,
                            std::size_t n,
                            const float* x,
                            std::size_t tokens,
                            float* y,
                            std::size_t yStride);
    MatMul matMulF32;
    MatMul matMulF16;
    MatMul matMulBf16;

    /**
     * The same with codes of 8 or 4 bits in place of weights: the bits of matMulF32 on the weights that the codes stand
     * for, fma(code, scale, minimum). No matrix of those is made.
     * \param n a multiple of weights.group
     */
    using QuantisedMatMul = void (*)(const QuantisedRows& weights,
                                     std::size_t rows,
                                     std::size_t n,
                                     const float* x,
                                     std::size_t tokens,
                                     float* y,
                                     std::size_t yStride);
    QuantisedMatMul matMulInt8;
    QuantisedMatMul matMulInt4;

    /// x = exp(x - max(x)) / sum, the division being a multiplication by 1 / sum; n > 0.
    void (*softmax)(float* x, std::size_t n);

    /**
     * y[q * width + i] = sum over p in [0, positions) of scores[q * scoreStride + p] * values[p * width + i], a chain
     * of fused multiply-adds in the order of p that starts from zero.
     * \param values positions x width
     */
    void (*weightedSum)(const float* scores,
                        std::size_t scoreStride,
                        std::size_t queries,
                        const float* values,
                        std::size_t positions,
                        std::size_t width,
                        float* y);

    /// gate = gate / (1 + exp(-gate)) * up, element by element.
    void (*siluTimes)(float* gate, const float* up, std::size_t n);

    /// y = x / sqrt(mean(x^2) + eps) * scale.
    void (*rmsNorm)(const float* x, const float* scale, float eps, std::size_t n, float* y);

    /// y = (x - mean) / sqrt(variance + eps) * scale + shift.
    void (*layerNorm)(const float* x, const float* scale, const float* shift, float eps, std::size_t n, float* y);
};

/// The tables that this CPU can run, slowest first; "plain" is always the first.
std::vector<const Kernels*> SupportedKernels();

/**
 * The fastest table that this CPU can run, or the one that the environment variable SPLITLLM_ISA names.
 * \throws InputError listing the accepted names if that one is unknown or not supported
 */
const Kernels& BestKernels();

} // namespace splitllm

#endif // SPLITLLM_KERNELS_H
