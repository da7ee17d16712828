// SPDX-License-Identifier: GPL-2.0-only
#include "timeline.h"

#include "base/strict-json.h"

#include <array>
#include <iomanip>
#include <map>

namespace splitllm
{

namespace
{

constexpr std::array<const char*, 5> kLaneNames{"tokens", "compute", "messages in", "packets out", "mode"};

/// Trace times are microseconds; three decimals keep the nanoseconds.
std::string
Microseconds(ns3::Time time)
{
    const std::int64_t ns = time.GetNanoSeconds();
    std::string fraction = std::to_string(ns % 1000);
    return std::to_string(ns / 1000) + "." + std::string(3 - fraction.size(), '0') + fraction;
}

} // namespace

void
WriteTimeline(std::ostream& stream, const std::vector<PointTimeline>& runs)
{
    const auto quoted = [](const std::string& text) { return Json(text).dump(); };
    std::string separator = "\n";
    const auto begin = [&]() -> std::ostream& {
        stream << separator;
        separator = ",\n";
        return stream;
    };
    stream << R"({"displayTimeUnit":"ms","traceEvents":[)";
    int processes = 0;
    int messages = 0;
    for (const auto& [point, title, spans] : runs)
    {
        std::map<std::string, int> nodes;
        for (const TimelineSpan& span : spans)
        {
            const auto [node, isNew] = nodes.try_emplace(span.node, processes + 1);
            if (isNew)
            {
                processes++;
                const std::string name = title.empty() ? span.node : span.node + " (" + title + ")";
                begin() << R"({"ph":"M","name":"process_name","pid":)" << processes << R"(,"args":{"name":)"
                        << quoted(name) << ",\"point\":" << point << "}}";
                for (std::size_t lane = 0; lane < kLaneNames.size(); lane++)
                {
                    begin() << R"({"ph":"M","name":"thread_name","pid":)" << processes << R"(,"tid":)" << lane
                            << R"(,"args":{"name":")" << kLaneNames[lane] << "\"}}";
                }
            }
            const std::string where = "\"pid\":" + std::to_string(node->second) +
                                      ",\"tid\":" + std::to_string(static_cast<int>(span.lane)) +
                                      ",\"cat\":\"" + kLaneNames[static_cast<std::size_t>(span.lane)] + "\"";
            if (span.lane == Lane::Messages)
            {
                // Messages may overlap, so they are asynchronous spans: begin and end share an id.
                const std::string id = ",\"id\":" + std::to_string(++messages) + ",\"name\":" + quoted(span.name);
                begin() << R"({"ph":"b",)" << where << id << ",\"ts\":" << Microseconds(span.start) << ",\"args\":{"
                        << span.details << "}}";
                begin() << R"({"ph":"e",)" << where << id << ",\"ts\":" << Microseconds(span.end) << "}";
            }
            else
            {
                begin() << R"({"ph":"X",)" << where << ",\"name\":" << quoted(span.name)
                        << ",\"ts\":" << Microseconds(span.start)
                        << ",\"dur\":" << Microseconds(span.end - span.start) << ",\"args\":{" << span.details
                        << "}}";
            }
        }
    }
    stream << "\n]}\n";
}

} // namespace splitllm
