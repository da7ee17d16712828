// SPDX-License-Identifier: GPL-2.0-only
#include "codec/tensor-container.h"

#include "codec/dense-codec.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

namespace splitllm
{

static_assert(std::endian::native == std::endian::little, "containers are written as little-endian");

namespace
{

/// The part of a row's histogram that its symbols can lie in.
std::span<const std::uint32_t>
HistogramOf(const PreparedRow& row)
{
    return std::span(row.histogram).first(std::size_t{2} << row.quantised.bits);
}

bool
IsConstant(const PreparedRow& row)
{
    const auto& symbols = row.quantised.symbols;
    return row.histogram[symbols.front()] == symbols.size();
}

[[noreturn]] void
Refuse(std::size_t row, std::size_t column, const std::string& what)
{
    throw EncodeError("row " + std::to_string(row) + ", column " + std::to_string(column) + ": " + what);
}

/// \p value in \p exact at \p to. \return whether it is finite there
bool
Write(float value, DType exact, std::byte* to)
{
    if (exact == DType::F32)
    {
        std::memcpy(to, &value, sizeof value);
        return std::isfinite(value);
    }
    const std::uint16_t bits = exact == DType::F16 ? ToF16(value) : ToBf16(value);
    std::memcpy(to, &bits, sizeof bits);
    return std::isfinite(exact == DType::F16 ? FromF16(bits) : FromBf16(bits));
}

float
Read(const std::byte* from, DType exact)
{
    if (exact == DType::F32)
    {
        float value;
        std::memcpy(&value, from, sizeof value);
        return value;
    }
    std::uint16_t bits;
    std::memcpy(&bits, from, sizeof bits);
    return exact == DType::F16 ? FromF16(bits) : FromBf16(bits);
}

/// Fills elements above into \p prepared.
void
Split(std::span<const float> row, std::size_t number, std::uint32_t threshold, DType exact, PreparedRow& prepared)
{
    const std::size_t size = SizeOf(exact);
    prepared.values.resize(prepared.columns.size() * size);
    std::size_t found = 0;
    for (std::size_t i = 0; i < row.size(); i++)
    {
        if ((std::bit_cast<std::uint32_t>(row[i]) & 0x7FFFFFFF) >= threshold)
        {
            prepared.columns[found] = static_cast<std::uint32_t>(i);
            if (!Write(row[i], exact, prepared.values.data() + found * size))
            {
                Refuse(number, i, std::to_string(row[i]) + " overflows " + std::string(NameOf(exact)));
            }
            found++;
        }
    }
}

/// Writes values of some bits each, least significant bit first.
class BitWriter
{
  public:
    explicit BitWriter(std::vector<std::byte>& to)
        : m_to(to)
    {
    }

    /// \param count up to 32, with nothing in \p value above them
    void Put(std::uint32_t value, unsigned count)
    {
        m_pending |= std::uint64_t{value} << m_count;
        m_count += count;
        while (m_count >= 8)
        {
            m_to.push_back(static_cast<std::byte>(m_pending));
            m_pending >>= 8;
            m_count -= 8;
        }
    }

    /// Fills the last byte up with zeros.
    void Finish()
    {
        if (m_count > 0)
        {
            Put(0, 8 - m_count);
        }
    }

  private:
    std::vector<std::byte>& m_to;
    std::uint64_t m_pending = 0;
    unsigned m_count = 0;
};

/// The inverse of BitWriter.
class BitReader
{
  public:
    explicit BitReader(std::span<const std::byte> from)
        : m_from(from)
    {
    }

    /// \throws DecodeError behind the last byte
    std::uint32_t Get(unsigned count)
    {
        while (m_count < count)
        {
            if (m_from.empty())
            {
                throw DecodeError("a table ends too early");
            }
            m_pending |= std::uint64_t{static_cast<std::uint8_t>(m_from.front())} << m_count;
            m_from = m_from.subspan(1);
            m_count += 8;
        }
        const auto value = static_cast<std::uint32_t>(m_pending & ((std::uint64_t{1} << count) - 1));
        m_pending >>= count;
        m_count -= count;
        return value;
    }

    /// Whether nothing is left but the zeros of the last byte.
    bool IsFinished() const
    {
        return m_from.empty() && m_count < 8 && m_pending == 0;
    }

  private:
    std::span<const std::byte> m_from;
    std::uint64_t m_pending = 0;
    unsigned m_count = 0;
};

std::vector<std::byte>
WriteTable(const RansFrequencies& table)
{
    std::vector<std::byte> bytes;
    BitWriter writer(bytes);
    unsigned symbols = kRansMaxSymbols;
    while (table.of[symbols - 1] == 0)
    {
        symbols--;
    }
    writer.Put(symbols - 1, 8);
    unsigned before = 0;
    for (unsigned i = 0; i < symbols; i++)
    {
        const TableBits bits = BitsOfFrequency(table.of[i], before);
        writer.Put(bits.value, bits.count);
        before = FrequencyWidth(table.of[i]);
    }
    writer.Finish();
    return bytes;
}

RansFrequencies
ReadTable(std::span<const std::byte> bytes)
{
    BitReader reader(bytes);
    RansFrequencies table;
    std::uint32_t sum = 0;
    const unsigned symbols = reader.Get(8) + 1;
    unsigned width = 0;
    for (unsigned i = 0; i < symbols; i++)
    {
        if (reader.Get(1) != 0)
        {
            if (reader.Get(1) == 0)
            {
                width--; // below zero it is above all
            }
            else
            {
                width = reader.Get(1) == 0 ? width + 1 : reader.Get(kWidthBits);
            }
        }
        if (width > kRansBits + 1)
        {
            throw DecodeError("a table has a frequency above " + std::to_string(kRansTotal));
        }
        const std::uint32_t f = width == 0 ? 0 : reader.Get(width - 1) + (1U << (width - 1));
        sum += f;
        table.of[i] = static_cast<std::uint16_t>(f);
    }
    if (sum != kRansTotal || !reader.IsFinished())
    {
        throw DecodeError("a table whose frequencies are not " + std::to_string(kRansTotal) +
                          " together, or with something behind it");
    }
    return table;
}

std::vector<std::byte>
Pack(std::span<const std::uint8_t> symbols, unsigned bits)
{
    std::vector<std::byte> body;
    body.reserve(PackedSymbolBytes(symbols.size(), bits));
    BitWriter writer(body);
    for (const std::uint8_t symbol : symbols)
    {
        writer.Put(symbol, bits + 1);
    }
    writer.Finish();
    return body;
}

/// \return whether what fills up the last byte is zero
bool
Unpack(std::span<const std::byte> body, unsigned bits, std::span<std::uint8_t> symbols)
{
    BitReader reader(body);
    for (std::uint8_t& symbol : symbols)
    {
        symbol = static_cast<std::uint8_t>(reader.Get(bits + 1));
    }
    return reader.IsFinished();
}

void
EncodeStream(const PreparedRow& row, const RansFrequencies& table, std::uint64_t size, EncodedRow& encoded)
{
    encoded.record.lanes = static_cast<std::uint8_t>(LanesFor(WordBytes(size)));
    RansEncode(row.quantised.symbols, MakeRansEncodeTable(table), encoded.record.lanes, encoded.body);
}

/// Copies sections one behind the other, each from a multiple of 4 on.
class SectionWriter
{
  public:
    explicit SectionWriter(std::size_t size)
        : m_bytes(size)
    {
    }

    void Put(const void* data, std::size_t size)
    {
        if (size > 0)
        {
            std::memcpy(m_bytes.data() + m_at, data, size);
        }
        m_at += size;
    }

    void Align()
    {
        m_at = RoundUp4(m_at);
    }

    std::vector<std::byte> Take()
    {
        assert(m_at == m_bytes.size());
        return std::move(m_bytes);
    }

  private:
    std::vector<std::byte> m_bytes;
    std::size_t m_at = 0;
};

/// The inverse of SectionWriter; knows what is left.
class SectionReader
{
  public:
    explicit SectionReader(std::span<const std::byte> bytes)
        : m_bytes(bytes)
    {
    }

    std::size_t Left() const
    {
        return m_bytes.size();
    }

    /// The next \p count things of \p size bytes, and zeros up to a multiple of 4. \throws DecodeError
    std::span<const std::byte> Take(std::size_t count, std::size_t size, const char* what)
    {
        if (count > m_bytes.size() / size)
        {
            throw DecodeError("a container ends inside its " + std::string(what));
        }
        const auto section = m_bytes.first(count * size);
        const std::size_t fill = RoundUp4(section.size()) - section.size();
        m_bytes = m_bytes.subspan(section.size());
        if (fill > m_bytes.size() ||
            std::ranges::any_of(m_bytes.first(fill), [](std::byte b) { return b != std::byte{0}; }))
        {
            throw DecodeError("what fills up a container's " + std::string(what) + " is not there, or not zero");
        }
        m_bytes = m_bytes.subspan(fill);
        return section;
    }

  private:
    std::span<const std::byte> m_bytes;
};

[[noreturn]] void
FailRow(std::size_t row, const std::string& what)
{
    throw DecodeError("row " + std::to_string(row) + " of a container: " + what);
}

void
Check(const RowRecord& record, std::size_t row, std::size_t cols, const ContainerHeader& header)
{
    if (record.bits < 1 || record.bits >= header.bits)
    {
        FailRow(row, std::to_string(record.bits) + " bits; expected 1 to " + std::to_string(header.bits - 1));
    }
    if (!std::isfinite(record.scale) || std::signbit(record.scale) || record.zero > 0)
    {
        FailRow(row, "a scale that is not finite or negative, or a positive zero point");
    }
    const bool isStream = record.body == RowBody::StaticTable || record.body == RowBody::MessageTable;
    const bool lanesFit = isStream ? IsRansLanes(record.lanes) : record.lanes == 0;
    bool argumentFits = record.argument == 0;
    bool sizeFits = true;
    switch (record.body)
    {
    case RowBody::Constant:
        argumentFits = record.argument < 2U << record.bits;
        sizeFits = record.bodyBytes == 0;
        break;
    case RowBody::Packed:
        sizeFits = record.bodyBytes == PackedSymbolBytes(cols, record.bits);
        break;
    case RowBody::StaticTable:
        argumentFits = record.argument < kStaticTables;
        break;
    case RowBody::MessageTable:
        argumentFits = argumentFits && header.tableBytes > 0;
        break;
    default:
        FailRow(row, "body of kind " + std::to_string(static_cast<unsigned>(record.body)) + "; expected 0 to 3");
    }
    if (!lanesFit || !argumentFits)
    {
        FailRow(row, "lanes or argument that its body does not have");
    }
    if (!sizeFits || !IsJustified(cols, record.bodyBytes))
    {
        FailRow(row, std::to_string(record.bodyBytes) + " bytes of body for " + std::to_string(cols) + " elements");
    }
}

/// Decoding tables of the streams of a message, of which the last one used is kept.
class StreamTables
{
  public:
    /// \param message the table of the message, if it has one
    explicit StreamTables(const std::optional<RansFrequencies>& message)
        : m_message(message)
    {
    }

    const RansDecodeTable& For(const RowRecord& record)
    {
        const RansFrequencies& wanted = record.body == RowBody::StaticTable
                                            ? StaticTable(record.bits, record.argument)
                                            : *m_message;
        if (m_last != &wanted)
        {
            m_table = MakeRansDecodeTable(wanted);
            m_last = &wanted;
        }
        return m_table;
    }

  private:
    const std::optional<RansFrequencies>& m_message;
    const RansFrequencies* m_last = nullptr;
    RansDecodeTable m_table;
};

void
DecodeSymbols(const RowRecord& record,
              std::size_t row,
              std::span<const std::byte> body,
              StreamTables& tables,
              std::span<std::uint8_t> symbols)
{
    switch (record.body)
    {
    case RowBody::Constant:
        std::ranges::fill(symbols, record.argument);
        return;
    case RowBody::Packed:
        if (!Unpack(body, record.bits, symbols))
        {
            FailRow(row, "bits behind the last symbol");
        }
        return;
    case RowBody::StaticTable:
    case RowBody::MessageTable:
        if (!RansDecode(body, tables.For(record), record.lanes, symbols))
        {
            FailRow(row, "no whole rANS stream of " + std::to_string(symbols.size()) + " symbols");
        }
        // A table of the message may know symbols that this row has no values for.
        if (record.body == RowBody::MessageTable && std::ranges::max(symbols) >= 2U << record.bits)
        {
            FailRow(row, "a symbol of more than " + std::to_string(record.bits + 1) + " bits");
        }
        return;
    }
}

std::uint32_t
ReadColumn(std::span<const std::byte> columns, std::size_t i, std::size_t size)
{
    std::uint32_t column = 0;
    std::memcpy(&column, columns.data() + i * size, size);
    return column;
}

} // namespace

PreparedRow
PrepareRow(std::span<const float> row,
           std::size_t number,
           std::optional<float> tau,
           const ContainerParameters& parameters)
{
    assert(!row.empty() && (!tau || *tau > 0.0F));
    const std::uint32_t threshold = tau ? std::bit_cast<std::uint32_t>(*tau) : kInfinityBits;
    const RowRange range = BestCodecKernels().range(row.data(), row.size(), threshold);
    if (range.peak >= kInfinityBits)
    {
        const auto value = std::ranges::find_if_not(row, [](float x) { return std::isfinite(x); });
        Refuse(number, static_cast<std::size_t>(value - row.begin()), std::to_string(*value) + " cannot be coded");
    }
    PreparedRow prepared;
    if (range.above > 0)
    {
        prepared.columns.resize(range.above);
        Split(row, number, threshold, parameters.exact, prepared);
    }
    prepared.quantised = QuantiseTabQ(row, range, threshold, parameters.tabQ);
    if (parameters.entropy)
    {
        CountSymbols(prepared.quantised.symbols, 2U << prepared.quantised.bits, prepared.histogram);
        if (!IsConstant(prepared))
        {
            prepared.table = BestStaticTable(prepared.quantised.bits, HistogramOf(prepared));
        }
    }
    return prepared;
}

std::optional<RansFrequencies>
ChooseMessageTable(std::span<const PreparedRow> rows)
{
    std::array<std::uint64_t, kRansMaxSymbols> counts{};
    bool any = false;
    for (const PreparedRow& row : rows)
    {
        if (!IsConstant(row))
        {
            any = true;
            for (std::size_t i = 0; i < counts.size(); i++)
            {
                counts[i] += row.histogram[i];
            }
        }
    }
    if (!any)
    {
        return std::nullopt;
    }
    const RansFrequencies table = NormaliseFrequencies(counts);
    std::uint64_t saved = 0;
    for (const PreparedRow& row : rows)
    {
        if (!IsConstant(row))
        {
            const std::uint64_t packed = PackedSymbolBytes(row.quantised.symbols.size(), row.quantised.bits);
            const std::uint64_t other =
                row.table.size == kNotCodable ? packed : std::min(packed, StreamBytes(row.table.size));
            const std::uint64_t own = StreamBytes(CodedSize(HistogramOf(row), table));
            saved += own < other ? other - own : 0;
        }
    }
    return saved > RoundUp4(WriteTable(table).size()) ? std::optional(table) : std::nullopt;
}

EncodedRow
EncodeRow(const PreparedRow& row,
          const std::optional<RansFrequencies>& messageTable,
          const ContainerParameters& parameters)
{
    const QuantisedRow& quantised = row.quantised;
    EncodedRow encoded;
    RowRecord& record = encoded.record;
    record.scale = quantised.scale;
    record.zero = quantised.zero;
    record.bits = static_cast<std::uint8_t>(quantised.bits);
    record.body = RowBody::Packed;
    const std::size_t cols = quantised.symbols.size();
    if (parameters.entropy && IsConstant(row) && IsJustified(cols, 0))
    {
        record.body = RowBody::Constant;
        record.argument = quantised.symbols.front();
        return encoded;
    }
    const std::uint64_t ownSize = messageTable && !IsConstant(row) ? CodedSize(HistogramOf(row), *messageTable)
                                                                   : kNotCodable;
    if (std::min(ownSize, row.table.size) != kNotCodable)
    {
        if (ownSize < row.table.size)
        {
            record.body = RowBody::MessageTable;
            EncodeStream(row, *messageTable, ownSize, encoded);
        }
        else
        {
            record.body = RowBody::StaticTable;
            record.argument = static_cast<std::uint8_t>(row.table.index);
            EncodeStream(row, StaticTable(quantised.bits, row.table.index), row.table.size, encoded);
        }
    }
    if (record.body == RowBody::Packed || encoded.body.size() >= PackedSymbolBytes(cols, quantised.bits) ||
        !IsJustified(cols, encoded.body.size()))
    {
        record.body = RowBody::Packed;
        record.lanes = 0;
        record.argument = 0;
        encoded.body = Pack(quantised.symbols, quantised.bits);
    }
    record.bodyBytes = static_cast<std::uint32_t>(encoded.body.size());
    return encoded;
}

std::vector<std::byte>
AssembleContainer(std::size_t cols,
                  std::span<const PreparedRow> prepared,
                  std::span<const EncodedRow> rows,
                  const std::optional<RansFrequencies>& messageTable,
                  const ContainerParameters& parameters)
{
    assert(prepared.size() == rows.size());
    const std::vector<std::byte> table = messageTable ? WriteTable(*messageTable) : std::vector<std::byte>();
    std::size_t above = 0;
    std::size_t bodies = 0;
    for (std::size_t i = 0; i < rows.size(); i++)
    {
        above += prepared[i].columns.size();
        bodies += RoundUp4(rows[i].body.size());
    }
    const std::size_t columnBytes = ColumnBytes(cols);
    const ContainerLayout layout =
        LayoutOf(rows.size(), cols, table.size(), above, SizeOf(parameters.exact), bodies);
    SectionWriter writer(layout.size);
    const ContainerHeader header = MakeContainerHeader(rows.size(), cols, above > 0, table.size(), parameters);
    writer.Put(&header, sizeof header);
    writer.Put(table.data(), table.size());
    writer.Align();
    for (const EncodedRow& row : rows)
    {
        writer.Put(&row.record, sizeof row.record);
    }
    if (above > 0)
    {
        for (const PreparedRow& row : prepared)
        {
            const auto count = static_cast<std::uint32_t>(row.columns.size());
            writer.Put(&count, sizeof count);
        }
        for (const PreparedRow& row : prepared)
        {
            for (const std::uint32_t column : row.columns)
            {
                writer.Put(&column, columnBytes); // little-endian: its low bytes
            }
        }
        writer.Align();
        for (const PreparedRow& row : prepared)
        {
            writer.Put(row.values.data(), row.values.size());
        }
        writer.Align();
    }
    for (const EncodedRow& row : rows)
    {
        writer.Put(row.body.data(), row.body.size());
        writer.Align();
    }
    return writer.Take();
}

std::vector<std::byte>
EncodeContainer(const Tensor& tensor, std::optional<float> tau, const ContainerParameters& parameters)
{
    assert(!tensor.IsPhantom());
    if (tensor.Elements() == 0)
    {
        throw EncodeError("a tensor without elements");
    }
    constexpr std::size_t kMost = std::numeric_limits<std::uint32_t>::max();
    if (tensor.Rows() > kMost || tensor.Cols() > kMost)
    {
        throw EncodeError("a tensor with more than " + std::to_string(kMost) + " rows or columns");
    }
    std::vector<PreparedRow> prepared;
    prepared.reserve(tensor.Rows());
    for (std::size_t row = 0; row < tensor.Rows(); row++)
    {
        prepared.push_back(PrepareRow(tensor.Row(row), row, tau, parameters));
    }
    const auto messageTable = parameters.entropy ? ChooseMessageTable(prepared) : std::nullopt;
    std::vector<EncodedRow> rows;
    rows.reserve(tensor.Rows());
    for (const PreparedRow& row : prepared)
    {
        rows.push_back(EncodeRow(row, messageTable, parameters));
    }
    return AssembleContainer(tensor.Cols(), prepared, rows, messageTable, parameters);
}

ContainerHeader
ReadContainerHeader(std::span<const std::byte> bytes, std::size_t cols)
{
    ContainerHeader header;
    if (bytes.size() < sizeof header)
    {
        throw DecodeError(std::to_string(bytes.size()) + " bytes are no container");
    }
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.magic != kContainerMagic || header.version != kContainerVersion)
    {
        throw DecodeError("no container of version " + std::to_string(kContainerVersion));
    }
    const auto exact = static_cast<DType>(header.exact);
    const bool isExact = exact == DType::F32 || exact == DType::F16 || exact == DType::BF16;
    if ((header.flags & ~kHasAbove) != 0 || header.reserved != 0 || !isExact || header.bits < kTabQLeastBits ||
        header.bits > kTabQMostBits)
    {
        throw DecodeError("a container with unknown flags, element type or bits");
    }
    if (header.rows == 0 || header.cols != cols)
    {
        throw DecodeError("a container of " + std::to_string(header.rows) + " rows of " + std::to_string(header.cols) +
                          " elements; expected rows of " + std::to_string(cols));
    }
    return header;
}

ContainerSections
ReadContainerSections(std::span<const std::byte> bytes, std::size_t cols)
{
    ContainerSections sections;
    sections.header = ReadContainerHeader(bytes, cols);
    const ContainerHeader& header = sections.header;
    SectionReader reader(bytes.subspan(sizeof header));
    if (const auto table = reader.Take(header.tableBytes, 1, "table"); !table.empty())
    {
        sections.table = ReadTable(table);
    }
    const auto records = reader.Take(header.rows, sizeof(RowRecord), "rows");
    sections.records.resize(header.rows);
    std::memcpy(sections.records.data(), records.data(), records.size());
    for (std::size_t row = 0; row < header.rows; row++)
    {
        Check(sections.records[row], row, cols, header);
    }
    if (header.flags & kHasAbove)
    {
        const auto counts = reader.Take(header.rows, sizeof(std::uint32_t), "counts");
        sections.counts.resize(header.rows);
        std::memcpy(sections.counts.data(), counts.data(), counts.size());
        std::uint64_t above = 0; // 2^32 rows of 2^32 elements do not overflow it
        for (const std::uint32_t count : sections.counts)
        {
            above += count;
        }
        sections.columns = reader.Take(above, ColumnBytes(cols), "columns");
        sections.values = reader.Take(above, SizeOf(static_cast<DType>(header.exact)), "values");
    }
    sections.bodies.reserve(header.rows);
    for (const RowRecord& record : sections.records)
    {
        sections.bodies.push_back(reader.Take(record.bodyBytes, 1, "bodies"));
    }
    if (reader.Left() != 0)
    {
        throw DecodeError(std::to_string(reader.Left()) + " bytes behind a container");
    }
    return sections;
}

Tensor
DecodeContainer(std::span<const std::byte> bytes, std::size_t cols)
{
    const ContainerSections sections = ReadContainerSections(bytes, cols);
    const std::vector<RowRecord>& records = sections.records;
    const auto exact = static_cast<DType>(sections.header.exact);
    const std::size_t columnBytes = ColumnBytes(cols);
    StreamTables tables(sections.table);
    Tensor tensor = Tensor::Zeros(records.size(), cols);
    std::vector<std::uint8_t> symbols(cols);
    std::size_t next = 0; // of the elements above
    for (std::size_t row = 0; row < records.size(); row++)
    {
        const RowRecord& record = records[row];
        DecodeSymbols(record, row, sections.bodies[row], tables, symbols);
        float numbers[kRansMaxSymbols];
        ValuesOfSymbols(record.scale, record.zero, std::span(numbers).first(std::size_t{2} << record.bits));
        const std::span<float> to = tensor.Row(row);
        for (std::size_t i = 0; i < cols; i++)
        {
            to[i] = numbers[symbols[i]];
        }
        const std::size_t end = next + (sections.counts.empty() ? 0 : sections.counts[row]);
        for (std::size_t least = 0; next < end; next++)
        {
            const std::uint32_t column = ReadColumn(sections.columns, next, columnBytes);
            const float value = Read(sections.values.data() + next * SizeOf(exact), exact);
            if (column < least || column >= cols || !std::isfinite(value))
            {
                FailRow(row, "columns that do not ascend inside the row, or an exact value that is not finite");
            }
            to[column] = value;
            least = std::size_t{column} + 1;
        }
    }
    return tensor;
}

} // namespace splitllm
