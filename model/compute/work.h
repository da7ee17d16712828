// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_WORK_H
#define SPLITLLM_WORK_H

#include <cstdint>

namespace splitllm
{

/**
 * What an operation asks of the hardware. A device profile turns it into time.
 *
 * A multiply-add counts two FLOPs; norms, activations, rotations and softmax count one FLOP an element and arithmetic
 * operation, exp as one. Bytes are what a kernel must move once: weights, the KV cache it reads, inputs and outputs;
 * no cache effects.
 */
struct Work
{
    std::uint64_t flops = 0;
    std::uint64_t bytesRead = 0;
    std::uint64_t bytesWritten = 0;
    std::uint64_t launches = 0; //!< kernels that a straightforward GPU implementation launches

    Work& operator+=(const Work& other)
    {
        flops += other.flops;
        bytesRead += other.bytesRead;
        bytesWritten += other.bytesWritten;
        launches += other.launches;
        return *this;
    }

    bool operator==(const Work&) const = default;
};

} // namespace splitllm

#endif // SPLITLLM_WORK_H
