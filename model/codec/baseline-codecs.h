// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_BASELINE_CODECS_H
#define SPLITLLM_BASELINE_CODECS_H

#include "codec/activation-statistics.h"
#include "codec/tensor-codec.h"

#include <cstddef>
#include <memory>

namespace splitllm
{

/**
 * \file
 * The quantisers that OPSC is compared with, applied to what crosses between nodes: b bits an element, 2 to 8, packed
 * row by row. Every row takes the same number of bytes, which follows from its length alone.
 *
 * Each is named after a published method for whole models and does to a tensor on the wire what that method does to
 * activations. Such a method may move a transformation of activations into the weights that follow; between nodes there
 * are none, so the receiver undoes it. What was calibrated is held by both ends and does not travel.
 *
 * Arithmetic is fp32 with true division and rounding half to even. A symmetric quantiser has codes from -m to m with
 * m = 2^(b-1) - 1 and a step of max|x| / m; steps travel as bf16, rounded up, so that no code leaves its range. Encode
 * throws EncodeError for NaN, infinity and what overflows; Decode DecodeError for anything that Encode does not write.
 */

/// One step a row, and the row's codes: 16 + b n bits for a row of n elements.
std::shared_ptr<const TensorCodec> MakeRoundToNearest(unsigned bits);

/**
 * Round-to-nearest of x_j / max|x_j|^alpha, with the maxima of channels from calibration (SmoothQuant, Xiao et al.
 * 2023). 16 + b n bits a row.
 * \param alpha how far the channels are brought to one magnitude, 0 to 1
 */
std::shared_ptr<const TensorCodec> MakeSmoothQuant(unsigned bits, const ActivationStatistics& statistics, double alpha);

/**
 * Codes 0 to 2^b - 1 over the range [low, high] of (x_j - shift_j) / scale_j in a row, both ends multiplied by clip
 * factors; shift, scale and factors were learned (OmniQuant, Shao et al. 2023: learnable equivalent transformation and
 * clipping). A row whose transformed values are all equal is not clipped. Low and step travel: 32 + b n bits a row.
 * \throws InputError if \p statistics have no clip factors for \p bits
 */
std::shared_ptr<const TensorCodec> MakeOmniQuant(unsigned bits, const ActivationStatistics& statistics);

/**
 * The channels with the greatest root mean square in calibration at 8 bits with a step of their own, the others at b
 * bits in groups of \p group channels with a step each (Atom, Zhao et al. 2024). For k outliers and g groups
 * 16 + 8 k + 16 g + b (n - k) bits a row.
 * \param outliers how many channels; all of a row that has fewer
 */
std::shared_ptr<const TensorCodec> MakeAtom(unsigned bits,
                                            const ActivationStatistics& statistics,
                                            std::size_t outliers,
                                            std::size_t group);

/// Every element limited to [-limit, limit], then coded by \p inner: what large values are worth.
std::shared_ptr<const TensorCodec> MakeClamp(float limit, std::shared_ptr<const TensorCodec> inner);

} // namespace splitllm

#endif // SPLITLLM_BASELINE_CODECS_H
