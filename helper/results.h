// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_RESULTS_H
#define SPLITLLM_RESULTS_H

#include "metrics.h"
#include "recorder.h"
#include "study.h"

#include <cstddef>
#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

namespace splitllm
{

/// A finished point.
struct PointResult
{
    PointSet set;
    Study study;
    std::vector<RunRecords> runs; //!< one a repetition
    Metrics metrics;
    std::vector<Metrics> repetitions{}; //!< metrics of each alone, where there are several
    Metrics halfWidths{};               //!< ConfidenceIntervals of these
};

/**
 * The result files of a study in one folder. Files are written aside and moved into place together, so that an
 * interrupted or failed run leaves none of its own and keeps those that were there.
 */
class ResultsFolder
{
  public:
    /// Creates the folder if need be. \throws InputError if it cannot be written
    explicit ResultsFolder(std::filesystem::path folder);

    /// Removes captures that were not written.
    ~ResultsFolder();
    ResultsFolder(const ResultsFolder&) = delete;
    ResultsFolder& operator=(const ResultsFolder&) = delete;

    /// What the names of a run's capture files begin with until Write() moves them to pcap/. \throws InputError
    std::string Captures(std::size_t point, std::size_t repetition) const;

    /// Writes summary.json, run.json, timeline.json and the tables; those of early exits only where there are some, and
    /// removes them where not. The captures in pcap/ are then those of these points.
    /// \param run what varies between runs: wall time, versions, machine
    void Write(const std::string& study, const std::vector<PointResult>& points, const Json& run) const;

  private:
    void MoveCaptures() const;

    std::filesystem::path m_folder;
    std::filesystem::path m_captures; //!< a folder aside for captures, while there are some
};

/// "rate = 1Gbps, ..." : the swept values of a point by the last part of their keys; empty where nothing is swept.
std::string TitleOf(const PointSet& set);

/// A table of the points with what most people look at first.
void PrintTable(std::ostream& stream, const std::vector<PointResult>& points);

/**
 * Prints each expectation with what was found.
 * \return how many failed; one that names a metric which a selected point does not have fails
 */
std::size_t CheckExpectations(std::ostream& stream,
                              const std::vector<Expectation>& expectations,
                              const std::vector<PointResult>& points);

} // namespace splitllm

#endif // SPLITLLM_RESULTS_H
