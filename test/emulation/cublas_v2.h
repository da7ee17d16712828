// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_EMULATION_CUBLAS_V2_H
#define SPLITLLM_EMULATION_CUBLAS_V2_H

/// Stands in for the CUDA toolkit's header of this name: matrix products in fp32 on the CPU. Operands are fp32 or fp16,
/// results fp32; anything else is CUBLAS_STATUS_NOT_SUPPORTED.

#include "cuda_runtime.h"

// NOLINTBEGIN(readability-identifier-naming)

enum cublasStatus_t
{
    CUBLAS_STATUS_SUCCESS = 0,
    CUBLAS_STATUS_NOT_INITIALIZED = 1,
    CUBLAS_STATUS_ALLOC_FAILED = 3,
    CUBLAS_STATUS_INVALID_VALUE = 7,
    CUBLAS_STATUS_ARCH_MISMATCH = 8,
    CUBLAS_STATUS_MAPPING_ERROR = 11,
    CUBLAS_STATUS_EXECUTION_FAILED = 13,
    CUBLAS_STATUS_INTERNAL_ERROR = 14,
    CUBLAS_STATUS_NOT_SUPPORTED = 15,
    CUBLAS_STATUS_LICENSE_ERROR = 16,
};

enum cublasOperation_t
{
    CUBLAS_OP_N = 0,
    CUBLAS_OP_T = 1,
    CUBLAS_OP_C = 2,
};

enum cublasPointerMode_t
{
    CUBLAS_POINTER_MODE_HOST = 0,
    CUBLAS_POINTER_MODE_DEVICE = 1,
};

enum cublasGemmAlgo_t
{
    CUBLAS_GEMM_DEFAULT = -1,
    CUBLAS_GEMM_DEFAULT_TENSOR_OP = 99,
};

enum cublasMath_t
{
    CUBLAS_DEFAULT_MATH = 0,
    CUBLAS_TENSOR_OP_MATH = 1,
    CUBLAS_PEDANTIC_MATH = 2,
    CUBLAS_TF32_TENSOR_OP_MATH = 3,
    CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION = 16,
};

enum cublasComputeType_t
{
    CUBLAS_COMPUTE_16F = 64,
    CUBLAS_COMPUTE_32F = 68,
    CUBLAS_COMPUTE_32F_PEDANTIC = 69,
    CUBLAS_COMPUTE_32F_FAST_16F = 74,
    CUBLAS_COMPUTE_32F_FAST_16BF = 75,
    CUBLAS_COMPUTE_32F_FAST_TF32 = 77,
    CUBLAS_COMPUTE_32I = 72,
};

using cublasHandle_t = struct cublasContext*;

cublasStatus_t cublasCreate(cublasHandle_t* handle);
cublasStatus_t cublasDestroy(cublasHandle_t handle);
cublasStatus_t cublasGetVersion(cublasHandle_t handle, int* version);
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream);
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode);
cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void* workspace, std::size_t bytes);
cublasStatus_t cublasSetPointerMode(cublasHandle_t handle, cublasPointerMode_t mode);
const char* cublasGetStatusString(cublasStatus_t status);

/// C = alpha op(A) op(B) + beta C, column by column; op(A) is m x k, op(B) k x n.
cublasStatus_t cublasGemmEx(cublasHandle_t handle,
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
                            cublasGemmAlgo_t algorithm);

/// The same for matrices that lie strides of elements apart.
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle,
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
                                          cublasGemmAlgo_t algorithm);

// NOLINTEND(readability-identifier-naming)

#endif // SPLITLLM_EMULATION_CUBLAS_V2_H
