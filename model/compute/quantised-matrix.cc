// SPDX-License-Identifier: GPL-2.0-only
#include "compute/quantised-matrix.h"

#include "base/input-error.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>

namespace splitllm
{

namespace
{

constexpr float kLargestF16 = 65504.0F;

/// Where the code of \p column begins in a row of \p bits a code: its byte, and its lowest bit there.
std::pair<std::size_t, unsigned>
PlaceOf(std::size_t column, unsigned bits)
{
    if (bits == 8)
    {
        return {column, 0};
    }
    return {column / 32 * 16 + column % 16, column % 32 < 16 ? 0 : 4};
}

} // namespace

QuantisedMatrix::QuantisedMatrix(const ArrayView& weights, unsigned codeBits, std::size_t groupColumns)
    : bits(codeBits),
      group(groupColumns)
{
    if ((bits != 4 && bits != 8) || group == 0 || group % 32 != 0 || weights.shape.size() != 2 ||
        weights.shape[1] % group != 0)
    {
        throw std::logic_error("a matrix has no codes of " + std::to_string(bits) + " bits in groups of " +
                               std::to_string(group) +
                               " columns; accepted: 4 or 8 bits, a multiple of 32 that divides the columns");
    }
    const std::size_t rows = weights.shape[0];
    const std::size_t columns = weights.shape[1];
    const std::size_t rowBytes = columns * bits / 8;
    const auto largestCode = static_cast<float>((1U << bits) - 1);
    codes.resize(rows * rowBytes);
    scales.reserve(rows * columns / group * 2);
    std::vector<float> row(columns);
    for (std::size_t r = 0; r < rows; ++r)
    {
        WidenRow(weights, r, row.data());
        for (std::size_t first = 0; first < columns; first += group)
        {
            const std::span<const float> values(row.data() + first, group);
            if (!std::ranges::all_of(values, [](float value) { return std::abs(value) <= kLargestF16; }))
            {
                throw InputError("weights to be quantised: row " + std::to_string(r) + ": a value is not finite or "
                                 "beyond fp16's range; accepted: -65504 to 65504");
            }
            const auto [least, most] = std::ranges::minmax(values);
            scales.push_back(ToF16((most - least) / largestCode));
            const float scale = FromF16(scales.back());
            scales.push_back(ToF16(least));
            const float minimum = FromF16(scales.back());
            for (std::size_t i = 0; i < group && scale > 0.0F; ++i)
            {
                const float code = std::clamp(std::nearbyint((values[i] - minimum) / scale), 0.0F, largestCode);
                const auto [byte, bit] = PlaceOf(first + i, bits);
                codes[r * rowBytes + byte] |= static_cast<std::uint8_t>(static_cast<unsigned>(code) << bit);
            }
        }
    }
}

} // namespace splitllm
