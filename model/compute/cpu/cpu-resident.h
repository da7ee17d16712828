// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CPU_RESIDENT_H
#define SPLITLLM_CPU_RESIDENT_H

#include "compute/backend.h"
#include "compute/heavy-hitters.h"
#include "compute/quantised-matrix.h"
#include "compute/rotary-table.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

// What the CPU backend's handles hold. Matrices stay where the model has them unless they are quantised; vectors are
// widened to fp32 once.

namespace splitllm
{

/// y = W x + b.
struct CpuLinear
{
    ArrayView weight;        //!< [out, in]
    std::vector<float> bias; //!< [out], or empty
    std::optional<QuantisedMatrix> quantised; //!< what is computed with in place of the weight, where there
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

/// A model in the CPU backend.
struct CpuModel final : ResidentModel
{
    /// \throws std::logic_error if \p from has a shape but no weights
    /// \throws InputError if a weight that is to be quantised is not finite or too large
    CpuModel(std::shared_ptr<const Model> from, DType activations, const WeightPrecision& precision);

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

/// One bottleneck, as BottleneckWeights has it.
struct CpuBottleneck
{
    CpuLinear down;
    CpuLinear up;
};

/// Those of one layer.
struct CpuBottleneckLayer
{
    CpuBottleneck attention;
    CpuBottleneck mlp;
};

/// Bottleneck adapters in the CPU backend.
struct CpuBottleneckAdapter final : ResidentBottleneck
{
    /// \throws std::logic_error if \p from lacks weights, or has those of another model
    CpuBottleneckAdapter(std::shared_ptr<const BottleneckAdapter> from, const ModelConfig& config);

    std::shared_ptr<const BottleneckAdapter> adapter; //!< keeps the weights mapped
    std::vector<CpuBottleneckLayer> layers;
};

/// One exit, as ExitWeights has it.
struct CpuExit
{
    CpuNorm inputNorm;
    CpuLinear down;
    CpuLinear up;
    CpuNorm norm;
};

/// Early exits in the CPU backend.
struct CpuExits final : ResidentExits
{
    /// \throws std::logic_error if \p from has a width but no weights, or those of another model
    CpuExits(std::shared_ptr<const Exits> from, const ModelConfig& config);

    std::shared_ptr<const Exits> exits; //!< keeps the weights mapped
    std::vector<CpuExit> weights;       //!< none where untrained
};

/// What a side network has for one layer, as SideLayerWeights has it.
struct CpuSideLayer
{
    CpuLinear down;
    CpuLinear inner;
    CpuLinear outer;
};

/// A side network in the CPU backend.
struct CpuSide final : ResidentSide
{
    /// \throws std::logic_error if \p from has widths but no weights, or those of another model
    CpuSide(std::shared_ptr<const SideNetwork> from, const ModelConfig& config);

    std::shared_ptr<const SideNetwork> network; //!< keeps the weights mapped
    std::vector<CpuSideLayer> layers;
    CpuLinear up;
    CpuLinear gate;
    CpuNorm stateNorm; //!< of d elements; its scale is 1 everywhere, as that of widthNorm
    CpuNorm widthNorm; //!< of s elements
};

/// Adds the \p count softmax weights to \p sums, each rounded down to a unit; what is no weight (NaN) adds nothing.
void AddAttention(const float* weights, std::size_t count, Attention* sums);

/// Keys (rotated) and values in fp32, entry by entry in the order of positions, for each layer and key/value head.
class CpuKvCache final : public KvCache
{
  public:
    CpuKvCache(const ModelConfig& config, std::size_t first, std::size_t last, std::size_t capacity);

    /// Writes \p key and \p value (w x kv) behind the entries that \p layer has.
    void Append(std::size_t layer, const Tensor& key, const Tensor& value);

    /// Adds what \p sums holds for the entries of \p layer, the appended ones among them.
    void AddAttention(std::size_t layer, std::span<const Attention> sums);

    /// Drops entries of \p layer as Backend::Prune says, until \p kept are left.
    void Prune(std::size_t layer, std::size_t kept);

    /// Writes entry \p entry of \p layer, all heads side by side, to \p key and \p value (kv elements each).
    void CopyEntry(std::size_t layer, std::size_t entry, std::span<float> key, std::span<float> value) const;

    /// The inverse, for the entry that comes next: its key has its rotation already.
    void AppendEntry(std::size_t layer, std::span<const float> key, std::span<const float> value);

    /// to = \p head (headDim elements), turned to \p position where the family has rotary positions.
    void Place(std::span<const float> head, std::size_t position, float* to) const;

    /// entries x headDim of \p layer and \p kvHead.
    const float* Keys(std::size_t layer, std::size_t kvHead) const;
    const float* Values(std::size_t layer, std::size_t kvHead) const;

  private:
    std::size_t IndexOf(std::size_t layer, std::size_t kvHead) const;

    std::size_t m_kvHeads;
    std::size_t m_headDim;
    std::optional<RotaryTable> m_rotary;         //!< none without rotary positions
    std::vector<std::vector<float>> m_keys;   //!< by IndexOf
    std::vector<std::vector<float>> m_values; //!< by IndexOf
    std::vector<std::vector<Attention>> m_attention; //!< by layer - m_first; empty unless tracked
};

} // namespace splitllm

#endif // SPLITLLM_CPU_RESIDENT_H
