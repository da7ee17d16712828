// SPDX-License-Identifier: GPL-2.0-only
#include "policy/offload-policies.h"

#include "policy/calibrator.h"
#include "policy/decision-list.h"

#include <algorithm>
#include <set>
#include <utility>

namespace splitllm
{

namespace
{

class Everything final : public OffloadPolicy
{
  public:
    Verdict Offload(const EdgeView& /* view */) const override
    {
        return {true, {}};
    }

    bool Selects() const override
    {
        return false;
    }
};

class Nothing final : public OffloadPolicy
{
  public:
    Verdict Offload(const EdgeView& /* view */) const override
    {
        return {false, {}};
    }
};

/// Each cell by itself, at given rates.
class Random final : public OffloadPolicy
{
  public:
    Random(double offload, double back)
        : m_offload(offload),
          m_return(back)
    {
    }

    Verdict Offload(const EdgeView& view) const override
    {
        return {view.draw < m_offload, {}};
    }

    Verdict Return(const DeviceView& view) const override
    {
        return {view.draw < m_return, {}};
    }

  private:
    double m_offload;
    double m_return;
};

class FixedLayers final : public OffloadPolicy
{
  public:
    explicit FixedLayers(std::set<std::size_t> layers)
        : m_layers(std::move(layers))
    {
    }

    Verdict Offload(const EdgeView& view) const override
    {
        return {m_layers.contains(view.cell.layer), {}};
    }

  private:
    std::set<std::size_t> m_layers;
};

class Listed final : public OffloadPolicy
{
  public:
    explicit Listed(DecisionList list)
        : m_list(std::move(list))
    {
    }

    Verdict Offload(const EdgeView& view) const override
    {
        const DecisionList::Entry& entry = m_list.Of(view.cell);
        return {entry.offloaded, entry.score1};
    }

    Verdict Return(const DeviceView& view) const override
    {
        const DecisionList::Entry& entry = m_list.Of(view.cell);
        return {entry.returned, entry.score2};
    }

  private:
    DecisionList m_list;
};

struct Thresholds
{
    double tier1;
    double tier2;
};

/// Scores of a file against thresholds. A cell without a second score comes back.
class Scores final : public OffloadPolicy
{
  public:
    Scores(DecisionList list, Thresholds thresholds)
        : m_list(std::move(list)),
          m_thresholds(thresholds)
    {
    }

    Verdict Offload(const EdgeView& view) const override
    {
        const std::optional<double> score = m_list.Of(view.cell).score1;
        return {score.value_or(0.0) > m_thresholds.tier1, score};
    }

    Verdict Return(const DeviceView& view) const override
    {
        const std::optional<double> score = m_list.Of(view.cell).score2;
        return {score.value_or(1.0) > m_thresholds.tier2, score};
    }

  private:
    DecisionList m_list;
    Thresholds m_thresholds;
};

/// TLC-Calibrator's two tiers.
class Calibrated final : public OffloadPolicy
{
  public:
    Calibrated(std::shared_ptr<const Calibrator> calibrator, const ModelConfig& config, Thresholds thresholds)
        : m_calibrator(std::move(calibrator)),
          m_width(config.hidden),
          m_update(config.QueryWidth() + 2 * config.KvWidth()),
          m_thresholds(thresholds)
    {
    }

    Verdict Offload(const EdgeView& view) const override
    {
        const double score = m_calibrator->Tier1Score(view.cell.layer - 1, view.cell.position, view.hidden);
        return {score > m_thresholds.tier1, score};
    }

    Verdict Return(const DeviceView& view) const override
    {
        const double score =
            m_calibrator->Tier2Score(view.cell.layer - 1, view.update, view.previous, view.baseNorms);
        return {score > m_thresholds.tier2, score};
    }

    bool UsesBaseNorms() const override
    {
        return true;
    }

    /// Features and network, and the norms that travel with what is offloaded.
    DecisionCost OffloadCost() const override
    {
        const ImpactNetwork& network = m_calibrator->Tier1();
        return {.flops = Tier1FeatureFlops(m_width) + 2 * m_update + network.Flops(),
                .bytes = network.LayerBytes(),
                .bytesEach = sizeof(float) * (2 * m_width + m_update)};
    }

    DecisionCost ReturnCost() const override
    {
        const ImpactNetwork& network = m_calibrator->Tier2();
        return {.flops = Tier2FeatureFlops(m_update) + network.Flops(),
                .bytes = network.LayerBytes() + sizeof(float) * m_update,
                .bytesEach = sizeof(float) * 2 * m_update};
    }

    std::uint64_t EdgeBytes() const override
    {
        return m_calibrator->Tier1Bytes();
    }

    std::uint64_t DeviceBytes() const override
    {
        return m_calibrator->Tier2Bytes();
    }

  private:
    std::shared_ptr<const Calibrator> m_calibrator;
    std::size_t m_width;
    std::size_t m_update;
    Thresholds m_thresholds;
};

class LargeTokens final : public OffloadPolicy
{
  public:
    LargeTokens(double keep, std::vector<float> quantiles)
        : m_keep(keep),
          m_quantiles(std::move(quantiles))
    {
    }

    Verdict Offload(const EdgeView& view) const override
    {
        const double score = Percentile(static_cast<float>(Norm(view.embedding)));
        return {m_keep >= 1.0 || score > 1.0 - m_keep, score};
    }

  private:
    /// Share of the calibration tokens below \p norm, between percentiles by linear interpolation.
    double Percentile(float norm) const
    {
        const auto above = std::ranges::upper_bound(m_quantiles, norm);
        if (above == m_quantiles.begin() || above == m_quantiles.end())
        {
            return above == m_quantiles.begin() ? 0.0 : 1.0;
        }
        const float low = *(above - 1);
        const auto index = static_cast<double>(above - 1 - m_quantiles.begin());
        return (index + (norm - low) / (*above - low)) / static_cast<double>(m_quantiles.size() - 1);
    }

    double m_keep;
    std::vector<float> m_quantiles;
};

class RandomTokens final : public OffloadPolicy
{
  public:
    explicit RandomTokens(double keep)
        : m_keep(keep)
    {
    }

    Verdict Offload(const EdgeView& view) const override
    {
        return {view.tokenDraw < m_keep, {}};
    }

  private:
    double m_keep;
};

Thresholds
ReadThresholds(StrictObject& parameters)
{
    return {parameters.Number("tau1", 0.0, 1.0, 0.6), parameters.Number("tau2", 0.0, 1.0, 0.8)};
}

std::optional<std::array<double, 4>>
ReadFeatureWeights(StrictObject& parameters, const std::string& key)
{
    if (!parameters.Has(key))
    {
        return std::nullopt;
    }
    const Json& list = parameters.Raw(key);
    std::array<double, 4> weights{};
    const auto isWeight = [](const Json& value) {
        return value.is_number() && value.get<double>() >= 0.0 && value.get<double>() <= 1.0;
    };
    if (!list.is_array() || list.size() != weights.size() || !std::ranges::all_of(list, isWeight))
    {
        parameters.Fail(key, "must be a list of 4 numbers from 0 to 1");
    }
    std::ranges::transform(list, weights.begin(), [](const Json& value) { return value.get<double>(); });
    return weights;
}

DecisionList
ReadList(StrictObject& parameters, const PolicyContext& context, bool needsScores)
{
    const std::filesystem::path file = context.study / parameters.String("file");
    if (context.shuffled)
    {
        parameters.Fail("file", "decisions are listed by request, whose order is drawn; give workload.order \"file\"");
    }
    DecisionList list(file, parameters.Integer("point", 0, 1'000'000, 0));
    list.ExpectAll(context, needsScores);
    return list;
}

void
RefuseShapeMode(const StrictObject& parameters, const PolicyContext& context)
{
    if (context.shapeMode)
    {
        parameters.Fail("name",
                        "this policy looks at numbers, which shape mode has none of; accepted there: always, never, "
                        "random, fixed, listed, scores");
    }
}

} // namespace

std::map<std::string, PolicyFactory>
BuiltInPolicies()
{
    using Made = std::shared_ptr<const OffloadPolicy>;
    return {
        {"always", [](StrictObject&, const PolicyContext&) -> Made { return std::make_shared<Everything>(); }},
        {"never", [](StrictObject&, const PolicyContext&) -> Made { return std::make_shared<Nothing>(); }},
        {"random",
         [](StrictObject& parameters, const PolicyContext&) -> Made {
             const double offload = parameters.Number("offload", 0.0, 1.0);
             return std::make_shared<Random>(offload, parameters.Number("return", 0.0, 1.0, 1.0));
         }},
        {"fixed",
         [](StrictObject& parameters, const PolicyContext& context) -> Made {
             std::set<std::size_t> layers;
             const Json& list = parameters.Raw("layers");
             const auto isLayer = [&context](const Json& value) {
                 return value.is_number_unsigned() && value.get<std::uint64_t>() >= 1 &&
                        value.get<std::uint64_t>() <= context.config.layers;
             };
             if (!list.is_array() || !std::ranges::all_of(list, isLayer))
             {
                 parameters.Fail("layers",
                                 "must be a list of layers from 1 to " + std::to_string(context.config.layers));
             }
             for (const Json& layer : list)
             {
                 layers.insert(layer.get<std::size_t>());
             }
             return std::make_shared<FixedLayers>(std::move(layers));
         }},
        {"listed",
         [](StrictObject& parameters, const PolicyContext& context) -> Made {
             return std::make_shared<Listed>(ReadList(parameters, context, /* needsScores */ false));
         }},
        {"scores",
         [](StrictObject& parameters, const PolicyContext& context) -> Made {
             DecisionList list = ReadList(parameters, context, /* needsScores */ true);
             return std::make_shared<Scores>(std::move(list), ReadThresholds(parameters));
         }},
        {"calibrator",
         [](StrictObject& parameters, const PolicyContext& context) -> Made {
             RefuseShapeMode(parameters, context);
             const std::filesystem::path folder = context.calibrators / parameters.String("path");
             const auto weights1 = ReadFeatureWeights(parameters, "weights1");
             const auto weights2 = ReadFeatureWeights(parameters, "weights2");
             return std::make_shared<Calibrated>(Calibrator::Load(folder, context.config, weights1, weights2),
                                                 context.config,
                                                 ReadThresholds(parameters));
         }},
    };
}

std::shared_ptr<const OffloadPolicy>
ExchangeEverything()
{
    return std::make_shared<Everything>();
}

std::shared_ptr<const OffloadPolicy>
KeepLargeTokens(double keep, std::vector<float> quantiles)
{
    return std::make_shared<LargeTokens>(keep, std::move(quantiles));
}

std::shared_ptr<const OffloadPolicy>
KeepRandomTokens(double keep)
{
    return std::make_shared<RandomTokens>(keep);
}

} // namespace splitllm
