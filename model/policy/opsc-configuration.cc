// SPDX-License-Identifier: GPL-2.0-only
#include "policy/opsc-configuration.h"

#include <tuple>

namespace splitllm
{

namespace
{

/// Eq 8c: whether weights and keys and values fit.
bool
Fits(const ModelConfig& config, const OpscConfiguration& candidate, const OpscLimits& limits)
{
    const FrontBack activations{candidate.activationBits, candidate.activationBits};
    const std::uint64_t weights = OpscWeightBytes(config, candidate.split, candidate.weights);
    const std::uint64_t context = (OpscKvBits(config, limits.tokens, candidate.split, activations) + 7) / 8;
    return weights + context <= limits.memory;
}

unsigned
ReadBits(StrictObject& row, const std::string& key)
{
    return static_cast<unsigned>(row.Integer(key, 1, 32));
}

/// A codec as a study writes it: {"name": ..., parameters}.
Json
CodecOf(StrictObject& row)
{
    Json codec{{"name", row.String("codec")}};
    if (row.Has("parameters"))
    {
        codec.update(row.Raw("parameters"));
    }
    return codec;
}

} // namespace

AccuracyTable
AccuracyTable::Load(const std::filesystem::path& file, const ModelConfig& config)
{
    Json json = LoadStrictJson(file);
    StrictObject object(json, file.string());
    object.String("command");
    const std::string model = object.String("model");
    if (config.name.find(model) == std::string::npos && model.find(config.name) == std::string::npos)
    {
        object.Fail("model", "is \"" + model + "\"; accepted: a measurement of " + config.name);
    }
    AccuracyTable table;
    table.group = object.Integer("weight_group", 1, 1 << 16);
    for (StrictObject& row : object.Objects("rows"))
    {
        MeasuredAccuracy& measured = table.rows.emplace_back();
        measured.configuration.split = row.Integer("split", 0, config.layers);
        measured.configuration.weights = {ReadBits(row, "front_bits"), ReadBits(row, "back_bits")};
        measured.configuration.activationBits = ReadBits(row, "activation_bits");
        measured.codec = CodecOf(row);
        measured.perplexity = row.Number("perplexity", 1.0);
        if (measured.configuration.split == 0)
        {
            table.base = measured.perplexity;
            table.rows.pop_back();
        }
    }
    if (table.base == 0.0)
    {
        object.Fail("rows", "have none with split 0, the model as it is");
    }
    return table;
}

std::optional<MeasuredAccuracy>
ChooseConfiguration(const ModelConfig& config, const AccuracyTable& accuracy, const OpscLimits& limits)
{
    // Every layer has the same activation bits, so the objective, their sum, orders as the bits do.
    const auto rank = [](const MeasuredAccuracy& row) {
        return std::tuple(row.configuration.activationBits, row.configuration.split, -row.perplexity);
    };
    const MeasuredAccuracy* best = nullptr;
    for (const MeasuredAccuracy& row : accuracy.rows)
    {
        const bool accurate = row.perplexity <= accuracy.base * (1.0 + limits.drop); // Eq 8b
        if (accurate && Fits(config, row.configuration, limits) && (best == nullptr || rank(row) > rank(*best)))
        {
            best = &row;
        }
    }
    return best == nullptr ? std::nullopt : std::optional(*best);
}

} // namespace splitllm
