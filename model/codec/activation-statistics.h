// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_ACTIVATION_STATISTICS_H
#define SPLITLLM_ACTIVATION_STATISTICS_H

#include "base/strict-json.h"
#include "codec/tensor-codec.h"
#include "llm/config.h"

#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace splitllm
{

/// What is known about every channel (column) of a tensor; empty where channels were not measured.
struct ChannelStatistics
{
    /// How far the range of a row's values is kept: factors of its least and its greatest value.
    struct Clip
    {
        float low = 1.0F;
        float high = 1.0F;
    };

    std::vector<float> largest;  //!< greatest |x|
    std::vector<float> rms;      //!< root of the mean square
    std::vector<float> shift;    //!< learned: what is subtracted before quantising
    std::vector<float> scale;    //!< learned: what is divided out after that, positive
    std::map<unsigned, Clip> clip; //!< learned, by bits an element
};

/// What is known about the tensors that cross at one place.
struct SiteStatistics
{
    std::vector<float> quantiles; //!< of |x|, at ActivationStatistics::Levels()
    ChannelStatistics channels;
};

/**
 * Statistics of a model's activations on calibration text, which both ends of a link hold as they hold the model
 * (scripts/measure-activations).
 */
class ActivationStatistics
{
  public:
    /// Nothing was measured anywhere.
    ActivationStatistics() = default;

    /// Reads \p file, which must be of a model of \p config's shape. \throws InputError naming file and key
    static ActivationStatistics Load(const std::filesystem::path& file, const ModelConfig& config);

    /// Reads \p json. \param origin for messages
    static ActivationStatistics Read(Json json, const std::string& origin, const ModelConfig& config);

    /// The quantiles that were measured, as shares in (0, 1], rising.
    const std::vector<double>& Levels() const
    {
        return m_levels;
    }

    /// Statistics by message kind, in the order of layers; kinds outside the layers have one entry.
    const std::map<std::string, std::vector<SiteStatistics>, std::less<>>& Sites() const
    {
        return m_sites;
    }

    /// Those of \p site; null where it was not measured.
    const SiteStatistics* Find(const CodecSite& site) const;

    /**
     * The magnitude that a share \p level of the elements at \p site does not exceed.
     * \param level one of Levels()
     * \throws InputError where \p site was not measured
     */
    float Quantile(const CodecSite& site, double level) const;

  private:
    std::vector<double> m_levels;
    std::map<std::string, std::vector<SiteStatistics>, std::less<>> m_sites;
};

/// The statistics that the key "statistics" of a codec's parameters names, relative to the context's folder. In shape
/// mode, where nothing is coded, the key may be absent and is not followed. \throws InputError
ActivationStatistics ReadStatistics(StrictObject& parameters, const CodecContext& context);

/// Index of \p site among the entries of its kind.
std::size_t IndexOf(const CodecSite& site);

} // namespace splitllm

#endif // SPLITLLM_ACTIVATION_STATISTICS_H
