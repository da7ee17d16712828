// SPDX-License-Identifier: GPL-2.0-only
#include "net/connection-id.h"

#include "ns3/simulation-singleton.h"

namespace splitllm
{

namespace
{

struct LinkCount
{
    std::uint64_t links = 0;
};

} // namespace

std::uint64_t
NextLinkNumber()
{
    constexpr std::uint64_t kFirst = std::uint64_t{1} << 32;
    return kFirst + ns3::SimulationSingleton<LinkCount>::Get()->links++;
}

} // namespace splitllm
