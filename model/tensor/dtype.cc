// SPDX-License-Identifier: GPL-2.0-only
#include "tensor/dtype.h"

#include <array>
#include <bit>

namespace splitllm
{

namespace
{

struct Description
{
    DType dtype;
    std::size_t size;
    std::string_view name;
};

constexpr std::array<Description, 5> kDescriptions{{
    {DType::F32, 4, "fp32"},
    {DType::F16, 2, "fp16"},
    {DType::BF16, 2, "bf16"},
    {DType::I32, 4, "int32"},
    {DType::I8, 1, "int8"},
}};

constexpr const Description&
Describe(DType dtype)
{
    return kDescriptions.at(static_cast<std::size_t>(dtype) - 1);
}

/// value / 2^shift, rounded to the nearest integer, ties to even.
std::uint32_t
RoundedShift(std::uint32_t value, unsigned shift)
{
    const std::uint32_t odd = (value >> shift) & 1U;
    return (value + (1U << (shift - 1)) - 1 + odd) >> shift;
}

constexpr std::uint32_t kF32Infinity = 0x7f800000;

} // namespace

std::size_t
SizeOf(DType dtype)
{
    return Describe(dtype).size;
}

std::string_view
NameOf(DType dtype)
{
    return Describe(dtype).name;
}

std::optional<DType>
DTypeFromName(std::string_view name)
{
    for (const Description& description : kDescriptions)
    {
        if (description.name == name)
        {
            return description.dtype;
        }
    }
    return std::nullopt;
}

std::uint16_t
ToF16(float value)
{
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (bits >> 16) & 0x8000U;
    const std::uint32_t magnitude = bits & 0x7fffffffU;
    std::uint32_t rounded = 0;
    if (magnitude > kF32Infinity)
    {
        rounded = 0x7e00U | ((magnitude >> 13) & 0x1ffU); // quiet, with the top of the payload, as F16C does
    }
    else if (magnitude >= 0x47800000U) // 2^16
    {
        rounded = 0x7c00U;
    }
    else if (magnitude >= 0x38800000U) // 2^-14, the smallest normal fp16; a carry out of the mantissa is right
    {
        rounded = RoundedShift(magnitude - 0x38000000U, 13);
    }
    else if (magnitude >= 0x33000000U) // 2^-25; below it everything rounds to zero
    {
        rounded = RoundedShift((magnitude & 0x7fffffU) | 0x800000U, 126 - (magnitude >> 23));
    }
    return static_cast<std::uint16_t>(sign | rounded);
}

float
FromF16(std::uint16_t bits)
{
    const std::uint32_t sign = (bits & 0x8000U) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1fU;
    const std::uint32_t mantissa = bits & 0x3ffU;
    std::uint32_t magnitude = 0;
    if (exponent == 0)
    {
        magnitude = std::bit_cast<std::uint32_t>(static_cast<float>(mantissa) * 0x1p-24F);
    }
    else if (exponent == 0x1f)
    {
        magnitude = kF32Infinity | (mantissa << 13) | (mantissa != 0 ? 0x400000U : 0U);
    }
    else
    {
        magnitude = ((exponent + 112) << 23) | (mantissa << 13);
    }
    return std::bit_cast<float>(sign | magnitude);
}

std::uint16_t
ToBf16(float value)
{
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7fffffffU) > kF32Infinity)
    {
        return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
    }
    return static_cast<std::uint16_t>(RoundedShift(bits, 16));
}

float
FromBf16(std::uint16_t bits)
{
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

} // namespace splitllm
