// SPDX-License-Identifier: GPL-2.0-only
#undef _FORTIFY_SOURCE // its longjmp accepts no other stack than the one that it is on
#include "fiber.h"

#include "address-sanitizer.h"

#include <cerrno>
#include <sys/mman.h>
#include <system_error>

#ifdef __x86_64__
#define SPLITLLM_SWITCH_X86_64 1
#else
#include <setjmp.h>
#include <ucontext.h>
#endif

#ifdef SPLITLLM_SWITCH_X86_64

/// Pushes what a function must keep, exchanges the stack pointers, and pops what the other stack holds. Returns on the
/// other stack, to where its switch was called from: unlike after longjmp(), the processor's prediction of returns fits,
/// and the address sanitizer keeps what it knows of the frames on the stack that is left.
extern "C" void SplitLlmSwitchStacks(void** left, void* next);

asm(R"(
    .text
    .globl SplitLlmSwitchStacks
    .hidden SplitLlmSwitchStacks
    .type SplitLlmSwitchStacks, @function
SplitLlmSwitchStacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size SplitLlmSwitchStacks, .-SplitLlmSwitchStacks
)");

#endif

namespace splitllm::emulation
{

#ifdef SPLITLLM_SWITCH_X86_64

struct Fiber::Context
{
    void* stackPointer = nullptr;

    void Start(Entry entry, std::byte* bottom, std::size_t size)
    {
        // six registers, the address to return to, and that of entry's caller, who is nobody
        void** top = reinterpret_cast<void**>(bottom + size) - 8;
        for (int i = 0; i < 8; ++i)
        {
            top[i] = nullptr;
        }
        top[6] = reinterpret_cast<void*>(entry);
        stackPointer = top;
    }

    void SwitchTo(Context& next)
    {
        SplitLlmSwitchStacks(&stackPointer, next.stackPointer);
    }
};

#else

struct Fiber::Context
{
    bool started = true;
    ucontext_t start{};
    jmp_buf resumed{};

    void Start(Entry entry, std::byte* bottom, std::size_t size)
    {
        getcontext(&start);
        start.uc_stack.ss_sp = bottom;
        start.uc_stack.ss_size = size;
        start.uc_link = nullptr;
        makecontext(&start, entry, 0);
        started = false;
    }

    void SwitchTo(Context& next)
    {
        // swapcontext() would do, with a system call each time
        if (_setjmp(resumed) == 0)
        {
            if (!next.started)
            {
                next.started = true;
                setcontext(&next.start);
            }
            _longjmp(next.resumed, 1);
        }
    }
};

#endif

namespace
{

#ifdef SPLITLLM_ADDRESS_SANITIZER
constexpr std::size_t kStackBytes = 256 * 1024; // its frames are larger
#else
constexpr std::size_t kStackBytes = 64 * 1024;
#endif
constexpr std::size_t kGuardBytes = 4096;
constexpr std::size_t kColours = 16;
constexpr std::size_t kColourBytes = 256;

#ifdef SPLITLLM_ADDRESS_SANITIZER
/// The fiber that the running one was entered from.
Fiber* g_left = nullptr;
#endif

} // namespace

Fiber::Fiber()
    : m_context(std::make_unique<Context>())
{
}

Fiber::Fiber(Entry entry, std::size_t colour)
    : m_entry(entry),
      m_size(kStackBytes - colour % kColours * kColourBytes),
      m_context(std::make_unique<Context>())
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
    m_context->Start(m_entry, m_mapping + kGuardBytes, m_size);
}

void
Fiber::SwitchTo(Fiber& next)
{
#ifdef SPLITLLM_ADDRESS_SANITIZER
    g_left = this;
    void* fakeStack = nullptr;
    __sanitizer_start_switch_fiber(&fakeStack, next.m_bottom, next.m_size);
    m_context->SwitchTo(*next.m_context);
    // tells the bounds of the stack that was left, which is how those of the host's stack are known
    __sanitizer_finish_switch_fiber(fakeStack, &g_left->m_bottom, &g_left->m_size);
#else
    m_context->SwitchTo(*next.m_context);
#endif
}

void
Fiber::Entered()
{
#ifdef SPLITLLM_ADDRESS_SANITIZER
    __sanitizer_finish_switch_fiber(nullptr, &g_left->m_bottom, &g_left->m_size);
#endif
}

} // namespace splitllm::emulation
