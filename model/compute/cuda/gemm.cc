// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cuda/gemm.h"

#include "base/out-of-memory.h"

#include <string>
#include <utility>

namespace splitllm
{

namespace
{

constexpr std::size_t kWorkspace = std::size_t{32} << 20; // what cuBLAS asks for on Hopper

void
CheckCublas(cublasStatus_t status, const char* call)
{
    if (status == CUBLAS_STATUS_SUCCESS)
    {
        return;
    }
    const std::string message = std::string(call) + ": " + cublasGetStatusString(status);
    if (status == CUBLAS_STATUS_ALLOC_FAILED)
    {
        throw OutOfMemory("out of memory on the GPU: " + message);
    }
    throw CudaError(message);
}

} // namespace

Gemm::Gemm(std::shared_ptr<CudaStream> stream, ScratchPool& pool)
    : m_stream(std::move(stream)),
      m_pool(pool),
      m_workspace(m_stream, kWorkspace)
{
    CheckCublas(cublasCreate(&m_handle), "cublasCreate");
    CheckCublas(cublasSetStream(m_handle, m_stream->Get()), "cublasSetStream");
    CheckCublas(cublasSetWorkspace(m_handle, m_workspace.Data(), kWorkspace), "cublasSetWorkspace");
}

Gemm::~Gemm()
{
    cublasDestroy(m_handle);
}

void
Gemm::Multiply(const DeviceMatrix& matrix, const float* x, std::size_t w, float* y)
{
    const Scratch weights = m_pool.Take(std::size_t{matrix.out} * matrix.in);
    ExpandTf32(matrix, weights.Data(), m_stream->Get());
    // cuBLAS counts columns first: what is row by row to us is its transpose.
    const auto in = static_cast<int>(matrix.in);
    const auto out = static_cast<int>(matrix.out);
    const float one = 1.0F;
    const float zero = 0.0F;
    CheckCublas(cublasGemmEx(m_handle,
                             CUBLAS_OP_T,
                             CUBLAS_OP_N,
                             out,
                             static_cast<int>(w),
                             in,
                             &one,
                             weights.Data(),
                             CUDA_R_32F,
                             in,
                             x,
                             CUDA_R_32F,
                             in,
                             &zero,
                             y,
                             CUDA_R_32F,
                             out,
                             CUBLAS_COMPUTE_32F_FAST_TF32,
                             CUBLAS_GEMM_DEFAULT),
                "cublasGemmEx");
}

} // namespace splitllm
