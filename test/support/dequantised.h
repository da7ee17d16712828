// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_DEQUANTISED_H
#define SPLITLLM_TEST_DEQUANTISED_H

#include "compute/quantised-matrix.h"
#include "compute/weight-precision.h"
#include "llm/model.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <span>
#include <vector>

namespace splitllm::test
{

/// The weight of row \p r and column \p c, as the description of QuantisedMatrix says; \p columns a row.
inline float
Dequantised(const QuantisedMatrix& matrix, std::size_t columns, std::size_t r, std::size_t c)
{
    const std::size_t first = (r * columns + c) / matrix.group; // groups never cross a row
    std::uint32_t code = 0;
    if (matrix.bits == 8)
    {
        code = matrix.codes[r * columns + c];
    }
    else
    {
        // 32 columns are 16 bytes, whose low halves are the first 16 of them
        const std::size_t block = (r * columns + c) / 32;
        const std::size_t within = (r * columns + c) - 32 * block;
        const std::uint8_t byte = matrix.codes[16 * block + (within < 16 ? within : within - 16)];
        code = within < 16 ? byte % 16 : byte / 16;
    }
    return std::fma(static_cast<float>(code),
                    FromF16(matrix.scales[2 * first]),
                    FromF16(matrix.scales[2 * first + 1]));
}

/// \p model with fp32 matrices of the weights that \p precision leaves in its quantised layers.
inline std::shared_ptr<const Model>
DequantisedModel(const std::shared_ptr<const Model>& model, const WeightPrecision& precision)
{
    struct Owner
    {
        std::shared_ptr<const Model> from;
        std::deque<std::vector<float>> matrices;
        Model model;
    };

    const auto owner = std::make_shared<Owner>(Owner{model, {}, *model});
    for (std::size_t layer = 0; layer < model->layers.size(); ++layer)
    {
        LayerWeights& weights = owner->model.layers[layer];
        for (LinearWeights* linear : {&weights.query,
                                      &weights.key,
                                      &weights.value,
                                      &weights.output,
                                      &weights.gate,
                                      &weights.up,
                                      &weights.down})
        {
            if (linear->weight.data == nullptr || precision.Bits(layer) > 8)
            {
                continue;
            }
            const QuantisedMatrix matrix(linear->weight, precision.Bits(layer), precision.Group());
            const std::size_t columns = linear->weight.shape[1];
            std::vector<float>& values = owner->matrices.emplace_back(linear->weight.Elements());
            for (std::size_t i = 0; i < values.size(); ++i)
            {
                values[i] = Dequantised(matrix, columns, i / columns, i % columns);
            }
            linear->weight =
                ArrayView{DType::F32, linear->weight.shape, reinterpret_cast<const std::byte*>(values.data())};
        }
    }
    return {owner, &owner->model};
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_DEQUANTISED_H
