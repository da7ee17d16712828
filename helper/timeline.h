// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TIMELINE_H
#define SPLITLLM_TIMELINE_H

#include "ns3/nstime.h"

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

namespace splitllm
{

/// A row of a node in the timeline.
enum class Lane : std::uint8_t
{
    Tokens,   //!< what the user sees
    Compute,  //!< operations on the compute device
    Messages, //!< from sending to arrival, at the receiver
    Packets,  //!< while the network device transmits them
    Mode,     //!< stretches during which an edge goes on without its cloud, or a server is down
};

/// What happened on one lane from start to end.
struct TimelineSpan
{
    std::string node;
    Lane lane;
    std::string name;
    ns3::Time start;
    ns3::Time end;
    std::string details; //!< members of a JSON object, may be empty
};

/// The spans of one run.
using Timeline = std::vector<TimelineSpan>;

/// The timeline of one point of a study.
struct PointTimeline
{
    std::size_t point; //!< from 0, in the order of the sweep
    std::string title; //!< behind the names of its nodes; may be empty
    Timeline spans;
};

/**
 * Writes timelines as a Chrome trace that Perfetto opens: a process for each run and node, a thread for each lane,
 * all on the simulation's clock.
 */
void WriteTimeline(std::ostream& stream, const std::vector<PointTimeline>& runs);

} // namespace splitllm

#endif // SPLITLLM_TIMELINE_H
