// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cuda/gpu-backend.h"

#include "compute/cuda/greedy-decoder.h"
#include "tensor/cuda/device-tensor.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

namespace splitllm
{

namespace
{

constexpr std::size_t kStreams = 4; //!< sessions that run beside each other

template <typename T, typename Handle>
T&
Own(Handle& handle)
{
    T* own = dynamic_cast<T*>(&handle);
    if (own == nullptr)
    {
        throw std::logic_error("a handle of another backend was given to the CUDA backend");
    }
    return *own;
}

/// \p tensor on the GPU, for work on the stream of \p layers.
DeviceInput
On(const Layers& layers, const Tensor& tensor)
{
    if (tensor.IsPhantom())
    {
        throw std::logic_error("a phantom tensor was given to the CUDA backend");
    }
    return {tensor, layers.Stream()};
}

/// Lets a stream's work with caches of other streams come between what those are given before and after.
class OtherStreams
{
  public:
    OtherStreams(const Layers& layers, std::span<KvCache* const> caches)
        : m_layers(layers),
          m_caches(caches)
    {
        for (KvCache* cache : caches)
        {
            layers.Stream()->Follow(*Own<CudaKvCache>(*cache).Stream());
        }
    }

    ~OtherStreams()
    {
        for (KvCache* cache : m_caches)
        {
            static_cast<CudaKvCache*>(cache)->Stream()->Follow(*m_layers.Stream());
        }
    }

    OtherStreams(const OtherStreams&) = delete;
    OtherStreams& operator=(const OtherStreams&) = delete;

  private:
    const Layers& m_layers;
    std::span<KvCache* const> m_caches;
};

} // namespace

struct GpuBackend::Events
{
    Events()
    {
        CheckCuda(cudaEventCreate(&begin), "cudaEventCreate");
        CheckCuda(cudaEventCreate(&end), "cudaEventCreate");
    }

    ~Events()
    {
        cudaEventDestroy(begin);
        cudaEventDestroy(end);
    }

    Events(const Events&) = delete;
    Events& operator=(const Events&) = delete;

    cudaEvent_t begin = nullptr;
    cudaEvent_t end = nullptr;
};

GpuBackend::GpuBackend(CudaTimes times)
    : Backend(DType::F32),
      m_store(std::make_shared<CudaStream>())
{
    int device = 0;
    cudaMemPool_t pool = nullptr;
    CheckCuda(cudaGetDevice(&device), "cudaGetDevice");
    CheckCuda(cudaDeviceGetDefaultMemPool(&pool, device), "cudaDeviceGetDefaultMemPool");
    std::uint64_t keepAll = std::numeric_limits<std::uint64_t>::max(); // freed memory waits for the next tensor
    CheckCuda(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keepAll), "cudaMemPoolSetAttribute");
    for (std::size_t i = 0; i < kStreams; ++i)
    {
        m_layers.push_back(std::make_unique<Layers>(std::make_shared<CudaStream>()));
    }
    if (times == CudaTimes::Events)
    {
        m_events = std::make_unique<Events>();
    }
}

GpuBackend::~GpuBackend() = default;

std::shared_ptr<const ResidentModel>
GpuBackend::Resident(std::shared_ptr<const Model> model, const WeightPrecision& precision)
{
    return std::make_shared<CudaModel>(std::move(model), Activations(), precision, m_store);
}

std::shared_ptr<const ResidentAdapter>
GpuBackend::Resident(std::shared_ptr<const Adapter> adapter, const ModelConfig& config)
{
    return std::make_shared<CudaAdapter>(std::move(adapter), config, m_store);
}

std::shared_ptr<const ResidentBottleneck>
GpuBackend::Resident(std::shared_ptr<const BottleneckAdapter> adapter, const ModelConfig& config)
{
    return std::make_shared<CudaBottleneckAdapter>(std::move(adapter), config, m_store);
}

std::shared_ptr<const ResidentExits>
GpuBackend::Resident(std::shared_ptr<const Exits> exits, const ModelConfig& config)
{
    return std::make_shared<CudaExits>(std::move(exits), config, m_store);
}

std::shared_ptr<const ResidentSide>
GpuBackend::Resident(std::shared_ptr<const SideNetwork> side, const ModelConfig& config)
{
    return std::make_shared<CudaSide>(std::move(side), config, m_store);
}

std::unique_ptr<KvCache>
GpuBackend::NewCache(const ResidentModel& model, std::size_t first, std::size_t last, std::size_t capacity)
{
    return std::make_unique<CudaKvCache>(model.Config(), first, last, capacity, NextLayers().Stream());
}

Layers&
GpuBackend::NextLayers()
{
    return *m_layers[m_next++ % m_layers.size()];
}

Layers&
GpuBackend::LayersOf(const Tensor& tensor)
{
    if (const auto* there = dynamic_cast<const DeviceTensor*>(tensor.Device().get()))
    {
        for (const std::unique_ptr<Layers>& layers : m_layers)
        {
            if (layers->Stream() == there->Values().Stream())
            {
                return *layers;
            }
        }
    }
    return NextLayers();
}

Layers&
GpuBackend::LayersOf(std::span<KvCache* const> caches)
{
    const std::shared_ptr<CudaStream>& stream = Own<CudaKvCache>(*caches.front()).Stream();
    const auto found =
        std::ranges::find_if(m_layers, [&](const auto& layers) { return layers->Stream() == stream; });
    if (found == m_layers.end())
    {
        throw std::logic_error("a KV cache of another CUDA backend was given to this one");
    }
    return **found;
}

DeviceArray<float>
GpuBackend::Result(const Layers& layers, std::size_t rows, std::size_t cols)
{
    return {layers.Stream(), rows * cols};
}

Tensor
GpuBackend::DoEmbed(const ResidentModel& model,
                    std::span<const TokenId> tokens,
                    std::span<const std::size_t> positions)
{
    const auto& own = Own<const CudaModel>(model);
    Layers& layers = NextLayers();
    const std::size_t w = tokens.size();
    std::vector<std::uint32_t> both(tokens.begin(), tokens.end());
    std::ranges::transform(positions, std::back_inserter(both), [](std::size_t position) {
        return static_cast<std::uint32_t>(position);
    });
    const DeviceArray<std::uint32_t> there(layers.Stream(), both);
    DeviceArray<float> hidden = Result(layers, w, model.Config().hidden);
    EmbedTokens(own.embedding, there.Data(), there.Data() + w, w, hidden.Data(), layers.Stream()->Get());
    return OnDevice(w, model.Config().hidden, std::move(hidden));
}

Projections
GpuBackend::DoProject(const ResidentModel& model, std::size_t layer, const Tensor& hidden)
{
    const ModelConfig& config = model.Config();
    const CudaLayer& weights = Own<const CudaModel>(model).layers[layer];
    Layers& layers = LayersOf(hidden);
    const DeviceInput x = On(layers, hidden);
    const std::size_t w = hidden.Rows();
    DeviceArray<float> normed = Result(layers, w, config.hidden);
    DeviceArray<float> query = Result(layers, w, config.QueryWidth());
    DeviceArray<float> key = Result(layers, w, config.KvWidth());
    DeviceArray<float> value = Result(layers, w, config.KvWidth());
    const std::array products{Product{.matrix = weights.query.matrix, .x = x.Data(), .y = query.Data()},
                              Product{.matrix = weights.key.matrix, .x = x.Data(), .y = key.Data()},
                              Product{.matrix = weights.value.matrix, .x = x.Data(), .y = value.Data()}};
    layers.Multiply(products, w, &weights.attentionNorm.norm, normed.Data());
    return {.input = OnDevice(w, config.hidden, std::move(normed)),
            .query = OnDevice(w, config.QueryWidth(), std::move(query)),
            .key = OnDevice(w, config.KvWidth(), std::move(key)),
            .value = OnDevice(w, config.KvWidth(), std::move(value))};
}

Deltas
GpuBackend::DoAdapt(const ResidentAdapter& adapter, std::size_t layer, const Tensor& input)
{
    const ModelConfig& config = adapter.Config();
    const auto& own = Own<const CudaAdapter>(adapter);
    Layers& layers = LayersOf(input);
    const DeviceInput x = On(layers, input);
    const std::size_t w = input.Rows();
    const auto update = [&](const CudaLora& lora, std::size_t width) {
        if (lora.a.matrix.weights == nullptr)
        {
            return Tensor::Zeros(w, width);
        }
        const Scratch inner = layers.Pool().Take(w * lora.a.matrix.out);
        DeviceArray<float> y = Result(layers, w, width);
        layers.Multiply(lora.a.matrix, x.Data(), w, inner.Data());
        layers.Multiply(lora.b.matrix,
                        inner.Data(),
                        w,
                        y.Data(),
                        nullptr,
                        {.finish = Finish::Scale, .factor = own.adapter->scaling});
        return OnDevice(w, width, std::move(y));
    };
    const CudaLoraLayer& lora = own.layers[layer];
    return {.query = update(lora.query, config.QueryWidth()),
            .key = update(lora.key, config.KvWidth()),
            .value = update(lora.value, config.KvWidth())};
}

Tensor
GpuBackend::DoFinishLayer(const ResidentModel& model,
                          std::size_t layer,
                          const Tensor& hidden,
                          const Projections& projections,
                          std::span<KvCache* const> caches)
{
    const auto& own = Own<const CudaModel>(model);
    Layers& layers = LayersOf(caches);
    const DeviceInput x = On(layers, hidden);
    const std::size_t w = hidden.Rows();
    const std::size_t d = model.Config().hidden;
    DeviceArray<float> next = Result(layers, w, d);
    AttendOn(layers, own, layer, projections, caches, next.Data(), {.finish = Finish::Add, .addend = x.Data()});
    layers.Mlp(model.Config(),
               own.layers[layer],
               next.Data(),
               w,
               next.Data(),
               {.finish = Finish::Add, .addend = next.Data()});
    return OnDevice(w, d, std::move(next));
}

Tensor
GpuBackend::DoAttend(const ResidentModel& model,
                     std::size_t layer,
                     const Projections& projections,
                     std::span<KvCache* const> caches)
{
    Layers& layers = LayersOf(caches);
    const std::size_t w = projections.query.Rows();
    const std::size_t d = model.Config().hidden;
    DeviceArray<float> y = Result(layers, w, d);
    AttendOn(layers, Own<const CudaModel>(model), layer, projections, caches, y.Data(), {});
    return OnDevice(w, d, std::move(y));
}

void
GpuBackend::AttendOn(Layers& layers,
                     const CudaModel& model,
                     std::size_t layer,
                     const Projections& projections,
                     std::span<KvCache* const> caches,
                     float* y,
                     const FinishWith& with)
{
    const OtherStreams others(layers, caches);
    const DeviceInput query = On(layers, projections.query);
    const DeviceInput key = On(layers, projections.key);
    const DeviceInput value = On(layers, projections.value);
    const std::size_t w = projections.query.Rows();
    const bool oneCache = caches.size() == 1;
    std::vector<KvPlace> places;
    std::size_t entries = 0;
    std::size_t positions = 0;
    bool tracks = false;
    for (std::size_t row = 0; row < w; ++row)
    {
        auto& cache = Own<CudaKvCache>(*caches[oneCache ? 0 : row]);
        const std::size_t ahead = oneCache ? row : 0;
        places.push_back(cache.Place(layer, cache.Length(layer) + ahead, cache.Position(layer) + ahead));
        entries = std::max(entries, cache.Length(layer) + ahead + 1);
        positions = std::max(positions, cache.Position(layer) + ahead + 1);
        tracks = tracks || cache.TracksAttention();
    }
    const RotaryAngles angles = model.Angles(positions, m_store);
    const DeviceArray<KvPlace> there(layers.Stream(), places);
    layers.Attention(model,
                     layer,
                     angles,
                     {.query = query.Data(), .key = key.Data(), .value = value.Data()},
                     w,
                     {.places = there.Data(), .entries = entries, .oneCache = oneCache, .tracks = tracks},
                     y,
                     with);
}

Tensor
GpuBackend::DoFeedForward(const ResidentModel& model, std::size_t layer, const Tensor& hidden)
{
    Layers& layers = LayersOf(hidden);
    const DeviceInput x = On(layers, hidden);
    DeviceArray<float> y = Result(layers, hidden.Rows(), hidden.Cols());
    layers.Mlp(model.Config(), Own<const CudaModel>(model).layers[layer], x.Data(), hidden.Rows(), y.Data());
    return OnDevice(hidden.Rows(), hidden.Cols(), std::move(y));
}

Tensor
GpuBackend::DoBottleneck(const ResidentBottleneck& adapter,
                         std::size_t layer,
                         Sublayer sublayer,
                         const Tensor& output)
{
    const CudaBottleneckLayer& weights = Own<const CudaBottleneckAdapter>(adapter).layers[layer];
    const CudaBottleneck& bottleneck = sublayer == Sublayer::Attention ? weights.attention : weights.mlp;
    Layers& layers = LayersOf(output);
    const DeviceInput x = On(layers, output);
    const std::size_t w = output.Rows();
    const Scratch inner = layers.Pool().Take(w * adapter.Width());
    DeviceArray<float> y = Result(layers, w, output.Cols());
    layers.Multiply(bottleneck.down.matrix, x.Data(), w, inner.Data(), nullptr, {.finish = Finish::Relu});
    layers.Multiply(bottleneck.up.matrix, inner.Data(), w, y.Data());
    return OnDevice(w, output.Cols(), std::move(y));
}

std::unique_ptr<KvCache>
GpuBackend::DoFork(const KvCache& cache)
{
    return std::make_unique<CudaKvCache>(Own<const CudaKvCache>(cache), NextLayers().Stream());
}

void
GpuBackend::DoPrune(KvCache& cache, std::size_t layer, std::size_t kept)
{
    auto& own = Own<CudaKvCache>(cache);
    const std::vector<std::uint32_t> entries = HeavyHitters(own.AttentionOf(layer), kept);
    const DeviceArray<std::uint32_t> there(own.Stream(), entries);
    const AttentionShape shape = own.Shape();
    KeepEntries(shape, own.Place(layer, 0, 0), there.Data(), kept, own.Stream()->Get());
}

Tensor
GpuBackend::DoSnapshot(const KvCache& cache,
                       std::size_t firstLayer,
                       std::size_t lastLayer,
                       std::size_t first,
                       std::size_t count)
{
    const auto& own = Own<const CudaKvCache>(cache);
    const std::size_t rows = 2 * (lastLayer - firstLayer) * count;
    const std::size_t block = count * cache.Width();
    DeviceArray<float> entries(own.Stream(), rows * cache.Width());
    float* to = entries.Data();
    for (std::size_t layer = firstLayer; layer < lastLayer; ++layer, to += 2 * block)
    {
        ReadEntries(own.Shape(), own.Place(layer, 0, 0), first, count, to, to + block, own.Stream()->Get());
    }
    return OnDevice(rows, cache.Width(), std::move(entries));
}

void
GpuBackend::DoRestore(KvCache& cache, std::size_t firstLayer, std::size_t lastLayer, const Tensor& entries)
{
    auto& own = Own<CudaKvCache>(cache);
    if (entries.IsPhantom())
    {
        throw std::logic_error("a phantom tensor was given to the CUDA backend");
    }
    const DeviceInput rows(entries, own.Stream());
    const std::size_t count = entries.Rows() / (2 * (lastLayer - firstLayer));
    const std::size_t block = count * cache.Width();
    const float* from = rows.Data();
    for (std::size_t layer = firstLayer; layer < lastLayer; ++layer, from += 2 * block)
    {
        const KvPlace place = own.Place(layer, cache.Length(layer), cache.Position(layer));
        WriteEntries(own.Shape(), place, count, from, from + block, own.Stream()->Get());
    }
}

Tensor
GpuBackend::Logits(Layers& layers, const CudaModel& model, const DeviceNorm& norm, const float* hidden, std::size_t w)
{
    DeviceArray<float> logits = Result(layers, w, model.Config().vocab);
    layers.Multiply(model.head.matrix, hidden, w, logits.Data(), &norm);
    return OnDevice(w, model.Config().vocab, std::move(logits));
}

Tensor
GpuBackend::DoHead(const ResidentModel& model, const Tensor& hidden)
{
    const auto& own = Own<const CudaModel>(model);
    Layers& layers = LayersOf(hidden);
    const DeviceInput x = On(layers, hidden);
    return Logits(layers, own, own.finalNorm.norm, x.Data(), hidden.Rows());
}

Tensor
GpuBackend::DoExit(const ResidentModel& model, const ResidentExits& exits, std::size_t exit, const Tensor& hidden)
{
    const auto& own = Own<const CudaExits>(exits);
    if (own.Width() == 0)
    {
        return DoHead(model, hidden);
    }
    const CudaExit& weights = own.weights[exit];
    Layers& layers = LayersOf(hidden);
    const DeviceInput x = On(layers, hidden);
    const std::size_t w = hidden.Rows();
    const Scratch inner = layers.Pool().Take(w * own.Width());
    const Scratch adapted = layers.Pool().Take(hidden.Elements());
    layers.Multiply(
        weights.down.matrix, x.Data(), w, inner.Data(), &weights.inputNorm.norm, {.finish = Finish::Silu});
    layers.Multiply(weights.up.matrix,
                    inner.Data(),
                    w,
                    adapted.Data(),
                    nullptr,
                    {.finish = Finish::Add, .addend = x.Data()});
    return Logits(layers, Own<const CudaModel>(model), weights.norm.norm, adapted.Data(), w);
}

Tensor
GpuBackend::DoSideInput(const ResidentSide& side, std::span<const Tensor> states)
{
    const auto& own = Own<const CudaSide>(side);
    Layers& layers = LayersOf(states.front());
    const cudaStream_t stream = layers.Stream()->Get();
    const std::size_t w = states.front().Rows();
    const std::size_t width = own.Width();
    const std::size_t cols = states.size() * width;
    const Scratch narrow = layers.Pool().Take(w * width);
    DeviceArray<float> input = Result(layers, w, cols);
    for (std::size_t layer = 0; layer < states.size(); ++layer)
    {
        const DeviceInput x = On(layers, states[layer]);
        layers.Multiply(own.layers[layer].down.matrix, x.Data(), w, narrow.Data(), &own.norm);
        CopyColumns(narrow.Data(), w, width, width, input.Data() + layer * width, cols, stream);
    }
    return OnDevice(w, cols, std::move(input));
}

Tensor
GpuBackend::DoSide(const ResidentSide& side, const Tensor& input)
{
    const auto& own = Own<const CudaSide>(side);
    const ModelConfig& config = own.Config();
    Layers& layers = LayersOf(input);
    const cudaStream_t stream = layers.Stream()->Get();
    const DeviceInput from = On(layers, input);
    const std::size_t w = input.Rows();
    const std::size_t width = own.Width();
    const Scratch state = layers.Pool().Take(w * width);
    const Scratch down = layers.Pool().Take(w * width);
    const Scratch inner = layers.Pool().Take(w * own.Inner());
    for (std::size_t layer = 0; layer < own.layers.size(); ++layer)
    {
        const CudaSideLayer& weights = own.layers[layer];
        float* its = layer == 0 ? state.Data() : down.Data(); // the sum begins with the first
        CopyColumns(from.Data() + layer * width, w, width, input.Cols(), its, width, stream);
        if (layer > 0)
        {
            Add(state.Data(), down.Data(), w * width, state.Data(), stream);
        }
        layers.Multiply(weights.inner.matrix, state.Data(), w, inner.Data(), &own.norm, {.finish = Finish::Silu});
        layers.Multiply(weights.outer.matrix,
                        inner.Data(),
                        w,
                        state.Data(),
                        nullptr,
                        {.finish = Finish::Add, .addend = state.Data()});
    }
    DeviceArray<float> output = Result(layers, w, config.hidden);
    layers.Multiply(own.up.matrix, state.Data(), w, output.Data(), &own.norm);
    return OnDevice(w, config.hidden, std::move(output));
}

Tensor
GpuBackend::DoGate(const ResidentSide& side, const Tensor& hidden)
{
    const auto& own = Own<const CudaSide>(side);
    Layers& layers = LayersOf(hidden);
    const DeviceInput x = On(layers, hidden);
    DeviceArray<float> logits = Result(layers, hidden.Rows(), 2);
    layers.Multiply(own.gate.matrix, x.Data(), hidden.Rows(), logits.Data(), &own.norm);
    return OnDevice(hidden.Rows(), 2, std::move(logits));
}

Tensor
GpuBackend::DoAddRows(Tensor sum, const Tensor& addend, std::span<const std::size_t> rows)
{
    Layers& layers = LayersOf(sum);
    const cudaStream_t stream = layers.Stream()->Get();
    const DeviceInput before = On(layers, sum);
    const DeviceInput added = On(layers, addend);
    const DeviceArray<std::uint32_t> there(layers.Stream(), std::vector<std::uint32_t>(rows.begin(), rows.end()));
    DeviceArray<float> after = Result(layers, sum.Rows(), sum.Cols());
    CopyColumns(before.Data(), sum.Rows(), sum.Cols(), sum.Cols(), after.Data(), sum.Cols(), stream);
    AddRows(added.Data(), there.Data(), rows.size(), sum.Cols(), after.Data(), stream);
    return OnDevice(sum.Rows(), sum.Cols(), std::move(after));
}

std::vector<TokenId>
GpuBackend::DoGreedy(const ResidentModel& model, KvCache& cache, TokenId token, std::size_t count)
{
    const auto& own = Own<const CudaModel>(model);
    KvCache* const caches[] = {&cache};
    Layers& layers = LayersOf(caches);
    const RotaryAngles angles = own.Angles(cache.Position(0) + count, m_store);
    GreedyDecoder decoder(layers, own, Own<const CudaKvCache>(cache), angles, token, count);
    const std::vector<TokenId> tokens = decoder.Decode();
    for (std::size_t layer = 0; layer < model.Config().layers; ++layer)
    {
        cache.Grow(layer, count);
    }
    return tokens;
}

std::chrono::nanoseconds
GpuBackend::Clock(const std::function<void()>& operation)
{
    if (!m_events)
    {
        operation();
        return std::chrono::nanoseconds(0);
    }
    // Nothing else is under way, and all streams start behind the first event and end before the second.
    CheckCuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    CudaStream& clock = *m_layers.front()->Stream();
    CheckCuda(cudaEventRecord(m_events->begin, clock.Get()), "cudaEventRecord");
    for (const std::unique_ptr<Layers>& layers : m_layers)
    {
        layers->Stream()->Follow(clock);
    }
    operation();
    for (const std::unique_ptr<Layers>& layers : m_layers)
    {
        clock.Follow(*layers->Stream());
    }
    CheckCuda(cudaEventRecord(m_events->end, clock.Get()), "cudaEventRecord");
    CheckCuda(cudaEventSynchronize(m_events->end), "cudaEventSynchronize");
    float milliseconds = 0.0F;
    CheckCuda(cudaEventElapsedTime(&milliseconds, m_events->begin, m_events->end), "cudaEventElapsedTime");
    return std::chrono::nanoseconds(std::llround(static_cast<double>(milliseconds) * 1e6));
}

} // namespace splitllm
