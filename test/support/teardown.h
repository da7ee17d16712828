// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_TEARDOWN_H
#define SPLITLLM_TEST_TEARDOWN_H

#include "ns3/simulator.h"

namespace splitllm::test
{

/// Takes the simulation down. Stands before what uses it.
struct Teardown
{
    ~Teardown()
    {
        ns3::Simulator::Destroy();
    }
};

} // namespace splitllm::test

#endif // SPLITLLM_TEST_TEARDOWN_H
