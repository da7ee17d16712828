// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/tlc/selected-rows.h"

#include "codec/dense-codec.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

namespace splitllm
{

Rows
AllRows(std::size_t count)
{
    Rows rows(count);
    std::iota(rows.begin(), rows.end(), std::size_t{0});
    return rows;
}

Tensor
Gather(const Tensor& tensor, const Rows& rows)
{
    if (tensor.IsPhantom())
    {
        return Tensor::Phantom(rows.size(), tensor.Cols());
    }
    Tensor gathered = Tensor::Zeros(rows.size(), tensor.Cols());
    for (std::size_t i = 0; i < rows.size(); i++)
    {
        std::ranges::copy(tensor.Row(rows[i]), gathered.Row(i).begin());
    }
    return gathered;
}

Payload
WithSelection(const Rows& rows, std::size_t of, Payload payload)
{
    if (of == 1)
    {
        return payload;
    }
    std::vector<std::byte> bytes((of + 7) / 8);
    for (const std::size_t row : rows)
    {
        bytes[row / 8] |= std::byte{1} << (row % 8);
    }
    payload.size += bytes.size();
    payload.bytes.insert(payload.bytes.begin(), bytes.begin(), bytes.end());
    return payload;
}

Rows
TakeSelection(Payload& payload, std::size_t of)
{
    if (of == 1)
    {
        return {0};
    }
    const std::size_t length = (of + 7) / 8;
    if (payload.bytes.size() < length)
    {
        throw DecodeError("payload of " + std::to_string(payload.size) + " bytes holds no selection of " +
                          std::to_string(of) + " rows");
    }
    Rows rows;
    for (std::size_t row = 0; row < 8 * length; row++)
    {
        if ((payload.bytes[row / 8] >> (row % 8) & std::byte{1}) != std::byte{0})
        {
            rows.push_back(row);
        }
    }
    if (rows.empty() || rows.back() >= of)
    {
        throw DecodeError("a selection of no row, or of one beyond " + std::to_string(of));
    }
    payload.bytes.erase(payload.bytes.begin(), payload.bytes.begin() + static_cast<std::ptrdiff_t>(length));
    payload.size -= length;
    return rows;
}

} // namespace splitllm
