// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_OUTAGE_SPEC_H
#define SPLITLLM_OUTAGE_SPEC_H

#include "base/strict-json.h"
#include "net/outage-schedule.h"

#include "ns3/nstime.h"

#include <cstdint>
#include <optional>
#include <vector>

namespace splitllm
{

/// An outage as a study describes it.
struct OutageSpec
{
    ns3::Time at;                      //!< when it begins, or the end of the time in which it does
    bool isDrawn = false;              //!< it begins at a random time in [0, at)
    std::optional<ns3::Time> duration; //!< for ever if absent
};

/**
 * Reads the list "outages" of \p object, if there is one: of each outage "at" or "within", and "for".
 * \throws InputError for an outage with both or neither of the former, and for times of zero where they make no sense
 */
std::vector<OutageSpec> ReadOutages(StrictObject& object);

/// The outages of one run. \param stream that random begins are drawn from, one for each in its order
std::vector<Outage> DrawOutages(const std::vector<OutageSpec>& specs, std::int64_t stream);

} // namespace splitllm

#endif // SPLITLLM_OUTAGE_SPEC_H
