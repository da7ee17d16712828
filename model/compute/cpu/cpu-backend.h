// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CPU_BACKEND_H
#define SPLITLLM_CPU_BACKEND_H

#include "compute/backend.h"
#include "compute/cpu/cpu-resident.h"
#include "compute/cpu/kernels.h"
#include "compute/cpu/team.h"

#include <cstddef>
#include <initializer_list>
#include <memory>
#include <span>
#include <vector>

namespace splitllm
{

/**
 * Executes LLaMA and OPT layers on this host, in fp32 with the weights as they are stored or as codes of 8 or 4 bits.
 *
 * Batch-invariant (invariant 13): a row's bits depend neither on the rows computed with it, nor on how a sequence is
 * cut into calls, nor on the number of threads, nor on the CPU's features. One caller at a time.
 */
class CpuBackend final : public Backend
{
  public:
    /**
     * \param threads how many threads work on an operation; 0: one for each core. Work that is too small is not shared.
     * \param kernels the instruction set
     */
    explicit CpuBackend(std::size_t threads = 0, const Kernels& kernels = BestKernels());

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

  private:
    /// A matrix and where its product goes: tokens x out.
    struct Product
    {
        const CpuLinear* linear;
        float* result;
    };

    /// Intermediate results, kept from call to call because fresh memory costs more than it seems.
    struct Scratch
    {
        std::vector<float> queries;
        std::vector<float> scores;
        std::vector<float> attended;
        std::vector<float> normed;
        std::vector<float> inner;
        std::vector<float> up;
        std::vector<float> mlp;
        std::vector<Attention> attention; //!< of the call under way: threads x entries
    };

    /// The results of \p products for the same \p input (tokens x in), in one pass over all their weights.
    void Multiply(const float* input, std::size_t tokens, std::initializer_list<Product> products);
    void Normalise(const ModelConfig& config, const CpuNorm& norm, const Tensor& hidden, float* normed);

    /// x = x / (1 + exp(-x)) for all of \p rows rows of \p width.
    void Silu(float* x, std::size_t rows, std::size_t width);

    /// Appends keys and values to \p caches, which are one or as many as rows, and leaves the attended values, w x q,
    /// in the scratch memory. Adds up the attention where a cache tracks it.
    void AttendValues(const ModelConfig& config,
                      std::size_t layer,
                      const Projections& projections,
                      std::span<KvCache* const> caches);

    /// The same for the next positions of \p cache; the values go to \p attended.
    void AttendOne(const ModelConfig& config,
                   std::size_t layer,
                   const Projections& projections,
                   CpuKvCache& cache,
                   float* attended);

    /// Norm and MLP of \p hidden into \p result, w x d.
    void Mlp(const ModelConfig& config, const CpuLayer& layer, const Tensor& hidden, float* result);

    /// The head's logits of \p hidden as \p norm norms it.
    Tensor Logits(const CpuModel& model, const CpuNorm& norm, const Tensor& hidden);
    Tensor LoraUpdate(const LoraWeights& weights, float scaling, const Tensor& input, std::size_t width);

    Scratch m_scratch;
    Team m_team;
    const Kernels& m_kernels;
};

} // namespace splitllm

#endif // SPLITLLM_CPU_BACKEND_H
