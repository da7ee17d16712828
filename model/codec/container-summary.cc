// SPDX-License-Identifier: GPL-2.0-only
#include "codec/container-summary.h"

#include "codec/dense-codec.h"
#include "codec/tensor-container.h"

#include <cstring>

namespace splitllm
{

namespace
{

std::size_t
Padded(std::size_t bytes)
{
    return (bytes + 3) / 4 * 4;
}

} // namespace

std::optional<ContainerSummary>
SummariseContainer(std::span<const std::byte> bytes, std::size_t cols)
try
{
    const ContainerHeader header = ReadContainerHeader(bytes, cols);
    const bool hasAbove = (header.flags & kHasAbove) != 0;
    std::size_t at = Padded(sizeof header + header.tableBytes);
    const std::size_t perRow = sizeof(RowRecord) + (hasAbove ? sizeof(std::uint32_t) : 0);
    if (at > bytes.size() || header.rows > (bytes.size() - at) / perRow)
    {
        return std::nullopt;
    }
    ContainerSummary summary{.rows = header.rows};
    for (std::size_t i = 0; i < header.rows; i++)
    {
        RowRecord record;
        std::memcpy(&record, bytes.data() + at, sizeof record);
        summary.bits += record.bits;
        at += sizeof record;
    }
    if (!hasAbove)
    {
        return summary;
    }
    for (std::size_t i = 0; i < header.rows; i++)
    {
        std::uint32_t count = 0;
        std::memcpy(&count, bytes.data() + at, sizeof count);
        summary.above += count;
        at += sizeof count;
    }
    summary.aboveBytes = sizeof(std::uint32_t) * header.rows + Padded(summary.above * ColumnBytes(cols)) +
                         Padded(summary.above * SizeOf(static_cast<DType>(header.exact)));
    return summary;
}
catch (const DecodeError&)
{
    return std::nullopt;
}

} // namespace splitllm
