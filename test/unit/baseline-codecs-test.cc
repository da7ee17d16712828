// SPDX-License-Identifier: GPL-2.0-only
#include "base/input-error.h"
#include "codec/baseline-codecs.h"
#include "codec/bit-packing.h"
#include "codec/dense-codec.h"
#include "support/catch.h"
#include "support/error-of.h"
#include "support/random-model.h"
#include "support/temporary-folder.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <vector>

using namespace splitllm;
using splitllm::test::ErrorOf;
using splitllm::test::Random;
using splitllm::test::TemporaryFolder;

namespace
{

constexpr CodecSite kSite{.kind = "hidden-state", .layer = 2};

ModelConfig
ConfigOf(std::size_t hidden)
{
    ModelConfig config;
    config.name = "two-layers";
    config.layers = 2;
    config.hidden = hidden;
    config.heads = 1;
    config.kvHeads = 1;
    config.headDim = 2;
    return config;
}

/// A layer's entry of the statistics: lists of one value a channel.
Json
Channels(const std::vector<double>& largest,
         const std::vector<double>& rms,
         const std::vector<double>& shift,
         const std::vector<double>& scale,
         const Json& clip)
{
    return {{"quantiles", {1.0}},
            {"channel_max", largest},
            {"channel_rms", rms},
            {"shift", shift},
            {"scale", scale},
            {"clip", clip}};
}

/// Statistics whose second layer is \p channels and whose first knows other numbers.
Json
StatisticsJson(const Json& channels)
{
    const std::size_t hidden = channels.at("channel_max").size();
    const std::vector<double> other(hidden, 7.0);
    return {{"format", "split-llm-activation-statistics"},
            {"version", 1},
            {"model", {{"layers", 2}, {"hidden", hidden}, {"query", 2}, {"kv", 2}}},
            {"levels", {0.5}},
            {"sites",
             {{"hidden-state",
               {Channels(other, other, other, other, Json{{"3", {0.7, 0.7}}, {"4", {0.7, 0.7}}}), channels}}}},
            {"made_by", "a test"}};
}

ActivationStatistics
Statistics(const Json& channels)
{
    return ActivationStatistics::Read(StatisticsJson(channels), "test", ConfigOf(channels.at("channel_max").size()));
}

Tensor
Rows(std::size_t cols, const std::vector<float>& values)
{
    Tensor tensor = Tensor::Zeros(values.size() / cols, cols);
    std::ranges::copy(values, tensor.Values().begin());
    return tensor;
}

std::vector<float>
RoundTrip(const TensorCodec& codec, const std::vector<float>& row)
{
    const Payload payload = codec.Encode(Rows(row.size(), row), kSite);
    const Tensor decoded = codec.Decode(payload, row.size(), kSite);
    return {decoded.Values().begin(), decoded.Values().end()};
}

std::vector<unsigned>
BytesOf(const Payload& payload)
{
    std::vector<unsigned> bytes;
    std::ranges::transform(payload.bytes, std::back_inserter(bytes), [](std::byte b) {
        return std::to_integer<unsigned>(b);
    });
    return bytes;
}

Payload
Bytes(std::initializer_list<unsigned> values)
{
    std::vector<std::byte> bytes;
    for (const unsigned value : values)
    {
        bytes.push_back(static_cast<std::byte>(value));
    }
    return Payload::Of(std::move(bytes));
}

/// Calibration in which no channel differs from another.
ActivationStatistics
NeutralStatistics(unsigned bits, std::size_t cols)
{
    const std::vector<double> ones(cols, 1.0);
    Json clip = Json::object();
    clip[std::to_string(bits)] = {1.0, 1.0};
    Json json = StatisticsJson(Channels(ones, ones, std::vector<double>(cols, 0.0), ones, clip));
    json["sites"]["hidden-state"][0]["clip"] = clip;
    return ActivationStatistics::Read(json, "test", ConfigOf(cols));
}

float
LargestMagnitude(std::span<const float> row)
{
    float largest = 0.0F;
    for (const float x : row)
    {
        largest = std::max(largest, std::abs(x));
    }
    return largest;
}

} // namespace

TEST_CASE("Codes of a row lie bit by bit from the lowest up, and half way goes to even")
{
    // 3 bits: m = 3, step 3 / 3 = 1. Codes raised by 3: 0 2 3 4 6, so 0 | 2 << 3 | 3 << 6 | 4 << 9 | 6 << 12 = 0x68d0
    const Tensor tensor = Rows(5, {-3.0F, -1.0F, 0.0F, 1.0F, 3.0F});
    const Payload payload = MakeRoundToNearest(3)->Encode(tensor, kSite);
    CHECK(BytesOf(payload) == std::vector<unsigned>{0x80, 0x3f, 0xd0, 0x68});
    CHECK(payload.coded);
    CHECK(RoundTrip(*MakeRoundToNearest(3), {3.0F, 0.5F, 1.5F, 2.5F, -0.5F}) ==
          std::vector<float>{3.0F, 0.0F, 2.0F, 2.0F, 0.0F});
}

TEST_CASE("SmoothQuant quantises what is left of a channel after its calibrated magnitude")
{
    // alpha 1/2: scales 4 and 1, so 12 and 3 become 3 and 3, of which a step of 1 loses nothing; plainly 3 becomes 4
    const Json channels = Channels({16.0, 1.0}, {1, 1}, {0, 0}, {1, 1}, Json::object());
    CHECK(RoundTrip(*MakeSmoothQuant(3, Statistics(channels), 0.5), {12.0F, 3.0F}) == std::vector<float>{12.0F, 3.0F});
    CHECK(RoundTrip(*MakeSmoothQuant(3, Statistics(channels), 0.0), {12.0F, 3.0F}) == std::vector<float>{12.0F, 4.0F});
    CHECK(RoundTrip(*MakeRoundToNearest(3), {12.0F, 3.0F}) == std::vector<float>{12.0F, 4.0F});
}

TEST_CASE("OmniQuant shifts, scales and clips as it has learned")
{
    // (x - shift) / scale is -4, 0, 1, 8; clipped to [-2, 4] in 2 bits a step is 2: codes 0, 1, (3/2 -> even) 2, 3
    const Json channels = Channels({1, 1, 1, 1}, {1, 1, 1, 1}, {10, 0, 0, -8}, {1, 2, 0.5, 1}, {{"2", {0.5, 0.5}}});
    Json json = StatisticsJson(channels);
    json["sites"]["hidden-state"][0]["clip"]["2"] = {1.0, 1.0};
    const auto codec = MakeOmniQuant(2, ActivationStatistics::Read(json, "test", ConfigOf(4)));
    CHECK(RoundTrip(*codec, {6.0F, 0.0F, 0.5F, 0.0F}) == std::vector<float>{8.0F, 0.0F, 1.0F, -4.0F});
    const Payload payload = codec->Encode(Rows(4, {6.0F, 0.0F, 0.5F, 0.0F}), kSite);
    // low -2 and step 2 in bf16, codes 0 | 1 << 2 | 2 << 4 | 3 << 6
    CHECK(BytesOf(payload) == std::vector<unsigned>{0x00, 0xc0, 0x00, 0x40, 0xe4});
    CHECK_THROWS_AS(MakeOmniQuant(5, Statistics(channels)), InputError);
}

TEST_CASE("Atom keeps the channels of the greatest energy apart, at 8 bits")
{
    // outlier: channel 2. 127 fits 8 bits exactly and leaves the groups {3, 1} and {-6} their own steps of 1 and 2
    const Json channels = Channels({1, 1, 1, 1}, {1, 2, 9, 3}, {0, 0, 0, 0}, {1, 1, 1, 1}, Json::object());
    const auto codec = MakeAtom(3, Statistics(channels), 1, 2);
    CHECK(RoundTrip(*codec, {3.0F, 1.0F, 127.0F, -6.0F}) == std::vector<float>{3.0F, 1.0F, 127.0F, -6.0F});
    const Payload payload = codec->Encode(Rows(4, {3.0F, 1.0F, 127.0F, -6.0F}), kSite);
    CHECK(BytesOf(payload) == std::vector<unsigned>{0x80, 0x3f, 254, 0x80, 0x3f, 6 | 4 << 3, 0x00, 0x40, 0});
    // of equals the first
    const Json equal = Channels({1, 1, 1}, {2, 2, 2}, {0, 0, 0}, {1, 1, 1}, Json::object());
    CHECK(RoundTrip(*MakeAtom(2, Statistics(equal), 1, 8), {63.5F, 1.0F, 0.9F}) ==
          std::vector<float>{63.5F, 1.0F, 1.0F});
}

TEST_CASE("What a quantiser makes of a value is at most half a step away")
{
    Random random(3);
    const std::size_t widths[] = {1, 2, 7, 8, 9, 127, 129, 576, 65536};
    for (const std::size_t cols : widths)
    {
        std::vector<float> row(cols);
        for (float& x : row)
        {
            x = random.Uniform() * (random.Below(50) == 0 ? 1000.0F : 1.0F); // with outliers
        }
        const float largest = LargestMagnitude(row);
        const auto [least, greatest] = std::ranges::minmax(row);
        for (const unsigned bits : {2U, 3U, 5U, 8U})
        {
            const double bf16 = 1.0 + 1.0 / 128; // a step is rounded up by at most so much
            const ActivationStatistics neutral = NeutralStatistics(bits, cols);
            const double symmetric = largest / ((1 << (bits - 1)) - 1) * bf16 / 2;
            const double low = std::max(std::abs(least), std::abs(greatest)) / 128;
            const double affine = (greatest - least + low) / ((1 << bits) - 1) * bf16 / 2;

            const struct
            {
                std::shared_ptr<const TensorCodec> codec;
                double bound;
            } cases[] = {{MakeRoundToNearest(bits), symmetric},
                         {MakeSmoothQuant(bits, neutral, 0.5), symmetric},
                         {MakeAtom(bits, neutral, 3, 128), symmetric},
                         {MakeOmniQuant(bits, neutral), affine}};

            for (const auto& [codec, bound] : cases)
            {
                const std::vector<float> decoded = RoundTrip(*codec, row);
                double worst = 0.0;
                for (std::size_t j = 0; j < cols; j++)
                {
                    worst = std::max(worst, std::abs(double{row[j]} - decoded[j]));
                }
                INFO(cols << " columns, " << bits << " bits, codec " << &codec - &cases[0].codec);
                // a constant row is not exact: its low end is bf16
                CHECK(worst <= std::max(bound, cols == 1 ? low : 0.0) * 1.0001);
            }
        }
    }
}

TEST_CASE("A quantised row takes the bytes that its length says, and a phantom the same")
{
    for (const std::size_t cols : {1U, 5U, 130U, 576U, 4097U})
    {
        for (const unsigned bits : {2U, 3U, 8U})
        {
            const ActivationStatistics neutral = NeutralStatistics(bits, cols);
            const std::size_t packed = (cols * bits + 7) / 8;
            std::size_t atom = 2 + std::min<std::size_t>(cols, 4);
            for (std::size_t left = cols - std::min<std::size_t>(cols, 4); left > 0;
                 left -= std::min<std::size_t>(left, 100))
            {
                atom += 2 + (std::min<std::size_t>(left, 100) * bits + 7) / 8;
            }
            const std::pair<std::shared_ptr<const TensorCodec>, std::size_t> cases[] = {
                {MakeRoundToNearest(bits), 2 + packed},
                {MakeSmoothQuant(bits, neutral, 1.0), 2 + packed},
                {MakeOmniQuant(bits, neutral), 4 + packed},
                {MakeAtom(bits, neutral, 4, 100), atom}};
            for (const auto& [codec, expected] : cases)
            {
                const Payload real = codec->Encode(Tensor::Zeros(3, cols), kSite);
                const Payload phantom = codec->Encode(Tensor::Phantom(3, cols), kSite);
                CHECK(real.size == 3 * expected);
                CHECK(real.bytes.size() == real.size);
                CHECK(phantom.size == 3 * expected);
                CHECK((phantom.phantom && phantom.coded));
                CHECK(codec->Decode(phantom, cols, kSite).Rows() == 3);
            }
        }
    }
}

TEST_CASE("Rows of equal values come back as they are, to the precision of a step")
{
    const ActivationStatistics neutral = NeutralStatistics(4, 6);
    for (const float value : {0.0F, 1.0F, -3.0F, 1e-39F, 1e36F})
    {
        const std::shared_ptr<const TensorCodec> codecs[] = {MakeRoundToNearest(4),
                                                             MakeSmoothQuant(4, neutral, 0.5),
                                                             MakeOmniQuant(4, neutral),
                                                             MakeAtom(4, neutral, 2, 3)};
        for (const auto& codec : codecs)
        {
            for (const float decoded : RoundTrip(*codec, std::vector<float>(6, value)))
            {
                // 1e-39 is subnormal: steps of bf16 are 2^-133 there
                CHECK(std::abs(decoded - value) <= std::abs(value) / 128 + 7 * std::ldexp(1.0F, -133));
            }
        }
    }
}

TEST_CASE("A quantiser refuses what it cannot carry")
{
    const ActivationStatistics neutral = NeutralStatistics(4, 3);
    const std::shared_ptr<const TensorCodec> codecs[] = {MakeRoundToNearest(4),
                                                         MakeSmoothQuant(4, neutral, 0.5),
                                                         MakeOmniQuant(4, neutral),
                                                         MakeAtom(4, neutral, 1, 3)};
    for (const auto& codec : codecs)
    {
        for (const float bad :
             {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -1e38F})
        {
            CHECK_THROWS_AS(codec->Encode(Rows(3, {1.0F, bad, 0.0F}), kSite), EncodeError);
        }
    }
    for (std::size_t i = 1; i < 4; i++)
    {
        CHECK_THROWS_AS(codecs[i]->Encode(Tensor::Zeros(1, 4), kSite), InputError);
        CHECK_THROWS_AS(codecs[i]->Encode(Tensor::Zeros(1, 3), {.kind = "hidden-state", .layer = 3}), InputError);
        CHECK_THROWS_AS(codecs[i]->Encode(Tensor::Zeros(1, 3), {.kind = "deltas", .layer = 1}), InputError);
    }
}

TEST_CASE("A layer whose channels were not measured does not lend its place to the next")
{
    Json json = StatisticsJson(Channels({16.0, 1.0}, {1, 1}, {0, 0}, {1, 1}, Json::object()));
    json["sites"]["hidden-state"][0] = {{"quantiles", {1.0}}};
    const auto codec = MakeSmoothQuant(3, ActivationStatistics::Read(json, "test", ConfigOf(2)), 0.5);
    CHECK(RoundTrip(*codec, {12.0F, 3.0F}) == std::vector<float>{12.0F, 3.0F});
    CHECK_THROWS_AS(codec->Encode(Tensor::Zeros(1, 2), {.kind = "hidden-state", .layer = 1}), InputError);
}

TEST_CASE("Bytes that no quantiser writes are refused")
{
    const auto nearest = MakeRoundToNearest(3);
    CHECK_NOTHROW(nearest->Decode(Bytes({0x80, 0x3f, 0xd0, 0x68}), 5, kSite));
    CHECK_THROWS_AS(nearest->Decode(Bytes({}), 5, kSite), DecodeError);
    CHECK_THROWS_AS(nearest->Decode(Bytes({0x80, 0x3f, 0xd0}), 5, kSite), DecodeError);
    CHECK_THROWS_AS(nearest->Decode(Bytes({0x80, 0x3f, 0xd0, 0x68, 0}), 5, kSite), DecodeError);
    CHECK_THROWS_AS(nearest->Decode(Bytes({0x80, 0x3f, 0xd0, 0xe8}), 5, kSite), DecodeError); // a bit too many
    CHECK_THROWS_AS(nearest->Decode(Bytes({0x80, 0x3f, 0xd7, 0x68}), 5, kSite), DecodeError); // code 7
    CHECK_THROWS_AS(nearest->Decode(Bytes({0x80, 0xbf, 0xd0, 0x68}), 5, kSite), DecodeError); // step -1
    CHECK_THROWS_AS(nearest->Decode(Bytes({0x80, 0x7f, 0xd0, 0x68}), 5, kSite), DecodeError); // step infinite
    CHECK_THROWS_AS(nearest->Decode(Bytes({0x7f, 0x7f, 0xd0, 0x68}), 5, kSite), DecodeError); // 3 steps are infinite
    const auto omni = MakeOmniQuant(4, NeutralStatistics(4, 2));
    CHECK_NOTHROW(omni->Decode(Bytes({0x80, 0xbf, 0x80, 0x3f, 0xff}), 2, kSite));
    CHECK_THROWS_AS(omni->Decode(Bytes({0xc0, 0x7f, 0x80, 0x3f, 0xff}), 2, kSite), DecodeError); // low is NaN
    CHECK_THROWS_AS(omni->Decode(Bytes({0x80, 0xbf, 0x80, 0xbf, 0xff}), 2, kSite), DecodeError); // step -1
}

TEST_CASE("Clamping limits magnitudes and leaves the rest to the codec inside")
{
    const auto codec = MakeClamp(2.0F, MakeDenseCodec(DType::F32));
    CHECK(RoundTrip(*codec, {-5.0F, 2.0F, 1.5F, 1e30F}) == std::vector<float>{-2.0F, 2.0F, 1.5F, 2.0F});
    CHECK(codec->Encode(Tensor::Phantom(2, 3), kSite).size == 24);
}

TEST_CASE("Codes of any width survive packing")
{
    Random random(5);
    for (unsigned bits = 1; bits <= 8; bits++)
    {
        for (const std::size_t count : {0U, 1U, 3U, 8U, 577U})
        {
            std::vector<std::uint8_t> codes(count);
            std::ranges::generate(codes, [&] { return static_cast<std::uint8_t>(random.Below(1U << bits)); });
            std::vector<std::byte> bytes(PackedBytes(count, bits), std::byte{0xff});
            PackBits(codes, bits, bytes);
            std::vector<std::uint8_t> unpacked(count);
            CHECK(UnpackBits(bytes, bits, unpacked));
            CHECK(unpacked == codes);
        }
    }
}

TEST_CASE("A study names a quantiser with its bits and its statistics")
{
    const TemporaryFolder folder;
    const std::vector<double> ones(2, 1.0);
    folder.Write("s.json", StatisticsJson(Channels(ones, ones, ones, ones, Json{{"4", {1.0, 1.0}}})).dump());
    const CodecContext context{.config = ConfigOf(2), .shapeMode = false, .calibrations = folder.Path()};
    const auto read = [&](const char* text) {
        Json json = ParseStrictJson(text, "study");
        StrictObject object(json, "study");
        return ReadTensorCodec(object, "codec", context);
    };
    for (const char* name : {"smoothquant", "omniquant", "atom"})
    {
        const std::string text =
            std::string(R"({"codec": {"name": ")") + name + R"(", "bits": 4, "statistics": "s.json"}})";
        CHECK(RoundTrip(*read(text.c_str()), {7.0F, -7.0F}).size() == 2);
    }
    CHECK(read(R"({"codec": {"name": "round-to-nearest", "bits": 2}})")->Encode(Tensor::Zeros(1, 9), kSite).size == 5);
    CHECK(read(R"({"codec": {"name": "clamp", "limit": 2, "dtype": "fp16"}})")->Exact() == DType::F16);
    CHECK(ErrorOf([&] { read(R"({"codec": {"name": "round-to-nearest", "bits": 9}})"); }).find("study: codec.bits: ") ==
          0);
    CHECK(ErrorOf([&] { read(R"({"codec": {"name": "atom", "bits": 4}})"); }).find("study: codec.statistics: ") == 0);
    CHECK(ErrorOf([&] {
              read(R"({"codec": {"name": "omniquant", "bits": 3, "statistics": "s.json"}})");
          }).find("3 bits") != std::string::npos);
    CHECK(ErrorOf([&] {
              read(R"({"codec": {"name": "tab-q", "bits": 4, "tau_quantile": 0.9, "statistics": "s.json"}})");
          }).find("study: codec.tau_quantile: ") == 0);
    CHECK(ErrorOf([&] {
              read(R"({"codec": {"name": "tab-q", "bits": 4, "tau": 1, "tau_quantile": 0.5, "statistics": "s.json"}})");
          }).find("study: codec.tau_quantile: ") == 0);
}

TEST_CASE("Shape mode needs no statistics")
{
    for (const char* text : {R"({"codec": {"name": "smoothquant", "bits": 4}})",
                             R"({"codec": {"name": "omniquant", "bits": 4, "statistics": "of another model.json"}})",
                             R"({"codec": {"name": "atom", "bits": 4, "outliers": 2, "group": 6}})",
                             R"({"codec": {"name": "tab-q", "bits": 4, "tau_quantile": 0.99, "bits_per_element": 3,
                                           "above_density": 0.01}})"})
    {
        CAPTURE(text);
        Json json = ParseStrictJson(text, "study");
        StrictObject object(json, "study");
        const auto codec =
            ReadTensorCodec(object, "codec", {.config = ConfigOf(8), .shapeMode = true, .calibrations = {}});
        CHECK(codec->Encode(Tensor::Phantom(1, 8), kSite).size >= 6);
    }
}

TEST_CASE("A threshold that is a quantile differs from layer to layer")
{
    const TemporaryFolder folder;
    const std::vector<double> ones(2, 1.0);
    Json json = StatisticsJson(Channels(ones, ones, ones, ones, Json{{"4", {1.0, 1.0}}}));
    json["sites"]["hidden-state"][0]["quantiles"] = {8.0}; // in layer 2 it is 1
    folder.Write("s.json", json.dump());
    Json study = ParseStrictJson(
        R"({"codec": {"name": "tab-q", "bits": 2, "exact": "fp32", "tau_quantile": 0.5, "statistics": "s.json"}})",
        "study");
    StrictObject object(study, "study");
    const auto codec =
        ReadTensorCodec(object, "codec", {.config = ConfigOf(2), .shapeMode = false, .calibrations = folder.Path()});
    const Tensor tensor = Rows(2, {4.0625F, 0.25F});
    const auto first = [&](std::size_t layer) {
        const CodecSite site{.kind = "hidden-state", .layer = layer};
        return codec->Encode(tensor, site).size;
    };
    CHECK(first(2) > first(1)); // above 1, 4.0625 travels exactly, with its column
    CHECK_THROWS_AS(first(3), InputError);
}
