// SPDX-License-Identifier: GPL-2.0-only
#include "outage-spec.h"

#include "base/units.h"

#include "ns3/ptr.h"
#include "ns3/random-variable-stream.h"

#include <algorithm>
#include <string>

namespace splitllm
{

using namespace ns3;

namespace
{

Time
PositiveDuration(StrictObject& object, const std::string& key)
{
    const Time time = NanoSeconds(ReadDuration(object, key).count());
    if (time.IsZero())
    {
        object.Fail(key, "must be above 0");
    }
    return time;
}

} // namespace

std::vector<OutageSpec>
ReadOutages(StrictObject& object)
{
    std::vector<OutageSpec> specs;
    if (!object.Has("outages"))
    {
        return specs;
    }
    for (StrictObject& entry : object.Objects("outages"))
    {
        OutageSpec spec;
        spec.isDrawn = entry.Has("within");
        if (spec.isDrawn == entry.Has("at"))
        {
            entry.Fail("at",
                       std::string(spec.isDrawn ? "stands beside \"within\"" : "missing") +
                           "; accepted: either \"at\", when the outage begins, or \"within\", before when it does");
        }
        spec.at = spec.isDrawn ? PositiveDuration(entry, "within") : NanoSeconds(ReadDuration(entry, "at").count());
        if (entry.Has("for"))
        {
            spec.duration = PositiveDuration(entry, "for");
        }
        entry.Finish();
        specs.push_back(spec);
    }
    return specs;
}

std::vector<Outage>
DrawOutages(const std::vector<OutageSpec>& specs, std::int64_t stream)
{
    const auto uniform = CreateObject<UniformRandomVariable>();
    uniform->SetStream(stream);
    std::vector<Outage> outages;
    for (const OutageSpec& spec : specs)
    {
        Outage outage{.begin = spec.at};
        if (spec.isDrawn)
        {
            const std::int64_t within = spec.at.GetNanoSeconds();
            const auto begin = static_cast<std::int64_t>(uniform->GetValue(0.0, 1.0) * static_cast<double>(within));
            outage.begin = NanoSeconds(std::min(begin, within - 1)); // a product near its bound may round up to it
        }
        if (spec.duration && *spec.duration < Time::Max() - outage.begin)
        {
            outage.end = outage.begin + *spec.duration;
        }
        outages.push_back(outage);
    }
    return outages;
}

} // namespace splitllm
