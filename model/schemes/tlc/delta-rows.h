// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_DELTA_ROWS_H
#define SPLITLLM_DELTA_ROWS_H

#include "compute/backend.h"

namespace splitllm
{

/// LoRA's updates as they travel: each row is [Q | K | V], w x (q + 2 kv).
Tensor SideBySide(const Deltas& deltas);

/// The inverse of SideBySide for a model of shape \p config.
Deltas Separate(const Tensor& rows, const ModelConfig& config);

} // namespace splitllm

#endif // SPLITLLM_DELTA_ROWS_H
