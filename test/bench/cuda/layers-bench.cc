// SPDX-License-Identifier: GPL-2.0-only
// The kernels of layers on a GPU against what it copies, and decoding in tokens a second.
//
//     split-llm-cuda-layers-bench [smollm2-135m | llama-7b | ...]...
//
// The first line names the GPU, the second its copy bandwidth measured in the same run (bytes read and written). Bytes
// are those that a kernel must read; weights of layers in turn, so that no cache holds them.
#include "bench/cuda/generated-model.h"
#include "bench/cuda/gpu-bench.h"
#include "compute/cuda/cuda-resident.h"
#include "compute/cuda/layers.h"

#include <array>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

using namespace splitllm;

namespace
{

void
PrintRow(const std::string& what, const bench::GpuSeconds& time, double bytes, double flops, double limit)
{
    std::printf("%-52s %9.2f us [%9.2f, %9.2f] %8.1f GB/s %6.1f %% %9.1f GFLOP/s\n",
                what.c_str(),
                time.median * 1e6,
                time.low * 1e6,
                time.high * 1e6,
                bytes / time.median * 1e-9,
                100.0 * bytes / time.median / limit,
                flops / time.median * 1e-9);
}

double
BytesOf(const DeviceMatrix& matrix)
{
    const double elements = static_cast<double>(matrix.out) * matrix.in;
    switch (matrix.form)
    {
    case WeightForm::F32:
        return 4.0 * elements;
    case WeightForm::Int8:
        return elements + 4.0 * elements / matrix.group;
    case WeightForm::Int4:
        return 0.5 * elements + 4.0 * elements / matrix.group;
    default:
        return 2.0 * elements;
    }
}

double
FlopsOf(const DeviceMatrix& matrix)
{
    return 2.0 * static_cast<double>(matrix.out) * matrix.in;
}

/// Each kernel of a decoding step with the first \p used layers in turn, and the products of a prompt.
void
MeasureKernels(const CudaModel& model,
               std::size_t used,
               const RotaryAngles& angles,
               Layers& layers,
               const std::string& bits,
               double limit)
{
    const ModelConfig& config = model.Config();
    const std::shared_ptr<CudaStream>& stream = layers.Stream();
    constexpr std::size_t kMost = 512;
    const Scratch x = layers.Pool().Take(kMost * std::max(config.hidden, config.ffn));
    const Scratch y = layers.Pool().Take(kMost * std::max({config.ffn, config.vocab / 8, config.QueryWidth()}));
    const Scratch z = layers.Pool().Take(kMost * config.hidden);
    CheckCuda(cudaMemsetAsync(x.Data(), 0x3C, kMost * config.hidden * sizeof(float), stream->Get()), "cudaMemsetAsync");
    std::size_t turn = 0;
    const auto next = [&]() -> const CudaLayer& { return model.layers[turn++ % used]; };
    const CudaLayer& first = model.layers.front();
    const int inner = 24;

    for (const std::size_t w : {std::size_t{1}, std::size_t{4}})
    {
        const std::string rows = ", " + std::to_string(w) + (w == 1 ? " row" : " rows") + bits;
        const auto row = [&](const std::string& what, const std::vector<const DeviceMatrix*>& matrices, auto&& run) {
            double bytes = 0.0;
            double flops = 0.0;
            for (const DeviceMatrix* matrix : matrices)
            {
                bytes += BytesOf(*matrix);
                flops += static_cast<double>(w) * FlopsOf(*matrix);
            }
            PrintRow(what + rows, bench::TimeOnGpu(*stream, run, inner), bytes, flops, limit);
        };
        row("norm + Q, K, V", {&first.query.matrix, &first.key.matrix, &first.value.matrix}, [&] {
            const CudaLayer& layer = next();
            const std::array products{
                Product{.matrix = layer.query.matrix, .x = x.Data(), .y = y.Data()},
                Product{.matrix = layer.key.matrix, .x = x.Data(), .y = y.Data() + 4 * config.QueryWidth()},
                Product{.matrix = layer.value.matrix, .x = x.Data(), .y = y.Data() + 8 * config.QueryWidth()}};
            layers.Multiply(products, w, &layer.attentionNorm.norm);
        });
        row("output projection + residual", {&first.output.matrix}, [&] {
            const FinishWith residual{.finish = Finish::Add, .addend = z.Data()};
            layers.Multiply(next().output.matrix, x.Data(), w, z.Data(), nullptr, residual);
        });
        row("norm + gated MLP's inner part", {&first.gate.matrix, &first.up.matrix}, [&] {
            const CudaLayer& layer = next();
            GatedFew(layer.gate.matrix, layer.up.matrix, x.Data(), w, &layer.mlpNorm.norm, y.Data(), stream->Get());
        });
        row("down projection + residual", {&first.down.matrix}, [&] {
            const FinishWith residual{.finish = Finish::Add, .addend = z.Data()};
            layers.Multiply(next().down.matrix, y.Data(), w, z.Data(), nullptr, residual);
        });
    }
    for (const std::size_t context : {std::size_t{128}, std::size_t{1024}})
    {
        std::vector<std::unique_ptr<CudaKvCache>> caches;
        std::vector<KvPlace> places;
        for (std::size_t i = 0; i < 8; ++i)
        {
            caches.push_back(std::make_unique<CudaKvCache>(config, 0, 1, context, stream));
            places.push_back(caches.back()->Place(0, context - 1, context - 1));
            CheckCuda(cudaMemsetAsync(places.back().keys,
                                      0x3C,
                                      2 * config.KvWidth() * context * sizeof(float),
                                      stream->Get()),
                      "cudaMemsetAsync");
        }
        const DeviceArray<KvPlace> there(stream, places);
        const AttentionShape shape = model.Shape();
        const Scratch chunks = layers.Pool().Take(AttendScratch(shape, 1, context));
        const auto time = bench::TimeOnGpu(*stream, [&] {
            const KvPlace* place = there.Data() + turn++ % places.size();
            AppendRows(shape, angles, place, 1, x.Data(), x.Data(), x.Data(), z.Data(), stream->Get());
            Attend(shape, place, 1, context, z.Data(), chunks.Data(), y.Data(), stream->Get());
        });
        const double bytes = 8.0 * static_cast<double>(config.KvWidth()) * static_cast<double>(context);
        const double flops = 4.0 * static_cast<double>(config.QueryWidth()) * static_cast<double>(context);
        PrintRow("append + attention over " + std::to_string(context), time, bytes, flops, limit);
    }
    if (bits.empty())
    {
        const Scratch logits = layers.Pool().Take(config.vocab);
        const auto time = bench::TimeOnGpu(*stream, [&] {
            layers.Multiply(model.head.matrix, x.Data(), 1, logits.Data(), &model.finalNorm.norm);
        });
        PrintRow("norm + head, 1 row", time, BytesOf(model.head.matrix), FlopsOf(model.head.matrix), limit);
    }
    for (const std::size_t w : {std::size_t{64}, kMost})
    {
        const auto time = bench::TimeOnGpu(*stream, [&] { layers.Multiply(next().up.matrix, x.Data(), w, y.Data()); }, 4);
        PrintRow("up projection by cuBLAS (TF32), " + std::to_string(w) + " rows" + bits,
                 time,
                 BytesOf(first.up.matrix),
                 static_cast<double>(w) * FlopsOf(first.up.matrix),
                 limit);
    }
}

/// Tokens a second of greedy decoding by graphs, from the difference of a long and a short answer.
void
MeasureDecoding(Backend& backend, const ResidentModel& model, double bytesAToken, double limit)
{
    constexpr std::size_t kShort = 32;
    constexpr std::size_t kLong = 288;
    std::vector<double> seconds;
    for (int i = 0; i < 7; ++i)
    {
        const auto answer = [&](std::size_t count) {
            const auto cache = backend.NewCache(model, 0, model.Config().layers, kLong + 1);
            const auto start = std::chrono::steady_clock::now();
            backend.Greedy(model, *cache, 1, count);
            return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        };
        const double shorter = answer(kShort);
        seconds.push_back((answer(kLong) - shorter) / (kLong - kShort));
    }
    std::ranges::sort(seconds);
    const double median = seconds[seconds.size() / 2];
    std::printf("decoding: %.1f tokens/s [%.1f, %.1f], %.3f ms a token, %.1f GB/s of weights, %.1f %% of the copy bandwidth\n",
                1.0 / median,
                1.0 / seconds.back(),
                1.0 / seconds.front(),
                median * 1e3,
                bytesAToken / median * 1e-9,
                100.0 * bytesAToken / median / limit);
}

} // namespace

int
main(int argc, char* argv[])
{
    if (!bench::AnnounceGpu())
    {
        return bench::kSkipped;
    }
    const auto stream = std::make_shared<CudaStream>();
    const double limit = bench::CopyBandwidth(stream);
    std::printf("copy bandwidth: %.1f GB/s\n", limit * 1e-9);
    std::vector<std::string> names(argv + 1, argv + argc);
    if (names.empty())
    {
        names = {"smollm2-135m", "llama-7b"};
    }
    for (const std::string& name : names)
    {
        const auto model = bench::GeneratedModel(NamedShape(name, DType::F16));
        const ModelConfig& config = model->config;
        std::printf("\n%s, fp16, generated weights\n", name.c_str());
        const auto backend = MakeCudaBackend(CudaTimes::None);
        const auto resident = backend->Resident(model);
        const double bytes =
            2.0 * (static_cast<double>(config.LayerParameters()) * static_cast<double>(config.layers) +
                   static_cast<double>(config.vocab * config.hidden));
        MeasureDecoding(*backend, *resident, bytes, limit);
        Layers layers(stream);
        WeightStore store(stream);
        const auto& own = dynamic_cast<const CudaModel&>(*resident);
        MeasureKernels(own, config.layers, own.Angles(1024, store), layers, "", limit);
        for (const unsigned bits : {8U, 4U})
        {
            constexpr std::size_t kFront = 4; // quantising takes the host seconds a layer
            const auto quantised = backend->Resident(model, WeightPrecision::Front(config, kFront, bits));
            std::printf("%u-bit front layers\n", bits);
            MeasureKernels(dynamic_cast<const CudaModel&>(*quantised),
                           kFront,
                           own.Angles(1024, store),
                           layers,
                           ", " + std::to_string(bits) + " bits",
                           limit);
        }
    }
    return 0;
}
