// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_OUTAGE_ERROR_MODEL_H
#define SPLITLLM_OUTAGE_ERROR_MODEL_H

#include "net/outage-schedule.h"

#include "ns3/error-model.h"
#include "ns3/packet.h"
#include "ns3/ptr.h"
#include "ns3/type-id.h"

namespace splitllm
{

/// Loses every packet that arrives in an outage, and those that another error model loses.
class OutageErrorModel final : public ns3::ErrorModel
{
  public:
    static ns3::TypeId GetTypeId();

    /// \param beside what else loses packets; may be null. It is asked about every packet, so that its random numbers
    /// do not depend on the outages.
    explicit OutageErrorModel(OutageSchedule outages, ns3::Ptr<ns3::ErrorModel> beside = nullptr);

  private:
    bool DoCorrupt(ns3::Ptr<ns3::Packet> packet) override;
    void DoReset() override;

    OutageSchedule m_outages;
    ns3::Ptr<ns3::ErrorModel> m_beside;
};

} // namespace splitllm

#endif // SPLITLLM_OUTAGE_ERROR_MODEL_H
