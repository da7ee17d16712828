// SPDX-License-Identifier: GPL-2.0-only
#include "llm/safetensors.h"

#include "support/catch.h"
#include "support/error-of.h"
#include "support/safetensors-file.h"
#include "support/temporary-folder.h"
#include "support/test-models.h"

#include <cstdint>
#include <cstring>
#include <string>

using namespace splitllm;
using test::ErrorOf;
using test::SafetensorsFile;

namespace
{

TensorIndex
Parse(const std::string& file)
{
    return ParseSafetensors(std::as_bytes(std::span(file)), "f");
}

std::string
ErrorIn(const std::string& file)
{
    return ErrorOf([&] { Parse(file); });
}

/// The header entry of one tensor.
std::string
Entry(const std::string& name, const std::string& dtype, const std::string& shape, const std::string& offsets)
{
    return "\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

/// The error in a file whose only tensor, "a", has this entry, with \p length bytes of data.
std::string
ErrorInEntry(const std::string& dtype, const std::string& shape, const std::string& offsets, std::size_t length)
{
    return ErrorIn(SafetensorsFile("{" + Entry("a", dtype, shape, offsets) + "}", std::string(length, 'x')));
}

std::uint16_t
Element(const ArrayView& view, std::size_t index)
{
    std::uint16_t bits = 0;
    std::memcpy(&bits, view.data + 2 * index, sizeof bits);
    return bits;
}

} // namespace

TEST_CASE("A safetensors file gives its tensors by name, in whatever order the header lists them")
{
    const std::string file = SafetensorsFile(R"({"__metadata__":{"format":"pt"},)" +
                                                 Entry("b", "BF16", "[3]", "[24,30]") + "," +
                                                 Entry("a", "F32", "[2,3]", "[0,24]") + "," +
                                                 Entry("none", "F32", "[5,0]", "[24,24]") + "," +
                                                 Entry("scalar", "U8", "[]", "[30,31]") + "}",
                                             std::string(24, 'a') + "bbbbbbs");
    const TensorIndex index = Parse(file);
    REQUIRE(index.size() == 4);
    CHECK(index.at("a").dtype == "F32");
    CHECK(index.at("a").shape == std::vector<std::size_t>{2, 3});
    CHECK(std::memcmp(index.at("a").data, "aaaa", 4) == 0);
    CHECK(index.at("b").shape == std::vector<std::size_t>{3});
    CHECK(std::memcmp(index.at("b").data, "bbbbbbs", 7) == 0);
    CHECK(index.at("none").shape == std::vector<std::size_t>{5, 0});
    CHECK(index.at("scalar").shape.empty());
    CHECK(Parse(SafetensorsFile("{}", "")).empty());
}

TEST_CASE("A header that does not fit its file is refused")
{
    CHECK(ErrorIn("") == "f: is no safetensors file: its header would take 0 bytes; accepted: at most 0");
    CHECK(ErrorIn("1234567").starts_with("f: is no safetensors file: "));
    CHECK(ErrorIn(std::string("\x03\0\0\0\0\0\0\0{}", 10)) ==
          "f: is no safetensors file: its header would take 3 bytes; accepted: at most 2");
    CHECK(ErrorIn(std::string(8, '\xff') + "{}") ==
          "f: is no safetensors file: its header would take 18446744073709551615 bytes; accepted: at most 2");
    CHECK(ErrorIn(std::string("\0\0\0\0\0\0\0\0", 8)).starts_with("f: header:1:1: syntax error"));
    CHECK(ErrorIn(SafetensorsFile("[]", "")) == "f: header is no object; accepted: an object of tensors");
    CHECK(ErrorIn(SafetensorsFile(R"({"__metadata__":{"a":1}})", "")) ==
          "f: __metadata__ is malformed; accepted: an object of strings");
    CHECK(ErrorIn(SafetensorsFile("{" + Entry("a", "U8", "[1]", "[0,1]") + "," + Entry("a", "U8", "[1]", "[1,2]") + "}",
                                  "xx")) == "f: header: a: repeated key; accepted: each key once");
}

TEST_CASE("A tensor whose entry is wrong is refused by name")
{
    const std::string malformed = "f: tensor \"a\": is malformed; accepted: an object with dtype (a string), shape "
                                  "(counts) and data_offsets ([begin, end])";
    CHECK(ErrorIn(SafetensorsFile(R"({"a":1})", "")) == malformed);
    CHECK(ErrorIn(SafetensorsFile(R"({"a":{"dtype":"F32","shape":[0]}})", "")) == malformed);
    CHECK(ErrorIn(SafetensorsFile(R"({"a":{"dtype":4,"shape":[0],"data_offsets":[0,0]}})", "")) == malformed);
    CHECK(ErrorInEntry("U8", "[-1]", "[0,1]", 1) == malformed);
    CHECK(ErrorInEntry("U8", "[1.0]", "[0,1]", 1) == malformed);
    CHECK(ErrorInEntry("U8", "1", "[0,1]", 1) == malformed);
    CHECK(ErrorInEntry("U8", "[1]", "[1]", 1) == malformed);
    CHECK(ErrorInEntry("U8", "[1]", "[0,1,1]", 1) == malformed);
    CHECK(ErrorInEntry("U8", "[1]", "[0,18446744073709551616]", 1) == malformed);
    CHECK(ErrorInEntry("Q4_1", "[1]", "[0,1]", 1) ==
          "f: tensor \"a\": dtype \"Q4_1\" is unknown; accepted: BOOL, U8, I8, F8_E4M3, F8_E5M2, F8_E8M0, U16, I16, "
          "F16, BF16, U32, I32, F32, U64, I64, F64, C64");
    CHECK(ErrorIn(SafetensorsFile(R"({"a\n\"b":1})", "")).starts_with("f: tensor \"a\\n\\\"b\": is malformed"));
}

TEST_CASE("Offsets outside the data and shapes that overflow are refused")
{
    CHECK(ErrorInEntry("U8", "[9]", "[0,9]", 8) ==
          "f: tensor \"a\": data_offsets [0,9] lie outside the data; accepted: begin <= end <= 8");
    CHECK(ErrorInEntry("U8", "[1]", "[2,1]", 8).find("[2,1] lie outside the data") != std::string::npos);
    CHECK(ErrorInEntry("U8", "[1]", "[18446744073709551615,0]", 8).find("lie outside") != std::string::npos);
    CHECK(ErrorInEntry("F32", "[3]", "[0,8]", 8) ==
          "f: tensor \"a\": has 8 bytes of data; accepted: 12 for shape [3] of F32");
    CHECK(ErrorInEntry("F32", "[4611686018427387905]", "[0,4]", 4) ==
          "f: tensor \"a\": shape [4611686018427387905] overflows; accepted: a shape that fits memory");
    CHECK(ErrorInEntry("U8", "[4294967296,4294967296]", "[0,0]", 0).find("overflows") != std::string::npos);
    CHECK(ErrorInEntry("F64", "[0,18446744073709551615]", "[0,0]", 0).empty());
}

TEST_CASE("The tensors must cover the data exactly, each at a multiple of its element size")
{
    const auto two = [](const std::string& first, const std::string& second, std::size_t length) {
        return ErrorIn(
            SafetensorsFile("{" + Entry("a", "U8", "[4]", first) + "," + Entry("b", "U8", "[4]", second) + "}",
                            std::string(length, 'x')));
    };
    CHECK(two("[0,4]", "[4,8]", 8).empty());
    CHECK(two("[4,8]", "[0,4]", 8).empty());
    CHECK(two("[0,4]", "[5,9]", 9) == "f: tensor \"b\": begins at 5; accepted: 4, where the tensor before it ends");
    CHECK(two("[0,4]", "[3,7]", 7) == "f: tensor \"b\": begins at 3; accepted: 4, where the tensor before it ends");
    CHECK(two("[0,4]", "[0,4]", 4) == "f: tensor \"b\": begins at 0; accepted: 4, where the tensor before it ends");
    CHECK(two("[1,5]", "[5,9]", 9).starts_with("f: tensor \"a\": begins at 1"));
    CHECK(two("[0,4]", "[4,8]", 9) == "f: holds 9 bytes of data; accepted: 8, as its tensors take");
    CHECK(ErrorIn(SafetensorsFile("{}", "x")) == "f: holds 1 bytes of data; accepted: 0, as its tensors take");

    const std::string shifted = "{" + Entry("a", "U8", "[1]", "[0,1]") + "," + Entry("b", "F16", "[1]", "[1,3]") + "}";
    CHECK(ErrorIn(SafetensorsFile(shifted, "xxx"))
              .ends_with("of the file; accepted: a multiple of its element size, 2"));
    // 61 bytes of header, so that fp16 data begins at byte 69.
    const std::string odd = "{" + Entry("a", "F16", "[1]", "[0,2]") + "}" + std::string(7, ' ');
    REQUIRE(odd.size() == 61);
    CHECK(ErrorIn(std::string("\x3d\0\0\0\0\0\0\0", 8) + odd + "xx") ==
          "f: tensor \"a\": begins at byte 69 of the file; accepted: a multiple of its element size, 2");
}

TEST_CASE("A mapped file shows the bytes that were written")
{
    const auto llama = MappedTensors::OpenFolder(test::TestModel("tiny-llama"));
    CHECK(llama->Index().size() == 39);
    const ArrayView key = llama->Require("model.layers.2.self_attn.k_proj.weight", {32, 64});
    CHECK(key.dtype == DType::BF16);
    CHECK(key.Elements() == 2048);
    // As the safetensors package reads them.
    CHECK(Element(key, 0) == 0xbbc2);
    CHECK(Element(key, 5 * 64 + 7) == 0x3db6);
    CHECK(Element(key, 31 * 64 + 63) == 0xbce5);
    CHECK(Element(llama->Require("lm_head.weight", {256, 64}), 255 * 64 + 63) == 0x3e31);

    const auto opt = MappedTensors::OpenFile(test::TestModel("tiny-opt") / "model.safetensors");
    CHECK(Element(opt->Require("model.decoder.layers.3.fc2.bias", {64}), 17) == 0xbda9);
}

TEST_CASE("A tensor that is asked for must be there, in shape and with a dtype to compute with")
{
    const test::TemporaryFolder folder;
    const auto file = folder.Write("a.safetensors",
                                   SafetensorsFile("{" + Entry("i", "I64", "[2]", "[0,16]") + "," +
                                                       Entry("h", "F16", "[2,1]", "[16,20]") + "}",
                                                   std::string(20, 'x')));
    const auto tensors = MappedTensors::OpenFile(file);
    const std::string path = file.string();
    CHECK(tensors->Require("h", {2, 1}).dtype == DType::F16);
    CHECK(ErrorOf([&] { tensors->Require("g", {2, 1}); }) ==
          path + ": tensor \"g\": missing; accepted: shape [2,1] of F32, F16, BF16");
    CHECK(ErrorOf([&] { tensors->Require("h", {1, 2}); }) == path + ": tensor \"h\": has shape [2,1]; accepted: [1,2]");
    CHECK(ErrorOf([&] { tensors->Require("h", {2}); }) == path + ": tensor \"h\": has shape [2,1]; accepted: [2]");
    CHECK(ErrorOf([&] { tensors->Require("i", {2}); }) ==
          path + ": tensor \"i\": has dtype I64; accepted: F32, F16, BF16");
}

TEST_CASE("A file that cannot be mapped is an input error")
{
    const test::TemporaryFolder folder;
    const std::string path = folder.Path().string();
    const std::string reason = ": cannot be read; accepted: a readable safetensors file";
    CHECK(ErrorOf([&] { MappedTensors::OpenFile(folder.Path() / "no"); }) == path + "/no" + reason);
    CHECK(ErrorOf([&] { MappedTensors::OpenFile(folder.Path()); }) == path + reason);
    CHECK(ErrorOf([&] { MappedTensors::OpenFile(folder.Write("empty", "")); }) == path + "/empty" + reason);
    CHECK(ErrorOf([&] { MappedTensors::OpenFile(folder.Write("short", "123")); })
              .starts_with(path + "/short: is no safetensors file"));
    CHECK(ErrorOf([&] { MappedTensors::OpenFolder(folder.Path()); }) ==
          path + ": holds no weights; accepted: model.safetensors or model.safetensors.index.json");
}

TEST_CASE("Shards are one set of tensors")
{
    const test::TemporaryFolder folder;
    const std::string index = folder.Path().string() + "/model.safetensors.index.json";
    folder.Write("m-1.safetensors", SafetensorsFile("{" + Entry("a", "F32", "[1]", "[0,4]") + "}", "aaaa"));
    folder.Write("m-2.safetensors", SafetensorsFile("{" + Entry("b", "F32", "[1]", "[0,4]") + "}", "bbbb"));
    const auto open = [&](const std::string& weightMap) {
        folder.Write("model.safetensors.index.json", R"({"metadata":{"total_size":8},"weight_map":)" + weightMap + "}");
        return MappedTensors::OpenFolder(folder.Path());
    };
    const auto error = [&](const std::string& weightMap) { return ErrorOf([&] { open(weightMap); }); };

    const auto tensors = open(R"({"a":"m-1.safetensors","b":"m-2.safetensors"})");
    CHECK(std::memcmp(tensors->Require("a", {1}).data, "aaaa", 4) == 0);
    CHECK(std::memcmp(tensors->Require("b", {1}).data, "bbbb", 4) == 0);
    CHECK(ErrorOf([&] { tensors->Require("c", {1}); }).starts_with(index + ": tensor \"c\": missing"));

    for (const char* shard : {"../m-1.safetensors", "/etc/passwd", "x/../../y", "", ".", "..", ".hidden", "m\\u0000"})
    {
        CAPTURE(shard);
        const std::string text = std::string(R"({"a":")") + shard + "\"}";
        CHECK(error(text) ==
              index + ": weight_map.a: is \"" + shard + "\"; accepted: the name of a file in the same folder");
    }
    CHECK(error(R"({"a":"m-3.safetensors"})") ==
          folder.Path().string() + "/m-3.safetensors: cannot be read; accepted: a readable safetensors file");
    CHECK(error(R"({"a":"m-1.safetensors","c":"m-1.safetensors"})") ==
          index + ": weight_map.c: is in no shard; accepted: tensors that a shard holds");
    CHECK(error(R"({"a":1})") == index + ": weight_map.a: is 1; accepted: a string");
    CHECK(error("[]") == index + ": weight_map: is a list; accepted: an object");

    folder.Write("m-2.safetensors", SafetensorsFile("{" + Entry("a", "F32", "[1]", "[0,4]") + "}", "bbbb"));
    CHECK(error(R"({"a":"m-1.safetensors","b":"m-2.safetensors"})") ==
          folder.Path().string() + "/m-2.safetensors: tensor \"a\": is in another shard too; accepted: each tensor "
                                       "once");
}
