// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_METRICS_H
#define SPLITLLM_METRICS_H

#include "recorder.h"
#include "study.h"

#include <string>
#include <utility>
#include <vector>

namespace splitllm
{

/// Metric names and values, in the order in which they are reported. doc/results.md defines each.
using Metrics = std::vector<std::pair<std::string, double>>;

/// The value of \p name; nothing if the point has no such metric.
std::optional<double> Find(const Metrics& metrics, const std::string& name);

/**
 * The metrics of a point from its repetitions, whose tokens are taken together. A metric without anything to measure
 * (token latency where one token is generated, everything but memory after an out-of-memory) is absent.
 */
Metrics ComputeMetrics(const Study& study, const std::vector<RunRecords>& runs);

/// Linear interpolation between order statistics, \p fraction in [0, 1]; \p sorted is not empty.
double Percentile(const std::vector<double>& sorted, double fraction);

} // namespace splitllm

#endif // SPLITLLM_METRICS_H
