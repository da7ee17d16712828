// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_OPSC_CONFIGURATION_H
#define SPLITLLM_OPSC_CONFIGURATION_H

#include "base/strict-json.h"
#include "llm/config.h"
#include "policy/opsc-sizes.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace splitllm
{

/// One way to split and quantise a model: what Eq 8 chooses.
struct OpscConfiguration
{
    std::size_t split = 0;      //!< layers of the front, from 1
    FrontBack weights;          //!< bits of the weights
    unsigned activationBits = 16; //!< of every layer's activations: of keys and values, and of what crosses
};

/// How well a model does in one configuration, as measured.
struct MeasuredAccuracy
{
    OpscConfiguration configuration;
    Json codec; //!< as a study writes it
    double perplexity = 0.0;
};

/**
 * Perplexity by configuration: the accuracy A of Eq 8b, measured by split-llm-accuracy and stored with the command that
 * did it.
 */
struct AccuracyTable
{
    double base = 0.0; //!< perplexity of the model as it is
    std::size_t group = 0; //!< columns of quantised weights that share a scale
    std::vector<MeasuredAccuracy> rows;

    /// Reads a file that split-llm-accuracy wrote. \throws InputError naming the file and the key
    static AccuracyTable Load(const std::filesystem::path& file, const ModelConfig& config);
};

/// What Eq 8 must keep within.
struct OpscLimits
{
    double drop = 0.01;       //!< A_delta: how much larger the perplexity may be, relative to the base
    std::uint64_t memory = 0; //!< bytes
    std::size_t tokens = 0;   //!< W: the longest sequence that must fit
};

/**
 * Eq 8 by enumeration of what was measured: the largest sum of activation bits over the layers among the configurations
 * that keep the perplexity and fit the memory, where Eq 1 and Eq 2 at the longest sequence count. Of equals the one
 * with more layers on the device, then the one with the lower perplexity, then the one listed first.
 * \return nothing if no configuration fits
 */
std::optional<MeasuredAccuracy> ChooseConfiguration(const ModelConfig& config,
                                                     const AccuracyTable& accuracy,
                                                     const OpscLimits& limits);

} // namespace splitllm

#endif // SPLITLLM_OPSC_CONFIGURATION_H
