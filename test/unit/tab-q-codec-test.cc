// SPDX-License-Identifier: GPL-2.0-only
#include "codec/dense-codec.h"
#include "codec/tab-q-codec.h"
#include "codec/tensor-codec.h"
#include "support/catch.h"
#include "support/codec-rows.h"
#include "support/error-of.h"

#include <algorithm>
#include <string>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

std::shared_ptr<const TensorCodec>
ReadCodec(const std::string& json, bool shapeMode = false)
{
    Json value = ParseStrictJson("{\"codec\": " + json + "}", "study");
    StrictObject object(value, "study");
    CodecContext context;
    context.shapeMode = shapeMode;
    auto codec = ReadTensorCodec(object, "codec", context);
    object.Finish();
    return codec;
}

const CodecSite kSite{"hidden-state", 3};

} // namespace

TEST_CASE("The codec that a study names tab-q makes containers with its parameters", "[codec]")
{
    CodecRows rows(1);
    Tensor tensor = Tensor::Zeros(2, 577);
    std::ranges::copy(rows.Gauss(2 * 577), tensor.Values().begin());
    const auto codec = ReadCodec(
        R"({"name": "tab-q", "bits": 6, "delta": 0.1, "normalised": true, "tau": 1.5, "exact": "bf16", "entropy": false})");
    CHECK(codec->Exact() == DType::BF16);
    const Payload payload = codec->Encode(tensor, kSite);
    CHECK(payload.coded);
    CHECK_FALSE(payload.phantom);
    CHECK(payload.size == payload.bytes.size());
    const ContainerParameters parameters{.tabQ = {6, 0.1, true}, .exact = DType::BF16, .entropy = false};
    CHECK(payload.bytes == EncodeContainer(tensor, 1.5F, parameters));
    const Tensor back = codec->Decode(payload, 577, kSite);
    CHECK(std::ranges::equal(back.Values(), DecodeContainer(payload.bytes, 577).Values()));

    const ContainerParameters defaults{.tabQ = {4, 0.2, false}, .exact = DType::F16, .entropy = true};
    const auto plain = ReadCodec(R"({"name": "tab-q", "bits": 4})");
    CHECK(plain->Encode(tensor, kSite).bytes == EncodeContainer(tensor, std::nullopt, defaults));
    CHECK_THROWS_AS(plain->Decode(payload, 576, kSite), DecodeError);
}

TEST_CASE("A threshold may differ from place to place", "[codec]")
{
    CodecRows rows(2);
    Tensor tensor = Tensor::Zeros(1, 100);
    std::ranges::copy(rows.Gauss(100), tensor.Values().begin());
    const ContainerParameters parameters;
    const TabQCodec codec(parameters, [](const CodecSite& site) {
        return site.layer == 3 && site.kind == "hidden-state" ? std::optional(1.0F) : std::nullopt;
    });
    CHECK(codec.Encode(tensor, kSite).bytes == EncodeContainer(tensor, 1.0F, parameters));
    CHECK(codec.Encode(tensor, {"hidden-state", 4}).bytes == EncodeContainer(tensor, std::nullopt, parameters));
}

TEST_CASE("In shape mode a container has the size that the study expects", "[codec]")
{
    const auto codec =
        ReadCodec(R"({"name": "tab-q", "bits": 4, "bits_per_element": 3.1, "above_density": 0.01})", true);
    const Payload payload = codec->Encode(Tensor::Phantom(3, 577), kSite);
    CHECK(payload.phantom);
    CHECK(payload.coded);
    // header and records; 1731 * 3.1 bits; counts; 18 columns and values of 2 bytes each
    CHECK(payload.size == 20 + 3 * 16 + 671 + 3 * 4 + 18 * 4);
    const Tensor back = codec->Decode(payload, 577, kSite);
    CHECK(back.IsPhantom());
    CHECK(back.Rows() == 3);
    CHECK(back.Cols() == 577);
    CHECK_THROWS_AS(codec->Decode(payload, 576, kSite), DecodeError);
    Payload foreign = Payload::Phantom(100);
    foreign.coded = true;
    CHECK_THROWS_AS(codec->Decode(foreign, 577, kSite), DecodeError);
    CHECK_THROWS_AS(codec->Decode(Payload::Phantom(100, payload.bytes), 577, kSite), DecodeError);
}

TEST_CASE("What a study may not say about tab-q", "[codec]")
{
    const auto error = [](const std::string& parameters, bool shapeMode = false) {
        return ErrorOf([&] { ReadCodec("{\"name\": \"tab-q\", " + parameters + "}", shapeMode); });
    };
    CHECK(error("\"bits\": 4") == "");
    CHECK(error("\"bits\": 1").find("codec.bits") != std::string::npos);
    CHECK(error("\"bits\": 9").find("codec.bits") != std::string::npos);
    CHECK(error("\"bits\": 4, \"delta\": -0.1").find("codec.delta") != std::string::npos);
    for (const std::string tau : {"0", "-1", "1e-60", "1e39", "\"a\""})
    {
        CHECK(error("\"bits\": 4, \"tau\": " + tau).find("codec.tau") != std::string::npos);
    }
    CHECK(error("\"bits\": 4, \"exact\": \"int8\"").find("codec.exact") != std::string::npos);
    CHECK(error("\"bits\": 4, \"speed\": 1").find("codec.speed") != std::string::npos);
    CHECK(error("\"bits\": 4, \"bits_per_element\": 3").find("codec.bits_per_element") != std::string::npos);
    CHECK(error("\"bits\": 4", true).find("codec.bits_per_element") != std::string::npos);
    CHECK(error("\"bits\": 4, \"bits_per_element\": 3", true).find("codec.above_density") != std::string::npos);
    CHECK(ErrorOf([] { ReadCodec("{\"name\": \"gzip\"}"); }).find("tab-q") != std::string::npos);
}

TEST_CASE("What coding costs grows with the elements and with the bits that TAB-Q may try", "[codec]")
{
    const auto narrow = ReadCodec(R"({"name": "tab-q", "bits": 3})");
    const auto wide = ReadCodec(R"({"name": "tab-q", "bits": 8})");
    // Qbar 3 starts at 2 bits, which is the least: one trial. Qbar 8 tries 7, 6, 5, 4, 3 and 2.
    CHECK(narrow->EncodeCost(2, 100).flops == 200 * (2 + 5 + 8));
    CHECK(wide->EncodeCost(2, 100).flops == 200 * (2 + 5 * 6 + 3 * 5 + 8));
    CHECK(wide->EncodeCost(2, 100).launches == 8);
    CHECK(wide->DecodeCost(2, 100).bytesWritten == 800);
    CHECK(narrow->DecodeCost(2, 100).bytesRead == 75);
    CHECK_FALSE(narrow->DecodeCost(1, 1).IsFree());
}
