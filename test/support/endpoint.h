// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_ENDPOINT_H
#define SPLITLLM_TEST_ENDPOINT_H

#include "net/message-port.h"
#include "sim/task.h"

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace splitllm::test
{

/// What came out of a port until nothing more could come.
struct Inbox
{
    enum class End
    {
        None,
        Closed,
        Lost,
    };

    std::vector<Arrival> arrivals;
    End end = End::None;
    std::string reason;
};

/// One end of a connection: its port, and a process that receives into an inbox.
class Endpoint
{
  public:
    explicit Endpoint(std::unique_ptr<MessagePort> its)
        : port(std::move(its)),
          m_process(std::make_unique<Process>(Collect(*this), [](std::exception_ptr) {}))
    {
        m_process->Start();
    }

    /// Ends the process and the port where they are; the inbox stays.
    void Destroy()
    {
        m_process.reset();
        port.reset();
    }

    /// Sends a message of \p kind with \p payload in \p session.
    void Send(std::uint32_t session, Payload payload, MessageKind kind = MessageKind::Embedding)
    {
        port->Send({.kind = kind,
                    .dtype = DType::F16,
                    .session = session,
                    .request = 3,
                    .sequence = 0,
                    .position = 11,
                    .layer = 2,
                    .payload = std::move(payload)},
                   CriticalPath());
    }

    std::unique_ptr<MessagePort> port;
    Inbox inbox;
    std::function<void(Endpoint&)> onArrival; //!< called after each message

  private:
    static Task<void> Collect(Endpoint& its)
    {
        try
        {
            while (true)
            {
                Arrival arrival = co_await its.port->Receive();
                its.inbox.arrivals.push_back(std::move(arrival));
                if (its.onArrival)
                {
                    its.onArrival(its);
                }
            }
        }
        catch (const ConnectionClosed& closed)
        {
            its.inbox.end = Inbox::End::Closed;
            its.inbox.reason = closed.what();
        }
        catch (const ConnectionLost& lost)
        {
            its.inbox.end = Inbox::End::Lost;
            its.inbox.reason = lost.what();
        }
    }

    std::unique_ptr<Process> m_process;
};

} // namespace splitllm::test

#endif // SPLITLLM_TEST_ENDPOINT_H
