// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_NMSE_H
#define SPLITLLM_TEST_NMSE_H

#include "support/catch.h"

#include <cstddef>
#include <span>

namespace splitllm::test
{

/// The squared error over the squared reference; a NaN fails every comparison with it.
inline double
Nmse(std::span<const float> values, std::span<const float> reference)
{
    REQUIRE(values.size() == reference.size());
    double error = 0.0;
    double power = 0.0;
    for (std::size_t i = 0; i < values.size(); i++)
    {
        const double difference = double{values[i]} - double{reference[i]};
        error += difference * difference;
        power += double{reference[i]} * double{reference[i]};
    }
    return error / power;
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_NMSE_H
