// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/tlc/delta-rows.h"

#include <algorithm>
#include <array>

namespace splitllm
{

Tensor
SideBySide(const Deltas& deltas)
{
    const std::array<const Tensor*, 3> parts{&deltas.query, &deltas.key, &deltas.value};
    const std::size_t rows = deltas.query.Rows();
    const std::size_t cols = deltas.query.Cols() + deltas.key.Cols() + deltas.value.Cols();
    if (deltas.query.IsPhantom())
    {
        return Tensor::Phantom(rows, cols);
    }
    Tensor joined = Tensor::Zeros(rows, cols);
    for (std::size_t row = 0; row < rows; row++)
    {
        auto to = joined.Row(row).begin();
        for (const Tensor* part : parts)
        {
            to = std::ranges::copy(part->Row(row), to).out;
        }
    }
    return joined;
}

Deltas
Separate(const Tensor& rows, const ModelConfig& config)
{
    const auto part = [&rows](std::size_t first, std::size_t cols) {
        if (rows.IsPhantom())
        {
            return Tensor::Phantom(rows.Rows(), cols);
        }
        Tensor tensor = Tensor::Zeros(rows.Rows(), cols);
        for (std::size_t row = 0; row < rows.Rows(); row++)
        {
            std::ranges::copy(rows.Row(row).subspan(first, cols), tensor.Row(row).begin());
        }
        return tensor;
    };
    const std::size_t q = config.QueryWidth();
    const std::size_t kv = config.KvWidth();
    return {part(0, q), part(q, kv), part(q + kv, kv)};
}

} // namespace splitllm
