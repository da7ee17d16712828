// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_GEMM_H
#define SPLITLLM_GEMM_H

#include "base/cuda/device-array.h"
#include "base/cuda/scratch-pool.h"
#include "compute/cuda/layer-kernels.h"

#include <cublas_v2.h>

#include <cstddef>
#include <memory>

namespace splitllm
{

/**
 * Products of many rows by cuBLAS, on one stream. Operands are rounded to TF32 (a sign, 8 bits of exponent, 10 of mantissa)
 * before, so weights of fp16 and bf16 enter as they are; sums are fp32.
 */
class Gemm
{
  public:
    /// \param pool of the same stream, which must live on
    Gemm(std::shared_ptr<CudaStream> stream, ScratchPool& pool);
    ~Gemm();
    Gemm(const Gemm&) = delete;
    Gemm& operator=(const Gemm&) = delete;

    /// y = matrix x, without the bias. \p x is w x in and rounded to TF32 already, y is w x out. \throws OutOfMemory
    void Multiply(const DeviceMatrix& matrix, const float* x, std::size_t w, float* y);

  private:
    std::shared_ptr<CudaStream> m_stream;
    ScratchPool& m_pool;
    cublasHandle_t m_handle = nullptr;
    DeviceArray<std::byte> m_workspace; //!< of the handle alone, so that its choices do not depend on others
};

} // namespace splitllm

#endif // SPLITLLM_GEMM_H
