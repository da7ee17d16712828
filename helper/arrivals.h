// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_ARRIVALS_H
#define SPLITLLM_ARRIVALS_H

#include "base/strict-json.h"

#include "ns3/nstime.h"

#include <cstdint>
#include <filesystem>
#include <vector>

namespace splitllm
{

/// One request of the workload comes in.
struct RequestArrival
{
    ns3::Time time;     //!< from the start of the run
    std::uint32_t user; //!< number of the device where it does
};

/// How requests come in: one of three processes.
struct ArrivalSpec
{
    enum class Process
    {
        Closed,  //!< a user asks again after the last answer
        Poisson, //!< whatever becomes of the requests before
        Trace,   //!< when a file says
    };

    Process process = Process::Closed;
    ns3::Time thinkTime;        //!< Closed: from an answer to the next request
    double ratePerSecond = 0.0; //!< Poisson: requests of all users together
    std::vector<RequestArrival> trace; //!< Trace: in the order of their times

    /// Whether requests come whatever becomes of those before.
    bool IsOpen() const
    {
        return process != Process::Closed;
    }
};

/**
 * Reads "arrival" of \p workload, if it is there; closed otherwise.
 * \param requests of the workload: a trace must have as many arrivals at least
 * \param users devices
 * \param folder where a relative path of a trace starts
 */
ArrivalSpec ReadArrivals(StrictObject& workload,
                         std::uint32_t requests,
                         std::uint32_t users,
                         const std::filesystem::path& folder);

/**
 * When and where \p requests requests come in, by their index: of a closed workload all at 0. Unless a trace says
 * otherwise, they are dealt to the users in turn.
 * \param stream that Poisson's intervals are drawn from
 */
std::vector<RequestArrival> DrawArrivals(const ArrivalSpec& spec,
                                  std::uint32_t requests,
                                  std::uint32_t users,
                                  std::int64_t stream);

} // namespace splitllm

#endif // SPLITLLM_ARRIVALS_H
