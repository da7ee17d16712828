// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_WORK_H
#define SPLITLLM_WORK_H

#include <algorithm>
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

    /// The part of bytesRead that every session reads alike: weights of the base model. An adapter is a user's own.
    std::uint64_t weightBytes = 0;

    /// KV caches attended to, the sequences that the rows belong to; 0 where there is no attention.
    std::uint64_t caches = 0;

    Work& operator+=(const Work& other)
    {
        flops += other.flops;
        bytesRead += other.bytesRead;
        bytesWritten += other.bytesWritten;
        launches += other.launches;
        weightBytes += other.weightBytes;
        caches += other.caches;
        return *this;
    }

    /// Makes this the work of one operation on the rows of both, \p other being the same operation: shared weights are
    /// read once, and its kernels launched once.
    Work& Join(const Work& other)
    {
        const std::uint64_t weights = std::max(weightBytes, other.weightBytes);
        flops += other.flops;
        bytesRead = weights + (bytesRead - weightBytes) + (other.bytesRead - other.weightBytes);
        bytesWritten += other.bytesWritten;
        launches = std::max(launches, other.launches);
        weightBytes = weights;
        caches += other.caches;
        return *this;
    }

    bool operator==(const Work&) const = default;
};

} // namespace splitllm

#endif // SPLITLLM_WORK_H
