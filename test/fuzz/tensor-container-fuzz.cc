// SPDX-License-Identifier: GPL-2.0-only
#include "codec/dense-codec.h"
#include "codec/tensor-container.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

using namespace splitllm;

namespace
{

constexpr std::size_t kMaxInput = 4096; // what it may justify is 64 MiB

void
Expect(bool holds)
{
    if (!holds)
    {
        std::abort();
    }
}

/// Bytes that say they are a container are refused, or a tensor of finite numbers of a size that they justify.
void
Decode(std::span<const std::byte> bytes)
{
    std::uint32_t cols = 1;
    if (bytes.size() >= sizeof(ContainerHeader))
    {
        std::memcpy(&cols, bytes.data() + offsetof(ContainerHeader, cols), sizeof cols);
    }
    const std::vector<std::byte> copy(bytes.begin(), bytes.end()); // so that a read behind it shows
    try
    {
        const Tensor tensor = DecodeContainer(copy, cols);
        Expect(tensor.Cols() == cols && tensor.Rows() > 0);
        Expect(tensor.Elements() <= kColumnsPerByte * copy.size());
        Expect(std::ranges::all_of(tensor.Values(), [](float x) { return std::isfinite(x); }));
    }
    catch (const DecodeError&)
    {
    }
}

/// Numbers with any bits are refused, or come back: exactly above the threshold, elsewhere within a step.
void
Encode(std::span<const std::byte> bytes, std::uint8_t choice)
{
    const std::size_t cols = choice % 40 + 1;
    const std::size_t rows = bytes.size() / sizeof(float) / cols;
    if (rows == 0)
    {
        return;
    }
    Tensor tensor = Tensor::Zeros(rows, cols);
    std::memcpy(tensor.Values().data(), bytes.data(), rows * cols * sizeof(float));
    const ContainerParameters parameters{.tabQ = {2U + choice % 7, choice % 3 * 0.1, choice % 5 == 0},
                                         .exact = DType::F32,
                                         .entropy = choice % 2 == 0};
    const std::optional<float> tau = choice < 128 ? std::optional(1.0F) : std::nullopt;
    try
    {
        const Tensor back = DecodeContainer(EncodeContainer(tensor, tau, parameters), cols);
        Expect(back.Rows() == rows && back.Cols() == cols);
        for (std::size_t row = 0; row < rows; row++)
        {
            float most = 0.0F;
            for (const float x : tensor.Row(row))
            {
                most = std::abs(x) < tau.value_or(INFINITY) ? std::max(most, std::abs(x)) : most;
            }
            for (std::size_t i = 0; i < cols; i++)
            {
                const float x = tensor.Row(row)[i];
                const float y = back.Row(row)[i];
                const bool above = tau && std::abs(x) >= *tau;
                Expect(above ? x == y : std::abs(static_cast<double>(x) - y) <= 1.0001 * most);
            }
        }
    }
    catch (const EncodeError&)
    {
        Expect(!std::ranges::all_of(tensor.Values(), [](float x) { return std::isfinite(x); }));
    }
}

} // namespace

/// The rest of the input is a container if the first byte is even, and otherwise numbers; the second byte says how those are coded.
extern "C" int
LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    if (size < 2 || size > kMaxInput)
    {
        return 0;
    }
    const auto bytes = std::as_bytes(std::span(data, size)).subspan(2);
    if (data[0] % 2 == 0)
    {
        Decode(bytes);
    }
    else
    {
        Encode(bytes, data[1]);
    }
    return 0;
}
