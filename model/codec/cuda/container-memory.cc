// SPDX-License-Identifier: GPL-2.0-only
#include "codec/cuda/container-memory.h"

#include "base/cuda/cuda-error.h"

#include <algorithm>
#include <bit>
#include <map>
#include <utility>
#include <vector>

namespace splitllm
{

namespace
{

constexpr unsigned kMostBits = kTabQMostBits - 1; //!< of magnitude

/// The number of a static table in DeviceStaticTables::tables.
std::uint32_t
TableNumber(const RowRecord& record)
{
    return record.body == RowBody::MessageTable ? kOwnTable : (record.bits - 1U) * kStaticTables + record.argument;
}

} // namespace

StaticTablesMemory::StaticTablesMemory(const std::shared_ptr<CudaStream>& stream)
{
    std::vector<RansFrequencies> tables;
    std::vector<std::uint64_t> means;
    for (unsigned bits = 1; bits <= kMostBits; bits++)
    {
        for (unsigned index = 0; index < kStaticTables; index++)
        {
            tables.push_back(StaticTable(bits, index));
        }
        const auto its = StaticMeans(bits);
        means.insert(means.end(), its.begin(), its.end());
    }
    m_tables = DeviceArray<RansFrequencies>(stream, std::span<const RansFrequencies>(tables));
    m_means = DeviceArray<std::uint64_t>(stream, std::span<const std::uint64_t>(means));
    m_costs = DeviceArray<std::uint16_t>(stream, std::span<const std::uint16_t>(SymbolCosts()));
}

DeviceStaticTables
StaticTablesMemory::Tables() const
{
    return {.tables = m_tables.Data(), .means = m_means.Data(), .costs = m_costs.Data()};
}

EncodeMemory::EncodeMemory(const std::shared_ptr<CudaStream>& stream,
                           const float* x,
                           std::size_t rows,
                           std::size_t cols,
                           std::optional<float> tau,
                           const ContainerParameters& parameters,
                           const DeviceStaticTables& statics)
    : m_symbols(stream, rows * cols),
      m_above(stream, tau ? rows * ((cols + 31) / 32) : 0),
      m_histograms(stream, rows << parameters.tabQ.bits),
      m_words(stream, rows * cols),
      m_states(stream, rows * kRansMaxLanes),
      m_plans(stream, rows),
      m_message(stream, 1)
{
    m_job = {.x = x,
             .rows = rows,
             .cols = cols,
             .threshold = tau ? std::bit_cast<std::uint32_t>(*tau) : kInfinityBits,
             .valueBytes = static_cast<std::uint32_t>(SizeOf(parameters.exact)),
             .parameters = parameters,
             .statics = statics,
             .symbols = m_symbols.Data(),
             .above = m_above.Data(),
             .histograms = m_histograms.Data(),
             .words = m_words.Data(),
             .states = m_states.Data(),
             .plans = m_plans.Data(),
             .message = m_message.Data()};
}

MessagePlan
EncodeMemory::Message() const
{
    MessagePlan message;
    m_message.Download({&message, 1});
    return message;
}

DecodeMemory::DecodeMemory(const std::shared_ptr<CudaStream>& stream,
                           std::span<const std::byte> bytes,
                           const ContainerSections& sections,
                           const DeviceStaticTables& statics)
{
    const std::size_t rows = sections.header.rows;
    const std::size_t cols = sections.header.cols;
    std::vector<RowSource> sources(rows);
    std::map<std::pair<std::uint32_t, std::uint32_t>, std::vector<std::uint32_t>> streams; // by table and lanes
    std::vector<std::uint32_t> others;
    std::uint64_t above = 0;
    for (std::size_t row = 0; row < rows; row++)
    {
        const RowRecord& record = sections.records[row];
        sources[row] = {.record = record,
                        .above = sections.counts.empty() ? 0 : sections.counts[row],
                        .body = static_cast<std::uint64_t>(sections.bodies[row].data() - bytes.data()),
                        .aboveAt = above};
        above += sources[row].above;
        auto& rowsAlike = record.lanes > 0 ? streams[{TableNumber(record), record.lanes}] : others;
        rowsAlike.push_back(static_cast<std::uint32_t>(row));
    }
    std::vector<std::uint32_t> order;
    order.reserve(rows);
    std::vector<StreamGroup> groups;
    for (const auto& [key, its] : streams)
    {
        const auto& [table, lanes] = key;
        const std::size_t most = StreamRowsOfBlock(lanes);
        for (std::size_t first = 0; first < its.size(); first += most)
        {
            groups.push_back({.first = static_cast<std::uint32_t>(order.size() + first),
                              .rows = static_cast<std::uint32_t>(std::min(most, its.size() - first)),
                              .lanes = lanes,
                              .table = table});
        }
        order.insert(order.end(), its.begin(), its.end());
    }
    const std::size_t streamRows = order.size();
    order.insert(order.end(), others.begin(), others.end());

    m_container = DeviceArray<std::byte>(stream, bytes);
    m_sources = DeviceArray<RowSource>(stream, std::span<const RowSource>(sources));
    m_order = DeviceArray<std::uint32_t>(stream, std::span<const std::uint32_t>(order));
    m_groups = DeviceArray<StreamGroup>(stream, std::span<const StreamGroup>(groups));
    if (sections.table)
    {
        m_own = DeviceArray<RansFrequencies>(stream, std::span(&*sections.table, 1));
    }
    m_values = DeviceArray<float>(stream, rows * cols);
    m_failed = DeviceArray<std::uint32_t>(stream, 1);
    CheckCuda(cudaMemsetAsync(m_failed.Data(), 0, sizeof(std::uint32_t), stream->Get()), "cudaMemsetAsync");
    const auto place = [&](std::span<const std::byte> section) {
        return section.empty() ? 0 : static_cast<std::uint64_t>(section.data() - bytes.data());
    };
    const auto exact = static_cast<DType>(sections.header.exact);
    m_job = {.container = m_container.Data(),
             .rows = rows,
             .cols = cols,
             .exact = exact,
             .valueBytes = static_cast<std::uint32_t>(SizeOf(exact)),
             .sources = m_sources.Data(),
             .order = m_order.Data(),
             .streams = streamRows,
             .groups = m_groups.Data(),
             .groupCount = groups.size(),
             .tables = statics.tables,
             .own = m_own.Data(),
             .columnsAt = place(sections.columns),
             .valuesAt = place(sections.values),
             .x = m_values.Data(),
             .failed = m_failed.Data()};
}

bool
DecodeMemory::Succeeded() const
{
    std::uint32_t failed = 0;
    m_failed.Download({&failed, 1});
    return failed == 0;
}

DeviceArray<float>
DecodeMemory::TakeValues()
{
    return std::move(m_values);
}

} // namespace splitllm
