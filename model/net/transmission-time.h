// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TRANSMISSION_TIME_H
#define SPLITLLM_TRANSMISSION_TIME_H

#include "ns3/data-rate.h"
#include "ns3/nstime.h"

#include <cstdint>

namespace splitllm
{

/// The time that \p bytes take at \p rate, which must be above zero, rounded up to a nanosecond.
inline ns3::Time
TransmissionTime(std::uint64_t bytes, ns3::DataRate rate)
{
    // Integers throughout: 8e9 bytes ns/s overflows 64 bits from 2.3 GB on, hence 128.
    __extension__ typedef unsigned __int128 Wide;
    const Wide bitRate = rate.GetBitRate();
    const Wide nanoseconds = (static_cast<Wide>(bytes) * 8'000'000'000U + bitRate - 1) / bitRate;
    return ns3::NanoSeconds(static_cast<std::int64_t>(nanoseconds));
}

} // namespace splitllm

#endif // SPLITLLM_TRANSMISSION_TIME_H
