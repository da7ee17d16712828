// SPDX-License-Identifier: GPL-2.0-only
#include "net/outage-error-model.h"

#include "ns3/simulator.h"

#include <utility>

namespace splitllm
{

using namespace ns3;

NS_OBJECT_ENSURE_REGISTERED(OutageErrorModel);

TypeId
OutageErrorModel::GetTypeId()
{
    static TypeId tid = TypeId("splitllm::OutageErrorModel").SetParent<ErrorModel>().SetGroupName("SplitLlm");
    return tid;
}

OutageErrorModel::OutageErrorModel(OutageSchedule outages, Ptr<ErrorModel> beside)
    : m_outages(std::move(outages)),
      m_beside(std::move(beside))
{
}

bool
OutageErrorModel::DoCorrupt(Ptr<Packet> packet)
{
    const bool lost = m_beside && m_beside->IsCorrupt(packet);
    return lost || m_outages.Covers(Simulator::Now());
}

void
OutageErrorModel::DoReset()
{
    if (m_beside)
    {
        m_beside->Reset();
    }
}

} // namespace splitllm
