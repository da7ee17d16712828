// SPDX-License-Identifier: GPL-2.0-only
#include "codec/container-coder.h"

namespace splitllm
{

namespace
{

class HostCoder final : public ContainerCoder
{
  public:
    std::vector<std::byte> Encode(const Tensor& tensor,
                                  std::optional<float> tau,
                                  const ContainerParameters& parameters) const override
    {
        return EncodeContainer(tensor, tau, parameters);
    }

    Tensor Decode(std::span<const std::byte> bytes, std::size_t cols) const override
    {
        return DecodeContainer(bytes, cols);
    }
};

} // namespace

std::shared_ptr<const ContainerCoder>
HostContainerCoder()
{
    static const auto coder = std::make_shared<const HostCoder>();
    return coder;
}

} // namespace splitllm
