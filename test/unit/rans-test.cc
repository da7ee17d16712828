// SPDX-License-Identifier: GPL-2.0-only
#include "codec/codec-kernels.h"
#include "codec/rans.h"
#include "support/catch.h"
#include "support/codec-rows.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <vector>
#ifdef SPLITLLM_TEST_HTSCODECS
#include <htscodecs/rANS_static4x16.h>
#endif

using namespace splitllm;
using namespace splitllm::test;

namespace
{

using Bytes = std::vector<std::byte>;
using Symbols = std::vector<std::uint8_t>;

const std::vector<unsigned> kLaneCounts{1, 4, 8, 16, 32};

RansFrequencies
FrequenciesOf(const Symbols& symbols)
{
    std::vector<std::uint64_t> counts(256, 0);
    for (const std::uint8_t symbol : symbols)
    {
        counts[symbol]++;
    }
    if (symbols.empty())
    {
        counts[0] = 1;
    }
    return NormaliseFrequencies(counts);
}

Bytes
Encoded(const Symbols& symbols,
        const RansFrequencies& frequencies,
        unsigned lanes,
        const CodecKernels& kernels = BestCodecKernels())
{
    Bytes stream;
    RansEncode(symbols, MakeRansEncodeTable(frequencies), lanes, stream, kernels);
    return stream;
}

/// Another rANS: the definition in unbounded steps, one division and one remainder a symbol.
Bytes
SlowEncoded(const Symbols& symbols, const RansFrequencies& frequencies, unsigned lanes)
{
    std::vector<std::uint64_t> start(257, 0);
    for (std::size_t i = 0; i < 256; i++)
    {
        start[i + 1] = start[i] + frequencies.of[i];
    }
    std::vector<std::uint64_t> states(lanes, 32768);
    std::vector<std::uint16_t> words; // last one first
    for (std::size_t i = symbols.size(); i-- > 0;)
    {
        std::uint64_t& x = states[i % lanes];
        const std::uint64_t f = frequencies.of[symbols[i]];
        // the state after the step must stay below 2^31
        while (x / f * 4096 + x % f + start[symbols[i]] >= std::uint64_t{1} << 31)
        {
            words.push_back(static_cast<std::uint16_t>(x % 65536));
            x /= 65536;
        }
        x = x / f * 4096 + x % f + start[symbols[i]];
    }
    Bytes stream;
    for (const std::uint64_t x : states)
    {
        for (unsigned i = 0; i < 4; i++)
        {
            stream.push_back(static_cast<std::byte>(x >> 8 * i));
        }
    }
    for (std::size_t i = words.size(); i-- > 0;)
    {
        stream.push_back(static_cast<std::byte>(words[i]));
        stream.push_back(static_cast<std::byte>(words[i] >> 8));
    }
    return stream;
}

/// Weights that make common, rare and single symbols.
std::vector<std::vector<double>>
Weights()
{
    std::vector<std::vector<double>> all;
    all.push_back({1.0});
    all.push_back({1.0, 1.0});
    all.push_back({0.9995, 0.0005});
    all.push_back(std::vector<double>(16, 1.0));
    all.push_back(std::vector<double>(17, 1.0));
    all.push_back(std::vector<double>(256, 1.0));
    std::vector<double> falling(256);
    for (std::size_t i = 0; i < 256; i++)
    {
        falling[i] = std::exp(-static_cast<double>(i) / 6.0);
    }
    all.push_back(falling);
    all.push_back({falling.begin(), falling.begin() + 16});
    return all;
}

} // namespace

TEST_CASE("Frequencies keep every symbol, sum to 4096 and follow the counts", "[codec]")
{
    CodecRows rows(1);
    for (std::size_t symbols = 1; symbols <= 256; symbols += symbols < 20 ? 1 : 59)
    {
        for (int repeat = 0; repeat < 20; repeat++)
        {
            std::vector<std::uint64_t> counts(symbols);
            for (std::uint64_t& count : counts)
            {
                count = static_cast<std::uint64_t>(std::exp(rows.Uniform() * 14.0)) * (rows.Uniform() < 0.8 ? 1 : 0);
            }
            counts[symbols / 2] += 1;
            const RansFrequencies table = NormaliseFrequencies(counts);
            const double total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), std::uint64_t{0}));
            std::uint32_t sum = 0;
            double excess = 0.0; // in bits a symbol
            for (std::size_t i = 0; i < 256; i++)
            {
                sum += table.of[i];
                const bool present = i < symbols && counts[i] > 0;
                REQUIRE((table.of[i] > 0) == present);
                if (present)
                {
                    const double share = static_cast<double>(counts[i]) / total;
                    excess += share * std::log2(share / (table.of[i] / 4096.0));
                }
            }
            REQUIRE(sum == 4096);
            // a symbol that has 1/4096 though it is rarer takes that from the others: log2(4096 / (4096 - 256)) = 0.093
            CHECK(excess < 0.1);
        }
    }
    CHECK(NormaliseFrequencies(std::vector<std::uint64_t>{3}).of[0] == 4096);
    const RansFrequencies even = NormaliseFrequencies(std::vector<std::uint64_t>(256, 1000000007));
    CHECK(std::all_of(std::begin(even.of), std::end(even.of), [](std::uint16_t f) { return f == 16; }));
    // one symbol has nearly all, 255 have the least
    std::vector<std::uint64_t> steep(256, 1);
    steep[77] = std::uint64_t{1} << 50;
    const RansFrequencies table = NormaliseFrequencies(steep);
    CHECK(table.of[77] == 4096 - 255);
}

TEST_CASE("The reciprocal of every frequency divides every state", "[codec]")
{
    CodecRows rows(2);
    for (std::uint32_t f = 1; f <= 4096; f++)
    {
        const std::uint32_t start = std::min(4096 - f, 1000U);
        const RansEncodeSymbol symbol = MakeRansEncodeSymbol(f, start);
        const std::uint32_t most = (f << 19) - 1; // of a state that no word leaves
        for (const std::uint32_t x : {kRansLow,
                                      kRansLow + 1,
                                      most,
                                      most - 1,
                                      most / f * f,
                                      std::max(most / f * f, kRansLow + 1) - 1,
                                      static_cast<std::uint32_t>(kRansLow + rows.Uniform() * (most - kRansLow))})
        {
            std::uint32_t state = x;
            std::uint16_t word;
            REQUIRE_FALSE(RansPut(state, symbol, word));
            REQUIRE(state == std::uint64_t{x / f} * 4096 + x % f + start);
        }
        if (f < 4096)
        {
            std::uint32_t state = most + 1;
            std::uint16_t word = 1;
            REQUIRE(RansPut(state, symbol, word));
            REQUIRE(word == ((most + 1) & 0xFFFF));
            REQUIRE(state == std::uint64_t{(f << 3) / f} * 4096 + (f << 3) % f + start);
        }
    }
}

TEST_CASE("A stream is what the definition of rANS gives, and decodes, in every instruction set", "[codec]")
{
    CodecRows rows(3);
    std::vector<std::size_t> sizes = kCodecSizes;
    sizes.insert(sizes.begin(), 0);
    sizes.push_back(65536);
    for (const std::vector<double>& weights : Weights())
    {
        for (const std::size_t size : sizes)
        {
            const Symbols symbols = rows.Symbols(size, weights);
            const RansFrequencies frequencies = FrequenciesOf(symbols);
            const RansDecodeTable table = MakeRansDecodeTable(frequencies);
            for (const unsigned lanes : kLaneCounts)
            {
                const Bytes expected = SlowEncoded(symbols, frequencies, lanes);
                for (const InstructionSet set : SupportedInstructionSets())
                {
                    INFO(size << " symbols of " << weights.size() << ", " << lanes << " lanes, " << NameOf(set));
                    const CodecKernels& kernels = CodecKernelsFor(set);
                    REQUIRE(Encoded(symbols, frequencies, lanes, kernels) == expected);
                    Symbols decoded(size, 0xEE);
                    REQUIRE(RansDecode(expected, table, lanes, decoded, kernels));
                    REQUIRE(decoded == symbols);
                }
            }
        }
    }
}

TEST_CASE("Nothing but the whole stream is accepted, and nothing outside of it is read", "[codec]")
{
    CodecRows rows(4);
    const Symbols symbols = rows.Symbols(577, std::vector<double>{5, 3, 2, 1, 0.1});
    const RansFrequencies frequencies = FrequenciesOf(symbols);
    const RansDecodeTable table = MakeRansDecodeTable(frequencies);
    for (const InstructionSet set : SupportedInstructionSets())
    {
        const CodecKernels& kernels = CodecKernelsFor(set);
        for (const unsigned lanes : kLaneCounts)
        {
            const Bytes stream = Encoded(symbols, frequencies, lanes);
            Symbols decoded(symbols.size());
            for (std::size_t size = 0; size < stream.size(); size++)
            {
                const Bytes part(stream.begin(), stream.begin() + static_cast<std::ptrdiff_t>(size));
                REQUIRE_FALSE(RansDecode(part, table, lanes, decoded, kernels));
            }
            Bytes longer = stream;
            longer.resize(stream.size() + 2);
            CHECK_FALSE(RansDecode(longer, table, lanes, decoded, kernels));
            Symbols one(symbols.size() - 1);
            CHECK_FALSE(RansDecode(stream, table, lanes, one, kernels));
            for (int repeat = 0; repeat < 300; repeat++)
            {
                Bytes broken = stream;
                for (int i = 0; i < 3; i++)
                {
                    broken[static_cast<std::size_t>(rows.Uniform() * static_cast<double>(broken.size()))] =
                        static_cast<std::byte>(rows.Uniform() * 256.0);
                }
                const bool whole = RansDecode(broken, table, lanes, decoded, kernels);
                // one that is accepted is one that an encoder gives
                CHECK((!whole || Encoded(decoded, frequencies, lanes) == broken));
            }
        }
    }
}

#ifdef SPLITLLM_TEST_HTSCODECS

namespace
{

/// uint7 of CRAM: 7 bits a byte, high ones first, bit 7 where more follow.
void
PutUint7(std::uint32_t value, Bytes& to)
{
    for (int shift = 28; shift > 0; shift -= 7)
    {
        if (value >> shift != 0)
        {
            to.push_back(static_cast<std::byte>((value >> shift & 127) | 128));
        }
    }
    to.push_back(static_cast<std::byte>(value & 127));
}

std::uint32_t
GetUint7(const std::uint8_t*& from)
{
    std::uint32_t value = 0;
    std::uint8_t byte;
    do
    {
        byte = *from++;
        value = value << 7 | (byte & 127);
    } while ((byte & 128) != 0);
    return value;
}

/// CRAM 3.1, rANS Nx16, order 0: flags, size, alphabet with runs, frequencies; then the stream.
Bytes
Framed(std::size_t size, const RansFrequencies& frequencies, unsigned lanes, const Bytes& stream)
{
    Bytes framed{static_cast<std::byte>(lanes == 32 ? RANS_ORDER_X32 : 0)};
    PutUint7(static_cast<std::uint32_t>(size), framed);
    unsigned run = 0;
    for (unsigned i = 0; i < 256; i++)
    {
        if (frequencies.of[i] == 0)
        {
            continue;
        }
        if (run > 0)
        {
            run--;
            continue;
        }
        framed.push_back(static_cast<std::byte>(i));
        if (i > 0 && frequencies.of[i - 1] > 0)
        {
            while (i + run + 1 < 256 && frequencies.of[i + run + 1] > 0)
            {
                run++;
            }
            framed.push_back(static_cast<std::byte>(run));
        }
    }
    framed.push_back(std::byte{0});
    for (const std::uint16_t f : frequencies.of)
    {
        if (f > 0)
        {
            PutUint7(f, framed);
        }
    }
    framed.insert(framed.end(), stream.begin(), stream.end());
    return framed;
}

/// The frequencies in such a frame, and where the stream begins.
RansFrequencies
FrequenciesIn(const std::uint8_t* frame, const std::uint8_t*& stream)
{
    const std::uint8_t* at = frame + 1;
    GetUint7(at);
    std::vector<unsigned> alphabet;
    unsigned symbol = *at++;
    unsigned run = 0;
    do
    {
        alphabet.push_back(symbol);
        if (run > 0)
        {
            run--;
            symbol++;
        }
        else
        {
            const unsigned before = symbol;
            symbol = *at++;
            if (symbol == before + 1)
            {
                run = *at++;
            }
        }
    } while (symbol != 0);
    RansFrequencies frequencies;
    for (const unsigned i : alphabet)
    {
        frequencies.of[i] = static_cast<std::uint16_t>(GetUint7(at));
    }
    stream = at;
    return frequencies;
}

} // namespace

TEST_CASE("htscodecs decodes our streams, and we decode those of htscodecs", "[codec]")
{
    CodecRows rows(5);
    std::size_t read = 0;
    for (const std::vector<double>& weights : Weights())
    {
        for (const std::size_t size : {std::size_t{100}, std::size_t{577}, std::size_t{4097}, std::size_t{65536}})
        {
            Symbols symbols = rows.Symbols(size, weights);
            const RansFrequencies frequencies = FrequenciesOf(symbols);
            for (const unsigned lanes : {4U, 32U})
            {
                INFO(size << " symbols of " << weights.size() << ", " << lanes << " lanes");
                Bytes framed = Framed(size, frequencies, lanes, Encoded(symbols, frequencies, lanes));
                unsigned length = 0;
                unsigned char* theirs = rans_uncompress_4x16(reinterpret_cast<unsigned char*>(framed.data()),
                                                             static_cast<unsigned>(framed.size()),
                                                             &length);
                REQUIRE(theirs != nullptr);
                const Symbols back(theirs, theirs + length);
                std::free(theirs);
                REQUIRE(back == symbols);

                unsigned char* frame = rans_compress_4x16(symbols.data(),
                                                          static_cast<unsigned>(size),
                                                          &length,
                                                          lanes == 32 ? RANS_ORDER_X32 : 0);
                REQUIRE(frame != nullptr);
                const Bytes copy(reinterpret_cast<std::byte*>(frame), reinterpret_cast<std::byte*>(frame) + length);
                std::free(frame);
                const auto* first = reinterpret_cast<const std::uint8_t*>(copy.data());
                if ((first[0] & ~RANS_ORDER_X32) != 0)
                {
                    continue; // stored as it is, because it does not get smaller
                }
                read++;
                const std::uint8_t* stream = nullptr;
                RansFrequencies their = FrequenciesIn(first, stream);
                // few symbols are written with frequencies of a smaller sum
                const int sum = std::accumulate(std::begin(their.of), std::end(their.of), 0);
                REQUIRE(4096 % sum == 0);
                for (std::uint16_t& f : their.of)
                {
                    f = static_cast<std::uint16_t>(f * (4096 / sum));
                }
                Symbols decoded(size);
                REQUIRE(RansDecode(std::span(copy).subspan(static_cast<std::size_t>(stream - first)),
                                   MakeRansDecodeTable(their),
                                   (first[0] & RANS_ORDER_X32) != 0 ? 32 : 4,
                                   decoded));
                REQUIRE(decoded == symbols);
            }
        }
    }
    CHECK(read > 20);
}

#else

TEST_CASE("htscodecs decodes our streams, and we decode those of htscodecs", "[codec]")
{
    WARN("skipped: built without htscodecs (Debian: libhtscodecs-dev)");
}

#endif
