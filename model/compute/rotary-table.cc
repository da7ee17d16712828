// SPDX-License-Identifier: GPL-2.0-only
#include "compute/rotary-table.h"

#include "base/deterministic-math.h"

#include <numbers>

namespace splitllm
{

namespace
{

/// LLaMA 3.1's frequencies: long wavelengths are stretched by the factor, short ones kept, those between blended.
float
Scaled(float inverseFrequency, const RopeScaling& scaling)
{
    const auto factor = static_cast<float>(scaling.factor);
    const auto low = static_cast<float>(scaling.lowFreqFactor);
    const auto high = static_cast<float>(scaling.highFreqFactor);
    const auto original = static_cast<float>(scaling.originalMaxPositions);
    const float wavelength = static_cast<float>(2.0 * std::numbers::pi) / inverseFrequency;
    if (wavelength > original / low)
    {
        return inverseFrequency / factor;
    }
    if (wavelength < original / high)
    {
        return inverseFrequency;
    }
    const float smooth = (original / wavelength - low) / (high - low);
    return (1.0F - smooth) * inverseFrequency / factor + smooth * inverseFrequency;
}

} // namespace

RotaryTable::RotaryTable(const ModelConfig& config)
{
    const double logTheta = deterministic::Log(config.ropeTheta);
    for (std::size_t i = 0; i < config.headDim / 2; ++i)
    {
        const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.headDim);
        const auto power = static_cast<float>(deterministic::Exp(logTheta * exponent));
        const float inverseFrequency = 1.0F / power;
        m_inverseFrequencies.push_back(config.ropeScaling ? Scaled(inverseFrequency, *config.ropeScaling)
                                                          : inverseFrequency);
    }
}

void
RotaryTable::Extend(std::size_t positions)
{
    const std::size_t pairs = m_inverseFrequencies.size();
    for (std::size_t position = m_cos.size() / pairs; position < positions; ++position)
    {
        for (const float inverseFrequency : m_inverseFrequencies)
        {
            const float angle = static_cast<float>(position) * inverseFrequency;
            double sine = 0.0;
            double cosine = 0.0;
            deterministic::SinCos(angle, sine, cosine);
            m_cos.push_back(static_cast<float>(cosine));
            m_sin.push_back(static_cast<float>(sine));
        }
    }
}

void
RotaryTable::Rotate(const float* head, std::size_t position, float* to) const
{
    const std::size_t pairs = m_inverseFrequencies.size();
    const float* cosine = m_cos.data() + position * pairs;
    const float* sine = m_sin.data() + position * pairs;
    for (std::size_t i = 0; i < pairs; ++i)
    {
        const float a = head[i];
        const float b = head[i + pairs];
        to[i] = a * cosine[i] - b * sine[i];
        to[i + pairs] = b * cosine[i] + a * sine[i];
    }
}

} // namespace splitllm
