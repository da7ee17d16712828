// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CODEC_WORK_H
#define SPLITLLM_CODEC_WORK_H

#include "codec/tensor-codec.h"
#include "compute/work.h"

namespace splitllm
{

/// What coding asks of the hardware, as an operation.
inline Work
WorkOf(const CodecCost& cost)
{
    return {.flops = cost.flops,
            .bytesRead = cost.bytesRead,
            .bytesWritten = cost.bytesWritten,
            .launches = cost.launches};
}

} // namespace splitllm

#endif // SPLITLLM_CODEC_WORK_H
