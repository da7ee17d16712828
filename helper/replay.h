// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_REPLAY_H
#define SPLITLLM_REPLAY_H

#include "base/strict-json.h"
#include "recording.h"
#include "study.h"

#include <cstdint>
#include <string>
#include <vector>

namespace splitllm
{

/// Why \p study cannot be recorded or replayed; empty where it can.
std::string WhyNoReplay(const Study& study);

/// What the numbers of a point, with every key, depend on: all of it but network, nodes, load, accounting and names.
Json Decisive(const Json& study);

/// The first key at which \p a and \p b, two Decisive, differ; empty where they do not.
std::string Difference(const Json& a, const Json& b);

/// A study in mode "replay", with what it leaves out taken from the recording.
struct Replay
{
    Json study;
    RecordedRuns runs; //!< one a recorded repetition
};

/**
 * The replay that \p study asks for: of the recorded runs in its "recording" those that it describes.
 * \param origin the study's file; a relative path begins at its folder, or at the working directory
 * \throws InputError where no run or more than one point fits, or where it says otherwise about what was recorded
 */
Replay FindReplay(const Json& study, const std::string& origin);

/// What was found of the quality of the answers that \p repetition of \p study, which Replays, repeats.
std::vector<QualityRow> ReplayedQuality(const Study& study, std::uint32_t repetition);

} // namespace splitllm

#endif // SPLITLLM_REPLAY_H
