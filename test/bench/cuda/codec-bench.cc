// SPDX-License-Identifier: GPL-2.0-only
// The codec's kernels on a GPU: batches of 64 MiB of fp16 (32 Mi elements, which lie there as fp32), and single tokens.
//
//     split-llm-cuda-codec-bench
//
// The first line names the GPU, the second its copy bandwidth measured in the same run (bytes read and written). GB/s are
// those of fp16 input: 2 bytes an element. Before anything is timed, the bytes are compared with the host's.
#include "bench/cuda/gpu-bench.h"
#include "codec/cuda/container-memory.h"
#include "support/codec-rows.h"
#include "tensor/cuda/device-tensor.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

using namespace splitllm;

namespace
{

constexpr std::size_t kCols = 4096;
constexpr std::size_t kBatchRows = (std::size_t{64} << 20) / 2 / kCols;

/// What a row is drawn from, and its threshold, which one element in a thousand exceeds.
struct Kind
{
    const char* name;
    std::vector<float> (test::CodecRows::*draw)(std::size_t);
    float tau;
};

const Kind kKinds[] = {{"normal", &test::CodecRows::Gauss, 3.2905F},
                       {"Laplace", &test::CodecRows::Laplace, 6.9078F},
                       {"heavy tails", &test::CodecRows::HeavyTails, 9.0F}};

Tensor
Batch(const Kind& kind, std::size_t rows)
{
    test::CodecRows draw(2);
    Tensor tensor = Tensor::Zeros(rows, kCols);
    constexpr std::size_t kDistinct = 256;
    for (std::size_t row = 0; row < rows; row++)
    {
        if (row < kDistinct)
        {
            std::ranges::copy((draw.*kind.draw)(kCols), tensor.Row(row).begin());
        }
        else
        {
            std::ranges::copy(tensor.Row(row % kDistinct), tensor.Row(row).begin());
        }
    }
    return tensor;
}

void
PrintRow(const std::string& what, const bench::GpuSeconds& time, std::size_t elements)
{
    std::printf("%-44s %9.2f us [%9.2f, %9.2f] %8.1f GB/s %8.2f Gelements/s\n",
                what.c_str(),
                time.median * 1e6,
                time.low * 1e6,
                time.high * 1e6,
                2.0 * static_cast<double>(elements) / time.median * 1e-9,
                static_cast<double>(elements) / time.median * 1e-9);
}

/// A container on the GPU is \p expected. \throws std::runtime_error
void
Check(const DeviceArray<std::byte>& container, const std::vector<std::byte>& expected)
{
    std::vector<std::byte> bytes(expected.size());
    container.Download(bytes);
    if (bytes != expected)
    {
        throw std::runtime_error("the GPU's container is not the host's");
    }
}

std::string
LanesOf(const std::vector<std::byte>& container)
{
    const ContainerSections sections = ReadContainerSections(container, kCols);
    return std::to_string(container.size()) + " bytes, " + std::to_string(sections.records.front().lanes) + " lanes";
}

void
MeasureDecoding(const std::shared_ptr<CudaStream>& stream,
                const Tensor& tensor,
                const std::vector<std::byte>& bytes,
                const DeviceStaticTables& statics,
                const std::string& name)
{
    const std::size_t elements = tensor.Elements();
    DecodeMemory memory(stream, bytes, ReadContainerSections(bytes, kCols), statics);
    const DecodeJob& job = memory.Job();
    const auto gpu = stream->Get();
    const auto decode = [&] {
        LaunchDecodeStreams(job, gpu);
        LaunchUnpack(job, gpu);
        LaunchPlaceAbove(job, gpu);
    };
    PrintRow("decode " + name, bench::TimeOnGpu(*stream, decode), elements);
    if (tensor.Rows() > 1)
    {
        PrintRow("  streams", bench::TimeOnGpu(*stream, [&] { LaunchDecodeStreams(job, gpu); }), elements);
        PrintRow("  elements above", bench::TimeOnGpu(*stream, [&] { LaunchPlaceAbove(job, gpu); }), elements);
    }
    if (!memory.Succeeded())
    {
        throw std::runtime_error("the GPU refuses the host's container");
    }
    std::vector<float> values(elements);
    memory.TakeValues().Download(values);
    const Tensor expected = DecodeContainer(bytes, kCols);
    if (std::memcmp(values.data(), expected.Values().data(), elements * sizeof(float)) != 0)
    {
        throw std::runtime_error("the GPU decodes something else than the host");
    }
}

void
MeasureBatch(const std::shared_ptr<CudaStream>& stream, const Kind& kind, unsigned bits, const DeviceStaticTables& statics)
{
    const ContainerParameters parameters{.tabQ = {.bits = bits}, .exact = DType::F16, .entropy = true};
    const Tensor tensor = Batch(kind, kBatchRows);
    const std::vector<std::byte> expected = EncodeContainer(tensor, kind.tau, parameters);
    const DeviceInput input(tensor, stream);
    const EncodeMemory memory(stream, input.Data(), kBatchRows, kCols, kind.tau, parameters, statics);
    const EncodeJob& job = memory.Job();
    const DeviceArray<std::byte> container(stream, expected.size());
    const auto gpu = stream->Get();
    const auto encode = [&] {
        LaunchQuantise(job, gpu);
        LaunchMessageTable(job, gpu);
        LaunchStreams(job, gpu);
        LaunchLayout(job, gpu);
        LaunchAssemble(job, container.Data(), gpu);
    };
    encode();
    if (memory.Message().size != expected.size())
    {
        throw std::runtime_error("the GPU's container has another size than the host's");
    }
    Check(container, expected);
    const std::size_t elements = tensor.Elements();
    const std::string name = std::string(kind.name) + ", Qbar " + std::to_string(bits);
    PrintRow("encode " + name + ", " + LanesOf(expected), bench::TimeOnGpu(*stream, encode, 4), elements);
    // Each kernel again by itself; what it adds up, it adds up more than once, so all before it run anew.
    PrintRow("  split and quantise", bench::TimeOnGpu(*stream, [&] { LaunchQuantise(job, gpu); }, 4), elements);
    PrintRow("  table of the message", bench::TimeOnGpu(*stream, [&] { LaunchMessageTable(job, gpu); }, 4), elements);
    encode();
    PrintRow("  streams", bench::TimeOnGpu(*stream, [&] { LaunchStreams(job, gpu); }, 4), elements);
    PrintRow("  layout", bench::TimeOnGpu(*stream, [&] { LaunchLayout(job, gpu); }, 4), elements);
    PrintRow("  assembly", bench::TimeOnGpu(*stream, [&] { LaunchAssemble(job, container.Data(), gpu); }, 4), elements);
    MeasureDecoding(stream, tensor, expected, statics, name);
}

void
MeasureToken(const std::shared_ptr<CudaStream>& stream, const Kind& kind, unsigned bits, const DeviceStaticTables& statics)
{
    const ContainerParameters parameters{.tabQ = {.bits = bits}, .exact = DType::F16, .entropy = true};
    const Tensor tensor = Batch(kind, 1);
    const std::vector<std::byte> expected = EncodeContainer(tensor, kind.tau, parameters);
    const DeviceInput input(tensor, stream);
    const EncodeMemory memory(stream, input.Data(), 1, kCols, kind.tau, parameters, statics);
    const EncodeJob& job = memory.Job();
    const DeviceArray<std::byte> container(stream, MostBytesOfRow(job));
    const auto encode = [&] { LaunchEncodeRow(job, container.Data(), stream->Get()); };
    encode();
    Check(container, expected);
    const std::string name = std::string(kind.name) + ", Qbar " + std::to_string(bits);
    PrintRow("encode a token, " + name + ", " + LanesOf(expected), bench::TimeOnGpu(*stream, encode), kCols);
    MeasureDecoding(stream, tensor, expected, statics, "a token, " + name);
}

} // namespace

int
main()
{
    if (!bench::AnnounceGpu())
    {
        return bench::kSkipped;
    }
    const auto stream = std::make_shared<CudaStream>();
    std::printf("copy bandwidth: %.1f GB/s\n", bench::CopyBandwidth(stream) * 1e-9);
    const StaticTablesMemory statics(stream);
    for (const unsigned bits : {4U, 8U})
    {
        for (const Kind& kind : kKinds)
        {
            MeasureBatch(stream, kind, bits, statics.Tables());
        }
        for (const Kind& kind : kKinds)
        {
            MeasureToken(stream, kind, bits, statics.Tables());
        }
    }
    return 0;
}
