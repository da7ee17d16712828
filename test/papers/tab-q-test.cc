// SPDX-License-Identifier: GPL-2.0-only
#include "codec/tensor-container.h"
#include "support/catch.h"
#include "support/codec-rows.h"
#include "support/tab-q-reference.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

/// The argument at which the normal distribution function is \p p, by bisection of std::erfc.
double
NormalQuantile(double p)
{
    double low = -10.0;
    double high = 10.0;
    while (true)
    {
        const double middle = (low + high) / 2.0;
        if (middle <= low || middle >= high)
        {
            return middle;
        }
        (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
    }
}

} // namespace

// What Algorithm 1 gives for a token of 4096 normal quantiles, from the formulas alone.
TEST_CASE("OPSC: TAB-Q of a normal token with tau = 5, Qbar = 8, Delta = 0.2", "[papers][codec]")
{
    constexpr std::size_t kCols = 4096;
    Tensor token = Tensor::Zeros(1, kCols);
    std::vector<float> row(kCols);
    for (std::size_t j = 0; j < kCols; j++)
    {
        row[j] = static_cast<float>(NormalQuantile((static_cast<double>(j) + 0.5) / kCols));
        token.Row(0)[j] = row[j];
    }
    const ContainerParameters parameters{.tabQ = {8, 0.2, false}, .exact = DType::F16, .entropy = true};
    const std::vector<std::byte> bytes = EncodeContainer(token, 5.0F, parameters);
    ContainerHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    RowRecord record;
    std::memcpy(&record, bytes.data() + sizeof header + (header.tableBytes + 3) / 4 * 4, sizeof record);

    CHECK((header.flags & kHasAbove) == 0);
    CHECK(record.bits == 6);
    CHECK(record.scale == Approx(0.058223).epsilon(0.0002));
    CHECK(record.zero == 0);
    const TabQReference reference = ReferenceTabQ(row, 8, 0.2, false, 5.0F);
    REQUIRE(reference.distortion.size() == 2);
    CHECK(reference.distortion[0] == Approx(0.1465).epsilon(0.01));
    CHECK(reference.distortion[1] == Approx(0.2168).epsilon(0.01));

    // The codec's own choice turns at the same distortions.
    const auto bitsFor = [&](double delta) {
        return PrepareRow(row, 0, 5.0F, {.tabQ = {8, delta, false}, .exact = DType::F16, .entropy = true}).quantised.bits;
    };
    CHECK(bitsFor(0.1465 * 0.99) == 7);
    CHECK(bitsFor(0.1465 * 1.01) == 6);
    CHECK(bitsFor(0.2168 * 0.99) == 6);
    CHECK(bitsFor(0.2168 * 1.01) < 6);

    const Tensor back = DecodeContainer(bytes, kCols);
    double error = 0.0;
    for (std::size_t j = 0; j < kCols; j++)
    {
        error += std::pow(static_cast<double>(row[j]) - static_cast<double>(back.Row(0)[j]), 2.0);
    }
    CHECK(error / kCols == Approx(0.000283).epsilon(0.01));

    const PreparedRow prepared = PrepareRow(row, 0, 5.0F, parameters);
    CHECK(EntropyBytes(prepared.quantised.symbols) * 8.0 / kCols == Approx(6.146).epsilon(0.0005));
    const std::size_t coded = header.tableBytes + record.bodyBytes;
    INFO("table, states and words: " << coded << " bytes");
    CHECK(coded >= 3147);
    CHECK(coded <= 3147 * 1.05);
}
