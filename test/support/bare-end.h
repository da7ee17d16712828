// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_BARE_END_H
#define SPLITLLM_TEST_BARE_END_H

#include "net/wire.h"

#include "ns3/callback.h"
#include "ns3/packet.h"
#include "ns3/ptr.h"
#include "ns3/socket.h"

#include <cstdint>
#include <functional>
#include <utility>

namespace splitllm::test
{

/// One end of a connection on which counted bytes go back and forth: what messages cost on ns-3 alone.
struct BareEnd
{
    void Attach(ns3::Ptr<ns3::Socket> its)
    {
        socket = std::move(its);
        socket->SetRecvCallback(ns3::Callback<void, ns3::Ptr<ns3::Socket>>([this](ns3::Ptr<ns3::Socket> from) {
            while (ns3::Ptr<ns3::Packet> packet = from->Recv())
            {
                due -= packet->GetSize();
            }
            if (due == 0)
            {
                onMessage();
            }
        }));
    }

    /// A message with a payload of \p bytes.
    void Send(std::uint32_t bytes, BareEnd& peer)
    {
        const auto size = static_cast<std::uint32_t>(kHeaderBytes + bytes);
        peer.due = size;
        socket->Send(ns3::Create<ns3::Packet>(size));
    }

    ns3::Ptr<ns3::Socket> socket;
    std::uint32_t due = 0;
    std::function<void()> onMessage;
};

} // namespace splitllm::test

#endif // SPLITLLM_TEST_BARE_END_H
