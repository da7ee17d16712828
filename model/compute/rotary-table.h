// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_ROTARY_TABLE_H
#define SPLITLLM_ROTARY_TABLE_H

#include "llm/config.h"

#include <cstddef>
#include <vector>

namespace splitllm
{

/**
 * Cosines and sines of rotary positions, in the rotate-half convention: element i turns with element i + headDim / 2.
 *
 * As transformers computes them: the inverse frequencies theta^(-2i / headDim) and the angles (position times inverse
 * frequency) are rounded to fp32. Exp, log, sine and cosine are the project's own, so the tables are the same on every
 * machine.
 */
class RotaryTable
{
  public:
    explicit RotaryTable(const ModelConfig& config);

    /// Makes positions [0, \p positions) available.
    void Extend(std::size_t positions);

    /// to = \p head (headDim elements) turned to \p position; the two must not overlap.
    void Rotate(const float* head, std::size_t position, float* to) const;

    /// Cosines and sines of the positions made available: positions x headDim / 2.
    const std::vector<float>& Cosines() const
    {
        return m_cos;
    }

    const std::vector<float>& Sines() const
    {
        return m_sin;
    }

    /// One for each pair of elements: headDim / 2.
    const std::vector<float>& InverseFrequencies() const
    {
        return m_inverseFrequencies;
    }

  private:
    std::vector<float> m_inverseFrequencies;
    std::vector<float> m_cos; //!< positions x pairs
    std::vector<float> m_sin; //!< positions x pairs
};

} // namespace splitllm

#endif // SPLITLLM_ROTARY_TABLE_H
