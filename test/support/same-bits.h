// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_SAME_BITS_H
#define SPLITLLM_TEST_SAME_BITS_H

#include "support/monolithic.h"

#include <cstring>

namespace splitllm::test
{

/// Whether two answers have the same tokens and the same bits in all logits.
inline bool
SameBits(const Answer& a, const Answer& b)
{
    if (a.tokens != b.tokens || a.logits.size() != b.logits.size() || a.logits.empty())
    {
        return false;
    }
    for (std::size_t i = 0; i < a.logits.size(); i++)
    {
        if (a.logits[i].size() != b.logits[i].size() ||
            std::memcmp(a.logits[i].data(), b.logits[i].data(), a.logits[i].size() * sizeof(float)) != 0)
        {
            return false;
        }
    }
    return true;
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_SAME_BITS_H
