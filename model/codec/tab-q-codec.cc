// SPDX-License-Identifier: GPL-2.0-only
#include "codec/tab-q-codec.h"

#include "codec/activation-statistics.h"
#include "codec/dense-codec.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <utility>

namespace splitllm
{

namespace
{

/// Passes over a row that TAB-Q makes at most: the first, and one for each number of bits down to the least.
std::uint64_t
MostTrials(unsigned bits)
{
    const unsigned first = bits - 1;
    return 1 + first - LowestBits(first);
}

/// Reads "tau", or "tau_quantile" with "statistics": nothing where neither is there.
ThresholdAt
ReadThresholds(StrictObject& parameters, const CodecContext& context)
{
    if (parameters.Has("tau_quantile"))
    {
        if (parameters.Has("tau"))
        {
            parameters.Fail("tau_quantile", "there is a tau already; one of the two is accepted");
        }
        const double level = parameters.Number("tau_quantile", 0.0, 1.0);
        const auto statistics = std::make_shared<const ActivationStatistics>(ReadStatistics(parameters, context));
        if (context.shapeMode)
        {
            return nullptr;
        }
        if (std::ranges::find(statistics->Levels(), level) == statistics->Levels().end())
        {
            std::vector<std::string> levels;
            std::ranges::transform(statistics->Levels(), std::back_inserter(levels), [](double l) {
                return Json(l).dump();
            });
            parameters.Fail("tau_quantile", "was not measured; one of " + Joined(levels) + " is expected");
        }
        return [statistics, level](const CodecSite& site) {
            constexpr float kLeast = std::numeric_limits<float>::min(); // a threshold is positive
            return std::optional(std::max(statistics->Quantile(site, level), kLeast));
        };
    }
    if (!parameters.Has("tau"))
    {
        return nullptr;
    }
    const auto tau = static_cast<float>(parameters.Number("tau", 0.0));
    if (tau == 0.0F || !std::isfinite(tau))
    {
        parameters.Fail("tau", "no positive number of fp32; accepted: a number above 0, at most 3.4e38");
    }
    return [tau](const CodecSite&) { return std::optional(tau); };
}

} // namespace

TabQCodec::TabQCodec(const ContainerParameters& parameters,
                     ThresholdAt thresholds,
                     const PhantomDensity& phantom,
                     std::shared_ptr<const ContainerCoder> coder)
    : m_parameters(parameters),
      m_thresholds(std::move(thresholds)),
      m_phantom(phantom),
      m_coder(std::move(coder))
{
}

DType
TabQCodec::Exact() const
{
    return m_parameters.exact;
}

std::size_t
TabQCodec::PhantomSize(std::size_t rows, std::size_t cols) const
{
    const double elements = static_cast<double>(rows) * static_cast<double>(cols);
    const double bodies = std::ceil(elements * m_phantom.bitsPerElement / 8.0);
    std::size_t size = sizeof(ContainerHeader) + rows * sizeof(RowRecord) + static_cast<std::size_t>(bodies);
    if (m_phantom.aboveDensity > 0.0)
    {
        const auto above = static_cast<std::size_t>(std::ceil(elements * m_phantom.aboveDensity));
        size += rows * sizeof(std::uint32_t) + above * (ColumnBytes(cols) + SizeOf(m_parameters.exact));
    }
    return size;
}

Payload
TabQCodec::Encode(const Tensor& tensor, const CodecSite& site) const
{
    if (tensor.IsPhantom())
    {
        const ContainerHeader header =
            MakeContainerHeader(tensor.Rows(), tensor.Cols(), m_phantom.aboveDensity > 0.0, 0, m_parameters);
        std::vector<std::byte> front(sizeof header);
        std::memcpy(front.data(), &header, sizeof header);
        Payload payload = Payload::Phantom(PhantomSize(tensor.Rows(), tensor.Cols()), std::move(front));
        payload.coded = true;
        return payload;
    }
    Payload payload =
        Payload::Of(m_coder->Encode(tensor, m_thresholds ? m_thresholds(site) : std::nullopt, m_parameters));
    payload.coded = true;
    return payload;
}

Tensor
TabQCodec::Decode(const Payload& payload, std::size_t cols, const CodecSite&) const
{
    if (!payload.coded)
    {
        throw DecodeError("plain elements; expected a container");
    }
    if (payload.phantom)
    {
        return Tensor::Phantom(ReadContainerHeader(payload.bytes, cols).rows, cols);
    }
    return m_coder->Decode(payload.bytes, cols);
}

bool
TabQCodec::SizeDependsOnNumbers() const
{
    return true;
}

CodecCost
TabQCodec::EncodeCost(std::size_t rows, std::size_t cols) const
{
    const std::uint64_t elements = std::uint64_t{rows} * cols;
    const std::uint64_t trials = MostTrials(m_parameters.tabQ.bits);
    return {.flops = elements * (2 + 5 * trials + 3 * (trials - 1) + 8),
            .bytesRead = elements * (4 + 4 * trials + 2 * (trials - 1) + 2),
            .bytesWritten = elements * trials + (elements * m_parameters.tabQ.bits + 7) / 8,
            .launches = 2 + trials};
}

CodecCost
TabQCodec::DecodeCost(std::size_t rows, std::size_t cols) const
{
    const std::uint64_t elements = std::uint64_t{rows} * cols;
    return {.flops = elements * 6,
            .bytesRead = (elements * m_parameters.tabQ.bits + 7) / 8,
            .bytesWritten = elements * 4,
            .launches = 1};
}

std::shared_ptr<const TensorCodec>
ReadTabQCodec(StrictObject& parameters, const CodecContext& context)
{
    ContainerParameters its;
    its.tabQ.bits = static_cast<unsigned>(parameters.Integer("bits", kTabQLeastBits, kTabQMostBits));
    its.tabQ.delta = parameters.Number("delta", 0.0, std::numeric_limits<double>::infinity(), 0.2);
    its.tabQ.normalised = parameters.Bool("normalised", false);
    const ThresholdAt thresholds = ReadThresholds(parameters, context);
    its.exact = *DTypeFromName(parameters.Choice("exact", {"fp16", "fp32", "bf16"}, "fp16"));
    its.entropy = parameters.Bool("entropy", true);
    PhantomDensity phantom;
    if (context.shapeMode)
    {
        phantom.bitsPerElement = parameters.Number("bits_per_element", 0.0, 16.0);
        phantom.aboveDensity = parameters.Number("above_density", 0.0, 1.0);
    }
    return std::make_shared<const TabQCodec>(
        its, thresholds, phantom, context.coder != nullptr ? context.coder : HostContainerCoder());
}

} // namespace splitllm
