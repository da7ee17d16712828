// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_FRAME_POOL_H
#define SPLITLLM_FRAME_POOL_H

#include <cstddef>

namespace splitllm
{

/**
 * Memory for coroutine frames. A simulation makes and drops millions of frames of a few sizes, so freed ones are kept
 * by size class and handed out again. Sanitizer builds allocate every frame afresh, so that a leak or a use after free
 * is seen.
 */
class FramePool
{
  public:
    static void* Allocate(std::size_t bytes);
    static void Free(void* frame, std::size_t bytes) noexcept;

    /// Frames allocated and not freed: zero when nothing leaks.
    static std::size_t Live() noexcept;
};

} // namespace splitllm

#endif // SPLITLLM_FRAME_POOL_H
