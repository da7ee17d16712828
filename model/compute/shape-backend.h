// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SHAPE_BACKEND_H
#define SPLITLLM_SHAPE_BACKEND_H

#include "compute/backend.h"

namespace splitllm
{

/**
 * Computes with phantoms: every call returns the right shape and the Work that a real backend reports, so that models
 * of any size run on any machine. A model, an adapter, exits or a side network need their shape (config, rank, widths) and no weights.
 * Tensors with numbers are accepted; what comes out is a phantom.
 */
class ShapeBackend : public Backend
{
  public:
    /// \param activations element type that Work and KV bytes are counted in, as the modelled device has it
    explicit ShapeBackend(DType activations);

    bool HasNumbers() const override
    {
        return false;
    }

    using Backend::Resident;
    std::shared_ptr<const ResidentModel> Resident(std::shared_ptr<const Model> model,
                                                  const WeightPrecision& precision) override;
    std::shared_ptr<const ResidentAdapter> Resident(std::shared_ptr<const Adapter> adapter,
                                                    const ModelConfig& config) override;
    std::shared_ptr<const ResidentBottleneck> Resident(std::shared_ptr<const BottleneckAdapter> adapter,
                                                       const ModelConfig& config) override;
    std::shared_ptr<const ResidentExits> Resident(std::shared_ptr<const Exits> exits,
                                                  const ModelConfig& config) override;
    std::shared_ptr<const ResidentSide> Resident(std::shared_ptr<const SideNetwork> side,
                                                 const ModelConfig& config) override;
    std::unique_ptr<KvCache> NewCache(const ResidentModel& model,
                                      std::size_t first,
                                      std::size_t last,
                                      std::size_t capacity) override;

  protected:
    Tensor DoEmbed(const ResidentModel& model,
                   std::span<const TokenId> tokens,
                   std::span<const std::size_t> positions) override;
    Projections DoProject(const ResidentModel& model, std::size_t layer, const Tensor& hidden) override;
    Deltas DoAdapt(const ResidentAdapter& adapter, std::size_t layer, const Tensor& input) override;
    Tensor DoFinishLayer(const ResidentModel& model,
                         std::size_t layer,
                         const Tensor& hidden,
                         const Projections& projections,
                         std::span<KvCache* const> caches) override;
    Tensor DoAttend(const ResidentModel& model,
                    std::size_t layer,
                    const Projections& projections,
                    std::span<KvCache* const> caches) override;
    Tensor DoFeedForward(const ResidentModel& model, std::size_t layer, const Tensor& hidden) override;
    Tensor DoBottleneck(const ResidentBottleneck& adapter,
                        std::size_t layer,
                        Sublayer sublayer,
                        const Tensor& output) override;
    std::unique_ptr<KvCache> DoFork(const KvCache& cache) override;
    void DoPrune(KvCache& cache, std::size_t layer, std::size_t kept) override;
    Tensor DoSnapshot(const KvCache& cache,
                      std::size_t firstLayer,
                      std::size_t lastLayer,
                      std::size_t first,
                      std::size_t count) override;
    void DoRestore(KvCache& cache, std::size_t firstLayer, std::size_t lastLayer, const Tensor& entries) override;
    Tensor DoHead(const ResidentModel& model, const Tensor& hidden) override;
    Tensor DoExit(const ResidentModel& model,
                  const ResidentExits& exits,
                  std::size_t exit,
                  const Tensor& hidden) override;
    Tensor DoSideInput(const ResidentSide& side, std::span<const Tensor> states) override;
    Tensor DoSide(const ResidentSide& side, const Tensor& input) override;
    Tensor DoGate(const ResidentSide& side, const Tensor& hidden) override;

    /// Takes no time, and does not look at the clock.
    std::chrono::nanoseconds Clock(const std::function<void()>& operation) override;
};

} // namespace splitllm

#endif // SPLITLLM_SHAPE_BACKEND_H
