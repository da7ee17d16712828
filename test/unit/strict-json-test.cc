// SPDX-License-Identifier: GPL-2.0-only
#include "base/strict-json.h"

#include "support/catch.h"
#include "support/error-of.h"
#include "support/temporary-folder.h"

#include <cstdint>
#include <limits>
#include <string>

using namespace splitllm;
using test::ErrorOf;

namespace
{

constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();

std::string
ParseError(const std::string& text)
{
    return ErrorOf([&] { ParseStrictJson(text, "f.json"); });
}

} // namespace

TEST_CASE("Strict JSON keeps the order of keys and every value")
{
    const std::string text = R"({"z":[1,-2,2.5,"x\u00e9",null,true,[]],"a":{"m":{},"b":18446744073709551615}})";
    const Json value = ParseStrictJson(text, "f.json");
    CHECK(value.dump() == "{\"z\":[1,-2,2.5,\"x\xc3\xa9\",null,true,[]],\"a\":{\"m\":{},\"b\":18446744073709551615}}");
}

TEST_CASE("Malformed JSON is named by line and column")
{
    CHECK(ParseError("") == "f.json:1:1: syntax error while parsing value - unexpected end of input; expected '[', "
                            "'{', or a literal");
    CHECK(ParseError("{\n  \"a\": 1,,\n}") ==
          "f.json:2:10: syntax error while parsing object key - unexpected ','; expected string literal");
    CHECK(ParseError("[1]\n]") ==
          "f.json:2:1: syntax error while parsing value - unexpected ']'; expected end of input");
    CHECK(ParseError("[1e999]") == "f.json:1:6: number overflow parsing '1e999'");
    CHECK(ParseError("{\"a\": \"\n\"}").find('\n') == std::string::npos);
    CHECK(ParseError("[\"" + std::string(5000, 'x')).size() < 300);
    CHECK(!ParseError("[\"\xff\"]").empty());
    CHECK(!ParseError("// comment\n1").empty());
    CHECK(!ParseError("[1,]").empty());
    CHECK(!ParseError("[NaN]").empty());
}

TEST_CASE("A repeated key is an error at every depth, the same key elsewhere is not")
{
    CHECK(ParseError(R"({"a":1,"a":1})") == "f.json: a: repeated key; accepted: each key once");
    CHECK(ParseError(R"({"b":{"c":[0,[{"x":1},{"x":1,"y":2,"x":2}]]}})") ==
          "f.json: b.c[1][1].x: repeated key; accepted: each key once");
    CHECK(ParseError("{\"k\\n\":1,\"k\\n\":1}") == "f.json: k?: repeated key; accepted: each key once");
    CHECK(ParseError(R"({"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]})").empty());
}

TEST_CASE("Deep nesting is refused before it can exhaust the stack")
{
    const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
    CHECK(ParseError(nested(100)).empty());
    CHECK(ParseError(nested(101)) == "f.json: nested too deeply; accepted: at most 100 levels");
    CHECK(!ParseError(std::string(1000000, '[')).empty());
}

TEST_CASE("A file that cannot be read is an input error")
{
    const test::TemporaryFolder folder;
    const auto path = folder.Path().string();
    CHECK(ErrorOf([&] { LoadStrictJson(folder.Path() / "none.json"); }) ==
          path + "/none.json: cannot be read; accepted: a readable JSON file");
    CHECK(ErrorOf([&] { LoadStrictJson(folder.Path()); }) == path + ": cannot be read; accepted: a readable JSON file");
    CHECK(LoadStrictJson(folder.Write("a.json", "{\"a\": [1]}")).dump() == R"({"a":[1]})");
    CHECK(ErrorOf([&] { LoadStrictJson(folder.Write("b.json", "{")); }).starts_with(path + "/b.json:1:2: "));
}

TEST_CASE("An integer is an integer in its range and nothing like one")
{
    Json json = ParseStrictJson(R"({"o":{"half":1.9,"whole":2.0,"negative":-1,"big":4294967296,
                                        "huge":18446744073709551616,"text":"3","none":null,"seven":7}})",
                                "f.json");
    StrictObject object = StrictObject(json, "f.json").Object("o");
    CHECK(object.Integer("seven", 7, 7) == 7);
    CHECK(object.Integer("big", 0, kMost) == 4294967296);
    const auto error = [&](const std::string& key) { return ErrorOf([&] { object.Integer(key, 1, 8); }); };
    CHECK(error("half") == "f.json: o.half: is 1.9; accepted: an integer from 1 to 8");
    CHECK(error("whole") == "f.json: o.whole: is 2.0; accepted: an integer from 1 to 8");
    CHECK(error("negative") == "f.json: o.negative: is -1; accepted: an integer from 1 to 8");
    CHECK(error("big") == "f.json: o.big: is 4294967296; accepted: an integer from 1 to 8");
    CHECK(error("huge") == "f.json: o.huge: is 1.8446744073709552e+19; accepted: an integer from 1 to 8");
    CHECK(error("text") == "f.json: o.text: is \"3\"; accepted: an integer from 1 to 8");
    CHECK(error("none") == "f.json: o.none: is null; accepted: an integer from 1 to 8");
    CHECK(error("gone") == "f.json: o.gone: missing; accepted: an integer from 1 to 8");
    CHECK(ErrorOf([&] { object.Integer("negative", 3, kMost); }) ==
          "f.json: o.negative: is -1; accepted: an integer, at least 3");

    json["o"]["set by a program"] = 5; // of the signed kind
    CHECK(object.Integer("set by a program", 1, 8) == 5);
}

TEST_CASE("Numbers, switches, strings and choices name what they accept")
{
    Json json = ParseStrictJson(R"({"n":0.25,"i":3,"b":true,"s":"x","l":[1],"o":{}})", "f.json");
    StrictObject object(json, "f.json");
    CHECK(object.Number("n", 0.0, 0.25) == 0.25);
    CHECK(object.Number("i", 0.0) == 3.0);
    CHECK(object.Bool("b"));
    CHECK(object.String("s") == "x");
    CHECK(object.Choice("s", {"y", "x"}) == "x");
    CHECK(ErrorOf([&] { object.Number("n", 0.5, 1.0); }) == "f.json: n: is 0.25; accepted: a number from 0.5 to 1");
    CHECK(ErrorOf([&] { object.Number("n", 0.5); }) == "f.json: n: is 0.25; accepted: a number, at least 0.5");
    CHECK(ErrorOf([&] { object.Number("b", 0.0, 1.0); }) == "f.json: b: is true; accepted: a number from 0 to 1");
    CHECK(ErrorOf([&] { object.Bool("i"); }) == "f.json: i: is 3; accepted: true or false");
    CHECK(ErrorOf([&] { object.String("o"); }) == "f.json: o: is an object; accepted: a string");
    CHECK(ErrorOf([&] { object.Choice("s", {"y", "z"}); }) == "f.json: s: is \"x\"; accepted: y, z");
    CHECK(ErrorOf([&] { object.Object("l"); }) == "f.json: l: is a list; accepted: an object");
    CHECK(ErrorOf([&] { object.Objects("o"); }) == "f.json: o: is an object; accepted: a list of objects");
    CHECK(ErrorOf([&] { object.Objects("l"); }) == "f.json: l[0]: is 1; accepted: an object");

    json = 3;
    CHECK(ErrorOf([&] { StrictObject(json, "f.json"); }) == "f.json: is 3; accepted: an object");
}

TEST_CASE("A default is written into the object that lacks the key")
{
    Json json = ParseStrictJson(R"({"inner":{},"there":1})", "f.json");
    StrictObject object(json, "f.json");
    StrictObject inner = object.Object("inner");
    for (int i = 0; i < 100; ++i) // makes the outer object move in memory
    {
        object.Integer("k" + std::to_string(i), 0, kMost, i);
    }
    CHECK(object.Integer("there", 0, 9, 5) == 1);
    CHECK(inner.Number("number", 0.0, 1.0, 0.5) == 0.5);
    CHECK(inner.Bool("flag", false) == false);
    CHECK(inner.String("text", "t") == "t");
    CHECK(inner.Choice("choice", {"a", "b"}, "b") == "b");
    StrictObject made = object.Object("made", Json{{"name", "a"}});
    CHECK(made.String("name") == "a");
    CHECK(made.Integer("size", 0, 9, 3) == 3);
    CHECK(json["made"].dump() == R"({"name":"a","size":3})");
    CHECK(object.Object("inner", Json{{"name", "a"}}).Has("number"));
    CHECK(json["k99"] == 99);
    CHECK(json["inner"].dump() == R"({"number":0.5,"flag":false,"text":"t","choice":"b"})");
    object.Finish();
    inner.Finish();
}

TEST_CASE("A key that nobody asked for is refused with the keys that were")
{
    Json json = ParseStrictJson(R"({"list":[{"rate":1},{"rate":2,"dleay":3}],"b/~":{"x":1}})", "f.json");
    StrictObject object(json, "f.json");
    auto elements = object.Objects("list");
    REQUIRE(elements.size() == 2);
    CHECK(elements[1].Keys() == std::vector<std::string>{"rate", "dleay"});
    for (StrictObject& element : elements)
    {
        element.Integer("rate", 0, 9);
        element.Has("dleay"); // to look is not to read
    }
    CHECK(ErrorOf([&] { elements[0].Finish(); }).empty());
    CHECK(ErrorOf([&] { elements[1].Finish(); }) == "f.json: list[1].dleay: unknown key; accepted: rate");
    elements[1].Integer("delay", 0, 9, 4);
    CHECK(ErrorOf([&] { elements[1].Finish(); }) == "f.json: list[1].dleay: unknown key; accepted: delay, rate");
    CHECK(ErrorOf([&] { object.Finish(); }) == "f.json: b/~: unknown key; accepted: list");
    StrictObject odd = object.Object("b/~");
    CHECK(ErrorOf([&] { odd.Finish(); }) == "f.json: b/~.x: unknown key; accepted: none");
    CHECK(odd.Raw("x") == 1);
    CHECK(ErrorOf([&] { odd.Finish(); }).empty());
    CHECK(ErrorOf([&] { odd.Raw("y"); }) == "f.json: b/~.y: missing; accepted: a value");
}
