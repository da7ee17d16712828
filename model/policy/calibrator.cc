// SPDX-License-Identifier: GPL-2.0-only
#include "policy/calibrator.h"

#include "base/deterministic-math.h"
#include "base/input-error.h"
#include "llm/safetensors.h"
#include "policy/lanes.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace splitllm
{

namespace
{

constexpr double kFarthest = 8.0;             // standard deviations
constexpr double kLowestScore = 0x1.0p-20;    // thresholds 0 and 1 mean everything and nothing
constexpr std::size_t kQuantiles = 101;       // percentiles 0 to 100
constexpr std::size_t kMostHidden = 4096;     // of a network that a token can afford
constexpr std::size_t kMostPositions = 65536;

const StoredTensor&
Find(const MappedTensors& tensors, const std::string& name, std::size_t dimensions, const std::filesystem::path& file)
{
    const auto found = tensors.Index().find(name);
    if (found == tensors.Index().end() || found->second.shape.size() != dimensions)
    {
        throw InputError(file.string() + ": " + name + ": a tensor of " + std::to_string(dimensions) +
                         " dimensions is expected");
    }
    return found->second;
}

std::vector<float>
Finite(const MappedTensors& tensors,
       const std::string& name,
       const std::vector<std::size_t>& shape,
       const std::filesystem::path& file)
{
    std::vector<float> values = Widened(tensors.Require(name, shape));
    if (!std::ranges::all_of(values, [](float value) { return std::isfinite(value); }))
    {
        throw InputError(file.string() + ": " + name + " holds values that are not finite");
    }
    return values;
}

void
ExpectEqual(StrictObject& object, const std::string& key, std::size_t expected, const ModelConfig& config)
{
    const std::uint64_t value = object.Integer(key, 1, std::uint64_t{1} << 32);
    if (value != expected)
    {
        object.Fail(key,
                    "made for a model with " + std::to_string(value) + ", but " + config.name + " has " +
                        std::to_string(expected));
    }
}

std::array<double, 4>
ReadWeights(StrictObject tier)
{
    std::array<double, 4> weights{};
    const Json& list = tier.Raw("weights");
    if (!list.is_array() || list.size() != weights.size())
    {
        tier.Fail("weights", "must be a list of 4 numbers");
    }
    for (std::size_t i = 0; i < weights.size(); i++)
    {
        if (!list[i].is_number())
        {
            tier.Fail("weights", "must be a list of 4 numbers");
        }
        weights[i] = list[i].get<double>();
    }
    tier.Finish();
    return weights;
}

} // namespace

double
ImpactNetwork::Score(std::size_t layer,
                     std::span<const double> features,
                     const std::array<double, 4>& weights,
                     std::span<const float> state) const
{
    const std::size_t inputs = m_features + m_projected;
    const std::size_t group = m_features / weights.size(); // Tier 2 has three features of each kind
    std::vector<double> x(inputs);
    for (std::size_t i = 0; i < m_features; i++)
    {
        const double deviation = (features[i] - m_mean[layer * m_features + i]) / m_scale[layer * m_features + i];
        x[i] = 4.0 * weights[i / group] * std::clamp(deviation, -kFarthest, kFarthest);
    }
    if (m_projected > 0)
    {
        const double norm = Norm(state);
        const double scale = norm > 0.0 ? std::sqrt(static_cast<double>(m_width)) / norm : 0.0;
        const float* rows = m_projection.data() + layer * m_projected * m_width;
        std::size_t k = 0;
        for (; k + 4 <= m_projected; k += 4)
        {
            const std::array<double, 4> dots = FourDots(rows + k * m_width, state);
            std::ranges::transform(dots, x.begin() + static_cast<std::ptrdiff_t>(m_features + k), [scale](double dot) {
                return scale * dot;
            });
        }
        for (; k < m_projected; k++)
        {
            x[m_features + k] = scale * Dot({rows + k * m_width, m_width}, state);
        }
    }
    double logit = m_b2[layer];
    for (std::size_t j = 0; j < m_hidden; j++)
    {
        const float* row = m_w1.data() + (layer * m_hidden + j) * inputs;
        double sum = m_b1[layer * m_hidden + j];
        for (std::size_t i = 0; i < inputs; i++)
        {
            sum += row[i] * x[i];
        }
        logit += m_w2[layer * m_hidden + j] * std::max(sum, 0.0);
    }
    return std::clamp(1.0 / (1.0 + deterministic::Exp(-logit)), kLowestScore, 1.0 - kLowestScore);
}

std::size_t
ImpactNetwork::Flops() const
{
    const std::size_t inputs = m_features + m_projected;
    const std::size_t projection = m_projected > 0 ? 2 * m_width * (m_projected + 1) + m_projected : 0;
    return 3 * m_features + projection + m_hidden * (2 * inputs + 3) + 4;
}

std::uint64_t
ImpactNetwork::LayerBytes() const
{
    const std::size_t inputs = m_features + m_projected;
    return sizeof(float) * (2 * m_features + m_hidden * (inputs + 2) + 1 + m_projected * m_width);
}

std::uint64_t
ImpactNetwork::Bytes() const
{
    return m_layers * LayerBytes();
}

std::shared_ptr<const Calibrator>
Calibrator::Load(const std::filesystem::path& folder,
                 const ModelConfig& config,
                 const std::optional<std::array<double, 4>>& tier1Weights,
                 const std::optional<std::array<double, 4>>& tier2Weights)
{
    const std::filesystem::path file = folder / "calibrator.json";
    Json json = LoadStrictJson(file);
    StrictObject object(json, file.string());
    object.Choice("format", {"split-llm-calibrator"});
    object.Integer("version", 1, 1);
    StrictObject model = object.Object("model");
    ExpectEqual(model, "layers", config.layers, config);
    ExpectEqual(model, "hidden", config.hidden, config);
    ExpectEqual(model, "query", config.QueryWidth(), config);
    ExpectEqual(model, "kv", config.KvWidth(), config);
    model.Finish();

    auto calibrator = std::make_shared<Calibrator>();
    calibrator->m_hidden = config.hidden;
    calibrator->m_query = config.QueryWidth();
    calibrator->m_kv = config.KvWidth();
    const std::array<double, 4> trained1 = ReadWeights(object.Object("tier1"));
    const std::array<double, 4> trained2 = ReadWeights(object.Object("tier2"));
    calibrator->m_weights = {tier1Weights.value_or(trained1), tier2Weights.value_or(trained2)};

    const std::size_t update = config.QueryWidth() + 2 * config.KvWidth();
    const std::filesystem::path statisticsFile = folder / object.String("statistics");
    const auto statistics = MappedTensors::OpenFile(statisticsFile);
    const std::size_t positions = Find(*statistics, "position_mean", 3, statisticsFile).shape[1];
    if (positions == 0 || positions > kMostPositions)
    {
        throw InputError(statisticsFile.string() + ": position_mean: 1 to 65536 positions are expected");
    }
    calibrator->m_positions = positions;
    calibrator->m_positionMean =
        Finite(*statistics, "position_mean", {config.layers, positions, config.hidden}, statisticsFile);
    calibrator->m_updateMean = Finite(*statistics, "projection_mean", {config.layers, update}, statisticsFile);

    const std::filesystem::path networks = folder / "calibrator.safetensors";
    const auto tensors = MappedTensors::OpenFile(networks);
    const auto read = [&](const std::string& tier, std::size_t features, std::size_t width) {
        ImpactNetwork network;
        network.m_layers = config.layers;
        network.m_features = features;
        network.m_width = width;
        network.m_hidden = Find(*tensors, tier + ".w1", 3, networks).shape[1];
        if (network.m_hidden == 0 || network.m_hidden > kMostHidden)
        {
            throw InputError(networks.string() + ": " + tier + ".w1: 1 to 4096 hidden units are expected");
        }
        const std::string projection = tier + ".projection";
        if (tensors->Index().contains(projection))
        {
            network.m_projected = Find(*tensors, projection, 3, networks).shape[1];
            network.m_projection =
                Finite(*tensors, projection, {config.layers, network.m_projected, width}, networks);
        }
        const std::size_t inputs = features + network.m_projected;
        network.m_mean = Finite(*tensors, tier + ".mean", {config.layers, features}, networks);
        network.m_scale = Finite(*tensors, tier + ".scale", {config.layers, features}, networks);
        network.m_w1 = Finite(*tensors, tier + ".w1", {config.layers, network.m_hidden, inputs}, networks);
        network.m_b1 = Finite(*tensors, tier + ".b1", {config.layers, network.m_hidden}, networks);
        network.m_w2 = Finite(*tensors, tier + ".w2", {config.layers, network.m_hidden}, networks);
        network.m_b2 = Finite(*tensors, tier + ".b2", {config.layers}, networks);
        if (!std::ranges::all_of(network.m_scale, [](float scale) { return scale > 0.0F; }))
        {
            throw InputError(networks.string() + ": " + tier + ".scale must be above 0 everywhere");
        }
        return network;
    };
    calibrator->m_tier1 = read("tier1", 4, config.hidden);
    calibrator->m_tier2 = read("tier2", 12, update);

    // What says how it was made is for readers.
    for (const char* key : {"label", "normalisation", "thresholds", "made_by"})
    {
        if (object.Has(key))
        {
            object.Raw(key);
        }
    }
    object.Finish();
    return calibrator;
}

double
Calibrator::Tier1Score(std::size_t layer, std::size_t position, std::span<const float> hidden) const
{
    const std::size_t entry = layer * m_positions + std::min(position, m_positions - 1);
    const std::span<const float> usual(m_positionMean.data() + entry * m_hidden, m_hidden);
    const Tier1Features features = ComputeTier1Features(hidden, usual);
    return m_tier1.Score(layer, features, m_weights.tier1, hidden);
}

double
Calibrator::Tier2Score(std::size_t layer,
                       std::span<const float> update,
                       std::span<const float> previous,
                       const std::array<float, 3>& baseNorms) const
{
    const std::size_t width = m_query + 2 * m_kv;
    const std::span<const float> usual(m_updateMean.data() + layer * width, width);
    const Tier2Features features = ComputeTier2Features(Separate(update),
                                                        previous.empty() ? UpdateView{} : Separate(previous),
                                                        baseNorms,
                                                        Separate(usual));
    return m_tier2.Score(layer, features, m_weights.tier2, update);
}

std::uint64_t
Calibrator::Tier1Bytes() const
{
    return m_tier1.Bytes() + m_positionMean.size() * sizeof(float);
}

std::uint64_t
Calibrator::Tier2Bytes() const
{
    return m_tier2.Bytes() + m_updateMean.size() * sizeof(float);
}

UpdateView
Calibrator::Separate(std::span<const float> update) const
{
    return {update.subspan(0, m_query), update.subspan(m_query, m_kv), update.subspan(m_query + m_kv, m_kv)};
}

std::vector<float>
LoadTokenNormQuantiles(const std::filesystem::path& file)
{
    std::vector<float> quantiles =
        Finite(*MappedTensors::OpenFile(file), "token_norm_quantiles", {kQuantiles}, file);
    if (!std::ranges::is_sorted(quantiles))
    {
        throw InputError(file.string() + ": token_norm_quantiles must not fall");
    }
    return quantiles;
}

} // namespace splitllm
