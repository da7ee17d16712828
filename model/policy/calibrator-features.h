// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CALIBRATOR_FEATURES_H
#define SPLITLLM_CALIBRATOR_FEATURES_H

#include <array>
#include <cstddef>
#include <span>

namespace splitllm
{

/**
 * \file
 * What TLC-Calibrator's two calibrators look at (sections 4.1 and 4.2), as pure functions.
 */

/// Tier 1, Eqs 1 to 4: norm, mean, maximum, positional deviation.
using Tier1Features = std::array<double, 4>;

/**
 * \param hidden the residual that enters the layer, before its norm: d elements, d at least 1
 * \param usual mean of that state over a calibration set at the same layer and position: d elements. Eq 4 asks for the
 *        deviation over N sequences, of which a running one is one: its deviation from the others' mean stands for it.
 */
Tier1Features ComputeTier1Features(std::span<const float> hidden, std::span<const float> usual);

/// LoRA's updates of one token at one layer.
struct UpdateView
{
    std::span<const float> query; //!< q elements
    std::span<const float> key;   //!< kv elements
    std::span<const float> value; //!< kv elements
};

/// Tier 2, Eqs 5 to 9, each for Q, K, V in turn: energy ratios, self-similarities, entropies (nats), diversities.
using Tier2Features = std::array<double, 12>;

/**
 * \param update scaling included
 * \param previous the update of the last layer that the device computed for this token; empty spans if there is none,
 *        which gives a similarity of 0
 * \param baseNorms l2 norms of the base projections Q, K, V; a zero gives an energy ratio of 0
 * \param usual mean update of the layer over a calibration set
 */
Tier2Features ComputeTier2Features(const UpdateView& update,
                                   const UpdateView& previous,
                                   const std::array<float, 3>& baseNorms,
                                   const UpdateView& usual);

/// The l2 norm of \p values.
double Norm(std::span<const float> values);

/// What a call of ComputeTier1Features or ComputeTier2Features over \p elements takes: FLOPs, an exp counting one.
std::size_t Tier1FeatureFlops(std::size_t elements);
std::size_t Tier2FeatureFlops(std::size_t elements);

} // namespace splitllm

#endif // SPLITLLM_CALIBRATOR_FEATURES_H
