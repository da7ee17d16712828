// SPDX-License-Identifier: GPL-2.0-only
#include "codec/dense-codec.h"
#include "codec/tensor-container.h"
#include "support/catch.h"
#include "support/codec-rows.h"
#include "support/tab-q-reference.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
using Bytes = std::vector<std::byte>;

Tensor
TensorOf(const std::vector<std::vector<float>>& rows)
{
    Tensor tensor = Tensor::Zeros(rows.size(), rows.front().size());
    for (std::size_t i = 0; i < rows.size(); i++)
    {
        std::copy(rows[i].begin(), rows[i].end(), tensor.Row(i).begin());
    }
    return tensor;
}

ContainerHeader
HeaderOf(const Bytes& bytes)
{
    ContainerHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    return header;
}

RowRecord
RecordOf(const Bytes& bytes, std::size_t row)
{
    RowRecord record;
    std::memcpy(&record,
                bytes.data() + sizeof(ContainerHeader) + (HeaderOf(bytes).tableBytes + 3) / 4 * 4 + row * sizeof record,
                sizeof record);
    return record;
}

float
Rounded(float x, DType dtype)
{
    return dtype == DType::F32 ? x : dtype == DType::F16 ? FromF16(ToF16(x)) : FromBf16(ToBf16(x));
}

/// Every element is what Algorithm 1 and Eq 7 make of it, bit by bit, or itself in the exact type.
void
CheckRoundTrip(const Tensor& tensor, std::optional<float> tau, const ContainerParameters& parameters)
{
    const Bytes bytes = EncodeContainer(tensor, tau, parameters);
    const Tensor back = DecodeContainer(bytes, tensor.Cols());
    REQUIRE(back.Rows() == tensor.Rows());
    for (std::size_t row = 0; row < tensor.Rows(); row++)
    {
        const std::vector<float> values(tensor.Row(row).begin(), tensor.Row(row).end());
        const TabQReference expected = ReferenceTabQ(values,
                                                     parameters.tabQ.bits,
                                                     parameters.tabQ.delta,
                                                     parameters.tabQ.normalised,
                                                     tau.value_or(kInfinity));
        std::size_t different = 0;
        for (std::size_t i = 0; i < values.size(); i++)
        {
            const bool above = std::abs(values[i]) >= tau.value_or(kInfinity);
            const float wanted = above ? Rounded(values[i], parameters.exact) : expected.Value(i);
            different += std::bit_cast<std::uint32_t>(wanted) != std::bit_cast<std::uint32_t>(back.Row(row)[i]);
        }
        INFO("row " << row << " of " << tensor.Cols() << " elements, Qbar " << parameters.tabQ.bits);
        REQUIRE(different == 0);
    }
}

std::string
RefusalOf(const std::function<void()>& call)
{
    try
    {
        call();
    }
    catch (const EncodeError& error)
    {
        return error.what();
    }
    return "";
}

bool
IsRefused(const Bytes& bytes, std::size_t cols)
{
    try
    {
        DecodeContainer(bytes, cols);
    }
    catch (const DecodeError&)
    {
        return true;
    }
    return false;
}

} // namespace

TEST_CASE("What comes back is what Algorithm 1 makes of it, and exact above the threshold", "[codec]")
{
    CodecRows rows(1);
    for (const std::size_t cols : kCodecSizes)
    {
        for (const DType exact : {DType::F32, DType::F16, DType::BF16})
        {
            const unsigned bits = kTabQLeastBits + static_cast<unsigned>(rows.Uniform() * 7.0);
            const Tensor tensor = TensorOf({rows.Gauss(cols), rows.HeavyTails(cols), rows.Laplace(cols)});
            for (const bool entropy : {true, false})
            {
                const ContainerParameters parameters{.tabQ = {bits, 0.2, false}, .exact = exact, .entropy = entropy};
                CheckRoundTrip(tensor, std::nullopt, parameters);
                CheckRoundTrip(tensor, 1.25F, parameters);
                CheckRoundTrip(tensor, 1e-30F, parameters); // nearly all are above
            }
        }
    }
}

TEST_CASE("Columns have 16 bits up to 65536 of them, and 32 beyond", "[codec]")
{
    CodecRows rows(2);
    for (const std::size_t cols : {65535, 65536, 65537})
    {
        std::vector<float> row = rows.Gauss(cols);
        row.back() = 1000.0F;
        row[0] = -600.0F;
        const ContainerParameters parameters{.tabQ = {4, 0.2, false}, .exact = DType::F16, .entropy = true};
        CheckRoundTrip(TensorOf({row}), 500.0F, parameters);
        const Bytes one = EncodeContainer(TensorOf({row}), 500.0F, parameters);
        const std::size_t body = (RecordOf(one, 0).bodyBytes + 3) / 4 * 4;
        const std::size_t table = (HeaderOf(one).tableBytes + 3) / 4 * 4;
        // a count; two columns of 2 or 4 bytes; two values of 2
        CHECK(one.size() == 20 + table + 16 + 4 + (cols > 65536 ? 8 : 4) + 4 + body);
    }
}

TEST_CASE("Each kind of body is used where it is the shortest", "[codec]")
{
    CodecRows rows(3);
    const ContainerParameters parameters{.tabQ = {8, 0.0, false}, .exact = DType::F16, .entropy = true};
    const auto bodyOf = [&](const std::vector<float>& row) {
        return RecordOf(EncodeContainer(TensorOf({row}), std::nullopt, parameters), 0).body;
    };
    CHECK(bodyOf(std::vector<float>(577, 2.0F)) == RowBody::Constant);
    CHECK(bodyOf({1.0F, -2.0F, 3.0F}) == RowBody::Packed);
    CHECK(bodyOf(rows.Gauss(577)) == RowBody::StaticTable);
    std::vector<float> two(4096); // 3 and 127 levels, in no proportion that a bell curve has
    for (std::size_t i = 0; i < two.size(); i++)
    {
        two[i] = i % 2 == 0 ? 127.0F : i % 3 == 0 ? 3.0F : 64.0F;
    }
    two[1] = 0.0F;
    CHECK(bodyOf(two) == RowBody::MessageTable);
    const ContainerParameters packed{.tabQ = {8, 0.0, false}, .exact = DType::F16, .entropy = false};
    const Bytes all = EncodeContainer(TensorOf({std::vector<float>(577, 2.0F)}), std::nullopt, packed);
    CHECK(RecordOf(all, 0).body == RowBody::Packed);
}

TEST_CASE("Table, states and words stay near the entropy of the symbols", "[codec]")
{
    CodecRows rows(4);
    for (const auto& [cols, most] : std::map<std::size_t, double>{{576, 1.15}, {2048, 1.05}, {4096, 1.05}, {16384, 1.05}})
    {
        for (int repeat = 0; repeat < 50; repeat++)
        {
            // heavy tails without what lies above the threshold, and as they are
            for (int kind = 0; kind < 4; kind++)
            {
                const std::vector<float> row = kind == 0   ? rows.Gauss(cols)
                                               : kind == 1 ? rows.Laplace(cols)
                                                           : rows.HeavyTails(cols);
                const std::optional<float> tau = kind == 2 ? std::optional(4.0F) : std::nullopt;
                for (const unsigned bits : {4U, 8U})
                {
                    const ContainerParameters parameters{.tabQ = {bits, 0.2, false}, .exact = DType::F16, .entropy = true};
                    const PreparedRow prepared = PrepareRow(row, 0, tau, parameters);
                    const double entropy = EntropyBytes(prepared.quantised.symbols);
                    const Bytes bytes = EncodeContainer(TensorOf({row}), tau, parameters);
                    const RowRecord record = RecordOf(bytes, 0);
                    const double coded = HeaderOf(bytes).tableBytes + record.bodyBytes;
                    INFO(cols << " columns, rows of kind " << kind << ", Qbar " << bits << ": entropy " << entropy
                              << " bytes, coded " << coded << " (Q " << prepared.quantised.bits << ", body "
                              << static_cast<int>(record.body) << ", lanes " << static_cast<int>(record.lanes) << ")");
                    CHECK(coded >= entropy);
                    if (kind < 2 || (kind == 2 && bits == 4))
                    {
                        CHECK(coded <= entropy * most);
                        continue;
                    }
                    // With an outlier nearly all codes are 0. A state of 4 bytes is then more than 5 %, and so is the
                    // 1/4096 that each of the other symbols has at least, though it may not occur.
                    const double floors = static_cast<double>(cols) * (2U << prepared.quantised.bits) / 4096.0 * 1.4427 / 8.0;
                    // Of the 250 symbols of Qbar = 8 it leaves most without an occurrence.
                    const double share = bits == 4 ? most : cols == 576 ? 1.35 : 1.12;
                    CHECK(coded <= std::max(entropy * share, entropy + 6.0 + 1.1 * floors));
                }
            }
        }
    }
}

TEST_CASE("A row has the same body whatever rows come with it, as long as they need no table", "[codec]")
{
    CodecRows rows(5);
    const ContainerParameters parameters{.tabQ = {5, 0.2, false}, .exact = DType::F16, .entropy = true};
    const std::vector<std::vector<float>> all{rows.Gauss(577), rows.Laplace(577), rows.Gauss(577)};
    const Bytes together = EncodeContainer(TensorOf(all), 2.0F, parameters);
    // prepared and encoded in another order
    std::vector<PreparedRow> prepared(3);
    for (const std::size_t row : {2U, 0U, 1U})
    {
        prepared[row] = PrepareRow(all[row], row, 2.0F, parameters);
    }
    const auto table = ChooseMessageTable(prepared);
    std::vector<EncodedRow> encoded(3);
    for (const std::size_t row : {1U, 2U, 0U})
    {
        encoded[row] = EncodeRow(prepared[row], table, parameters);
    }
    CHECK(AssembleContainer(577, prepared, encoded, table, parameters) == together);
    for (std::size_t row = 0; row < 3; row++)
    {
        const Bytes alone = EncodeContainer(TensorOf({all[row]}), 2.0F, parameters);
        REQUIRE(HeaderOf(alone).tableBytes == 0);
        CHECK(RecordOf(alone, 0).bodyBytes == RecordOf(together, row).bodyBytes);
    }
}

TEST_CASE("A table of the message serves the rows that it makes shorter", "[codec]")
{
    CodecRows rows(6);
    // 40 rows of a distribution with two humps, and one that a static table suits better
    std::vector<std::vector<float>> all;
    for (int i = 0; i < 40; i++)
    {
        std::vector<float> row = rows.Gauss(576);
        for (float& x : row)
        {
            x = 0.1F * x + (x > 0.0F ? 1.0F : -1.0F);
        }
        row[0] = 0.0F;
        all.push_back(row);
    }
    all.push_back(rows.Laplace(576));
    const ContainerParameters parameters{.tabQ = {5, 0.0, false}, .exact = DType::F16, .entropy = true};
    const Bytes bytes = EncodeContainer(TensorOf(all), std::nullopt, parameters);
    CHECK(HeaderOf(bytes).tableBytes > 0);
    CHECK(RecordOf(bytes, 7).body == RowBody::MessageTable);
    CHECK(RecordOf(bytes, 40).body == RowBody::StaticTable);
    CheckRoundTrip(TensorOf(all), std::nullopt, parameters);
}

TEST_CASE("NaN, infinity and what overflows the exact type are refused by row and column", "[codec]")
{
    for (const float bad : {kNan, kInfinity, -kInfinity})
    {
        for (const std::size_t column : {0U, 15U, 576U})
        {
            std::vector<std::vector<float>> rows{std::vector<float>(577, 1.0F), std::vector<float>(577, 1.0F)};
            rows[1][column] = bad;
            for (const std::optional<float> tau : {std::optional<float>(), std::optional(0.5F)})
            {
                const std::string message = RefusalOf([&] { EncodeContainer(TensorOf(rows), tau, {}); });
                CHECK(message.find("row 1, column " + std::to_string(column) + ": ") == 0);
            }
        }
    }
    ContainerParameters parameters;
    const Tensor large = TensorOf({{1.0F, -70000.0F, 2.0F}});
    const std::string message = RefusalOf([&] { EncodeContainer(large, 5.0F, parameters); });
    CHECK(message == "row 0, column 1: -70000.000000 overflows fp16");
    parameters.exact = DType::BF16;
    CheckRoundTrip(large, 5.0F, parameters);
    CHECK(RefusalOf([&] { EncodeContainer(Tensor::Zeros(0, 5), std::nullopt, parameters); }) != "");
    CHECK(RefusalOf([&] { EncodeContainer(Tensor::Zeros(5, 0), std::nullopt, parameters); }) != "");
}

TEST_CASE("A container, byte by byte", "[codec]")
{
    // Qbar = 2: one bit of magnitude, so s = Tmax - Tmin. Row 0: codes 1 1 0 0, the last because 9 is above. Row 1 is flat:
    // s = 5 and z = -1, all codes 0. Exact: 9 in fp16 is 0x4880.
    const ContainerParameters parameters{.tabQ = {2, 0.2, false}, .exact = DType::F16, .entropy = true};
    const Bytes bytes = EncodeContainer(TensorOf({{3.0F, -3.0F, 0.0F, 9.0F}, {5.0F, 5.0F, 5.0F, 5.0F}}), 7.0F, parameters);
    const std::vector<unsigned> expected{
        'T',  'A',  'B',  'Q',  1, 1, 2, 2,       // magic, version, flags, fp16, Qbar
        2,    0,    0,    0,    4, 0, 0, 0,       // rows, columns
        0,    0,    0,    0,                      // table, reserved
        0,    0,    0x40, 0x40, 0, 0, 0, 0,       // 3.0, z = 0
        1,    0,    0,    0,    1, 1, 0, 0,       // one byte, Q = 1, packed
        0,    0,    0xA0, 0x40, 255, 255, 255, 255, // 5.0, z = -1
        0,    0,    0,    0,    1, 0, 0, 0,       // nothing, Q = 1, constant 0
        1,    0,    0,    0,    0, 0, 0, 0,       // one above in row 0
        3,    0,    0,    0,                      // column
        0x80, 0x48, 0,    0,                      // value
        0x0E, 0,    0,    0};                     // 2 + 3 * 4 + 0 * 16 + 0 * 64
    std::vector<unsigned> actual;
    for (const std::byte byte : bytes)
    {
        actual.push_back(static_cast<unsigned>(byte));
    }
    CHECK(actual == expected);
}

TEST_CASE("No part of a container is a container, nor one with anything behind it", "[codec]")
{
    CodecRows rows(7);
    const ContainerParameters parameters{.tabQ = {5, 0.0, false}, .exact = DType::F16, .entropy = true};
    const Tensor tensor = TensorOf({rows.Gauss(67), std::vector<float>(67, 1.0F), rows.Laplace(67)});
    const Bytes bytes = EncodeContainer(tensor, 2.5F, parameters);
    for (std::size_t size = 0; size < bytes.size(); size++)
    {
        CHECK(IsRefused({bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size)}, 67));
    }
    for (const std::size_t more : {1U, 4U})
    {
        Bytes longer = bytes;
        longer.resize(bytes.size() + more);
        CHECK(IsRefused(longer, 67));
    }
    CHECK(IsRefused(bytes, 66));
    CHECK(IsRefused(bytes, 68));
    CHECK_FALSE(IsRefused(bytes, 67));
}

TEST_CASE("A container with any byte changed is refused, or finite", "[codec]")
{
    CodecRows rows(8);
    const ContainerParameters parameters{.tabQ = {4, 0.2, false}, .exact = DType::F16, .entropy = true};
    const Bytes bytes = EncodeContainer(TensorOf({rows.Gauss(67), rows.Laplace(67)}), 2.5F, parameters);
    std::size_t refused = 0;
    for (std::size_t i = 0; i < bytes.size(); i++)
    {
        for (const unsigned change : {1U, 16U, 128U, 255U})
        {
            Bytes broken = bytes;
            broken[i] ^= static_cast<std::byte>(change);
            try
            {
                const Tensor tensor = DecodeContainer(broken, 67);
                CHECK(std::ranges::all_of(tensor.Values(), [](float x) { return std::isfinite(x); }));
            }
            catch (const DecodeError&)
            {
                refused++;
            }
        }
    }
    CHECK(refused > bytes.size()); // a stream's end states catch most of it
}

TEST_CASE("Each thing that no writer does is refused", "[codec]")
{
    CodecRows rows(9);
    const ContainerParameters parameters{.tabQ = {4, 0.0, false}, .exact = DType::F16, .entropy = true};
    std::vector<float> row = rows.Gauss(577);
    row[10] = 9.0F;
    row[20] = -9.0F;
    const auto refused = [&](const std::function<void(PreparedRow&, EncodedRow&)>& change,
                             const std::optional<RansFrequencies>& table = std::nullopt) {
        std::vector<PreparedRow> prepared{PrepareRow(row, 0, 8.0F, parameters)};
        std::vector<EncodedRow> encoded{EncodeRow(prepared[0], std::nullopt, parameters)};
        change(prepared[0], encoded[0]);
        return IsRefused(AssembleContainer(577, prepared, encoded, table, parameters), 577);
    };
    CHECK_FALSE(refused([](PreparedRow&, EncodedRow&) {}));
    CHECK(refused([](PreparedRow& p, EncodedRow&) { std::swap(p.columns[0], p.columns[1]); }));
    CHECK(refused([](PreparedRow& p, EncodedRow&) { p.columns[1] = p.columns[0]; }));
    CHECK(refused([](PreparedRow& p, EncodedRow&) { p.columns[1] = 577; }));
    CHECK(refused([](PreparedRow& p, EncodedRow&) { p.values[3] = std::byte{0x7C}; })); // infinity or NaN
    CHECK(refused([](PreparedRow&, EncodedRow& e) { e.record.zero = 1; }));
    CHECK(refused([](PreparedRow&, EncodedRow& e) { e.record.scale = kInfinity; }));
    CHECK(refused([](PreparedRow&, EncodedRow& e) { e.record.scale = -1.0F; }));
    CHECK(refused([](PreparedRow&, EncodedRow& e) { e.record.bits = 4; }));
    CHECK(refused([](PreparedRow&, EncodedRow& e) { e.record.bits = 0; }));
    CHECK(refused([](PreparedRow&, EncodedRow& e) { e.record.lanes = 2; }));
    CHECK(refused([](PreparedRow&, EncodedRow& e) { e.record.argument = kStaticTables; }));
    CHECK(refused([](PreparedRow&, EncodedRow& e) { e.record.body = static_cast<RowBody>(4); }));
    CHECK(refused([](PreparedRow&, EncodedRow& e) { e.record.body = RowBody::MessageTable; }));

    // A table of the message that knows symbols of 5 bits, and a row of 4 in which one occurs.
    std::vector<std::uint64_t> counts(32, 1);
    const RansFrequencies table = NormaliseFrequencies(counts);
    const auto withSymbol = [&](std::uint8_t symbol) {
        return refused(
            [&](PreparedRow& p, EncodedRow& e) {
                p.quantised.symbols[300] = symbol;
                e.body.clear();
                RansEncode(p.quantised.symbols, MakeRansEncodeTable(table), 4, e.body);
                e.record.body = RowBody::MessageTable;
                e.record.bits = 3;
                e.record.lanes = 4;
                e.record.argument = 0;
                e.record.bodyBytes = static_cast<std::uint32_t>(e.body.size());
            },
            table);
    };
    CHECK_FALSE(withSymbol(15));
    CHECK(withSymbol(16));

    // A table in whose last byte there is more than the table. 256 frequencies of 16: 8 bits, the first width 3 + 4 bits, then
    // a bit for each width, and 4 bits of each frequency; the last byte has one bit in use.
    const RansFrequencies even = NormaliseFrequencies(std::vector<std::uint64_t>(256, 1));
    std::vector<PreparedRow> prepared{PrepareRow(row, 0, 8.0F, parameters)};
    std::vector<EncodedRow> encoded{EncodeRow(prepared[0], std::nullopt, parameters)};
    Bytes bytes = AssembleContainer(577, prepared, encoded, even, parameters);
    const std::size_t size = HeaderOf(bytes).tableBytes;
    REQUIRE(size == (8 + 7 + 255 + 256 * 4 + 7) / 8);
    CHECK_FALSE(IsRefused(bytes, 577));
    bytes[20 + size - 1] ^= std::byte{0x80};
    CHECK(IsRefused(bytes, 577));
}

TEST_CASE("Few bytes do not make a reader allocate much", "[codec]")
{
    // rows of 65537 columns and more take more than a record
    const auto claim = [](std::uint32_t rows, std::uint32_t cols) {
        Bytes bytes(20 + 16);
        const ContainerHeader header{.magic = kContainerMagic,
                                     .version = kContainerVersion,
                                     .flags = 0,
                                     .exact = static_cast<std::uint8_t>(DType::F16),
                                     .bits = 4,
                                     .rows = rows,
                                     .cols = cols,
                                     .tableBytes = 0,
                                     .reserved = 0};
        std::memcpy(bytes.data(), &header, sizeof header);
        const RowRecord record{.scale = 1.0F,
                               .zero = 0,
                               .bodyBytes = 0,
                               .bits = 3,
                               .body = RowBody::Constant,
                               .lanes = 0,
                               .argument = 2};
        std::memcpy(bytes.data() + 20, &record, sizeof record);
        return bytes;
    };
    CHECK_FALSE(IsRefused(claim(1, 65536), 65536));
    CHECK(IsRefused(claim(1, 65537), 65537));
    CHECK(IsRefused(claim(2, 65536), 65536));
    CHECK(IsRefused(claim(0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF));
    // so the writer packs what a record alone may not stand for
    const ContainerParameters parameters{.tabQ = {2, 0.2, false}, .exact = DType::F16, .entropy = true};
    CheckRoundTrip(TensorOf({std::vector<float>(70001, -1.0F)}), std::nullopt, parameters);
    std::vector<float> rare(300000, 0.0F);
    rare[17] = 1.0F;
    CheckRoundTrip(TensorOf({rare}), std::nullopt, parameters);
}
