// SPDX-License-Identifier: GPL-2.0-only
#include "sim/frame-pool.h"

#include <array>
#include <new>

namespace splitllm
{

namespace
{

constexpr std::size_t kClassBytes = 64;
constexpr std::size_t kClasses = 32; // frames up to 2 KiB

struct FreeFrame
{
    FreeFrame* next;
};

/// Free frames by size class, returned to the system at exit.
struct FreeLists
{
    std::array<FreeFrame*, kClasses> heads{};

    ~FreeLists()
    {
        for (FreeFrame* head : heads)
        {
            while (head != nullptr)
            {
                FreeFrame* next = head->next;
                ::operator delete(head);
                head = next;
            }
        }
    }
};

#ifndef __SANITIZE_ADDRESS__
FreeLists g_free;
#endif
std::size_t g_live = 0;

std::size_t
ClassOf(std::size_t bytes)
{
    return (bytes + kClassBytes - 1) / kClassBytes - 1;
}

} // namespace

void*
FramePool::Allocate(std::size_t bytes)
{
    g_live++;
#ifndef __SANITIZE_ADDRESS__
    const std::size_t sizeClass = ClassOf(bytes);
    if (sizeClass < kClasses)
    {
        if (FreeFrame* frame = g_free.heads[sizeClass])
        {
            g_free.heads[sizeClass] = frame->next;
            return frame;
        }
        return ::operator new((sizeClass + 1) * kClassBytes);
    }
#endif
    return ::operator new(bytes);
}

void
FramePool::Free(void* frame, std::size_t bytes) noexcept
{
    g_live--;
#ifndef __SANITIZE_ADDRESS__
    const std::size_t sizeClass = ClassOf(bytes);
    if (sizeClass < kClasses)
    {
        g_free.heads[sizeClass] = new (frame) FreeFrame{g_free.heads[sizeClass]};
        return;
    }
#endif
    ::operator delete(frame);
}

std::size_t
FramePool::Live() noexcept
{
    return g_live;
}

} // namespace splitllm
