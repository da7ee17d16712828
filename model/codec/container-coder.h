// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CONTAINER_CODER_H
#define SPLITLLM_CONTAINER_CODER_H

#include "codec/tensor-container.h"
#include "tensor/tensor.h"

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace splitllm
{

/// Who makes containers (tensor-container.h) and reads them. Every coder makes the same bytes, and accepts the same.
class ContainerCoder
{
  public:
    virtual ~ContainerCoder() = default;

    /// As EncodeContainer. \throws EncodeError, OutOfMemory
    virtual std::vector<std::byte> Encode(const Tensor& tensor,
                                          std::optional<float> tau,
                                          const ContainerParameters& parameters) const = 0;

    /// As DecodeContainer. \throws DecodeError, OutOfMemory
    virtual Tensor Decode(std::span<const std::byte> bytes, std::size_t cols) const = 0;
};

/// This host's: EncodeContainer and DecodeContainer.
std::shared_ptr<const ContainerCoder> HostContainerCoder();

/**
 * That of the GPU. It takes tensors where they are, and leaves those that it decodes on the GPU. All who ask for it have
 * the same one, as long as one of them has it.
 * \throws InputError where there is no GPU, or the program was built without CUDA
 */
std::shared_ptr<const ContainerCoder> MakeCudaContainerCoder();

} // namespace splitllm

#endif // SPLITLLM_CONTAINER_CODER_H
