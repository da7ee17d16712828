// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_WEIGHT_PRECISION_H
#define SPLITLLM_WEIGHT_PRECISION_H

#include "llm/config.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace splitllm
{

/**
 * How many bits the weights of each layer have (OPSC's Qw): those that the model is stored with, or 8 or 4.
 *
 * In a layer of fewer bits the matrices are quantised group by group: a row's next Group() columns share a scale and a
 * minimum in fp16, and a weight is minimum + code * scale with a code of 8 or 4 bits. Norms, biases, the embedding and
 * the head stay as they are stored.
 */
class WeightPrecision
{
  public:
    /// Columns of a group unless something else is asked for.
    static constexpr std::size_t kGroup = 64;

    /// Bytes of a group's scale and minimum.
    static constexpr std::size_t kGroupBytes = 4;

    /// All layers of \p config as they are stored.
    explicit WeightPrecision(const ModelConfig& config);

    /**
     * \p front bits in layers 1 to \p l of \p config and \p back bits in the others (OPSC's Qw1, Qw2 and l_w). The
     * stored type's own bits leave layers as they are.
     * \param l 0 to the number of layers
     * \param group of AcceptedGroups, where a layer is quantised
     * \throws std::logic_error that says what is accepted
     */
    static WeightPrecision FrontBack(const ModelConfig& config,
                                     std::size_t l,
                                     unsigned front,
                                     unsigned back,
                                     std::size_t group = kGroup);

    /// \p bits in layers 1 to \p l, the others as stored. \throws std::logic_error as FrontBack
    static WeightPrecision Front(const ModelConfig& config,
                                 std::size_t l,
                                 unsigned bits,
                                 std::size_t group = kGroup);

    /// \p bits in the layers after \p l, the first \p l as stored. \throws std::logic_error as FrontBack
    static WeightPrecision Back(const ModelConfig& config, std::size_t l, unsigned bits, std::size_t group = kGroup);

    /// Layers that it is for.
    std::size_t Layers() const
    {
        return m_bits.size();
    }

    /// Nominal bits of a weight of \p layer, which counts from 0.
    unsigned Bits(std::size_t layer) const
    {
        return m_bits.at(layer);
    }

    /// Whether the matrices of \p layer have other bits than they are stored with.
    bool Quantised(std::size_t layer) const
    {
        return Bits(layer) != m_stored;
    }

    /// Columns that share a scale and a minimum.
    std::size_t Group() const
    {
        return m_group;
    }

    bool operator==(const WeightPrecision&) const = default;

  private:
    unsigned m_stored;
    std::vector<unsigned> m_bits; //!< by layer
    std::size_t m_group = kGroup;
};

/// The bits that layers of weights stored as \p stored can have, ascending: 4, 8 and the stored ones.
std::vector<unsigned> AcceptedWeightBits(DType stored);

/// The columns that a group of \p config's matrices can have, ascending: those of 32, 64 and 128 that divide all rows.
std::vector<std::size_t> AcceptedGroups(const ModelConfig& config);

} // namespace splitllm

#endif // SPLITLLM_WEIGHT_PRECISION_H
