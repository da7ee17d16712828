// SPDX-License-Identifier: GPL-2.0-only
#include "base/units.h"

#include "support/catch.h"
#include "support/error-of.h"

#include <string>

using namespace splitllm;
using splitllm::test::ErrorOf;
using std::chrono::nanoseconds;

TEST_CASE("Byte units are powers of 1000 without an i and of 1024 with it")
{
    CHECK(ParseBytes("0B") == 0);
    CHECK(ParseBytes("1500B") == 1500);
    CHECK(ParseBytes("64kB") == 64'000);
    CHECK(ParseBytes("64KB") == 64'000);
    CHECK(ParseBytes("1MB") == 1'000'000);
    CHECK(ParseBytes("80GB") == 80'000'000'000);
    CHECK(ParseBytes("2TB") == 2'000'000'000'000);
    CHECK(ParseBytes("7KiB") == 7168);
    CHECK(ParseBytes("3MiB") == 3'145'728);
    CHECK(ParseBytes("80GiB") == 85'899'345'920);
    CHECK(ParseBytes("1TiB") == 1'099'511'627'776);
}

TEST_CASE("Decimals are exact or refused")
{
    CHECK(ParseBytes("1.5kB") == 1500);
    CHECK(ParseBytes("0.25KiB") == 256);
    CHECK(ParseBytes("1.0009765625KiB") == 1025);
    CHECK(ParseBytes("12.853GB") == 12'853'000'000);
    CHECK(ParseBytes("3.000B") == 3);
    CHECK_THROWS_AS(ParseBytes("0.5B"), InputError);
    CHECK_THROWS_AS(ParseBytes("1.0005kB"), InputError);
    CHECK_THROWS_AS(ParseBytes("0.1KiB"), InputError);

    // Of 0.1, 0.3 and 1.1 no double is exact.
    CHECK(ParseDuration("0.1us") == nanoseconds(100));
    CHECK(ParseDuration("0.3ms") == nanoseconds(300'000));
    CHECK(ParseDuration("1.1875ms") == nanoseconds(1'187'500));
    CHECK(ParseDuration("9007199.254740993s") == nanoseconds(9'007'199'254'740'993)); // 2^53 + 1
    CHECK(ParseBitRate("30.904Mbps") == 30'904'000);
    CHECK_THROWS_AS(ParseDuration("0.5ns"), InputError);
    CHECK_THROWS_AS(ParseBitRate("1.0005kbps"), InputError);
}

TEST_CASE("Times and data rates have their own units")
{
    CHECK(ParseDuration("0s") == nanoseconds(0));
    CHECK(ParseDuration("10ns") == nanoseconds(10));
    CHECK(ParseDuration("100us") == nanoseconds(100'000));
    CHECK(ParseDuration("1.5ms") == nanoseconds(1'500'000));
    CHECK(ParseDuration("2s") == nanoseconds(2'000'000'000));
    CHECK(ParseBitRate("1000bps") == 1000);
    CHECK(ParseBitRate("56kbps") == 56'000);
    CHECK(ParseBitRate("100Mbps") == 100'000'000);
    CHECK(ParseBitRate("1Gbps") == 1'000'000'000);
    CHECK(ParseFrequency("1Hz") == 1);
    CHECK(ParseFrequency("187.5kHz") == 187'500);
    CHECK(ParseFrequency("10MHz") == 10'000'000);
    CHECK(ParseFrequency("2.4GHz") == 2'400'000'000);
    CHECK_THROWS_AS(ParseFrequency("0Hz"), InputError);
    CHECK_THROWS_AS(ParseFrequency("10Mbps"), InputError);
    CHECK_THROWS_AS(ParseDuration("1Gbps"), InputError);
    CHECK_THROWS_AS(ParseBitRate("1GB"), InputError);
    CHECK_THROWS_AS(ParseBytes("1s"), InputError);
}

TEST_CASE("The largest value is accepted and one more is refused")
{
    CHECK(ParseBytes("18446744073709551615B") == 18'446'744'073'709'551'615ULL);
    CHECK(ParseBytes("18446744073709551.615kB") == 18'446'744'073'709'551'615ULL);
    CHECK(ParseBytes("0000000000000000000000000000001.0000000000000000000000000000kB") == 1000);
    CHECK_THROWS_AS(ParseBytes("18446744073709551616B"), InputError);
    CHECK_THROWS_AS(ParseBytes("18446744073709551.616kB"), InputError);
    CHECK_THROWS_AS(ParseBytes("16777216TiB"), InputError); // 2^64
    CHECK(ParseBytes("16777215TiB") == 18'446'742'974'197'923'840ULL);
    CHECK_THROWS_AS(ParseBytes("99999999999999999999999999999999B"), InputError);
    CHECK_THROWS_AS(ParseBytes("0.00000000000000000001TiB"), InputError);
    CHECK_THROWS_AS(ParseBytes("0." + std::string(70, '0') + "1TiB"), InputError);
    CHECK_THROWS_AS(ParseBytes("1." + std::string(70, '9') + "TiB"), InputError);
    CHECK(ParseDuration("9223372036.854775807s") == nanoseconds::max());
    CHECK_THROWS_AS(ParseDuration("9223372036.854775808s"), InputError);
    CHECK_THROWS_AS(ParseBitRate("0bps"), InputError);
}

TEST_CASE("Anything but digits, decimals and a unit is refused")
{
    for (const std::string text :
         {"", "B", "5", "5 B", " 5B", "5B ", "-5B", "+5B", ".5kB", "5.kB", "5.5.5kB", "5e3B", "0x5B", "5b", "5gb",
          "5GBB", "nanB", "infB", "5,5kB", "\xd9\xa3MB"})
    {
        INFO(text);
        CHECK_THROWS_AS(ParseBytes(text), InputError);
    }
    CHECK_THROWS_AS(ParseBytes(std::string("5B\0", 3)), InputError);
}

TEST_CASE("A message quotes the text on one line and says what to write")
{
    CHECK(ErrorOf([] { ParseBitRate("1Gps"); }) ==
          R"("1Gps" is not a data rate; write a number and one of bps, kbps, Mbps, Gbps, such as "1Gbps")");
    CHECK(ErrorOf([] { ParseDuration("1\nms"); }) ==
          R"("1\nms" is not a whole number of nanoseconds below 2^63; write a number and one of ns, us, ms, s, )"
          R"(such as "100us")");
    CHECK(ErrorOf([] { ParseBytes("80gb"); }) ==
          R"("80gb" is not a whole number of bytes below 2^64; write a number and one of B, kB, MB, GB, TB, KiB, )"
          R"(MiB, GiB, TiB, such as "80GB")");
    CHECK(ErrorOf([] { ParseBytes(std::string(1'000'000, 'x') + "\xff"); }).size() < 250);
    CHECK_FALSE(ErrorOf([] { ParseBytes("\xff"); }).empty());
}

TEST_CASE("Quantities are read from keys and errors name the key")
{
    Json json = ParseStrictJson(
        R"({"text": "8GB", "bytes": 123, "list": [], "fraction": 1.5, "rate": "1Gps", "delay": 5, "fine": "20us"})",
        "study.json");
    StrictObject object(json, "study.json", "nodes.device");

    CHECK(ReadBytes(object, "text") == 8'000'000'000);
    CHECK(ReadBytes(object, "bytes") == 123);
    CHECK(ReadDuration(object, "fine") == nanoseconds(20'000));
    CHECK(ErrorOf([&] { ReadBytes(object, "list"); }).find("study.json: nodes.device.list: is not a whole") == 0);
    CHECK(ErrorOf([&] { ReadBytes(object, "fraction"); }).find("study.json: nodes.device.fraction: ") == 0);
    CHECK(ErrorOf([&] { ReadBytes(object, "absent"); }).find("study.json: nodes.device.absent: ") == 0);
    CHECK(ErrorOf([&] { ReadDuration(object, "delay"); }).find("study.json: nodes.device.delay: ") == 0);
    CHECK(ErrorOf([&] { ReadBitRate(object, "rate"); }) ==
          R"(study.json: nodes.device.rate: "1Gps" is not a data rate; write a number and one of bps, kbps, Mbps, )"
          R"(Gbps, such as "1Gbps")");

    CHECK(ReadBytes(object, "queue", 1'000'000) == 1'000'000);
    CHECK(ReadDuration(object, "feedback", "1.5ms") == nanoseconds(1'500'000));
    CHECK(ReadBitRate(object, "speed", "56kbps") == 56'000);
    CHECK(json["queue"] == 1'000'000);
    CHECK(json["feedback"] == "1.5ms");
}
