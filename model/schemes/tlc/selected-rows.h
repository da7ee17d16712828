// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SELECTED_ROWS_H
#define SPLITLLM_SELECTED_ROWS_H

#include "codec/payload.h"
#include "tensor/tensor.h"

#include <cstddef>
#include <vector>

namespace splitllm
{

/// Indices of rows, rising.
using Rows = std::vector<std::size_t>;

/// 0, 1, ..., \p count - 1.
Rows AllRows(std::size_t count);

/// Copies of \p rows of \p tensor.
Tensor Gather(const Tensor& tensor, const Rows& rows);

/**
 * Puts \p rows of \p of in front of \p payload: bit i % 8 of byte i / 8 says whether row i follows. Nothing for a single
 * row, which follows if anything does.
 */
Payload WithSelection(const Rows& rows, std::size_t of, Payload payload);

/**
 * Takes a selection from the front of \p payload.
 * \throws DecodeError if there is none, or if it names no row or one beyond \p of
 */
Rows TakeSelection(Payload& payload, std::size_t of);

} // namespace splitllm

#endif // SPLITLLM_SELECTED_ROWS_H
