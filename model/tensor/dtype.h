// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_DTYPE_H
#define SPLITLLM_DTYPE_H

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace splitllm
{

/// Element types of weights, activations and payloads. The values travel on the wire: never renumber.
enum class DType : std::uint8_t
{
    F32 = 1,
    F16 = 2,
    BF16 = 3,
    I32 = 4, //!< token ids
    I8 = 5,
};

/// Bytes of one element.
std::size_t SizeOf(DType dtype);

/// The name used in studies and results: "fp32", "fp16", "bf16", "int32", "int8".
std::string_view NameOf(DType dtype);

/// The inverse of NameOf; nothing if no type has that name.
std::optional<DType> DTypeFromName(std::string_view name);

/// Rounds to nearest, ties to even; NaN stays NaN, overflow becomes infinity.
std::uint16_t ToF16(float value);
std::uint16_t ToBf16(float value);

/// Exact.
float FromF16(std::uint16_t bits);
float FromBf16(std::uint16_t bits);

} // namespace splitllm

#endif // SPLITLLM_DTYPE_H
