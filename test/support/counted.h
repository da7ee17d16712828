// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_COUNTED_H
#define SPLITLLM_TEST_COUNTED_H

namespace splitllm::test
{

/// An object that knows how many of it exist, so that a leak or a second destruction shows.
class Counted
{
  public:
    Counted()
    {
        s_alive++;
    }

    Counted(const Counted& /* other */)
    {
        s_alive++;
    }

    Counted& operator=(const Counted&) = default;

    ~Counted()
    {
        s_alive--;
    }

    static int Alive()
    {
        return s_alive;
    }

  private:
    static inline int s_alive = 0;
};

} // namespace splitllm::test

#endif // SPLITLLM_TEST_COUNTED_H
