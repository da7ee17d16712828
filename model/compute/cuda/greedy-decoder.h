// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_GREEDY_DECODER_H
#define SPLITLLM_GREEDY_DECODER_H

#include "base/cuda/device-array.h"
#include "compute/cuda/cuda-resident.h"
#include "compute/cuda/layers.h"
#include "compute/cuda/step-kernels.h"

#include <cstddef>
#include <vector>

namespace splitllm
{

/**
 * Greedy decoding that never leaves the GPU: a step is a CUDA graph that takes the token of the step before from the
 * GPU's memory, so that launches of kernels do not hold it up and the host does not wait for a token.
 */
class GreedyDecoder
{
  public:
    /**
     * \param cache of all layers of \p model, with room for \p steps more entries; it is not told that it grows
     * \param angles of all positions that the steps reach
     */
    GreedyDecoder(Layers& layers,
                  const CudaModel& model,
                  const CudaKvCache& cache,
                  const RotaryAngles& angles,
                  TokenId token,
                  std::size_t steps);

    /// The tokens of all steps. Waits for them.
    std::vector<TokenId> Decode();

  private:
    /// Puts a step into the stream.
    void Step();

    Layers& m_layers;
    const CudaModel& m_model;
    RotaryAngles m_angles;
    std::size_t m_entries; //!< that the last step attends to
    std::size_t m_steps;
    DeviceArray<DecodingState> m_state;
    DeviceArray<KvPlace> m_places;        //!< one a layer
    DeviceArray<std::uint32_t> m_decoded; //!< the tokens so far
};

} // namespace splitllm

#endif // SPLITLLM_GREEDY_DECODER_H
