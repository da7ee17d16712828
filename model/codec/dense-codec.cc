// SPDX-License-Identifier: GPL-2.0-only
#include "codec/dense-codec.h"

#include <bit>
#include <cstring>
#include <string>

namespace splitllm
{

static_assert(std::endian::native == std::endian::little, "payloads are copied as little-endian");

Payload
EncodeDense(const Tensor& tensor, DType dtype)
{
    const std::size_t size = tensor.Elements() * SizeOf(dtype);
    if (tensor.IsPhantom())
    {
        return Payload::Phantom(size);
    }
    std::vector<std::byte> bytes(size);
    const std::span<const float> values = tensor.Values();
    if (dtype == DType::F32)
    {
        std::memcpy(bytes.data(), values.data(), size);
    }
    else if (dtype == DType::F16 || dtype == DType::BF16)
    {
        for (std::size_t i = 0; i < values.size(); i++)
        {
            const std::uint16_t bits = dtype == DType::F16 ? ToF16(values[i]) : ToBf16(values[i]);
            std::memcpy(bytes.data() + 2 * i, &bits, 2);
        }
    }
    else
    {
        throw std::logic_error("EncodeDense: no floating-point type");
    }
    return Payload::Of(std::move(bytes));
}

std::size_t
RowsIn(const Payload& payload, std::size_t rowBytes)
{
    if (payload.size == 0 || payload.size % rowBytes != 0)
    {
        throw DecodeError("payload of " + std::to_string(payload.size) + " bytes is no whole number of rows of " +
                          std::to_string(rowBytes) + " bytes");
    }
    return payload.size / rowBytes;
}

Tensor
DecodeDense(const Payload& payload, std::size_t cols, DType dtype)
{
    const std::size_t rows = RowsIn(payload, cols * SizeOf(dtype));
    if (payload.phantom)
    {
        return Tensor::Phantom(rows, cols);
    }
    Tensor tensor = Tensor::Zeros(rows, cols);
    const std::span<float> values = tensor.Values();
    if (dtype == DType::F32)
    {
        std::memcpy(values.data(), payload.bytes.data(), payload.size);
        return tensor;
    }
    for (std::size_t i = 0; i < values.size(); i++)
    {
        std::uint16_t bits;
        std::memcpy(&bits, payload.bytes.data() + 2 * i, 2);
        values[i] = dtype == DType::F16 ? FromF16(bits) : FromBf16(bits);
    }
    return tensor;
}

Tensor
RoundTo(const Tensor& tensor, DType dtype)
{
    return DecodeDense(EncodeDense(tensor, dtype), tensor.Cols(), dtype);
}

Payload
EncodeTokens(std::span<const std::uint32_t> tokens)
{
    const auto bytes = std::as_bytes(tokens);
    return Payload::Of({bytes.begin(), bytes.end()});
}

std::vector<std::uint32_t>
DecodeTokens(const Payload& payload)
{
    if (payload.phantom || payload.size == 0 || payload.size % 4 != 0)
    {
        throw DecodeError("payload of " + std::to_string(payload.size) + " bytes holds no token ids");
    }
    std::vector<std::uint32_t> tokens(payload.size / 4);
    std::memcpy(tokens.data(), payload.bytes.data(), payload.size);
    return tokens;
}

} // namespace splitllm
