// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CPU_RESIDENT_H
#define SPLITLLM_CPU_RESIDENT_H

#include "compute/backend.h"
#include "compute/cpu/rotary-table.h"

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

// What the CPU backend's handles hold. Matrices stay where the model has them; vectors are widened to fp32 once.

namespace splitllm
{

/// y = W x + b.
struct CpuLinear
{
    ArrayView weight;        //!< [out, in]
    std::vector<float> bias; //!< [out], or empty
};

/// A norm's vectors.
struct CpuNorm
{
    std::vector<float> scale;
    std::vector<float> shift; //!< empty for RMSNorm
};

/// One layer, as LayerWeights has it.
struct CpuLayer
{
    CpuNorm attentionNorm;
    CpuLinear query;
    CpuLinear key;
    CpuLinear value;
    CpuLinear output;
    CpuNorm mlpNorm;
    CpuLinear gate; //!< LLaMA only
    CpuLinear up;
    CpuLinear down;
};

/// Writes row \p row of the matrix \p view to \p to, as fp32.
void WidenRow(const ArrayView& view, std::size_t row, float* to);

/// A model in the CPU backend.
struct CpuModel final : ResidentModel
{
    /// \throws std::logic_error if \p from has a shape but no weights
    CpuModel(std::shared_ptr<const Model> from, DType activations);

    std::shared_ptr<const Model> model; //!< keeps the weights mapped
    std::vector<CpuLayer> layers;
    CpuNorm finalNorm;
    CpuLinear head;
};

/// An adapter in the CPU backend.
struct CpuAdapter final : ResidentAdapter
{
    /// \throws std::logic_error if \p from has not one entry for each layer of \p config
    CpuAdapter(std::shared_ptr<const Adapter> from, const ModelConfig& config);

    std::shared_ptr<const Adapter> adapter;
};

/// Keys (rotated) and values in fp32, position by position for each layer and key/value head.
class CpuKvCache final : public KvCache
{
  public:
    CpuKvCache(const ModelConfig& config, std::size_t first, std::size_t last, std::size_t capacity);

    /// Makes room for positions [0, \p positions) of \p layer, and rotary tables for them.
    void Reserve(std::size_t layer, std::size_t positions);

    /// positions x headDim of \p layer and \p kvHead.
    std::vector<float>& Keys(std::size_t layer, std::size_t kvHead);
    std::vector<float>& Values(std::size_t layer, std::size_t kvHead);

    /// Nothing for a family without rotary positions.
    const std::optional<RotaryTable>& Rotary() const
    {
        return m_rotary;
    }

  private:
    std::size_t m_kvHeads;
    std::size_t m_headDim;
    std::optional<RotaryTable> m_rotary;
    std::vector<std::vector<float>> m_keys;   //!< by (layer - first) * kvHeads + kvHead
    std::vector<std::vector<float>> m_values; //!< as m_keys
};

} // namespace splitllm

#endif // SPLITLLM_CPU_RESIDENT_H
