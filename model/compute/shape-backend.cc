// SPDX-License-Identifier: GPL-2.0-only
#include "compute/shape-backend.h"

namespace splitllm
{

ShapeBackend::ShapeBackend(DType activations)
    : Backend(activations)
{
}

std::shared_ptr<const ResidentModel>
ShapeBackend::Resident(std::shared_ptr<const Model> model, const WeightPrecision& precision)
{
    return std::make_shared<ResidentModel>(model->config, Activations(), precision);
}

std::shared_ptr<const ResidentAdapter>
ShapeBackend::Resident(std::shared_ptr<const Adapter> adapter, const ModelConfig& config)
{
    return std::make_shared<ResidentAdapter>(*adapter, config);
}

std::shared_ptr<const ResidentBottleneck>
ShapeBackend::Resident(std::shared_ptr<const BottleneckAdapter> adapter, const ModelConfig& config)
{
    return std::make_shared<ResidentBottleneck>(*adapter, config);
}

std::shared_ptr<const ResidentExits>
ShapeBackend::Resident(std::shared_ptr<const Exits> exits, const ModelConfig& config)
{
    return std::make_shared<ResidentExits>(*exits, config);
}

std::shared_ptr<const ResidentSide>
ShapeBackend::Resident(std::shared_ptr<const SideNetwork> side, const ModelConfig& config)
{
    return std::make_shared<ResidentSide>(*side, config);
}

std::unique_ptr<KvCache>
ShapeBackend::NewCache(const ResidentModel& model, std::size_t first, std::size_t last, std::size_t capacity)
{
    return std::make_unique<KvCache>(model.Config(), first, last, capacity);
}

Tensor
ShapeBackend::DoEmbed(const ResidentModel& model, std::span<const TokenId> tokens, std::span<const std::size_t>)
{
    return Tensor::Phantom(tokens.size(), model.Config().hidden);
}

Projections
ShapeBackend::DoProject(const ResidentModel& model, std::size_t, const Tensor& hidden)
{
    const ModelConfig& config = model.Config();
    return {.input = Tensor::Phantom(hidden.Rows(), config.hidden),
            .query = Tensor::Phantom(hidden.Rows(), config.QueryWidth()),
            .key = Tensor::Phantom(hidden.Rows(), config.KvWidth()),
            .value = Tensor::Phantom(hidden.Rows(), config.KvWidth())};
}

Deltas
ShapeBackend::DoAdapt(const ResidentAdapter& adapter, std::size_t, const Tensor& input)
{
    const ModelConfig& config = adapter.Config();
    return {.query = Tensor::Phantom(input.Rows(), config.QueryWidth()),
            .key = Tensor::Phantom(input.Rows(), config.KvWidth()),
            .value = Tensor::Phantom(input.Rows(), config.KvWidth())};
}

Tensor
ShapeBackend::DoFinishLayer(const ResidentModel& model,
                            std::size_t,
                            const Tensor& hidden,
                            const Projections&,
                            std::span<KvCache* const>)
{
    return Tensor::Phantom(hidden.Rows(), model.Config().hidden);
}

Tensor
ShapeBackend::DoAttend(const ResidentModel& model, std::size_t, const Projections& projections, std::span<KvCache* const>)
{
    return Tensor::Phantom(projections.query.Rows(), model.Config().hidden);
}

Tensor
ShapeBackend::DoFeedForward(const ResidentModel& model, std::size_t, const Tensor& hidden)
{
    return Tensor::Phantom(hidden.Rows(), model.Config().hidden);
}

Tensor
ShapeBackend::DoBottleneck(const ResidentBottleneck& adapter, std::size_t, Sublayer, const Tensor& output)
{
    return Tensor::Phantom(output.Rows(), adapter.Config().hidden);
}

std::unique_ptr<KvCache>
ShapeBackend::DoFork(const KvCache& cache)
{
    return std::make_unique<KvCache>(cache);
}

void
ShapeBackend::DoPrune(KvCache&, std::size_t, std::size_t)
{
}

Tensor
ShapeBackend::DoSnapshot(const KvCache& cache,
                         std::size_t firstLayer,
                         std::size_t lastLayer,
                         std::size_t,
                         std::size_t count)
{
    return Tensor::Phantom(2 * (lastLayer - firstLayer) * count, cache.Width());
}

void
ShapeBackend::DoRestore(KvCache&, std::size_t, std::size_t, const Tensor&)
{
}

Tensor
ShapeBackend::DoHead(const ResidentModel& model, const Tensor& hidden)
{
    return Tensor::Phantom(hidden.Rows(), model.Config().vocab);
}

Tensor
ShapeBackend::DoExit(const ResidentModel& model, const ResidentExits&, std::size_t, const Tensor& hidden)
{
    return Tensor::Phantom(hidden.Rows(), model.Config().vocab);
}

Tensor
ShapeBackend::DoSideInput(const ResidentSide& side, std::span<const Tensor> states)
{
    return Tensor::Phantom(states.front().Rows(), states.size() * side.Width());
}

Tensor
ShapeBackend::DoSide(const ResidentSide& side, const Tensor& input)
{
    return Tensor::Phantom(input.Rows(), side.Config().hidden);
}

Tensor
ShapeBackend::DoGate(const ResidentSide&, const Tensor& hidden)
{
    return Tensor::Phantom(hidden.Rows(), 2);
}

std::chrono::nanoseconds
ShapeBackend::Clock(const std::function<void()>& operation)
{
    operation();
    return std::chrono::nanoseconds(0);
}

} // namespace splitllm
