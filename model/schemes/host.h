// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_HOST_H
#define SPLITLLM_HOST_H

#include "compute/backend.h"
#include "compute/device-profile.h"
#include "compute/memory-ledger.h"
#include "sim/byte-semaphore.h"
#include "sim/compute-queue.h"
#include "sim/split-llm-records.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>

namespace splitllm
{

/// The machine that roles run on: what it computes with, how fast it is, what it remembers, and when it is free.
struct Host
{
    Host(std::string itsName, std::shared_ptr<Backend> itsBackend, std::shared_ptr<const DeviceProfile> itsProfile)
        : name(std::move(itsName)),
          backend(std::move(itsBackend)),
          profile(std::move(itsProfile)),
          memory(profile->Memory()),
          queue(*profile)
    {
    }

    std::string name;
    std::shared_ptr<Backend> backend;
    std::shared_ptr<const DeviceProfile> profile; //!< equal machines share it
    MemoryLedger memory;
    ComputeQueue queue;
    ns3::Time stepTime; //!< smoothed time from a step's arrival to its answer, over all sessions that measure it
    ByteSemaphore kvMemory{0}; //!< what requests may need of KV memory at most; every request holds its share
    std::function<void(const ComputeRecord&)> onCompute; //!< called when an operation ends
};

} // namespace splitllm

#endif // SPLITLLM_HOST_H
