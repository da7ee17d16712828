// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_EMULATION_FIBER_H
#define SPLITLLM_EMULATION_FIBER_H

#include <cstddef>
#include <memory>

namespace splitllm::emulation
{

/// A stack on which a function runs and from which it can switch to another. The address sanitizer knows of it.
class Fiber
{
  public:
    /// What a fiber executes; it never returns.
    using Entry = void (*)();

    /// The host's own stack.
    Fiber();

    /// A fiber that starts in entry() when it is first switched to. Fibers with different colours use different cache
    /// lines, so that a warp's stacks fit into the first-level cache together.
    Fiber(Entry entry, std::size_t colour);
    ~Fiber();

    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    /// Leaves this fiber, which must be the running one, for another; returns when something switches back.
    void SwitchTo(Fiber& next);

    /// To be called at the start of entry().
    static void Entered();

    /// Forgets what the fiber was doing; it starts at its entry again. What its frames held is not destroyed.
    void Restart();

  private:
    /// Where the fiber goes on.
    struct Context;

    Entry m_entry = nullptr;
    std::byte* m_mapping = nullptr; //!< the stack with a guard page below it; null for the host's stack
    const void* m_bottom = nullptr; //!< of the stack; for the host's only what the address sanitizer says
    std::size_t m_size = 0;         //!< of the stack, less for colours
    std::unique_ptr<Context> m_context;
};

} // namespace splitllm::emulation

#endif // SPLITLLM_EMULATION_FIBER_H
