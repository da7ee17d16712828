// SPDX-License-Identifier: GPL-2.0-only
#include "cublas_v2.h"
#include "tensor/dtype.h"

#include <Eigen/Core>
#include <bit>
#include <cstdint>
#include <memory>

struct cublasContext
{
    cudaStream_t stream = nullptr;
    cublasMath_t mathMode = CUBLAS_DEFAULT_MATH;
};

namespace
{

/// A matrix of the caller, stored column by column.
struct Operand
{
    const void* elements;
    cudaDataType type;
    std::ptrdiff_t leading; //!< elements from a column to the next
    std::ptrdiff_t stride;  //!< elements from a matrix of the batch to the next
    bool transposed;
};

/// The bits of TF32's mantissa. Tensor cores may drop the others or round; dropping is what errs most.
float
TruncatedToTf32(float value)
{
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) & 0xffffe000U);
}

/// op(X) of a matrix of the batch, as the multiplier takes it. rows and columns: of op(X).
Eigen::MatrixXf
Load(const Operand& operand, int batch, int rows, int columns, bool tf32)
{
    Eigen::MatrixXf matrix(rows, columns);
    const std::ptrdiff_t first = batch * operand.stride;
    for (int column = 0; column < columns; ++column)
    {
        for (int row = 0; row < rows; ++row)
        {
            const std::ptrdiff_t at =
                first + (operand.transposed ? row * operand.leading + column : column * operand.leading + row);
            const float value = operand.type == CUDA_R_16F
                                    ? splitllm::FromF16(static_cast<const std::uint16_t*>(operand.elements)[at])
                                    : static_cast<const float*>(operand.elements)[at];
            matrix(row, column) = tf32 && operand.type == CUDA_R_32F ? TruncatedToTf32(value) : value;
        }
    }
    return matrix;
}

bool
IsOperandType(cudaDataType type)
{
    return type == CUDA_R_32F || type == CUDA_R_16F;
}

} // namespace

cublasStatus_t
cublasCreate(cublasHandle_t* handle)
{
    *handle = std::make_unique<cublasContext>().release();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasDestroy(cublasHandle_t handle)
{
    if (handle == nullptr)
    {
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    const std::unique_ptr<cublasContext> owned(handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasGetVersion(cublasHandle_t, int* version)
{
    *version = 130000;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasSetStream(cublasHandle_t handle, cudaStream_t stream)
{
    if (handle == nullptr)
    {
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode)
{
    if (handle == nullptr)
    {
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    handle->mathMode = mode;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasSetWorkspace(cublasHandle_t handle, void*, std::size_t)
{
    return handle == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t mode)
{
    if (handle == nullptr)
    {
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    return mode == CUBLAS_POINTER_MODE_HOST ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

const char*
cublasGetStatusString(cublasStatus_t status)
{
    switch (status)
    {
    case CUBLAS_STATUS_SUCCESS:
        return "the operation completed successfully";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "the library was not initialized";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "the resource allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an invalid value was used as an argument";
    case CUBLAS_STATUS_ARCH_MISMATCH:
        return "an absent device architectural feature is required";
    case CUBLAS_STATUS_MAPPING_ERROR:
        return "an access to GPU memory space failed";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "the function failed to launch on the GPU";
    case CUBLAS_STATUS_INTERNAL_ERROR:
        return "an internal operation failed";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "the functionality is not supported";
    case CUBLAS_STATUS_LICENSE_ERROR:
        return "an error was detected when checking the current licensing";
    }
    return "unknown status";
}

cublasStatus_t
cublasGemmStridedBatchedEx(cublasHandle_t handle,
                           cublasOperation_t transposeA,
                           cublasOperation_t transposeB,
                           int m,
                           int n,
                           int k,
                           const void* alpha,
                           const void* a,
                           cudaDataType typeA,
                           int lda,
                           long long strideA,
                           const void* b,
                           cudaDataType typeB,
                           int ldb,
                           long long strideB,
                           const void* beta,
                           void* c,
                           cudaDataType typeC,
                           int ldc,
                           long long strideC,
                           int batch,
                           cublasComputeType_t compute,
                           cublasGemmAlgo_t)
{
    if (handle == nullptr)
    {
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    const bool transposedA = transposeA != CUBLAS_OP_N;
    const bool transposedB = transposeB != CUBLAS_OP_N;
    if (m < 0 || n < 0 || k < 0 || batch < 0 || lda < std::max(1, transposedA ? k : m) ||
        ldb < std::max(1, transposedB ? n : k) || ldc < std::max(1, m) || alpha == nullptr || beta == nullptr)
    {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    const bool computes = compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
                          compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    if (!computes || !IsOperandType(typeA) || typeA != typeB || typeC != CUDA_R_32F)
    {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    const bool tf32 = compute == CUBLAS_COMPUTE_32F_FAST_TF32 ||
                      (compute == CUBLAS_COMPUTE_32F && handle->mathMode == CUBLAS_TF32_TENSOR_OP_MATH);
    const Operand left{a, typeA, lda, strideA, transposedA};
    const Operand right{b, typeB, ldb, strideB, transposedB};
    const auto multiply = [=, alpha = *static_cast<const float*>(alpha), beta = *static_cast<const float*>(beta)] {
        splitllm::emulation::CheckPointers({left.elements, right.elements, c});
        for (int i = 0; i < batch; ++i)
        {
            const Eigen::MatrixXf product = Load(left, i, m, k, tf32) * Load(right, i, k, n, tf32);
            for (int column = 0; column < n; ++column)
            {
                float* result = static_cast<float*>(c) + i * strideC + static_cast<std::ptrdiff_t>(column) * ldc;
                for (int row = 0; row < m; ++row)
                {
                    // with beta = 0, C is not read
                    result[row] = alpha * product(row, column) + (beta == 0.0F ? 0.0F : beta * result[row]);
                }
            }
        }
        return cudaSuccess;
    };
    return splitllm::emulation::Submit(handle->stream, multiply) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                                : CUBLAS_STATUS_EXECUTION_FAILED;
}

cublasStatus_t
cublasGemmEx(cublasHandle_t handle,
             cublasOperation_t transposeA,
             cublasOperation_t transposeB,
             int m,
             int n,
             int k,
             const void* alpha,
             const void* a,
             cudaDataType typeA,
             int lda,
             const void* b,
             cudaDataType typeB,
             int ldb,
             const void* beta,
             void* c,
             cudaDataType typeC,
             int ldc,
             cublasComputeType_t compute,
             cublasGemmAlgo_t algorithm)
{
    return cublasGemmStridedBatchedEx(handle,
                                      transposeA,
                                      transposeB,
                                      m,
                                      n,
                                      k,
                                      alpha,
                                      a,
                                      typeA,
                                      lda,
                                      0,
                                      b,
                                      typeB,
                                      ldb,
                                      0,
                                      beta,
                                      c,
                                      typeC,
                                      ldc,
                                      0,
                                      1,
                                      compute,
                                      algorithm);
}
