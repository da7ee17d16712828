// SPDX-License-Identifier: GPL-2.0-only
#include "codec/tensor-container.h"
#include "support/codec-rows.h"

#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef SPLITLLM_BENCH_HTSCODECS
#include <htscodecs/rANS_static4x16.h>
#endif

// The codec on one thread. A ratio of two columns of one run says more than either: the machine is never alone.

using namespace splitllm;

namespace
{

constexpr std::size_t kSymbols = 1U << 20;

/// 1 MiB of 4-bit symbols, as TAB-Q makes them of normal rows with Qbar = 4: 8 codes and their signs.
std::vector<std::uint8_t>
FourBitSymbols()
{
    const std::vector<float> row = test::CodecRows(1).Gauss(kSymbols);
    return PrepareRow(row, 0, std::nullopt, {.tabQ = {4, 0.0, false}, .exact = DType::F16, .entropy = false})
        .quantised.symbols;
}

/// Counts, frequencies, table and stream: what htscodecs does as well.
void
EncodeSymbols(const std::vector<std::uint8_t>& symbols, std::vector<std::byte>& stream)
{
    std::array<std::uint32_t, kRansMaxSymbols> histogram;
    CountSymbols(symbols, 16, histogram);
    std::array<std::uint64_t, kRansMaxSymbols> counts;
    std::copy(histogram.begin(), histogram.end(), counts.begin());
    const RansFrequencies frequencies = NormaliseFrequencies(counts);
    stream.resize(sizeof frequencies);
    std::memcpy(stream.data(), &frequencies, sizeof frequencies);
    RansEncode(symbols, MakeRansEncodeTable(frequencies), 32, stream);
}

void
RansEncode32(benchmark::State& state)
{
    const std::vector<std::uint8_t> symbols = FourBitSymbols();
    std::vector<std::byte> stream;
    for (auto _ : state)
    {
        EncodeSymbols(symbols, stream);
        benchmark::DoNotOptimize(stream.data());
    }
    state.SetBytesProcessed(state.iterations() * kSymbols);
    state.counters["bytes"] = static_cast<double>(stream.size());
}

void
RansDecode32(benchmark::State& state)
{
    const std::vector<std::uint8_t> symbols = FourBitSymbols();
    std::vector<std::byte> stream;
    EncodeSymbols(symbols, stream);
    std::vector<std::uint8_t> decoded(kSymbols);
    for (auto _ : state)
    {
        RansFrequencies frequencies;
        std::memcpy(&frequencies, stream.data(), sizeof frequencies);
        const bool whole = RansDecode(std::span(stream).subspan(sizeof frequencies),
                                      MakeRansDecodeTable(frequencies),
                                      32,
                                      decoded);
        if (!whole || decoded.back() != symbols.back())
        {
            state.SkipWithError("decoded something else");
        }
    }
    state.SetBytesProcessed(state.iterations() * kSymbols);
}

BENCHMARK(RansEncode32)->Unit(benchmark::kMicrosecond);
BENCHMARK(RansDecode32)->Unit(benchmark::kMicrosecond);

#ifdef SPLITLLM_BENCH_HTSCODECS

void
HtscodecsEncode32(benchmark::State& state)
{
    rans_set_cpu(static_cast<int>(state.range(0)));
    std::vector<std::uint8_t> symbols = FourBitSymbols();
    unsigned bound = rans_compress_bound_4x16(kSymbols, RANS_ORDER_X32);
    std::vector<std::uint8_t> stream(bound);
    unsigned length = 0;
    for (auto _ : state)
    {
        length = bound;
        rans_compress_to_4x16(symbols.data(), kSymbols, stream.data(), &length, RANS_ORDER_X32);
        benchmark::DoNotOptimize(stream.data());
    }
    state.SetBytesProcessed(state.iterations() * kSymbols);
    state.counters["bytes"] = length;
}

void
HtscodecsDecode32(benchmark::State& state)
{
    rans_set_cpu(static_cast<int>(state.range(0)));
    std::vector<std::uint8_t> symbols = FourBitSymbols();
    unsigned bound = rans_compress_bound_4x16(kSymbols, RANS_ORDER_X32);
    std::vector<std::uint8_t> stream(bound);
    rans_compress_to_4x16(symbols.data(), kSymbols, stream.data(), &bound, RANS_ORDER_X32);
    std::vector<std::uint8_t> decoded(kSymbols);
    for (auto _ : state)
    {
        unsigned length = kSymbols;
        rans_uncompress_to_4x16(stream.data(), bound, decoded.data(), &length);
        if (length != kSymbols || decoded.back() != symbols.back())
        {
            state.SkipWithError("decoded something else");
        }
    }
    state.SetBytesProcessed(state.iterations() * kSymbols);
}

constexpr int kSse4 = RANS_CPU_ENC_SSE4 | RANS_CPU_DEC_SSE4;
constexpr int kAvx2 = RANS_CPU_ENC_AVX2 | RANS_CPU_DEC_AVX2;
constexpr int kAvx512 = RANS_CPU_ENC_AVX512 | RANS_CPU_DEC_AVX512;
BENCHMARK(HtscodecsEncode32)->ArgName("avx2")->Arg(kSse4 | kAvx2)->Unit(benchmark::kMicrosecond);
BENCHMARK(HtscodecsDecode32)->ArgName("avx2")->Arg(kSse4 | kAvx2)->Unit(benchmark::kMicrosecond);
BENCHMARK(HtscodecsEncode32)->ArgName("any")->Arg(kSse4 | kAvx2 | kAvx512)->Unit(benchmark::kMicrosecond);
BENCHMARK(HtscodecsDecode32)->ArgName("any")->Arg(kSse4 | kAvx2 | kAvx512)->Unit(benchmark::kMicrosecond);

#endif

/// One token of a hidden state, with the threshold that one element in a thousand exceeds, as a container.
Tensor
Token(std::size_t cols)
{
    Tensor tensor = Tensor::Zeros(1, cols);
    std::ranges::copy(test::CodecRows(2).Gauss(cols), tensor.Row(0).begin());
    return tensor;
}

constexpr float kTau = 3.2905F; // of a normal distribution, 0.001 lie beyond

void
TokenEncode(benchmark::State& state)
{
    const Tensor token = Token(static_cast<std::size_t>(state.range(0)));
    const ContainerParameters parameters{
        .tabQ = {static_cast<unsigned>(state.range(1)), 0.2, false}, .exact = DType::F16, .entropy = true};
    std::size_t size = 0;
    for (auto _ : state)
    {
        const std::vector<std::byte> bytes = EncodeContainer(token, kTau, parameters);
        size = bytes.size();
        benchmark::DoNotOptimize(bytes.data());
    }
    state.counters["bytes"] = static_cast<double>(size);
}

void
TokenDecode(benchmark::State& state)
{
    const auto cols = static_cast<std::size_t>(state.range(0));
    const ContainerParameters parameters{
        .tabQ = {static_cast<unsigned>(state.range(1)), 0.2, false}, .exact = DType::F16, .entropy = true};
    const std::vector<std::byte> bytes = EncodeContainer(Token(cols), kTau, parameters);
    for (auto _ : state)
    {
        const Tensor back = DecodeContainer(bytes, cols);
        benchmark::DoNotOptimize(back.Row(0).data());
    }
}

BENCHMARK(TokenEncode)->ArgNames({"d", "Qbar"})->ArgsProduct({{576, 4096}, {4, 8}})->Unit(benchmark::kMicrosecond);
BENCHMARK(TokenDecode)->ArgNames({"d", "Qbar"})->ArgsProduct({{576, 4096}, {4, 8}})->Unit(benchmark::kMicrosecond);

} // namespace
