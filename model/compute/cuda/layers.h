// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_LAYERS_H
#define SPLITLLM_LAYERS_H

#include "base/cuda/scratch-pool.h"
#include "compute/cuda/cuda-resident.h"
#include "compute/cuda/gemm.h"

#include <cstddef>
#include <memory>
#include <optional>
#include <span>

namespace splitllm
{

/// Base projections of w rows in the GPU's memory, before rotary positions.
struct DeviceProjections
{
    const float* query = nullptr; //!< w x q
    const float* key = nullptr;   //!< w x kv
    const float* value = nullptr; //!< w x kv
};

/// Where the rows of a call have their keys and values.
struct RowPlaces
{
    const KvPlace* places = nullptr; //!< one a row, in the GPU's memory
    std::size_t entries = 0;         //!< at least what a row attends to
    bool oneCache = true;            //!< the rows are the next positions of one cache; else each has its own
    bool tracks = false;             //!< the caches add up attention
};

/**
 * The parts of a transformer on one stream of a GPU. Inputs and results are in the GPU's memory, w rows each. Few rows
 * go through fused kernels that read a matrix once, many rows through cuBLAS.
 */
class Layers
{
  public:
    explicit Layers(std::shared_ptr<CudaStream> stream);

    const std::shared_ptr<CudaStream>& Stream() const
    {
        return m_stream;
    }

    /**
     * Products of the same rows \p x, finished as \p with says.
     * \param norm not null: x is normed first
     * \param normed not null: where the normed x goes, w x in
     */
    void Multiply(std::span<const Product> products,
                  std::size_t w,
                  const DeviceNorm* norm = nullptr,
                  float* normed = nullptr,
                  const FinishWith& with = {});

    /// One product.
    void Multiply(const DeviceMatrix& matrix,
                  const float* x,
                  std::size_t w,
                  float* y,
                  const DeviceNorm* norm = nullptr,
                  const FinishWith& with = {});

    /**
     * The attention block behind the projections, w x d, finished as \p with says: appends keys and values to the
     * caches, attends to them, and projects.
     */
    void Attention(const CudaModel& model,
                   std::size_t layer,
                   const RotaryAngles& angles,
                   const DeviceProjections& projections,
                   std::size_t w,
                   const RowPlaces& places,
                   float* y,
                   const FinishWith& with = {});

    /// The MLP of the normed \p hidden, w x d, finished as \p with says.
    void Mlp(const ModelConfig& config,
             const CudaLayer& layer,
             const float* hidden,
             std::size_t w,
             float* y,
             const FinishWith& with = {});

    /// Memory for intermediate results on this stream.
    ScratchPool& Pool()
    {
        return m_pool;
    }

  private:
    std::shared_ptr<CudaStream> m_stream;
    ScratchPool m_pool;
    std::optional<Gemm> m_gemm; //!< from the first product of many rows on: making it takes time and memory
};

} // namespace splitllm

#endif // SPLITLLM_LAYERS_H
