// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_DENSE_CODEC_H
#define SPLITLLM_DENSE_CODEC_H

#include "codec/payload.h"
#include "tensor/tensor.h"

#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

namespace splitllm
{

/// Bytes that are no payload of the expected form. The message says in which way.
class DecodeError : public std::runtime_error
{
  public:
    using std::runtime_error::runtime_error;
};

/// A value that a codec cannot carry. The message says which, and where.
class EncodeError : public std::runtime_error
{
  public:
    using std::runtime_error::runtime_error;
};

/// The whole rows of \p rowBytes in \p payload. \throws DecodeError if it holds none, or a part of one
std::size_t RowsIn(const Payload& payload, std::size_t rowBytes);

/**
 * Every element in turn, little-endian, in \p dtype: fp32 is lossless, fp16 and bf16 round to nearest even.
 * A phantom gives a phantom payload of the same size.
 */
Payload EncodeDense(const Tensor& tensor, DType dtype);

/**
 * The inverse of EncodeDense. The number of rows follows from the size.
 * \param cols elements of a row, at least 1
 * \throws DecodeError if the size is no whole number of rows, or none
 */
Tensor DecodeDense(const Payload& payload, std::size_t cols, DType dtype);

/// What fp16 or another wire type makes of \p tensor: DecodeDense(EncodeDense(tensor)).
Tensor RoundTo(const Tensor& tensor, DType dtype);

/// Token ids as 32-bit little-endian integers.
Payload EncodeTokens(std::span<const std::uint32_t> tokens);

/// \throws DecodeError if the size is no multiple of 4, or zero
std::vector<std::uint32_t> DecodeTokens(const Payload& payload);

} // namespace splitllm

#endif // SPLITLLM_DENSE_CODEC_H
