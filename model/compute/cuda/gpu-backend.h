// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_GPU_BACKEND_H
#define SPLITLLM_GPU_BACKEND_H

#include "compute/backend.h"
#include "compute/cuda/cuda-resident.h"
#include "compute/cuda/layers.h"
#include "compute/cuda-backend.h"

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace splitllm
{

/**
 * The CUDA backend (cuda-backend.h). A KV cache has one of a few streams, on which all that follows from it is computed,
 * so that sessions run beside each other on the GPU. One caller at a time.
 *
 * A row's bits do not depend on the rows beside it as long as these are at most kFewRows; cuBLAS computes more, and its
 * order of summation depends on their number.
 */
class GpuBackend final : public Backend
{
  public:
    explicit GpuBackend(CudaTimes times);
    ~GpuBackend() override;

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
    Tensor DoAddRows(Tensor sum, const Tensor& addend, std::span<const std::size_t> rows) override;
    std::vector<TokenId> DoGreedy(const ResidentModel& model,
                                  KvCache& cache,
                                  TokenId token,
                                  std::size_t count) override;

    /// By events around the operation, where times are asked for; 0 otherwise, and then the host does not wait.
    std::chrono::nanoseconds Clock(const std::function<void()>& operation) override;

  private:
    struct Events; //!< two events of a GPU

    /// The layers on the stream that comes next.
    Layers& NextLayers();

    /// The layers on the stream of \p tensor; on the next one where it is on this host.
    Layers& LayersOf(const Tensor& tensor);

    /// The layers on the stream of the first of \p caches.
    Layers& LayersOf(std::span<KvCache* const> caches);

    /// A result of \p rows x \p cols on the stream of \p layers.
    static DeviceArray<float> Result(const Layers& layers, std::size_t rows, std::size_t cols);

    /// Attends on \p layers; \p y is w x d.
    void AttendOn(Layers& layers,
                  const CudaModel& model,
                  std::size_t layer,
                  const Projections& projections,
                  std::span<KvCache* const> caches,
                  float* y,
                  const FinishWith& with);

    /// The head's logits of \p hidden, w x d, as \p norm norms it.
    Tensor Logits(Layers& layers, const CudaModel& model, const DeviceNorm& norm, const float* hidden, std::size_t w);

    std::vector<std::unique_ptr<Layers>> m_layers; //!< one a stream
    std::size_t m_next = 0;
    WeightStore m_store;
    std::unique_ptr<Events> m_events; //!< null where no times are asked for
};

} // namespace splitllm

#endif // SPLITLLM_GPU_BACKEND_H
