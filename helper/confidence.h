// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CONFIDENCE_H
#define SPLITLLM_CONFIDENCE_H

#include "metrics.h"

#include <cstdint>
#include <vector>

namespace splitllm
{

/**
 * The t that a variable of Student's distribution with \p degrees of freedom, at least 1, exceeds in magnitude with
 * probability 0.05. The same bits on every machine.
 */
double StudentT95(std::uint32_t degrees);

/**
 * Half the width of the 95 % confidence interval of the mean of \p values, which are independent: t s / sqrt(n) with
 * n - 1 degrees of freedom. \p values are two at least.
 */
double HalfWidth95(const std::vector<double>& values);

/// HalfWidth95 of every metric over the repetitions that have it, where two do at least; in the order of the first.
Metrics ConfidenceIntervals(const std::vector<Metrics>& repetitions);

} // namespace splitllm

#endif // SPLITLLM_CONFIDENCE_H
