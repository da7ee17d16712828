// SPDX-License-Identifier: GPL-2.0-only
#include "codec/codec-kernels.h"
#include "codec/rans.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

using namespace splitllm;

namespace
{

void
Expect(bool holds)
{
    if (!holds)
    {
        std::abort();
    }
}

} // namespace

/**
 * The first byte chooses the lanes, the next two how many symbols there are, then 17 weights make a table; the rest is a
 * stream. All instruction sets agree on whether it is one and on its symbols, and what is accepted is what encoding gives.
 * Then the rest as symbols comes back from its own stream.
 */
extern "C" int
LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    constexpr std::size_t kWeights = 17;
    if (size < 3 + kWeights)
    {
        return 0;
    }
    constexpr unsigned kLanes[] = {1, 4, 32, 8, 16};
    const unsigned lanes = kLanes[data[0] % 5];
    const std::size_t count = data[1] + std::size_t{data[2]} % 16 * 256;
    std::vector<std::uint64_t> weights(data + 3, data + 3 + kWeights);
    weights[data[0] / 5 % kWeights] += 1; // not all zero
    const RansFrequencies frequencies = NormaliseFrequencies(weights);
    const RansEncodeTable encodeTable = MakeRansEncodeTable(frequencies);
    const RansDecodeTable decodeTable = MakeRansDecodeTable(frequencies);
    const std::span rest(data + 3 + kWeights, size - 3 - kWeights);
    // a copy of its own size, so that a read behind it shows
    const auto bytes = std::as_bytes(rest);
    const std::vector<std::byte> stream(bytes.begin(), bytes.end());

    std::vector<std::uint8_t> expected(count);
    const bool whole = RansDecode(stream, decodeTable, lanes, expected, CodecKernelsFor(InstructionSet::Plain));
    std::vector<std::uint8_t> symbols;
    for (const std::uint8_t byte : rest)
    {
        if (frequencies.of[byte % kWeights] > 0)
        {
            symbols.push_back(byte % kWeights);
        }
    }
    std::vector<std::byte> plain;
    RansEncode(symbols, encodeTable, lanes, plain, CodecKernelsFor(InstructionSet::Plain));
    for (const InstructionSet set : SupportedInstructionSets())
    {
        const CodecKernels& kernels = CodecKernelsFor(set);
        std::vector<std::uint8_t> decoded(count);
        Expect(RansDecode(stream, decodeTable, lanes, decoded, kernels) == whole);
        if (whole)
        {
            Expect(decoded == expected);
            std::vector<std::byte> again;
            RansEncode(decoded, encodeTable, lanes, again, kernels);
            Expect(again == stream);
        }
        std::vector<std::byte> own;
        RansEncode(symbols, encodeTable, lanes, own, kernels);
        Expect(own == plain);
        std::vector<std::uint8_t> back(symbols.size());
        Expect(RansDecode(own, decodeTable, lanes, back, kernels) && back == symbols);
    }
    return 0;
}
