// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TAB_Q_CODEC_H
#define SPLITLLM_TAB_Q_CODEC_H

#include "codec/container-coder.h"
#include "codec/tensor-codec.h"
#include "codec/tensor-container.h"

#include <functional>
#include <memory>
#include <optional>

namespace splitllm
{

/// The threshold tau of a place, positive; nothing where every element is quantised.
using ThresholdAt = std::function<std::optional<float>(const CodecSite&)>;

/// The size that a container has where there are no numbers.
struct PhantomDensity
{
    double bitsPerElement = 0.0; //!< of all bodies and the table together
    double aboveDensity = 0.0;   //!< share of the elements that travel exactly
};

/// OPSC's compression of intermediate outputs: threshold splitting, TAB-Q and rANS, as a container.
class TabQCodec final : public TensorCodec
{
  public:
    /// \param thresholds nothing: no place has one
    /// \param coder who makes and reads the containers
    explicit TabQCodec(const ContainerParameters& parameters,
                       ThresholdAt thresholds = nullptr,
                       const PhantomDensity& phantom = {},
                       std::shared_ptr<const ContainerCoder> coder = HostContainerCoder());

    DType Exact() const override;

    /// \throws EncodeError naming row and column of a value that is not finite, or that overflows the exact type
    Payload Encode(const Tensor& tensor, const CodecSite& site) const override;
    Tensor Decode(const Payload& payload, std::size_t cols, const CodecSite& site) const override;

    /// Yes: of how much goes above tau, how many bits TAB-Q takes, and how well rANS does.
    bool SizeDependsOnNumbers() const override;

    /**
     * For each element: 2 comparisons for the split and the range; 5 operations (division, addition, two comparisons,
     * rounding) for every number of bits that TAB-Q may try, and 3 to compare its codes with the first; 8 to count and
     * encode its symbol. Read are 4 bytes at each of these passes, written the codes, and the bodies at Qbar bits.
     * An upper bound: TAB-Q often tries fewer.
     */
    CodecCost EncodeCost(std::size_t rows, std::size_t cols) const override;

    /// For each element: 5 operations to decode its symbol, 1 to look up its value. Read are Qbar bits, written 4 bytes.
    CodecCost DecodeCost(std::size_t rows, std::size_t cols) const override;

  private:
    std::size_t PhantomSize(std::size_t rows, std::size_t cols) const;

    ContainerParameters m_parameters;
    ThresholdAt m_thresholds;
    PhantomDensity m_phantom;
    std::shared_ptr<const ContainerCoder> m_coder;
};

/**
 * Reads "bits", "delta", "normalised", "tau" or "tau_quantile" with "statistics" (tau is then that quantile of |x| at
 * the place), "exact" and "entropy"; in shape mode also "bits_per_element" and
 * "above_density", which are accepted nowhere else.
 * \throws InputError
 */
std::shared_ptr<const TensorCodec> ReadTabQCodec(StrictObject& parameters, const CodecContext& context);

} // namespace splitllm

#endif // SPLITLLM_TAB_Q_CODEC_H
