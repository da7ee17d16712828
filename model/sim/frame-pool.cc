// SPDX-License-Identifier: GPL-2.0-only
#include "sim/frame-pool.h"

#include <array>
#include <new>

namespace splitllm
{

namespace
{

// gcc tells of the address sanitizer by a macro, clang by a feature.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kReuses = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr bool kReuses = false;
#else
constexpr bool kReuses = true;
#endif
#else
constexpr bool kReuses = true;
#endif

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

FreeLists g_free;
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
    const std::size_t sizeClass = ClassOf(bytes);
    if (kReuses && sizeClass < kClasses)
    {
        if (FreeFrame* frame = g_free.heads[sizeClass])
        {
            g_free.heads[sizeClass] = frame->next;
            return frame;
        }
        return ::operator new((sizeClass + 1) * kClassBytes);
    }
    return ::operator new(bytes);
}

void
FramePool::Free(void* frame, std::size_t bytes) noexcept
{
    g_live--;
    const std::size_t sizeClass = ClassOf(bytes);
    if (kReuses && sizeClass < kClasses)
    {
        g_free.heads[sizeClass] = new (frame) FreeFrame{g_free.heads[sizeClass]};
        return;
    }
    ::operator delete(frame);
}

std::size_t
FramePool::Live() noexcept
{
    return g_live;
}

} // namespace splitllm
