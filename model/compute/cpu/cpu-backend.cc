// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cpu/cpu-backend.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <stdexcept>
#include <utility>
#include <vector>

namespace splitllm
{

namespace
{

/// Multiply-adds, or elements of a norm, below which waking threads costs more than it saves.
constexpr std::size_t kWorthSharing = std::size_t{1} << 16;

/// Bytes of weights that stay in a core's cache while all tokens of a call pass over them.
constexpr std::size_t kCachedBytes = std::size_t{1} << 17;

/// Tokens below which the time is that of reading the weights once, for which long runs of memory are best.
constexpr std::size_t kFewTokens = 4;

/// Query rows whose scores are computed together.
constexpr std::size_t kQueryRows = 16;

template <typename T, typename Handle>
T&
Own(Handle& handle)
{
    T* own = dynamic_cast<T*>(&handle);
    if (own == nullptr)
    {
        throw std::logic_error("a handle of another backend was given to the CPU backend");
    }
    return *own;
}

void
ExpectNumbers(const Tensor& tensor)
{
    if (tensor.IsPhantom())
    {
        throw std::logic_error("a phantom tensor was given to the CPU backend");
    }
}

Kernels::MatMul
MatMulOf(const Kernels& kernels, DType dtype)
{
    switch (dtype)
    {
    case DType::F32:
        return kernels.matMulF32;
    case DType::F16:
        return kernels.matMulF16;
    case DType::BF16:
        return kernels.matMulBf16;
    default:
        throw std::logic_error("weights are neither fp32 nor fp16 nor bf16");
    }
}

/// Rows [begin, end) of \p linear by \p tokens rows of \p x, into those columns of \p y.
void
MultiplyRows(const Kernels& kernels,
             const CpuLinear& linear,
             std::size_t begin,
             std::size_t end,
             const float* x,
             std::size_t tokens,
             float* y)
{
    const std::size_t out = linear.weight.shape[0];
    const std::size_t n = linear.weight.shape[1];
    if (linear.quantised)
    {
        const QuantisedMatrix& matrix = *linear.quantised;
        const QuantisedRows rows{.codes = matrix.codes.data() + begin * n * matrix.bits / 8,
                                 .scales = matrix.scales.data() + begin * n / matrix.group * 2,
                                 .group = matrix.group};
        const auto matMul = matrix.bits == 8 ? kernels.matMulInt8 : kernels.matMulInt4;
        matMul(rows, end - begin, n, x, tokens, y + begin, out);
        return;
    }
    const std::byte* rows = linear.weight.data + begin * n * SizeOf(linear.weight.dtype);
    MatMulOf(kernels, linear.weight.dtype)(rows, end - begin, n, x, tokens, y + begin, out);
}

std::size_t
RoundUp(std::size_t value, std::size_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

/// Where share \p index of \p shares of \p rows rows begins: on a cache line of the result.
std::size_t
ShareBegin(std::size_t rows, std::size_t index, std::size_t shares)
{
    constexpr std::size_t kLine = 16;
    const std::size_t lines = (rows + kLine - 1) / kLine;
    return std::min(rows, lines * index / shares * kLine);
}

/// The memory of \p buffer, grown to at least \p size elements of any content.
float*
AtLeast(std::vector<float>& buffer, std::size_t size)
{
    if (buffer.size() < size)
    {
        buffer.resize(size);
    }
    return buffer.data();
}

void
Relu(std::span<float> values)
{
    std::ranges::transform(values, values.begin(), [](float x) { return x > 0.0F ? x : 0.0F; });
}

} // namespace

CpuBackend::CpuBackend(std::size_t threads, const Kernels& kernels)
    : Backend(DType::F32),
      m_team(threads == 0 ? Cores() : threads),
      m_kernels(kernels)
{
}

std::shared_ptr<const ResidentModel>
CpuBackend::Resident(std::shared_ptr<const Model> model, const WeightPrecision& precision)
{
    return std::make_shared<CpuModel>(std::move(model), Activations(), precision);
}

std::shared_ptr<const ResidentAdapter>
CpuBackend::Resident(std::shared_ptr<const Adapter> adapter, const ModelConfig& config)
{
    return std::make_shared<CpuAdapter>(std::move(adapter), config);
}

std::shared_ptr<const ResidentBottleneck>
CpuBackend::Resident(std::shared_ptr<const BottleneckAdapter> adapter, const ModelConfig& config)
{
    return std::make_shared<CpuBottleneckAdapter>(std::move(adapter), config);
}

std::shared_ptr<const ResidentExits>
CpuBackend::Resident(std::shared_ptr<const Exits> exits, const ModelConfig& config)
{
    return std::make_shared<CpuExits>(std::move(exits), config);
}

std::shared_ptr<const ResidentSide>
CpuBackend::Resident(std::shared_ptr<const SideNetwork> side, const ModelConfig& config)
{
    return std::make_shared<CpuSide>(std::move(side), config);
}

std::unique_ptr<KvCache>
CpuBackend::NewCache(const ResidentModel& model, std::size_t first, std::size_t last, std::size_t capacity)
{
    return std::make_unique<CpuKvCache>(model.Config(), first, last, capacity);
}

Tensor
CpuBackend::DoEmbed(const ResidentModel& model,
                    std::span<const TokenId> tokens,
                    std::span<const std::size_t> positions)
{
    constexpr std::size_t kPositionOffset = 2; // OPT's table starts with two rows that no position uses
    const Model& weights = *Own<const CpuModel>(model).model;
    Tensor hidden = Tensor::Zeros(tokens.size(), weights.config.hidden);
    std::vector<float> learned(weights.config.family == Family::Opt ? weights.config.hidden : 0);
    for (std::size_t i = 0; i < tokens.size(); ++i)
    {
        const std::span<float> row = hidden.Row(i);
        WidenRow(weights.embedding, tokens[i], row.data());
        if (!learned.empty())
        {
            WidenRow(weights.positions, positions[i] + kPositionOffset, learned.data());
            std::ranges::transform(row, learned, row.begin(), std::plus<>());
        }
    }
    return hidden;
}

Projections
CpuBackend::DoProject(const ResidentModel& model, std::size_t layer, const Tensor& hidden)
{
    ExpectNumbers(hidden);
    const ModelConfig& config = model.Config();
    const CpuLayer& weights = Own<const CpuModel>(model).layers[layer];
    Projections projections{.input = Tensor::Zeros(hidden.Rows(), config.hidden),
                            .query = Tensor::Zeros(hidden.Rows(), config.QueryWidth()),
                            .key = Tensor::Zeros(hidden.Rows(), config.KvWidth()),
                            .value = Tensor::Zeros(hidden.Rows(), config.KvWidth())};
    float* input = projections.input.Values().data();
    Normalise(config, weights.attentionNorm, hidden, input);
    Multiply(input,
             hidden.Rows(),
             {{&weights.query, projections.query.Values().data()},
              {&weights.key, projections.key.Values().data()},
              {&weights.value, projections.value.Values().data()}});
    return projections;
}

Deltas
CpuBackend::DoAdapt(const ResidentAdapter& adapter, std::size_t layer, const Tensor& input)
{
    ExpectNumbers(input);
    const ModelConfig& config = adapter.Config();
    const Adapter& weights = *Own<const CpuAdapter>(adapter).adapter;
    const LoraLayer& lora = weights.layers[layer];
    return {.query = LoraUpdate(lora.query, weights.scaling, input, config.QueryWidth()),
            .key = LoraUpdate(lora.key, weights.scaling, input, config.KvWidth()),
            .value = LoraUpdate(lora.value, weights.scaling, input, config.KvWidth())};
}

Tensor
CpuBackend::LoraUpdate(const LoraWeights& weights, float scaling, const Tensor& input, std::size_t width)
{
    Tensor update = Tensor::Zeros(input.Rows(), width);
    if (weights.a.data == nullptr)
    {
        return update;
    }
    const CpuLinear down{weights.a, {}, {}};
    const CpuLinear up{weights.b, {}, {}};
    std::vector<float> inner(input.Rows() * weights.a.shape[0]);
    Multiply(input.Values().data(), input.Rows(), {{&down, inner.data()}});
    Multiply(inner.data(), input.Rows(), {{&up, update.Values().data()}});
    for (float& value : update.Values())
    {
        value *= scaling;
    }
    return update;
}

Tensor
CpuBackend::DoFinishLayer(const ResidentModel& model,
                          std::size_t layer,
                          const Tensor& hidden,
                          const Projections& projections,
                          std::span<KvCache* const> caches)
{
    ExpectNumbers(hidden);
    Tensor next = DoAttend(model, layer, projections, caches);
    next += hidden;
    float* mlp = AtLeast(m_scratch.mlp, next.Elements());
    Mlp(model.Config(), Own<const CpuModel>(model).layers[layer], next, mlp);
    std::ranges::transform(next.Values(), std::span(mlp, next.Elements()), next.Values().begin(), std::plus<>());
    return next;
}

Tensor
CpuBackend::DoAttend(const ResidentModel& model,
                     std::size_t layer,
                     const Projections& projections,
                     std::span<KvCache* const> caches)
{
    ExpectNumbers(projections.query);
    ExpectNumbers(projections.key);
    ExpectNumbers(projections.value);
    const ModelConfig& config = model.Config();
    const std::size_t rows = projections.query.Rows();
    AttendValues(config, layer, projections, caches);
    Tensor output = Tensor::Zeros(rows, config.hidden);
    const CpuLinear& projection = Own<const CpuModel>(model).layers[layer].output;
    Multiply(m_scratch.attended.data(), rows, {{&projection, output.Values().data()}});
    return output;
}

Tensor
CpuBackend::DoFeedForward(const ResidentModel& model, std::size_t layer, const Tensor& hidden)
{
    ExpectNumbers(hidden);
    Tensor output = Tensor::Zeros(hidden.Rows(), hidden.Cols());
    Mlp(model.Config(), Own<const CpuModel>(model).layers[layer], hidden, output.Values().data());
    return output;
}

void
CpuBackend::Mlp(const ModelConfig& config, const CpuLayer& layer, const Tensor& hidden, float* result)
{
    const std::size_t rows = hidden.Rows();
    float* normed = AtLeast(m_scratch.normed, hidden.Elements());
    Normalise(config, layer.mlpNorm, hidden, normed);
    const std::size_t width = config.ffn;
    float* inner = AtLeast(m_scratch.inner, rows * width);
    if (config.family == Family::Llama)
    {
        float* up = AtLeast(m_scratch.up, rows * width);
        Multiply(normed, rows, {{&layer.gate, inner}, {&layer.up, up}});
        m_team.Run(rows, rows * width >= kWorthSharing, [&](std::size_t i, std::size_t) {
            m_kernels.siluTimes(inner + i * width, up + i * width, width);
        });
    }
    else
    {
        Multiply(normed, rows, {{&layer.up, inner}});
        Relu(std::span(inner, rows * width));
    }
    Multiply(inner, rows, {{&layer.down, result}});
}

Tensor
CpuBackend::DoBottleneck(const ResidentBottleneck& adapter,
                         std::size_t layer,
                         Sublayer sublayer,
                         const Tensor& output)
{
    ExpectNumbers(output);
    const CpuBottleneckLayer& weights = Own<const CpuBottleneckAdapter>(adapter).layers[layer];
    const CpuBottleneck& bottleneck = sublayer == Sublayer::Attention ? weights.attention : weights.mlp;
    const std::size_t rows = output.Rows();
    float* inner = AtLeast(m_scratch.inner, rows * adapter.Width());
    Multiply(output.Values().data(), rows, {{&bottleneck.down, inner}});
    Relu(std::span(inner, rows * adapter.Width()));
    Tensor added = Tensor::Zeros(rows, output.Cols());
    Multiply(inner, rows, {{&bottleneck.up, added.Values().data()}});
    return added;
}

std::unique_ptr<KvCache>
CpuBackend::DoFork(const KvCache& cache)
{
    return std::make_unique<CpuKvCache>(Own<const CpuKvCache>(cache));
}

void
CpuBackend::DoPrune(KvCache& cache, std::size_t layer, std::size_t kept)
{
    Own<CpuKvCache>(cache).Prune(layer, kept);
}

Tensor
CpuBackend::DoSnapshot(const KvCache& cache,
                       std::size_t firstLayer,
                       std::size_t lastLayer,
                       std::size_t first,
                       std::size_t count)
{
    const auto& own = Own<const CpuKvCache>(cache);
    Tensor entries = Tensor::Zeros(2 * (lastLayer - firstLayer) * count, cache.Width());
    for (std::size_t layer = firstLayer; layer < lastLayer; ++layer)
    {
        const std::size_t row = 2 * (layer - firstLayer) * count;
        for (std::size_t i = 0; i < count; ++i)
        {
            own.CopyEntry(layer, first + i, entries.Row(row + i), entries.Row(row + count + i));
        }
    }
    return entries;
}

void
CpuBackend::DoRestore(KvCache& cache, std::size_t firstLayer, std::size_t lastLayer, const Tensor& entries)
{
    ExpectNumbers(entries);
    auto& own = Own<CpuKvCache>(cache);
    const std::size_t count = entries.Rows() / (2 * (lastLayer - firstLayer));
    for (std::size_t layer = firstLayer; layer < lastLayer; ++layer)
    {
        const std::size_t row = 2 * (layer - firstLayer) * count;
        for (std::size_t i = 0; i < count; ++i)
        {
            own.AppendEntry(layer, entries.Row(row + i), entries.Row(row + count + i));
        }
    }
}

Tensor
CpuBackend::DoHead(const ResidentModel& model, const Tensor& hidden)
{
    ExpectNumbers(hidden);
    const CpuModel& weights = Own<const CpuModel>(model);
    return Logits(weights, weights.finalNorm, hidden);
}

Tensor
CpuBackend::DoExit(const ResidentModel& model, const ResidentExits& exits, std::size_t exit, const Tensor& hidden)
{
    const CpuExits& own = Own<const CpuExits>(exits);
    if (own.Width() == 0)
    {
        return DoHead(model, hidden);
    }
    ExpectNumbers(hidden);
    const CpuExit& weights = own.weights[exit];
    const std::size_t rows = hidden.Rows();
    const std::size_t width = own.Width();
    float* normed = AtLeast(m_scratch.normed, hidden.Elements());
    Normalise(model.Config(), weights.inputNorm, hidden, normed);
    float* inner = AtLeast(m_scratch.inner, rows * width);
    Multiply(normed, rows, {{&weights.down, inner}});
    Silu(inner, rows, width);
    Tensor adapted = Tensor::Zeros(rows, hidden.Cols());
    Multiply(inner, rows, {{&weights.up, adapted.Values().data()}});
    adapted += hidden;
    return Logits(Own<const CpuModel>(model), weights.norm, adapted);
}

Tensor
CpuBackend::DoSideInput(const ResidentSide& side, std::span<const Tensor> states)
{
    const CpuSide& own = Own<const CpuSide>(side);
    const std::size_t rows = states.front().Rows();
    const std::size_t width = own.Width();
    Tensor input = Tensor::Zeros(rows, states.size() * width);
    for (std::size_t layer = 0; layer < states.size(); ++layer)
    {
        ExpectNumbers(states[layer]);
        float* normed = AtLeast(m_scratch.normed, states[layer].Elements());
        Normalise(own.Config(), own.stateNorm, states[layer], normed);
        float* narrow = AtLeast(m_scratch.inner, rows * width);
        Multiply(normed, rows, {{&own.layers[layer].down, narrow}});
        for (std::size_t i = 0; i < rows; ++i)
        {
            std::copy_n(narrow + i * width, width, input.Row(i).begin() + layer * width);
        }
    }
    return input;
}

Tensor
CpuBackend::DoSide(const ResidentSide& side, const Tensor& input)
{
    ExpectNumbers(input);
    const CpuSide& own = Own<const CpuSide>(side);
    const ModelConfig& config = own.Config();
    const std::size_t rows = input.Rows();
    const std::size_t width = own.Width();
    Tensor state = Tensor::Zeros(rows, width);
    Tensor update = Tensor::Zeros(rows, width);
    float* normed = AtLeast(m_scratch.normed, state.Elements());
    float* inner = AtLeast(m_scratch.inner, rows * own.Inner());
    for (std::size_t layer = 0; layer < own.layers.size(); ++layer)
    {
        for (std::size_t i = 0; i < rows; ++i)
        {
            const auto down = input.Row(i).subspan(layer * width, width);
            std::ranges::transform(state.Row(i), down, state.Row(i).begin(), std::plus<>());
        }
        Normalise(config, own.widthNorm, state, normed);
        Multiply(normed, rows, {{&own.layers[layer].inner, inner}});
        Silu(inner, rows, own.Inner());
        Multiply(inner, rows, {{&own.layers[layer].outer, update.Values().data()}});
        state += update;
    }
    Normalise(config, own.widthNorm, state, normed);
    Tensor output = Tensor::Zeros(rows, config.hidden);
    Multiply(normed, rows, {{&own.up, output.Values().data()}});
    return output;
}

Tensor
CpuBackend::DoGate(const ResidentSide& side, const Tensor& hidden)
{
    ExpectNumbers(hidden);
    const CpuSide& own = Own<const CpuSide>(side);
    float* normed = AtLeast(m_scratch.normed, hidden.Elements());
    Normalise(own.Config(), own.stateNorm, hidden, normed);
    Tensor logits = Tensor::Zeros(hidden.Rows(), 2);
    Multiply(normed, hidden.Rows(), {{&own.gate, logits.Values().data()}});
    return logits;
}

Tensor
CpuBackend::Logits(const CpuModel& model, const CpuNorm& norm, const Tensor& hidden)
{
    float* normed = AtLeast(m_scratch.normed, hidden.Elements());
    Normalise(model.Config(), norm, hidden, normed);
    Tensor logits = Tensor::Zeros(hidden.Rows(), model.Config().vocab);
    Multiply(normed, hidden.Rows(), {{&model.head, logits.Values().data()}});
    return logits;
}

void
CpuBackend::Multiply(const float* input, std::size_t tokens, std::initializer_list<Product> products)
{
    struct Part
    {
        const Product* product;
        std::size_t begin; //!< rows of the weights
        std::size_t end;
    };

    std::size_t multiplyAdds = 0;
    std::vector<Part> parts;
    for (const Product& product : products)
    {
        const ArrayView& weight = product.linear->weight;
        const std::size_t out = weight.shape[0];
        const auto& quantised = product.linear->quantised;
        const std::size_t bytes = quantised ? quantised->Bytes() : weight.Elements() * SizeOf(weight.dtype);
        const std::size_t least = tokens < kFewTokens ? 2 * m_team.Threads() : bytes / kCachedBytes + 1;
        const std::size_t shares = RoundUp(least, m_team.Threads());
        multiplyAdds += weight.Elements() * tokens;
        for (std::size_t i = 0; i < shares; ++i)
        {
            parts.push_back({&product, ShareBegin(out, i, shares), ShareBegin(out, i + 1, shares)});
        }
    }
    m_team.Run(parts.size(), multiplyAdds >= kWorthSharing, [&](std::size_t task, std::size_t) {
        const auto [product, begin, end] = parts[task];
        const std::vector<float>& bias = product->linear->bias;
        const std::size_t out = product->linear->weight.shape[0];
        MultiplyRows(m_kernels, *product->linear, begin, end, input, tokens, product->result);
        for (std::size_t t = 0; t < tokens && !bias.empty(); ++t)
        {
            for (std::size_t r = begin; r < end; ++r)
            {
                product->result[t * out + r] += bias[r];
            }
        }
    });
}

void
CpuBackend::Normalise(const ModelConfig& config, const CpuNorm& norm, const Tensor& hidden, float* normed)
{
    const auto eps = static_cast<float>(config.normEps);
    const std::size_t n = hidden.Cols();
    m_team.Run(hidden.Rows(), hidden.Elements() >= kWorthSharing, [&](std::size_t i, std::size_t) {
        const float* x = hidden.Row(i).data();
        if (norm.shift.empty())
        {
            m_kernels.rmsNorm(x, norm.scale.data(), eps, n, normed + i * n);
        }
        else
        {
            m_kernels.layerNorm(x, norm.scale.data(), norm.shift.data(), eps, n, normed + i * n);
        }
    });
}

void
CpuBackend::Silu(float* x, std::size_t rows, std::size_t width)
{
    float* ones = AtLeast(m_scratch.up, width); // the kernel's product is with nothing here
    std::fill_n(ones, width, 1.0F);
    m_team.Run(rows, rows * width >= kWorthSharing, [&](std::size_t i, std::size_t) {
        m_kernels.siluTimes(x + i * width, ones, width);
    });
}

void
CpuBackend::AttendValues(const ModelConfig& config,
                         std::size_t layer,
                         const Projections& projections,
                         std::span<KvCache* const> caches)
{
    const std::size_t rows = projections.query.Rows();
    float* attended = AtLeast(m_scratch.attended, rows * config.QueryWidth());
    if (caches.size() == 1)
    {
        AttendOne(config, layer, projections, Own<CpuKvCache>(*caches.front()), attended);
        return;
    }
    for (std::size_t row = 0; row < rows; ++row)
    {
        const Projections its{.input = {},
                              .query = projections.query.Slice(row, 1),
                              .key = projections.key.Slice(row, 1),
                              .value = projections.value.Slice(row, 1)};
        AttendOne(config, layer, its, Own<CpuKvCache>(*caches[row]), attended + row * config.QueryWidth());
    }
}

void
CpuBackend::AttendOne(const ModelConfig& config,
                      std::size_t layer,
                      const Projections& projections,
                      CpuKvCache& cache,
                      float* attended)
{
    const std::size_t rows = projections.query.Rows();
    const std::size_t before = cache.Length(layer);
    const std::size_t entries = before + rows;
    const std::size_t position = cache.Position(layer);
    const std::size_t headDim = config.headDim;
    const std::size_t group = config.heads / config.kvHeads; // query heads that share a key/value head
    const std::size_t blocks = (rows + kQueryRows - 1) / kQueryRows;
    const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(headDim)));
    cache.Append(layer, projections.key, projections.value);

    const std::size_t blockQueries = std::min(rows, kQueryRows) * group;
    float* queries = AtLeast(m_scratch.queries, m_team.Threads() * blockQueries * headDim);
    float* scores = AtLeast(m_scratch.scores, m_team.Threads() * blockQueries * entries);
    const bool tracks = cache.TracksAttention();
    m_scratch.attention.assign(tracks ? m_team.Threads() * entries : 0, 0);
    const auto attend = [&](std::size_t task, std::size_t worker) {
        const std::size_t kvHead = task % config.kvHeads;
        const std::size_t first = task / config.kvHeads * kQueryRows;
        const std::size_t last = std::min(rows, first + kQueryRows);
        float* q = queries + worker * blockQueries * headDim;
        float* s = scores + worker * blockQueries * entries;
        for (std::size_t i = first; i < last; ++i)
        {
            for (std::size_t g = 0; g < group; ++g)
            {
                float* to = q + ((i - first) * group + g) * headDim;
                const auto query = projections.query.Row(i).subspan((kvHead * group + g) * headDim, headDim);
                cache.Place(query, position + i, to);
                std::transform(to, to + headDim, to, [scale](float x) { return x * scale; });
            }
        }
        const float* keys = cache.Keys(layer, kvHead);
        const float* values = cache.Values(layer, kvHead);
        m_kernels.matMulF32(keys, before + last, headDim, q, (last - first) * group, s, entries);
        for (std::size_t i = first; i < last; ++i)
        {
            float* rowScores = s + (i - first) * group * entries;
            const std::size_t context = before + i + 1;
            for (std::size_t g = 0; g < group; ++g)
            {
                m_kernels.softmax(rowScores + g * entries, context);
                if (tracks)
                {
                    AddAttention(rowScores + g * entries, context, m_scratch.attention.data() + worker * entries);
                }
            }
            float* to = attended + i * config.QueryWidth() + kvHead * group * headDim;
            m_kernels.weightedSum(rowScores, entries, group, values, context, headDim, to);
        }
    };
    m_team.Run(config.kvHeads * blocks, config.QueryWidth() * rows * entries >= kWorthSharing, attend);
    for (std::size_t worker = 0; tracks && worker < m_team.Threads(); ++worker)
    {
        cache.AddAttention(layer, std::span(m_scratch.attention).subspan(worker * entries, entries));
    }
}

} // namespace splitllm
