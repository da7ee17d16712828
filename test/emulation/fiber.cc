// SPDX-License-Identifier: GPL-2.0-only
#undef _FORTIFY_SOURCE // its longjmp accepts no other stack than the one that it is on
#include "fiber.h"

#include <cerrno>
#include <setjmp.h>
#include <sys/mman.h>
#include <system_error>

#if defined(__SANITIZE_ADDRESS__)
#define SPLITLLM_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SPLITLLM_ADDRESS_SANITIZER 1
#endif
#endif

#ifdef SPLITLLM_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace splitllm::emulation
{

namespace
{

#ifdef SPLITLLM_ADDRESS_SANITIZER
constexpr std::size_t kStackBytes = 256 * 1024; // its frames are larger
#else
constexpr std::size_t kStackBytes = 64 * 1024;
#endif
constexpr std::size_t kGuardBytes = 4096;

/// The fiber that the running one was entered from.
Fiber* g_previous = nullptr;

} // namespace

Fiber::Fiber(Entry entry, std::size_t colour)
    : m_entry(entry),
      m_skipped(colour % 16 * 256)
{
    void* mapping =
        mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
    {
        throw std::system_error(errno, std::generic_category(), "a fiber's stack");
    }
    m_mapping = static_cast<std::byte*>(mapping);
    mprotect(m_mapping, kGuardBytes, PROT_NONE);
    m_bottom = m_mapping + kGuardBytes;
    m_size = kStackBytes - m_skipped;
    Restart();
}

Fiber::~Fiber()
{
    if (m_mapping != nullptr)
    {
        Restart();
        munmap(m_mapping, kGuardBytes + kStackBytes);
    }
}

void
Fiber::Restart()
{
#ifdef SPLITLLM_ADDRESS_SANITIZER
    __asan_unpoison_memory_region(m_bottom, kStackBytes);
#endif
    getcontext(&m_start);
    m_start.uc_stack.ss_sp = m_mapping + kGuardBytes;
    m_start.uc_stack.ss_size = m_size;
    m_start.uc_link = nullptr;
    makecontext(&m_start, m_entry, 0);
    m_fresh = true;
}

void
Fiber::SwitchTo(Fiber& next)
{
    g_previous = this;
#ifdef SPLITLLM_ADDRESS_SANITIZER
    void* fakeStack = nullptr;
    __sanitizer_start_switch_fiber(&fakeStack, next.m_bottom, next.m_size);
#endif
    // setcontext() would do for both, with a system call
    if (_setjmp(m_context) == 0)
    {
        if (next.m_fresh)
        {
            next.m_fresh = false;
            setcontext(&next.m_start);
        }
        _longjmp(next.m_context, 1);
    }
#ifdef SPLITLLM_ADDRESS_SANITIZER
    // tells the bounds of the stack that was left, which is how those of the host's stack are known
    __sanitizer_finish_switch_fiber(fakeStack, &g_previous->m_bottom, &g_previous->m_size);
#endif
}

void
Fiber::Entered()
{
#ifdef SPLITLLM_ADDRESS_SANITIZER
    __sanitizer_finish_switch_fiber(nullptr, &g_previous->m_bottom, &g_previous->m_size);
#endif
}

} // namespace splitllm::emulation
