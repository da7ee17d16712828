// SPDX-License-Identifier: GPL-2.0-only
#include "compute/weight-precision.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace splitllm
{

namespace
{

unsigned
StoredBits(DType stored)
{
    return static_cast<unsigned>(8 * SizeOf(stored));
}

/// \throws std::logic_error that lists \p accepted if \p value is not among them
template <typename T>
void
ExpectAmong(const std::string& what, T value, const std::vector<T>& accepted)
{
    if (std::ranges::find(accepted, value) != accepted.end())
    {
        return;
    }
    std::string list;
    for (const T each : accepted)
    {
        list += (list.empty() ? "" : ", ") + std::to_string(each);
    }
    throw std::logic_error(what + " is " + std::to_string(value) + "; accepted: " + (list.empty() ? "none" : list));
}

} // namespace

WeightPrecision::WeightPrecision(const ModelConfig& config)
    : m_stored(StoredBits(config.dtype)),
      m_bits(config.layers, m_stored)
{
}

WeightPrecision
WeightPrecision::FrontBack(const ModelConfig& config,
                           std::size_t l,
                           unsigned front,
                           unsigned back,
                           std::size_t group)
{
    WeightPrecision precision(config);
    if (l > config.layers)
    {
        throw std::logic_error("the last front layer of " + config.name + " is " + std::to_string(l) +
                               "; accepted: 0 to " + std::to_string(config.layers));
    }
    ExpectAmong("the front's bits of a weight", front, AcceptedWeightBits(config.dtype));
    ExpectAmong("the back's bits of a weight", back, AcceptedWeightBits(config.dtype));
    const auto split = precision.m_bits.begin() + static_cast<std::ptrdiff_t>(l);
    std::fill(precision.m_bits.begin(), split, front);
    std::fill(split, precision.m_bits.end(), back);
    if (std::ranges::any_of(precision.m_bits, [&](unsigned bits) { return bits != precision.m_stored; }))
    {
        ExpectAmong("a group's number of columns of " + config.name, group, AcceptedGroups(config));
        precision.m_group = group;
    }
    return precision;
}

WeightPrecision
WeightPrecision::Front(const ModelConfig& config, std::size_t l, unsigned bits, std::size_t group)
{
    return FrontBack(config, l, bits, StoredBits(config.dtype), group);
}

WeightPrecision
WeightPrecision::Back(const ModelConfig& config, std::size_t l, unsigned bits, std::size_t group)
{
    return FrontBack(config, l, StoredBits(config.dtype), bits, group);
}

std::vector<unsigned>
AcceptedWeightBits(DType stored)
{
    std::vector<unsigned> bits{4, 8};
    if (const unsigned own = StoredBits(stored); own > bits.back())
    {
        bits.push_back(own);
    }
    return bits;
}

std::vector<std::size_t>
AcceptedGroups(const ModelConfig& config)
{
    std::vector<std::size_t> groups;
    for (const std::size_t group : {32, 64, 128})
    {
        if (config.hidden % group == 0 && config.QueryWidth() % group == 0 && config.ffn % group == 0)
        {
            groups.push_back(group);
        }
    }
    return groups;
}

} // namespace splitllm
