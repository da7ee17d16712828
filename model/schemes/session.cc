// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/session.h"

#include "codec/dense-codec.h"

#include <limits>
#include <string>
#include <utility>

namespace splitllm
{

Session::Session(Host& itsHost, MessagePort* port, DType wire)
    : host(itsHost),
      m_port(port),
      m_wire(wire)
{
}

void
Session::Send(MessageKind kind, std::size_t position, std::size_t layer, const Tensor& tensor)
{
    Send(kind, position, layer, Encode(tensor), m_wire);
}

Payload
Session::Encode(const Tensor& tensor) const
{
    return EncodeDense(tensor, m_wire);
}

void
Session::Send(MessageKind kind, std::size_t position, std::size_t layer, Payload payload, DType dtype)
{
    m_port->Send({.kind = kind,
                  .dtype = dtype,
                  .session = id,
                  .request = request,
                  .sequence = 0,
                  .position = static_cast<std::uint32_t>(position),
                  .layer = static_cast<std::uint16_t>(layer),
                  .payload = std::move(payload)},
                 path);
}

Task<Message>
Session::Receive()
{
    Arrival arrival = co_await m_port->Receive();
    path.Receive(arrival.senderPath, arrival.sent, arrival.arrived, ns3::Simulator::Now());
    co_return std::move(arrival.message);
}

void
Session::Expect(const Message& message, MessageKind kind, std::size_t layer) const
{
    if (message.kind != kind || message.layer != layer || message.request != request)
    {
        throw ProtocolError("expected " + std::string(NameOf(kind)) + " of layer " + std::to_string(layer) +
                            ", request " + std::to_string(request) + ", got " + std::string(NameOf(message.kind)) +
                            " of layer " + std::to_string(message.layer) + ", request " +
                            std::to_string(message.request));
    }
}

Task<Message>
Session::ReceiveStep(MessageKind kind, std::size_t position)
{
    Message message = co_await Receive();
    if (position == 0)
    {
        id = message.session;
        request = message.request;
    }
    const bool ends = message.kind == MessageKind::End;
    if (message.session != id || message.request != request ||
        !(ends || (message.kind == kind && message.position == position)))
    {
        throw ProtocolError("expected " + std::string(NameOf(kind)) + " at position " + std::to_string(position) +
                            " of request " + std::to_string(request) + ", got " + std::string(NameOf(message.kind)) +
                            " at position " + std::to_string(message.position) + " of request " +
                            std::to_string(message.request));
    }
    co_return message;
}

Task<std::vector<TokenId>>
Session::ReceiveTokens(MessageKind kind, std::size_t vocab)
{
    const Message message = co_await Receive();
    if (message.kind != kind || message.request != request)
    {
        throw ProtocolError("expected " + std::string(NameOf(kind)) + " of request " + std::to_string(request) +
                            ", got " + std::string(NameOf(message.kind)) + " of request " +
                            std::to_string(message.request));
    }
    co_return TokensIn(message, vocab);
}

std::vector<TokenId>
Session::TokensIn(const Message& message, std::size_t vocab)
{
    if (message.dtype != DType::I32)
    {
        throw ProtocolError("expected token ids, got elements of " + std::string(NameOf(message.dtype)));
    }
    std::vector<TokenId> tokens;
    try
    {
        tokens = DecodeTokens(message.payload);
    }
    catch (const DecodeError& error)
    {
        throw ProtocolError(std::string(NameOf(message.kind)) + ": " + error.what());
    }
    for (const TokenId token : tokens)
    {
        if (token >= vocab)
        {
            throw ProtocolError("token " + std::to_string(token) + " is outside the vocabulary of " +
                                std::to_string(vocab));
        }
    }
    return tokens;
}

void
Session::Decide(const Cell& cell, unsigned tier, const Verdict& verdict)
{
    if (onDecision)
    {
        onDecision({.session = id,
                    .request = cell.request,
                    .position = static_cast<std::uint32_t>(cell.position),
                    .layer = static_cast<std::uint16_t>(cell.layer),
                    .tier = static_cast<std::uint8_t>(tier),
                    .yes = verdict.yes,
                    .score = verdict.score.value_or(std::numeric_limits<double>::quiet_NaN())});
    }
}

Tensor
Session::TensorIn(const Message& message, std::size_t cols) const
{
    if (message.dtype != m_wire)
    {
        throw ProtocolError("expected elements of " + std::string(NameOf(m_wire)) + ", got " +
                            std::string(NameOf(message.dtype)));
    }
    try
    {
        return DecodeDense(message.payload, cols, m_wire);
    }
    catch (const DecodeError& error)
    {
        throw ProtocolError(std::string(NameOf(message.kind)) + ": " + error.what());
    }
}

Task<ByteSemaphore::Ticket>
Session::Admit(std::uint64_t bytes)
{
    const ns3::Time asked = ns3::Simulator::Now();
    ByteSemaphore::Ticket ticket = co_await host.kvMemory.Acquire(bytes);
    path.Charge(Component::Queue, ns3::Simulator::Now() - asked);
    co_return std::move(ticket);
}

void
Session::Record(const ComputeJob& job, ns3::Time submitted, const ComputeQueue::Slot& slot)
{
    if (host.onCompute)
    {
        host.onCompute({.session = id,
                        .request = request,
                        .operation = std::string(NameOf(job.operation)),
                        .layer = static_cast<int>(job.layer),
                        .rows = job.rows,
                        .component = ComponentOf(job.operation),
                        .submitted = submitted,
                        .start = slot.start,
                        .end = slot.end,
                        .batch = slot.batch});
    }
}

Component
ComponentOf(Operation operation)
{
    switch (operation)
    {
    case Operation::Adapt:
    case Operation::Merge:
        return Component::Adapter;
    case Operation::Calibrate:
        return Component::Calibrator;
    case Operation::Embed:
    case Operation::Project:
    case Operation::FinishLayer:
    case Operation::Prune:
    case Operation::Head:
    case Operation::Sample:
        break;
    }
    return Component::Base;
}

} // namespace splitllm
