// SPDX-License-Identifier: GPL-2.0-only
#include "base/out-of-memory.h"
#include "codec/container-coder.h"
#include "codec/dense-codec.h"
#include "codec/tab-q-codec.h"
#include "codec/tensor-codec.h"
#include "support/catch.h"
#include "support/codec-rows.h"
#include "support/gpu.h"
#include "tensor/cuda/device-tensor.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

using Bytes = std::vector<std::byte>;
using Rows = std::vector<std::vector<float>>;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

Tensor
TensorOf(const Rows& rows)
{
    Tensor tensor = Tensor::Zeros(rows.size(), rows.front().size());
    for (std::size_t i = 0; i < rows.size(); i++)
    {
        std::copy(rows[i].begin(), rows[i].end(), tensor.Row(i).begin());
    }
    return tensor;
}

/// A row of each kind that a codec meets, some of them seldom.
Rows
AllKinds(CodecRows& rows, std::size_t cols)
{
    Rows all{rows.Gauss(cols), rows.Laplace(cols), rows.HeavyTails(cols)};
    all.push_back(std::vector<float>(cols, 2.5F));
    all.push_back(std::vector<float>(cols, 0.0F));
    all.push_back(std::vector<float>(cols, -0.0F));
    std::vector<float> equal(cols, 3.0F); // magnitudes
    std::vector<float> denormal = rows.Gauss(cols);
    std::vector<float> outlier = rows.Gauss(cols);
    std::vector<float> large = rows.Gauss(cols);
    std::vector<float> far = rows.Laplace(cols); // no magnitude near zero, so the zero point is not zero
    std::vector<float> humps = rows.Gauss(cols);
    for (std::size_t i = 0; i < cols; i++)
    {
        equal[i] = i % 3 == 1 ? -3.0F : 3.0F;
        denormal[i] *= 1e-41F;
        large[i] = std::clamp(large[i] * 1e38F, -3e38F, 3e38F);
        far[i] += far[i] > 0.0F ? 40.0F : -40.0F;
        humps[i] = 0.1F * humps[i] + (humps[i] > 0.0F ? 1.0F : -1.0F);
    }
    outlier[cols / 2] = 60000.0F;
    humps[0] = 0.0F;
    for (auto& row : {equal, denormal, outlier, large, far, humps})
    {
        all.push_back(row);
    }
    return all;
}

/// Parameters in many combinations, others at each call.
class Combinations
{
  public:
    ContainerParameters Next()
    {
        constexpr double kDeltas[] = {0.2, 0.0, std::numeric_limits<double>::infinity(), 0.05, 1.0};
        constexpr DType kExact[] = {DType::F32, DType::BF16, DType::F32, DType::F16};
        const unsigned i = m_next++;
        return {.tabQ = {.bits = kTabQLeastBits + i % 7, .delta = kDeltas[i % 5], .normalised = i % 3 == 1},
                .exact = kExact[i % 4],
                .entropy = i % 11 != 10};
    }

  private:
    unsigned m_next = 0;
};

RowRecord
RecordOf(const Bytes& bytes, std::size_t row)
{
    ContainerHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    RowRecord record;
    std::memcpy(&record, bytes.data() + sizeof header + RoundUp4(header.tableBytes) + row * sizeof record, sizeof record);
    return record;
}

bool
SameBits(const Tensor& a, const Tensor& b)
{
    return a.Rows() == b.Rows() && a.Cols() == b.Cols() &&
           std::memcmp(a.Values().data(), b.Values().data(), a.Elements() * sizeof(float)) == 0;
}

/// What \p call refuses with; empty if it does not.
template <typename Error, typename Call>
std::string
RefusalOf(Call call)
{
    try
    {
        call();
    }
    catch (const Error& error)
    {
        return error.what();
    }
    return "";
}

/// The GPU's container of \p tensor is the host's, or it refuses with the same words; what it decodes is the same too.
Bytes
CheckSame(const ContainerCoder& gpu, const Tensor& tensor, std::optional<float> tau, const ContainerParameters& parameters)
{
    INFO(tensor.Rows() << " rows of " << tensor.Cols() << ", Qbar " << parameters.tabQ.bits << ", delta "
                       << parameters.tabQ.delta << (parameters.tabQ.normalised ? " normalised" : "") << ", tau "
                       << tau.value_or(kInfinity) << ", " << NameOf(parameters.exact)
                       << (parameters.entropy ? "" : ", packed"));
    Bytes expected;
    const std::string refusal =
        RefusalOf<EncodeError>([&] { expected = EncodeContainer(tensor, tau, parameters); });
    if (!refusal.empty())
    {
        CHECK(RefusalOf<EncodeError>([&] { gpu.Encode(tensor, tau, parameters); }) == refusal);
        return {};
    }
    const Bytes made = gpu.Encode(tensor, tau, parameters);
    const auto differs = std::mismatch(made.begin(), made.end(), expected.begin(), expected.end());
    INFO(made.size() << " bytes for " << expected.size() << ", first different at " << differs.first - made.begin());
    REQUIRE(made == expected);
    const Tensor back = gpu.Decode(expected, tensor.Cols());
    REQUIRE(back.Device() != nullptr);
    REQUIRE(SameBits(back, DecodeContainer(expected, tensor.Cols())));
    return expected;
}

const std::vector<std::optional<float>> kThresholds{std::nullopt, 1.25F, 1e-30F, 2.5F, 40.0F};

/// Whatever happens to \p bytes at the host happens on the GPU.
void
CheckSameDecision(const ContainerCoder& gpu, const Bytes& bytes, std::size_t cols)
{
    Tensor expected;
    const std::string refusal = RefusalOf<DecodeError>([&] { expected = DecodeContainer(bytes, cols); });
    Tensor decoded;
    REQUIRE(RefusalOf<DecodeError>([&] { decoded = gpu.Decode(bytes, cols); }) == refusal);
    if (refusal.empty())
    {
        REQUIRE(decoded.Device() != nullptr); // it was not the host that decoded it
        REQUIRE(SameBits(decoded, expected));
    }
}

} // namespace

TEST_CASE("One row has the same bytes from the GPU as from the host", "[cuda][codec]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaContainerCoder();
    CodecRows rows(31);
    Combinations combinations;
    std::size_t turn = 0;
    for (const std::size_t cols : kCodecSizes)
    {
        for (const std::vector<float>& row : AllKinds(rows, cols))
        {
            CheckSame(*gpu, TensorOf({row}), kThresholds[turn++ % kThresholds.size()], combinations.Next());
        }
    }
}

TEST_CASE("Rows of all kinds together have the same bytes from the GPU", "[cuda][codec]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaContainerCoder();
    CodecRows rows(32);
    Combinations combinations;
    std::set<unsigned> lanes;
    std::set<RowBody> bodies;
    const auto check = [&](std::size_t cols, std::optional<float> tau, const ContainerParameters& parameters) {
        const Tensor tensor = TensorOf(AllKinds(rows, cols));
        const Bytes bytes = CheckSame(*gpu, tensor, tau, parameters);
        for (std::size_t row = 0; row < tensor.Rows() && !bytes.empty(); row++)
        {
            lanes.insert(RecordOf(bytes, row).lanes);
            bodies.insert(RecordOf(bytes, row).body);
        }
    };
    for (const std::size_t cols : kCodecSizes)
    {
        for (std::size_t turn = 0; turn < (cols > 600 ? 3U : 5U); turn++)
        {
            check(cols, kThresholds[(turn + cols) % kThresholds.size()], combinations.Next());
        }
    }
    check(4097, std::nullopt, {.tabQ = {8, 0.0, false}, .exact = DType::F16, .entropy = true}); // the longest streams
    CHECK(lanes == std::set<unsigned>{0, 1, 4, 8, 16, 32});
    CHECK(bodies.size() >= 3);
}

TEST_CASE("Messages of 2 to 40 rows with tables of their own have the same bytes from the GPU", "[cuda][codec]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaContainerCoder();
    CodecRows rows(33);
    for (const std::size_t count : {2U, 3U, 4U, 5U, 9U, 40U})
    {
        for (const unsigned bits : {4U, 5U, 8U})
        {
            Rows all;
            for (std::size_t i = 0; i + 1 < count; i++)
            {
                all.push_back(AllKinds(rows, 576).back()); // two humps, which no static table suits
            }
            all.push_back(rows.Laplace(576));
            const ContainerParameters parameters{.tabQ = {bits, 0.0, false}, .exact = DType::F16, .entropy = true};
            const Bytes bytes = CheckSame(*gpu, TensorOf(all), std::nullopt, parameters);
            CheckSame(*gpu, TensorOf(all), 1.2F, parameters);
            if (count == 40 && bits == 5)
            {
                CHECK(RecordOf(bytes, 7).body == RowBody::MessageTable);
                CHECK(RecordOf(bytes, 39).body == RowBody::StaticTable);
            }
        }
    }
    // one row that is worth a table
    std::vector<float> two(4096);
    for (std::size_t i = 0; i < two.size(); i++)
    {
        two[i] = i % 2 == 0 ? 127.0F : i % 3 == 0 ? 3.0F : 64.0F;
    }
    two[1] = 0.0F;
    const ContainerParameters fine{.tabQ = {8, 0.0, false}, .exact = DType::F16, .entropy = true};
    CHECK(RecordOf(CheckSame(*gpu, TensorOf({two}), std::nullopt, fine), 0).body == RowBody::MessageTable);
}

TEST_CASE("Wide rows have the same bytes from the GPU", "[cuda][codec]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaContainerCoder();
    CodecRows rows(34);
    const ContainerParameters parameters;
    for (const std::size_t cols : {65535U, 65536U, 65537U})
    {
        std::vector<float> row = rows.Gauss(cols);
        row.back() = 1000.0F;
        row[0] = -600.0F;
        CheckSame(*gpu, TensorOf({row}), 500.0F, parameters);
    }
    // so many columns that a record alone may not stand for a row
    CheckSame(*gpu, TensorOf({std::vector<float>(70001, -1.0F)}), std::nullopt, parameters);
    std::vector<float> rare(300000, 0.0F);
    rare[17] = 1.0F;
    CheckSame(*gpu, TensorOf({rare, rare}), std::nullopt, {.tabQ = {2, 0.2, false}, .exact = DType::F16, .entropy = true});
}

TEST_CASE("The GPU refuses what cannot be coded with the words of the host", "[cuda][codec]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaContainerCoder();
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity, -70000.0F, 3.4e38F})
    {
        for (const std::size_t count : {1U, 3U})
        {
            for (const std::size_t column : {0U, 31U, 576U})
            {
                Rows rows(count, std::vector<float>(577, 1.0F));
                rows[count - 1][column] = bad;
                for (const std::optional<float> tau : {std::optional<float>(), std::optional(0.5F), std::optional(5.0F)})
                {
                    for (const DType exact : {DType::F16, DType::BF16, DType::F32})
                    {
                        CheckSame(*gpu, TensorOf(rows), tau, {.tabQ = {}, .exact = exact, .entropy = true});
                    }
                }
            }
        }
    }
    Rows rows(2, std::vector<float>(5, 1.0F));
    rows[0][4] = 1e6F; // overflows, but row 1 has no number at all
    rows[1][2] = kInfinity;
    CheckSame(*gpu, TensorOf(rows), 5.0F, {});
    CHECK(RefusalOf<EncodeError>([&] { gpu->Encode(TensorOf(rows), 5.0F, {}); }).find("row 0, column 4") == 0);
    CheckSame(*gpu, Tensor::Zeros(0, 5), std::nullopt, {});
    CheckSame(*gpu, Tensor::Zeros(5, 0), std::nullopt, {});
}

TEST_CASE("The GPU accepts and refuses the containers that the host does", "[cuda][codec]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaContainerCoder();
    CodecRows rows(35);
    Rows mixed{rows.Gauss(67), std::vector<float>(67, 1.0F), rows.Laplace(67), {}};
    mixed[3] = std::vector<float>(67, 0.25F);
    mixed[3][5] = 7.0F;
    Rows humps;
    for (int i = 0; i < 24; i++)
    {
        humps.push_back(AllKinds(rows, 67).back());
    }
    struct Message
    {
        Bytes bytes;
        std::vector<unsigned> changes;
    };
    const ContainerParameters four{.tabQ = {4, 0.2, false}, .exact = DType::F16, .entropy = true};
    const ContainerParameters five{.tabQ = {5, 0.0, false}, .exact = DType::BF16, .entropy = true};
    const Message messages[] = {
        {EncodeContainer(TensorOf(mixed), 2.5F, four), {1, 16, 128, 255}},
        {EncodeContainer(TensorOf({mixed[0]}), 1.0F, {.tabQ = {3, 0.2, false}, .exact = DType::F32, .entropy = false}),
         {1, 128}},
        {EncodeContainer(TensorOf(humps), 1.2F, five), {1, 255}},
    };
    CHECK(RecordOf(messages[2].bytes, 0).body == RowBody::MessageTable);
    for (const auto& [bytes, changes] : messages)
    {
        for (std::size_t i = 0; i < bytes.size(); i++)
        {
            for (const unsigned change : changes)
            {
                Bytes broken = bytes;
                broken[i] ^= static_cast<std::byte>(change);
                CheckSameDecision(*gpu, broken, 67);
            }
            if (i % 3 == 0)
            {
                CheckSameDecision(*gpu, {bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(i)}, 67);
            }
        }
        CheckSameDecision(*gpu, bytes, 67);
        CheckSameDecision(*gpu, bytes, 68);
    }
}

TEST_CASE("Streams that are no encoder's are refused on the GPU, in every number of lanes", "[cuda][codec]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaContainerCoder();
    CodecRows rows(36);
    const ContainerParameters parameters{.tabQ = {4, 0.0, false}, .exact = DType::F16, .entropy = true};
    const std::vector<float> row = rows.Gauss(577);
    const std::vector<PreparedRow> prepared{PrepareRow(row, 0, std::nullopt, parameters)};
    EncodedRow encoded = EncodeRow(prepared[0], std::nullopt, parameters);
    REQUIRE(encoded.record.body == RowBody::StaticTable);
    const RansEncodeTable table = MakeRansEncodeTable(StaticTable(encoded.record.bits, encoded.record.argument));
    const auto check = [&] {
        encoded.record.bodyBytes = static_cast<std::uint32_t>(encoded.body.size());
        CheckSameDecision(*gpu, AssembleContainer(577, prepared, {&encoded, 1}, std::nullopt, parameters), 577);
    };
    for (const unsigned lanes : {1U, 4U, 8U, 16U, 32U})
    {
        encoded.body.clear();
        RansEncode(prepared[0].quantised.symbols, table, lanes, encoded.body);
        encoded.record.lanes = static_cast<std::uint8_t>(lanes);
        check();
        const Bytes whole = encoded.body;
        for (const std::size_t cut : {std::size_t{1}, std::size_t{2}, std::size_t{4}, whole.size() - 4 * lanes, whole.size()})
        {
            encoded.body.assign(whole.begin(), whole.end() - static_cast<std::ptrdiff_t>(cut));
            check();
        }
        encoded.body = whole;
        encoded.body.resize(whole.size() + 2);
        check();
        for (int repeat = 0; repeat < 40; repeat++)
        {
            encoded.body = whole;
            encoded.body[static_cast<std::size_t>(rows.Uniform() * static_cast<double>(whole.size()))] ^= std::byte{64};
            check();
        }
        for (unsigned lane = 0; lane < lanes; lane++) // a state outside of its range
        {
            encoded.body = whole;
            encoded.body[4 * lane + 3] |= std::byte{0x80};
            check();
        }
    }
}

TEST_CASE("A stream whose state begins below its range is refused on the GPU, though it decodes", "[cuda][codec]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaContainerCoder();
    CodecRows rows(41);
    const ContainerParameters parameters{.tabQ = {4, 0.0, false}, .exact = DType::F16, .entropy = true};
    int made = 0;
    for (int repeat = 0; repeat < 20; repeat++)
    {
        const std::vector<float> row = rows.Gauss(129);
        const std::vector<PreparedRow> prepared{PrepareRow(row, 0, std::nullopt, parameters)};
        EncodedRow encoded = EncodeRow(prepared[0], std::nullopt, parameters);
        REQUIRE(encoded.record.lanes == 1);
        const RansEncodeTable table = MakeRansEncodeTable(StaticTable(encoded.record.bits, encoded.record.argument));
        const auto& symbols = prepared[0].quantised.symbols;
        std::vector<std::uint16_t> words; // last one first
        std::uint32_t x = kRansLow;
        for (std::size_t i = symbols.size(); i-- > 0;)
        {
            if (i == 0 && x >= 1U << 16)
            {
                words.push_back(static_cast<std::uint16_t>(x)); // a word that need not leave yet
                x >>= 16;
            }
            std::uint16_t word;
            if (RansPut(x, table.symbols[symbols[i]], word))
            {
                words.push_back(word);
            }
        }
        made += x < kRansLow ? 1 : 0;
        encoded.body.resize(4 + 2 * words.size());
        std::memcpy(encoded.body.data(), &x, sizeof x);
        std::ranges::reverse(words);
        std::memcpy(encoded.body.data() + 4, words.data(), 2 * words.size());
        encoded.record.bodyBytes = static_cast<std::uint32_t>(encoded.body.size());
        CheckSameDecision(*gpu, AssembleContainer(129, prepared, {&encoded, 1}, std::nullopt, parameters), 129);
    }
    CHECK(made > 0);
}

TEST_CASE("Elements above and symbols that no writer makes are refused on the GPU", "[cuda][codec]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaContainerCoder();
    CodecRows rows(37);
    const ContainerParameters parameters{.tabQ = {4, 0.0, false}, .exact = DType::F16, .entropy = true};
    std::vector<float> row = rows.Gauss(577);
    row[10] = 9.0F;
    row[20] = -9.0F;
    const std::optional<RansFrequencies> wide = NormaliseFrequencies(std::vector<std::uint64_t>(32, 1));
    const auto check = [&](auto change, bool withTable) {
        std::vector<PreparedRow> prepared{PrepareRow(row, 0, 8.0F, parameters), PrepareRow(row, 1, 8.0F, parameters)};
        std::vector<EncodedRow> encoded{EncodeRow(prepared[0], std::nullopt, parameters),
                                        EncodeRow(prepared[1], std::nullopt, parameters)};
        change(prepared[1], encoded[1]);
        CheckSameDecision(
            *gpu, AssembleContainer(577, prepared, encoded, withTable ? wide : std::nullopt, parameters), 577);
    };
    check([](PreparedRow&, EncodedRow&) {}, false);
    check([](PreparedRow& p, EncodedRow&) { std::swap(p.columns[0], p.columns[1]); }, false);
    check([](PreparedRow& p, EncodedRow&) { p.columns[1] = p.columns[0]; }, false);
    check([](PreparedRow& p, EncodedRow&) { p.columns[1] = 577; }, false);
    check([](PreparedRow& p, EncodedRow&) { p.columns[0] = 5; }, false); // another place, which is fine
    check([](PreparedRow& p, EncodedRow&) { p.values[3] = std::byte{0x7C}; }, false);
    // A table of the message that knows symbols of 5 bits, and a row of 4 in which one occurs.
    for (const std::uint8_t symbol : {15, 16, 31})
    {
        check(
            [&](PreparedRow& p, EncodedRow& e) {
                p.quantised.symbols[300] = symbol;
                e.body.clear();
                RansEncode(p.quantised.symbols, MakeRansEncodeTable(*wide), 4, e.body);
                e.record.body = RowBody::MessageTable;
                e.record.lanes = 4;
                e.record.argument = 0;
                e.record.bodyBytes = static_cast<std::uint32_t>(e.body.size());
            },
            true);
    }
}

TEST_CASE("Tensors that lie on the GPU are coded there, and those that are decoded stay there", "[cuda][codec]")
{
    SPLITLLM_NEEDS_GPU();
    const auto gpu = MakeCudaContainerCoder();
    CodecRows rows(38);
    const auto stream = std::make_shared<CudaStream>();
    const Tensor host = TensorOf({rows.Gauss(577), rows.Laplace(577), rows.HeavyTails(577)});
    const Tensor there = OnDevice(3, 577, DeviceArray<float>(stream, std::as_const(host).Values()));
    const Bytes bytes = gpu->Encode(there, 2.0F, {});
    CHECK(bytes == EncodeContainer(host, 2.0F, {}));
    const Tensor back = gpu->Decode(bytes, 577);
    REQUIRE(back.Device() != nullptr);
    CHECK(gpu->Encode(back, 2.0F, {}) == EncodeContainer(DecodeContainer(bytes, 577), 2.0F, {}));
    CHECK(MakeCudaContainerCoder() == gpu); // one for all
}

TEST_CASE("A study's codec codes on the GPU where its context says so", "[cuda][codec]")
{
    SPLITLLM_NEEDS_GPU();
    Json json = ParseStrictJson(R"({"codec": {"name": "tab-q", "bits": 5, "tau": 1.5, "exact": "bf16"}})", "study");
    const Tensor tensor = TensorOf({CodecRows(42).Gauss(577)});
    const CodecSite site{"hidden-state", 3};
    std::vector<Payload> payloads;
    for (const bool onGpu : {true, false})
    {
        StrictObject object(json, "study");
        CodecContext context;
        context.coder = onGpu ? MakeCudaContainerCoder() : nullptr;
        const auto codec = ReadTensorCodec(object, "codec", context);
        payloads.push_back(codec->Encode(tensor, site));
        CHECK((codec->Decode(payloads.back(), 577, site).Device() != nullptr) == onGpu);
    }
    CHECK(payloads[0].bytes == payloads[1].bytes);
    CHECK(RecordOf(payloads[0].bytes, 0).bits <= 4);
}

#ifdef SPLITLLM_CUDA_EMULATION

namespace
{

/// Gives back the emulated device as it was.
class DeviceAsItWas
{
  public:
    DeviceAsItWas() = default;

    ~DeviceAsItWas()
    {
        emulation::SetOrder(m_order);
        emulation::SetMemory(std::size_t{8} << 30);
    }

    DeviceAsItWas(const DeviceAsItWas&) = delete;
    DeviceAsItWas& operator=(const DeviceAsItWas&) = delete;

  private:
    emulation::Order m_order = emulation::GetOrder();
};

} // namespace

TEST_CASE("The GPU's bytes do not depend on the order of its threads", "[cuda][codec]")
{
    const DeviceAsItWas device;
    const auto gpu = MakeCudaContainerCoder();
    using emulation::Order;
    for (const Order order : {Order{Order::Kind::Forward, 0},
                              Order{Order::Kind::Reverse, 0},
                              Order{Order::Kind::Shuffled, 1},
                              Order{Order::Kind::Shuffled, 2}})
    {
        emulation::SetOrder(order);
        CodecRows rows(39);
        Combinations combinations;
        for (const std::size_t cols : {1U, 33U, 577U, 2049U})
        {
            const Rows all = AllKinds(rows, cols);
            for (std::size_t turn = 0; turn < 4; turn++)
            {
                CheckSame(*gpu, TensorOf(all), kThresholds[turn], combinations.Next());
                CheckSame(*gpu, TensorOf({all[3 * turn % all.size()]}), kThresholds[turn + 1], combinations.Next());
            }
        }
        Rows humps;
        for (int i = 0; i < 20; i++)
        {
            humps.push_back(AllKinds(rows, 577).back());
        }
        CheckSame(*gpu, TensorOf(humps), 1.2F, {.tabQ = {5, 0.0, false}, .exact = DType::F16, .entropy = true});
    }
}

TEST_CASE("A GPU without memory for a container says so, and keeps none of it", "[cuda][codec]")
{
    const DeviceAsItWas device;
    const auto gpu = MakeCudaContainerCoder();
    CodecRows rows(40);
    const Tensor tensor = TensorOf({rows.Gauss(577), rows.Laplace(577)});
    const Bytes bytes = EncodeContainer(tensor, 2.0F, {});
    REQUIRE(gpu->Encode(tensor, 2.0F, {}) == bytes); // from now on the static tables are there
    const std::size_t before = emulation::MemoryHeld();
    std::size_t failed = 0;
    for (std::size_t room = 0; room < 40000; room += 500)
    {
        emulation::SetMemory(before + room);
        for (const bool encode : {true, false})
        {
            try
            {
                encode ? void(gpu->Encode(tensor, 2.0F, {})) : void(gpu->Decode(bytes, 577));
            }
            catch (const OutOfMemory&)
            {
                failed++;
            }
            REQUIRE(emulation::MemoryHeld() == before);
        }
    }
    CHECK(failed > 10);
    CHECK(failed < 160);
    CHECK(gpu->Encode(tensor, 2.0F, {}) == bytes);
}

#endif
