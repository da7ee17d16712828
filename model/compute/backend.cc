// SPDX-License-Identifier: GPL-2.0-only
#include "compute/backend.h"

#include "compute/footprint.h"
#include "compute/timed.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <initializer_list>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

namespace splitllm
{

namespace
{

[[noreturn]] void
Fail(const std::string& message)
{
    throw std::logic_error(message);
}

void
ExpectShape(const Tensor& tensor, std::size_t rows, std::size_t cols, const char* name)
{
    if (tensor.Rows() != rows || tensor.Cols() != cols)
    {
        Fail(std::string(name) + " is " + std::to_string(tensor.Rows()) + " x " + std::to_string(tensor.Cols()) +
             " instead of " + std::to_string(rows) + " x " + std::to_string(cols));
    }
}

void
ExpectHidden(const ModelConfig& config, const Tensor& hidden)
{
    if (hidden.Rows() == 0)
    {
        Fail("hidden state without rows");
    }
    ExpectShape(hidden, hidden.Rows(), config.hidden, "hidden state");
}

void
ExpectLayer(const ModelConfig& config, std::size_t layer)
{
    if (layer >= config.layers)
    {
        Fail("layer " + std::to_string(layer) + " of a model that has " + std::to_string(config.layers));
    }
}

void
ExpectPositions(const ModelConfig& config, std::size_t first, std::size_t rows)
{
    if (first > config.maxPositions || rows > config.maxPositions - first)
    {
        Fail(std::to_string(rows) + " rows from position " + std::to_string(first) + " of a model that has " +
             std::to_string(config.maxPositions) + " positions");
    }
}

void
ExpectRoom(std::size_t length, std::size_t rows, std::size_t capacity)
{
    if (rows > capacity - length)
    {
        Fail(std::to_string(rows) + " rows after " + std::to_string(length) + " in a KV cache of " +
             std::to_string(capacity) + " entries");
    }
}

void
ExpectProjections(const ModelConfig& config, const Projections& projections, std::size_t rows)
{
    if (rows == 0)
    {
        Fail("projections without rows");
    }
    ExpectShape(projections.query, rows, config.QueryWidth(), "query");
    ExpectShape(projections.key, rows, config.KvWidth(), "key");
    ExpectShape(projections.value, rows, config.KvWidth(), "value");
}

/// Whether \p caches have room for \p rows rows: one cache for all of them, or one for each.
void
ExpectRoom(const ModelConfig& config, std::span<KvCache* const> caches, std::size_t layer, std::size_t rows)
{
    if (caches.size() != 1 && caches.size() != rows)
    {
        Fail(std::to_string(caches.size()) + " KV caches for " + std::to_string(rows) + " rows");
    }
    for (const KvCache* cache : caches)
    {
        ExpectPositions(config, cache->Position(layer), rows / caches.size());
        ExpectRoom(cache->Length(layer), rows / caches.size(), cache->Capacity());
    }
}

/// Records that \p rows rows were appended to \p caches.
void
Grow(std::span<KvCache* const> caches, std::size_t layer, std::size_t rows)
{
    for (KvCache* cache : caches)
    {
        cache->Grow(layer, rows / caches.size());
    }
}

DType
WeightType(const Adapter& adapter)
{
    if (adapter.layers.empty())
    {
        return DType::F32;
    }
    const LoraLayer& layer = adapter.layers.front();
    for (const LoraWeights& projection : {layer.query, layer.key, layer.value})
    {
        if (projection.a.data != nullptr)
        {
            return projection.a.dtype;
        }
    }
    return layer.query.a.dtype;
}

/// FLOPs of one normed row, and the norm's parameters.
std::uint64_t
NormFlops(const ModelConfig& config)
{
    return (config.family == Family::Opt ? 7 : 4) * config.hidden;
}

std::uint64_t
NormParameters(const ModelConfig& config)
{
    return (config.family == Family::Opt ? 2 : 1) * config.hidden;
}

/// Width of Q, K and V together.
std::uint64_t
ProjectedWidth(const ModelConfig& config)
{
    return config.QueryWidth() + 2 * config.KvWidth();
}

Work
EmbedWork(const ModelConfig& config, std::uint64_t rows, std::uint64_t activation)
{
    const bool positions = config.family == Family::Opt;
    const std::uint64_t elements = rows * config.hidden;
    Work work;
    work.flops = positions ? elements : 0;
    work.bytesRead = rows * sizeof(TokenId) + (positions ? 2 : 1) * elements * SizeOf(config.dtype);
    work.bytesWritten = elements * activation;
    work.launches = positions ? 2 : 1;
    return work;
}

/// Bytes of \p layer's matrices of so many parameters, and of \p vectors parameters of norms and biases.
std::uint64_t
WeightsRead(const ResidentModel& model, std::size_t layer, std::uint64_t matrices, std::uint64_t vectors)
{
    return MatrixBytes(model.Config(), model.Precision(), layer, matrices).Total() +
           vectors * SizeOf(model.Config().dtype);
}

Work
ProjectWork(const ResidentModel& model, std::size_t layer, std::uint64_t rows, std::uint64_t activation)
{
    const ModelConfig& config = model.Config();
    const std::uint64_t out = ProjectedWidth(config);
    const std::uint64_t bias = config.biases ? out : 0;
    Work work;
    work.flops = rows * (NormFlops(config) + 2 * config.hidden * out + bias);
    work.weightBytes = WeightsRead(model, layer, config.hidden * out, NormParameters(config) + bias);
    work.bytesRead = work.weightBytes + rows * config.hidden * activation;
    work.bytesWritten = rows * (config.hidden + out) * activation;
    work.launches = 4;
    return work;
}

Work
AdaptWork(const ResidentAdapter& adapter, std::uint64_t rows, std::uint64_t activation)
{
    const ModelConfig& config = adapter.Config();
    const std::uint64_t out = ProjectedWidth(config);
    const std::uint64_t weights = adapter.Rank() * (3 * config.hidden + out);
    Work work;
    work.flops = rows * (2 * weights + out);
    work.bytesRead = weights * SizeOf(adapter.Weights()) + rows * config.hidden * activation;
    work.bytesWritten = rows * out * activation;
    work.launches = 6;
    return work;
}

/// What the rows of a call attend to.
struct Contexts
{
    std::uint64_t before; //!< entries of all caches before the call
    std::uint64_t sum;    //!< of the rows' contexts
};

Contexts
ContextsOf(std::span<KvCache* const> caches, std::size_t layer, std::uint64_t rows)
{
    const std::uint64_t first = caches.front()->Length(layer);
    if (caches.size() == 1)
    {
        return {.before = first, .sum = rows * first + rows * (rows + 1) / 2};
    }
    std::uint64_t before = 0;
    for (const KvCache* cache : caches)
    {
        before += cache->Length(layer);
    }
    return {.before = before, .sum = before + rows};
}

/// What adding up the attention costs besides.
Work
TrackingWork(const ModelConfig& config, std::uint64_t rows, const Contexts& contexts)
{
    Work work;
    work.flops = config.heads * contexts.sum;
    work.bytesRead = contexts.before * sizeof(std::uint64_t);
    work.bytesWritten = (contexts.before + rows) * sizeof(std::uint64_t);
    work.launches = 1;
    return work;
}

Work
AttendWork(const ResidentModel& model,
           std::size_t layer,
           std::uint64_t rows,
           std::span<KvCache* const> caches,
           std::uint64_t activation)
{
    const ModelConfig& config = model.Config();
    const bool opt = config.family == Family::Opt;
    const std::uint64_t hidden = config.hidden;
    const std::uint64_t query = config.QueryWidth();
    const std::uint64_t kv = config.KvWidth();
    const std::uint64_t bias = config.biases ? hidden : 0;
    const Contexts contexts = ContextsOf(caches, layer, rows);
    const std::uint64_t context = contexts.sum;

    const std::uint64_t rotation = opt ? 0 : 3 * rows * (query + kv);
    const std::uint64_t scores = rows * query + 2 * query * context;
    const std::uint64_t softmax = 4 * config.heads * context;
    const std::uint64_t values = 2 * query * context;
    const std::uint64_t output = rows * (2 * query * hidden + bias);

    Work work;
    work.flops = rotation + scores + softmax + values + output;
    work.weightBytes = WeightsRead(model, layer, query * hidden, bias);
    work.bytesRead = work.weightBytes + (rows * ProjectedWidth(config) + 2 * kv * contexts.before) * activation;
    work.bytesWritten = rows * (hidden + 2 * kv) * activation;
    work.launches = opt ? 5 : 6;
    work.caches = caches.size();
    if (caches.front()->TracksAttention())
    {
        work += TrackingWork(config, rows, contexts);
    }
    return work;
}

Work
FeedForwardWork(const ResidentModel& model, std::size_t layer, std::uint64_t rows, std::uint64_t activation)
{
    const ModelConfig& config = model.Config();
    const bool opt = config.family == Family::Opt;
    const std::uint64_t hidden = config.hidden;
    const std::uint64_t ffn = config.ffn;
    const std::uint64_t matrices = (opt ? 2 : 3) * hidden * ffn;
    const std::uint64_t biases = config.biases ? ffn + hidden : 0;

    Work work;
    work.flops = rows * (NormFlops(config) + 2 * matrices + biases + (opt ? 1 : 5) * ffn);
    work.weightBytes = WeightsRead(model, layer, matrices, NormParameters(config) + biases);
    work.bytesRead = work.weightBytes + rows * hidden * activation;
    work.bytesWritten = rows * hidden * activation;
    work.launches = opt ? 4 : 5;
    return work;
}

Work
CombineWork(std::uint64_t elements, std::uint64_t activation)
{
    return {.flops = elements,
            .bytesRead = 2 * elements * activation,
            .bytesWritten = elements * activation,
            .launches = 1};
}

/// Its two halves and two residuals; what those hand to one another stays on the chip.
Work
FinishLayerWork(const ResidentModel& model,
                std::size_t layer,
                std::uint64_t rows,
                std::span<KvCache* const> caches,
                std::uint64_t activation)
{
    const std::uint64_t hidden = rows * model.Config().hidden;
    Work work = AttendWork(model, layer, rows, caches, activation);
    work += FeedForwardWork(model, layer, rows, activation);
    work += CombineWork(hidden, activation);
    work += CombineWork(hidden, activation);
    work.bytesRead -= 4 * hidden * activation;    // one hidden state comes in
    work.bytesWritten -= 3 * hidden * activation; // and one goes out
    return work;
}

Work
BottleneckWork(const ResidentBottleneck& adapter, std::uint64_t rows, std::uint64_t activation)
{
    const std::uint64_t hidden = adapter.Config().hidden;
    const std::uint64_t width = adapter.Width();
    Work work;
    work.flops = rows * (4 * hidden * width + 2 * width + hidden);
    work.bytesRead =
        (2 * hidden * width + width + hidden) * SizeOf(adapter.Weights()) + rows * hidden * activation;
    work.bytesWritten = rows * hidden * activation;
    work.launches = 3;
    return work;
}

Work
PruneWork(const KvCache& cache, std::uint64_t before, std::uint64_t kept, std::uint64_t activation)
{
    if (kept == before)
    {
        return {};
    }
    const std::uint64_t moved = std::min(kept, before - kept);
    const std::uint64_t entry = 2 * cache.Width() * activation;
    Work work;
    work.flops = before;
    work.bytesRead = before * sizeof(std::uint64_t) + moved * entry;
    work.bytesWritten = moved * (sizeof(std::uint64_t) + entry);
    work.launches = 2;
    return work;
}

/// What copying keys or values of \p layers layers, \p rows in all, costs.
Work
CopyWork(const KvCache& cache, std::uint64_t layers, std::uint64_t rows, std::uint64_t activation)
{
    const std::uint64_t bytes = rows * cache.Width() * activation;
    Work work;
    work.bytesRead = bytes;
    work.bytesWritten = bytes;
    work.launches = 2 * layers;
    return work;
}

void
ExpectLayers(const KvCache& cache, std::size_t first, std::size_t last)
{
    if (first >= last || first < cache.First() || last > cache.Last())
    {
        Fail("KV cache of layers [" + std::to_string(cache.First()) + ", " + std::to_string(cache.Last()) +
             ") does not hold [" + std::to_string(first) + ", " + std::to_string(last) + ")");
    }
}

Work
HeadWork(const ModelConfig& config, std::uint64_t rows, std::uint64_t activation)
{
    const std::uint64_t matrix = std::uint64_t{config.hidden} * config.vocab;
    Work work;
    work.flops = rows * (NormFlops(config) + 2 * matrix);
    work.weightBytes = (NormParameters(config) + matrix) * SizeOf(config.dtype);
    work.bytesRead = work.weightBytes + rows * config.hidden * activation;
    work.bytesWritten = rows * config.vocab * activation;
    work.launches = 2;
    return work;
}

/// Bytes of those of \p views that have data.
std::uint64_t
StoredBytes(std::initializer_list<ArrayView> views)
{
    std::uint64_t bytes = 0;
    for (const ArrayView& view : views)
    {
        bytes += view.data == nullptr ? 0 : view.Elements() * SizeOf(view.dtype);
    }
    return bytes;
}

/// Bytes of the weights of exit \p exit as they are stored; in the model's type where only their shape is known.
std::uint64_t
ExitBytes(const Exits& exits, std::size_t exit, const ModelConfig& config)
{
    if (exits.weights.empty())
    {
        return ExitParameters(config, exits.width) * SizeOf(config.dtype);
    }
    const ExitWeights& weights = exits.weights[exit];
    return StoredBytes({weights.inputNorm.scale,
                        weights.inputNorm.shift,
                        weights.down,
                        weights.up,
                        weights.norm.scale,
                        weights.norm.shift});
}

Work
ExitWork(const ModelConfig& config,
         const ResidentExits& exits,
         std::size_t exit,
         std::uint64_t rows,
         std::uint64_t activation)
{
    const std::uint64_t hidden = config.hidden;
    const std::uint64_t width = exits.Width();
    const bool trained = width > 0;
    const std::uint64_t adaptation = trained ? NormFlops(config) + (4 * hidden + 4) * width + hidden : 0;
    const std::uint64_t norm = trained ? 0 : NormParameters(config); // the model's own
    Work work;
    work.flops = rows * (adaptation + NormFlops(config) + (2 * hidden + 4) * config.vocab);
    work.weightBytes = exits.Bytes(exit) + (norm + hidden * config.vocab) * SizeOf(config.dtype);
    work.bytesRead = work.weightBytes + rows * hidden * activation;
    work.bytesWritten = rows * (config.vocab * activation + sizeof(float));
    work.launches = trained ? 8 : 3;
    return work;
}

Work
SideInputWork(const ResidentSide& side, std::uint64_t rows, std::uint64_t activation)
{
    const std::uint64_t states = rows * side.Config().layers;
    Work work;
    work.flops = states * side.Config().hidden * (3 + 2 * side.Width());
    work.bytesRead = side.DownBytes() + states * side.Config().hidden * activation;
    work.bytesWritten = states * side.Width() * activation;
    work.launches = 2;
    return work;
}

Work
SideWork(const ResidentSide& side, std::uint64_t rows, std::uint64_t activation)
{
    const std::uint64_t layers = side.Config().layers;
    const std::uint64_t hidden = side.Config().hidden;
    const std::uint64_t width = side.Width();
    const std::uint64_t inner = side.Inner();
    Work work;
    work.flops = rows * (layers * (5 * width + 4 * width * inner + 4 * inner) + (3 + 2 * hidden) * width);
    work.bytesRead = side.BlockBytes() + rows * layers * width * activation;
    work.bytesWritten = rows * hidden * activation;
    work.launches = 6 * layers + 2;
    return work;
}

Work
GateWork(const ResidentSide& side, std::uint64_t rows, std::uint64_t activation)
{
    const std::uint64_t hidden = side.Config().hidden;
    Work work;
    work.flops = rows * (7 * hidden + 2 + 4);
    work.bytesRead = side.GateBytes() + rows * hidden * activation;
    work.bytesWritten = rows * (2 * activation + sizeof(float));
    work.launches = 3;
    return work;
}

/// Adds row i of \p update to row rows[i] of \p tensor.
void
AddRows(Tensor& tensor, const Tensor& update, std::span<const std::size_t> rows)
{
    for (std::size_t i = 0; i < rows.size() && !tensor.IsPhantom() && !update.IsPhantom(); i++)
    {
        const std::span<float> to = tensor.Row(rows[i]);
        std::ranges::transform(to, update.Row(i), to.begin(), std::plus<>());
    }
}

} // namespace

std::string_view
NameOf(Operation operation)
{
    switch (operation)
    {
    case Operation::Embed:
        return "embed";
    case Operation::Project:
        return "project";
    case Operation::Adapt:
        return "adapt";
    case Operation::Merge:
        return "merge";
    case Operation::FinishLayer:
        return "finish-layer";
    case Operation::Prune:
        return "prune";
    case Operation::Snapshot:
        return "snapshot";
    case Operation::Restore:
        return "restore";
    case Operation::Head:
        return "head";
    case Operation::Sample:
        return "sample";
    case Operation::Exit:
        return "exit";
    case Operation::Attend:
        return "attend";
    case Operation::FeedForward:
        return "feed-forward";
    case Operation::Bottleneck:
        return "bottleneck";
    case Operation::SideInput:
        return "side-input";
    case Operation::Side:
        return "side";
    case Operation::Combine:
        return "combine";
    case Operation::Gate:
        return "gate";
    case Operation::Search:
        return "search";
    case Operation::Fork:
        return "fork";
    case Operation::Calibrate:
        return "calibrate";
    case Operation::Encode:
        return "encode";
    case Operation::Decode:
        return "decode";
    }
    Fail("no such operation");
}

ResidentModel::ResidentModel(ModelConfig config, DType activations, WeightPrecision precision)
    : m_config(std::move(config)),
      m_activations(activations),
      m_precision(std::move(precision))
{
    if (m_precision.Layers() != m_config.layers)
    {
        Fail("precision of " + std::to_string(m_precision.Layers()) + " layers for a model of " +
             std::to_string(m_config.layers));
    }
}

ResidentAdapter::ResidentAdapter(const Adapter& adapter, ModelConfig config)
    : m_config(std::move(config)),
      m_rank(adapter.rank),
      m_dtype(WeightType(adapter))
{
}

std::uint64_t
ResidentAdapter::Bytes() const
{
    return LoraParameters(m_config, m_rank) * SizeOf(m_dtype);
}

ResidentBottleneck::ResidentBottleneck(const BottleneckAdapter& adapter, ModelConfig config)
    : m_config(std::move(config)),
      m_width(adapter.width),
      m_dtype(adapter.layers.empty() ? DType::F32 : adapter.layers.front().attention.down.weight.dtype)
{
}

std::uint64_t
ResidentBottleneck::Bytes() const
{
    return BottleneckParameters(m_config, m_width) * SizeOf(m_dtype);
}

ResidentExits::ResidentExits(const Exits& exits, ModelConfig config)
    : m_config(std::move(config)),
      m_layers(exits.layers),
      m_width(exits.width),
      m_dtype(exits.weights.empty() ? m_config.dtype : exits.weights.front().down.dtype)
{
    if (m_layers.empty() || m_layers.front() == 0 || m_layers.back() >= m_config.layers ||
        !std::ranges::is_sorted(m_layers, std::ranges::less_equal()))
    {
        Fail("exits after layers " + Joined(m_layers) + " of a model of " + std::to_string(m_config.layers));
    }
    if (!exits.weights.empty() && (exits.weights.size() != m_layers.size() || m_width == 0))
    {
        Fail("weights of " + std::to_string(exits.weights.size()) + " exits of width " + std::to_string(m_width) +
             " for " + std::to_string(m_layers.size()) + " layers");
    }
    for (std::size_t exit = 0; exit < m_layers.size(); exit++)
    {
        m_bytes.push_back(ExitBytes(exits, exit, m_config));
    }
}

std::uint64_t
ResidentExits::Bytes(std::size_t exit) const
{
    return m_bytes.at(exit);
}

std::uint64_t
ResidentExits::Bytes() const
{
    return std::accumulate(m_bytes.begin(), m_bytes.end(), std::uint64_t{0});
}

ResidentSide::ResidentSide(const SideNetwork& side, ModelConfig config)
    : m_config(std::move(config)),
      m_width(side.width),
      m_inner(side.inner),
      m_alone(side.alone),
      m_dtype(side.layers.empty() ? m_config.dtype : side.layers.front().down.dtype),
      m_downBytes(DownParameters(m_config, m_width) * SizeOf(m_dtype)),
      m_blockBytes(BlockParameters(m_config, m_width, m_inner) * SizeOf(m_dtype)),
      m_gateBytes(GateParameters(m_config) * SizeOf(m_dtype))
{
    if (m_width == 0 || m_inner == 0)
    {
        Fail("side network " + std::to_string(m_width) + " wide with blocks of " + std::to_string(m_inner));
    }
    if (side.layers.empty()) // a shape
    {
        return;
    }
    if (side.layers.size() != m_config.layers)
    {
        Fail("side network of " + std::to_string(side.layers.size()) + " layers for a model of " +
             std::to_string(m_config.layers));
    }
    m_downBytes = 0;
    m_blockBytes = StoredBytes({side.up});
    m_gateBytes = StoredBytes({side.gate.weight, side.gate.bias});
    for (const SideLayerWeights& layer : side.layers)
    {
        m_downBytes += StoredBytes({layer.down});
        m_blockBytes += StoredBytes({layer.inner, layer.outer});
    }
}

KvCache::KvCache(const ModelConfig& config, std::size_t first, std::size_t last, std::size_t capacity)
    : m_first(first),
      m_last(last),
      m_capacity(capacity),
      m_width(config.KvWidth())
{
    if (first >= last || last > config.layers || capacity == 0)
    {
        Fail("KV cache of layers [" + std::to_string(first) + ", " + std::to_string(last) + ") and " +
             std::to_string(capacity) + " entries for a model of " + std::to_string(config.layers) + " layers");
    }
    m_lengths.resize(last - first);
    m_positions.resize(last - first);
}

std::size_t
KvCache::IndexOf(std::size_t layer) const
{
    if (layer < m_first || layer >= m_last)
    {
        Fail("KV cache does not hold layer " + std::to_string(layer));
    }
    return layer - m_first;
}

std::size_t
KvCache::Length(std::size_t layer) const
{
    return m_lengths[IndexOf(layer)];
}

std::size_t
KvCache::Position(std::size_t layer) const
{
    return m_positions[IndexOf(layer)];
}

void
KvCache::Grow(std::size_t layer, std::size_t rows)
{
    ExpectRoom(Length(layer), rows, m_capacity);
    m_lengths[IndexOf(layer)] += rows;
    m_positions[IndexOf(layer)] += rows;
}

void
KvCache::Shrink(std::size_t layer, std::size_t length)
{
    if (length > Length(layer))
    {
        Fail("KV cache cannot shrink from " + std::to_string(Length(layer)) + " to " + std::to_string(length) +
             " entries");
    }
    m_lengths[IndexOf(layer)] = length;
}

void
KvCache::TrackAttention()
{
    if (std::ranges::any_of(m_positions, [](std::size_t position) { return position > 0; }))
    {
        Fail("attention is tracked from the first position on, or not at all");
    }
    m_tracksAttention = true;
}

std::size_t
KeptEntries(double keep, std::size_t positions)
{
    const double kept = std::ceil(keep * static_cast<double>(positions) - 1e-9);
    return std::max(std::size_t{1}, static_cast<std::size_t>(kept));
}

Backend::Backend(DType activations)
    : m_activations(activations)
{
}

std::chrono::nanoseconds
Backend::Clock(const std::function<void()>& operation)
{
    return HostTime(operation);
}

template <typename F>
auto
Backend::Timed(Operation operation, std::size_t rows, const Work& work, F&& compute)
{
    std::optional<decltype(compute())> value;
    const std::chrono::nanoseconds elapsed = Clock([&] { value.emplace(compute()); });
    return Computed<decltype(compute())>{std::move(*value), operation, rows, work, elapsed};
}

std::shared_ptr<const ResidentModel>
Backend::Resident(std::shared_ptr<const Model> model)
{
    const WeightPrecision stored(model->config);
    return Resident(std::move(model), stored);
}

Computed<Tensor>
Backend::Embed(const ResidentModel& model, std::span<const TokenId> tokens, std::size_t position)
{
    ExpectPositions(model.Config(), position, tokens.size());
    std::vector<std::size_t> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), position);
    return Embed(model, tokens, positions);
}

Computed<Tensor>
Backend::Embed(const ResidentModel& model, std::span<const TokenId> tokens, std::span<const std::size_t> positions)
{
    const ModelConfig& config = model.Config();
    if (tokens.empty() || tokens.size() != positions.size())
    {
        Fail(std::to_string(tokens.size()) + " tokens to embed at " + std::to_string(positions.size()) + " positions");
    }
    for (const std::size_t position : positions)
    {
        ExpectPositions(config, position, 1);
    }
    for (const TokenId token : tokens)
    {
        if (token >= config.vocab)
        {
            Fail("token " + std::to_string(token) + " of a vocabulary of " + std::to_string(config.vocab));
        }
    }
    const Work work = EmbedWork(config, tokens.size(), SizeOf(m_activations));
    return Timed(Operation::Embed, tokens.size(), work, [&] { return DoEmbed(model, tokens, positions); });
}

Computed<Projections>
Backend::Project(const ResidentModel& model, std::size_t layer, const Tensor& hidden)
{
    const ModelConfig& config = model.Config();
    ExpectLayer(config, layer);
    ExpectHidden(config, hidden);
    const Work work = ProjectWork(model, layer, hidden.Rows(), SizeOf(m_activations));
    return Timed(Operation::Project, hidden.Rows(), work, [&] { return DoProject(model, layer, hidden); });
}

Computed<Deltas>
Backend::Adapt(const ResidentAdapter& adapter, std::size_t layer, const Tensor& input)
{
    ExpectLayer(adapter.Config(), layer);
    ExpectHidden(adapter.Config(), input);
    const Work work = AdaptWork(adapter, input.Rows(), SizeOf(m_activations));
    return Timed(Operation::Adapt, input.Rows(), work, [&] { return DoAdapt(adapter, layer, input); });
}

Computed<Projections>
Backend::Merge(Projections projections, const Deltas& deltas)
{
    std::vector<std::size_t> rows(projections.query.Rows());
    std::iota(rows.begin(), rows.end(), std::size_t{0});
    return Merge(std::move(projections), deltas, rows);
}

Computed<Projections>
Backend::Merge(Projections projections, const Deltas& deltas, std::span<const std::size_t> rows)
{
    ExpectShape(deltas.query, rows.size(), projections.query.Cols(), "query update");
    ExpectShape(deltas.key, rows.size(), projections.key.Cols(), "key update");
    ExpectShape(deltas.value, rows.size(), projections.value.Cols(), "value update");
    for (const std::size_t row : rows)
    {
        if (row >= projections.query.Rows())
        {
            Fail("update of row " + std::to_string(row) + " of " + std::to_string(projections.query.Rows()));
        }
    }
    const std::uint64_t elements = deltas.query.Elements() + deltas.key.Elements() + deltas.value.Elements();
    const std::uint64_t bytes = elements * SizeOf(m_activations);
    const Work work{.flops = elements, .bytesRead = 2 * bytes, .bytesWritten = bytes, .launches = 3};
    return Timed(Operation::Merge, rows.size(), work, [&] {
        projections.query = DoAddRows(std::move(projections.query), deltas.query, rows);
        projections.key = DoAddRows(std::move(projections.key), deltas.key, rows);
        projections.value = DoAddRows(std::move(projections.value), deltas.value, rows);
        return std::move(projections);
    });
}

Computed<Tensor>
Backend::FinishLayer(const ResidentModel& model,
                     std::size_t layer,
                     const Tensor& hidden,
                     const Projections& projections,
                     KvCache& cache)
{
    KvCache* const caches[] = {&cache};
    return FinishLayer(model, layer, hidden, projections, caches);
}

Computed<Tensor>
Backend::FinishLayer(const ResidentModel& model,
                     std::size_t layer,
                     const Tensor& hidden,
                     const Projections& projections,
                     std::span<KvCache* const> caches)
{
    const ModelConfig& config = model.Config();
    const std::size_t rows = hidden.Rows();
    ExpectLayer(config, layer);
    ExpectHidden(config, hidden);
    ExpectProjections(config, projections, rows);
    ExpectRoom(config, caches, layer, rows);
    const Work work = FinishLayerWork(model, layer, rows, caches, SizeOf(m_activations));
    return Timed(Operation::FinishLayer, rows, work, [&] {
        Tensor next = DoFinishLayer(model, layer, hidden, projections, caches);
        Grow(caches, layer, rows);
        return next;
    });
}

Computed<Tensor>
Backend::Attend(const ResidentModel& model,
                std::size_t layer,
                const Projections& projections,
                std::span<KvCache* const> caches)
{
    const std::size_t rows = projections.query.Rows();
    ExpectLayer(model.Config(), layer);
    ExpectProjections(model.Config(), projections, rows);
    ExpectRoom(model.Config(), caches, layer, rows);
    const Work work = AttendWork(model, layer, rows, caches, SizeOf(m_activations));
    return Timed(Operation::Attend, rows, work, [&] {
        Tensor output = DoAttend(model, layer, projections, caches);
        Grow(caches, layer, rows);
        return output;
    });
}

Computed<Tensor>
Backend::FeedForward(const ResidentModel& model, std::size_t layer, const Tensor& hidden)
{
    ExpectLayer(model.Config(), layer);
    ExpectHidden(model.Config(), hidden);
    const Work work = FeedForwardWork(model, layer, hidden.Rows(), SizeOf(m_activations));
    return Timed(Operation::FeedForward, hidden.Rows(), work, [&] { return DoFeedForward(model, layer, hidden); });
}

Computed<Tensor>
Backend::Bottleneck(const ResidentBottleneck& adapter, std::size_t layer, Sublayer sublayer, const Tensor& output)
{
    ExpectLayer(adapter.Config(), layer);
    ExpectHidden(adapter.Config(), output);
    const Work work = BottleneckWork(adapter, output.Rows(), SizeOf(m_activations));
    return Timed(Operation::Bottleneck, output.Rows(), work, [&] {
        return DoBottleneck(adapter, layer, sublayer, output);
    });
}

Computed<std::size_t>
Backend::Prune(KvCache& cache, std::size_t layer, double keep)
{
    const std::size_t before = cache.Length(layer);
    if (!cache.TracksAttention())
    {
        Fail("a KV cache that does not track attention cannot be pruned");
    }
    if (!(keep > 0.0 && keep <= 1.0))
    {
        Fail("pruning keeps " + std::to_string(keep) + " of the positions instead of a share in (0, 1]");
    }
    const std::size_t kept = std::min(before, KeptEntries(keep, cache.Position(layer)));
    const Work work = PruneWork(cache, before, kept, SizeOf(m_activations));
    return Timed(Operation::Prune, before, work, [&] {
        if (kept < before)
        {
            DoPrune(cache, layer, kept);
            cache.Shrink(layer, kept);
        }
        return before - kept;
    });
}

Computed<Tensor>
Backend::Snapshot(const KvCache& cache,
                  std::size_t firstLayer,
                  std::size_t lastLayer,
                  std::size_t first,
                  std::size_t count)
{
    ExpectLayers(cache, firstLayer, lastLayer);
    for (std::size_t layer = firstLayer; layer < lastLayer; layer++)
    {
        if (first > cache.Length(layer) || count > cache.Length(layer) - first || count == 0)
        {
            Fail(std::to_string(count) + " entries from " + std::to_string(first) + " of " +
                 std::to_string(cache.Length(layer)));
        }
    }
    const std::size_t rows = 2 * (lastLayer - firstLayer) * count;
    const Work work = CopyWork(cache, lastLayer - firstLayer, rows, SizeOf(m_activations));
    return Timed(Operation::Snapshot, rows, work, [&] {
        return DoSnapshot(cache, firstLayer, lastLayer, first, count);
    });
}

Computed<std::size_t>
Backend::Restore(KvCache& cache, std::size_t firstLayer, std::size_t lastLayer, const Tensor& entries)
{
    ExpectLayers(cache, firstLayer, lastLayer);
    const std::size_t layers = lastLayer - firstLayer;
    const std::size_t count = entries.Rows() / (2 * layers);
    if (count == 0 || entries.Rows() != 2 * layers * count || cache.TracksAttention())
    {
        Fail(std::to_string(entries.Rows()) + " rows of keys and values for " + std::to_string(layers) + " layers");
    }
    ExpectShape(entries, entries.Rows(), cache.Width(), "keys and values");
    for (std::size_t layer = firstLayer; layer < lastLayer; layer++)
    {
        ExpectRoom(cache.Length(layer), count, cache.Capacity());
    }
    const Work work = CopyWork(cache, layers, entries.Rows(), SizeOf(m_activations));
    return Timed(Operation::Restore, entries.Rows(), work, [&] {
        DoRestore(cache, firstLayer, lastLayer, entries);
        for (std::size_t layer = firstLayer; layer < lastLayer; layer++)
        {
            cache.Grow(layer, count);
        }
        return count;
    });
}

Computed<std::unique_ptr<KvCache>>
Backend::Fork(const KvCache& cache)
{
    std::uint64_t entries = 0;
    for (std::size_t layer = cache.First(); layer < cache.Last(); layer++)
    {
        entries += cache.Length(layer);
    }
    Work work = CopyWork(cache, cache.Last() - cache.First(), 2 * entries, SizeOf(m_activations));
    if (cache.TracksAttention())
    {
        work.bytesRead += entries * sizeof(std::uint64_t);
        work.bytesWritten += entries * sizeof(std::uint64_t);
    }
    return Timed(Operation::Fork, 2 * entries, work, [&] { return DoFork(cache); });
}

std::vector<TokenId>
Backend::Greedy(const ResidentModel& model, KvCache& cache, TokenId token, std::size_t count)
{
    const std::size_t layers = model.Config().layers;
    if (cache.First() != 0 || cache.Last() != layers || token >= model.Config().vocab)
    {
        Fail("greedy decoding with a cache of some layers only, or from a token that the model does not know");
    }
    KvCache* const caches[] = {&cache};
    for (std::size_t layer = 0; layer < layers; ++layer)
    {
        ExpectRoom(model.Config(), caches, layer, count);
        if (cache.Position(layer) != cache.Position(0))
        {
            Fail("greedy decoding with layers at different positions");
        }
    }
    return count == 0 ? std::vector<TokenId>() : DoGreedy(model, cache, token, count);
}

Tensor
Backend::DoAddRows(Tensor sum, const Tensor& addend, std::span<const std::size_t> rows)
{
    AddRows(sum, addend, rows);
    return sum;
}

std::vector<TokenId>
Backend::DoGreedy(const ResidentModel& model, KvCache& cache, TokenId token, std::size_t count)
{
    KvCache* const caches[] = {&cache};
    std::vector<TokenId> tokens;
    for (std::size_t step = 0; step < count; ++step)
    {
        const std::size_t position = cache.Position(0);
        Tensor hidden = DoEmbed(model, {&token, 1}, {&position, 1});
        for (std::size_t layer = 0; layer < model.Config().layers; ++layer)
        {
            hidden = DoFinishLayer(model, layer, hidden, DoProject(model, layer, hidden), caches);
            cache.Grow(layer, 1);
        }
        const Tensor logits = DoHead(model, hidden);
        token = logits.IsPhantom() ? 0 : splitllm::Greedy(logits.Values());
        tokens.push_back(token);
    }
    return tokens;
}

Computed<Tensor>
Backend::Head(const ResidentModel& model, const Tensor& hidden)
{
    ExpectHidden(model.Config(), hidden);
    const Work work = HeadWork(model.Config(), hidden.Rows(), SizeOf(m_activations));
    return Timed(Operation::Head, hidden.Rows(), work, [&] { return DoHead(model, hidden); });
}

Computed<Tensor>
Backend::Exit(const ResidentModel& model, const ResidentExits& exits, std::size_t exit, const Tensor& hidden)
{
    ExpectHidden(model.Config(), hidden);
    ExpectHidden(exits.Config(), hidden);
    if (exit >= exits.Layers().size())
    {
        Fail("exit " + std::to_string(exit) + " of " + std::to_string(exits.Layers().size()));
    }
    const Work work = ExitWork(model.Config(), exits, exit, hidden.Rows(), SizeOf(m_activations));
    return Timed(Operation::Exit, hidden.Rows(), work, [&] { return DoExit(model, exits, exit, hidden); });
}

Computed<Tensor>
Backend::SideInput(const ResidentSide& side, std::span<const Tensor> states)
{
    if (states.size() != side.Config().layers)
    {
        Fail("states of " + std::to_string(states.size()) + " layers of a model of " +
             std::to_string(side.Config().layers));
    }
    ExpectHidden(side.Config(), states.front());
    const std::size_t rows = states.front().Rows();
    for (const Tensor& state : states)
    {
        ExpectShape(state, rows, side.Config().hidden, "hidden state");
    }
    const Work work = SideInputWork(side, rows, SizeOf(m_activations));
    return Timed(Operation::SideInput, rows, work, [&] { return DoSideInput(side, states); });
}

Computed<Tensor>
Backend::Side(const ResidentSide& side, const Tensor& input)
{
    if (input.Rows() == 0)
    {
        Fail("side network's input without rows");
    }
    ExpectShape(input, input.Rows(), side.Config().layers * side.Width(), "side network's input");
    const Work work = SideWork(side, input.Rows(), SizeOf(m_activations));
    return Timed(Operation::Side, input.Rows(), work, [&] { return DoSide(side, input); });
}

Computed<Tensor>
Backend::Combine(Tensor hidden, const Tensor& addend)
{
    ExpectShape(addend, hidden.Rows(), hidden.Cols(), "addend");
    const Work work = CombineWork(hidden.Elements(), SizeOf(m_activations));
    return Timed(Operation::Combine, hidden.Rows(), work, [&] {
        if (hidden.IsPhantom() || addend.IsPhantom())
        {
            return Tensor::Phantom(hidden.Rows(), hidden.Cols());
        }
        std::vector<std::size_t> rows(hidden.Rows());
        std::iota(rows.begin(), rows.end(), std::size_t{0});
        return DoAddRows(std::move(hidden), addend, rows);
    });
}

Computed<Tensor>
Backend::Gate(const ResidentSide& side, const Tensor& hidden)
{
    ExpectHidden(side.Config(), hidden);
    const Work work = GateWork(side, hidden.Rows(), SizeOf(m_activations));
    return Timed(Operation::Gate, hidden.Rows(), work, [&] { return DoGate(side, hidden); });
}

Computed<TokenId>
Backend::Sample(const Tensor& logits, const Sampling& sampling, double uniform)
{
    if (logits.Rows() != 1 || logits.Cols() == 0)
    {
        Fail("sampling needs one row of logits");
    }
    const std::uint64_t vocab = logits.Cols();
    const Work work{.flops = (sampling.temperature == 0.0 ? 1 : 5) * vocab,
                    .bytesRead = vocab * SizeOf(m_activations),
                    .bytesWritten = sizeof(TokenId),
                    .launches = 1};
    return Timed(Operation::Sample, 1, work, [&] {
        return logits.IsPhantom() ? TokenId{0} : splitllm::Sample(logits.Row(0), sampling, uniform);
    });
}

Computed<std::vector<std::vector<ScoredToken>>>
Backend::Search(const Tensor& logits, std::size_t count)
{
    if (logits.Elements() == 0 || count == 0)
    {
        Fail("a search needs logits, and at least one token of each row");
    }
    const Work work{.flops = 5 * logits.Elements(),
                    .bytesRead = logits.Elements() * SizeOf(m_activations),
                    .bytesWritten = logits.Rows() * count * sizeof(ScoredToken),
                    .launches = 2};
    return Timed(Operation::Search, logits.Rows(), work, [&] {
        if (logits.IsPhantom())
        {
            return std::vector(logits.Rows(), MostLikely(std::vector<float>(logits.Cols()), count));
        }
        std::vector<std::vector<ScoredToken>> rows;
        for (std::size_t row = 0; row < logits.Rows(); row++)
        {
            rows.push_back(MostLikely(logits.Row(row), count));
        }
        return rows;
    });
}

} // namespace splitllm
