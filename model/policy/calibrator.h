// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CALIBRATOR_H
#define SPLITLLM_CALIBRATOR_H

#include "base/strict-json.h"
#include "llm/config.h"
#include "policy/calibrator-features.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace splitllm
{

/// Weights of the four features of each tier. 0.25 each leaves the standardised features as they are.
struct FeatureWeights
{
    std::array<double, 4> tier1;
    std::array<double, 4> tier2; //!< of the energy ratios, similarities, entropies and diversities
};

/**
 * A small network for each layer that turns features of a (layer, token) cell into an impact score:
 *
 *     x = 4 w (f - mean) / scale, each quotient cut off at +-8, then (if learned) R u with u the direction of the state
 *     score = sigmoid(w2 . max(W1 x + b1, 0) + b2), cut off at [2^-20, 1 - 2^-20]
 */
class ImpactNetwork
{
  public:
    /// \param features of one cell
    /// \param state what R looks at: its direction, scaled to a norm of sqrt(elements). Unused without R.
    double Score(std::size_t layer,
                 std::span<const double> features,
                 const std::array<double, 4>& weights,
                 std::span<const float> state) const;

    /// FLOPs of Score for one cell.
    std::size_t Flops() const;

    /// Bytes of the parameters of all layers, and of one.
    std::uint64_t Bytes() const;
    std::uint64_t LayerBytes() const;

  private:
    friend class Calibrator;

    std::size_t m_layers = 0;
    std::size_t m_features = 0;
    std::size_t m_projected = 0; //!< rows of R, 0 without
    std::size_t m_width = 0;     //!< elements that R looks at
    std::size_t m_hidden = 0;
    std::vector<float> m_mean;       //!< layers x features
    std::vector<float> m_scale;      //!< layers x features
    std::vector<float> m_w1;         //!< layers x hidden x (features + projected)
    std::vector<float> m_b1;         //!< layers x hidden
    std::vector<float> m_w2;         //!< layers x hidden
    std::vector<float> m_b2;         //!< layers
    std::vector<float> m_projection; //!< layers x projected x width
};

/**
 * TLC-Calibrator's two calibrators, trained for one model and adapter: Tier 1 scores a layer's input at the edge,
 * Tier 2 the updates that the device computed. The folder format is described in doc/training.md.
 */
class Calibrator
{
  public:
    /**
     * Loads calibrator.json and the tensors that it names.
     * \param weights replaces the feature weights that it was trained with
     * \throws InputError if a file is missing or malformed, or if it was made for another shape of model
     */
    static std::shared_ptr<const Calibrator> Load(const std::filesystem::path& folder,
                                                  const ModelConfig& config,
                                                  const std::optional<std::array<double, 4>>& tier1Weights = {},
                                                  const std::optional<std::array<double, 4>>& tier2Weights = {});

    /// \param layer from 0 \param position in the sequence, from 0 \param hidden the residual that enters the layer
    double Tier1Score(std::size_t layer, std::size_t position, std::span<const float> hidden) const;

    /// \param update [Q | K | V] of the layer \param previous of the last layer computed for this token, or empty
    double Tier2Score(std::size_t layer,
                      std::span<const float> update,
                      std::span<const float> previous,
                      const std::array<float, 3>& baseNorms) const;

    const ImpactNetwork& Tier1() const
    {
        return m_tier1;
    }

    const ImpactNetwork& Tier2() const
    {
        return m_tier2;
    }

    /// Bytes that each node keeps: parameters and calibration means, as fp32.
    std::uint64_t Tier1Bytes() const;
    std::uint64_t Tier2Bytes() const;

    const FeatureWeights& Weights() const
    {
        return m_weights;
    }

  private:
    UpdateView Separate(std::span<const float> update) const;

    std::size_t m_hidden = 0;
    std::size_t m_query = 0;
    std::size_t m_kv = 0;
    std::size_t m_positions = 0;
    std::vector<float> m_positionMean; //!< layers x positions x d; the last position stands for all later ones
    std::vector<float> m_updateMean;   //!< layers x (q + 2 kv)
    FeatureWeights m_weights{};
    ImpactNetwork m_tier1;
    ImpactNetwork m_tier2;
};

/// Percentiles 0 to 100 of the norm of h0 over calibration tokens, from a calibrator's statistics.safetensors.
/// \throws InputError
std::vector<float> LoadTokenNormQuantiles(const std::filesystem::path& file);

} // namespace splitllm

#endif // SPLITLLM_CALIBRATOR_H
