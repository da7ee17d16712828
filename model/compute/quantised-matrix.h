// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_QUANTISED_MATRIX_H
#define SPLITLLM_QUANTISED_MATRIX_H

#include "tensor/tensor.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace splitllm
{

/**
 * A matrix of 8- or 4-bit codes, as the kernels read it.
 *
 * A row's next `group` columns share a scale and a minimum, and a weight is fma(code, scale, minimum) in fp32.
 */
struct QuantisedMatrix
{
    /**
     * Quantises \p weights row by row: each group's minimum and (maximum - minimum) / (2^bits - 1), both rounded to
     * fp16, and the nearest code by fp32 division, ties to even. (OPSC's Eqs 5 to 7, with the minimum itself in place
     * of a zero point.)
     *
     * \param weights [rows, columns] of fp32, fp16 or bf16, the columns a multiple of \p group
     * \param bits 8 or 4
     * \param group a multiple of 32
     * \throws std::logic_error for another shape, bits or group
     * \throws InputError if a weight is not finite or beyond fp16's range
     */
    QuantisedMatrix(const ArrayView& weights, unsigned bits, std::size_t group);

    /// Bytes of codes and scales.
    std::size_t Bytes() const
    {
        return codes.size() + scales.size() * sizeof(std::uint16_t);
    }

    unsigned bits;     //!< of a code: 8 or 4
    std::size_t group; //!< columns that share a scale and a minimum

    /**
     * Row by row. 8 bits: a byte a column. 4 bits: 16 bytes for 32 columns, byte i holding column i in its low and
     * column i + 16 in its high half, so that 16 neighbouring columns are unpacked by the same operation.
     */
    std::vector<std::uint8_t> codes;
    std::vector<std::uint16_t> scales; //!< row by row and group by group: scale, minimum (fp16)
};

} // namespace splitllm

#endif // SPLITLLM_QUANTISED_MATRIX_H
