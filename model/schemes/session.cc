// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/session.h"

#include "codec/dense-codec.h"
#include "compute/codec-work.h"
#include "compute/timed.h"

#include <limits>
#include <string>
#include <utility>

namespace splitllm
{

Session::Session(Host& itsHost, std::shared_ptr<const TensorCodec> codec, std::unique_ptr<MessagePort> port, Api itsApi)
    : host(itsHost),
      api(itsApi),
      m_codec(std::move(codec)),
      m_port(std::move(port))
{
}

Session&
Session::Beside(Api itsApi)
{
    Session& beside = *m_beside.emplace_back(std::make_unique<Session>(host, m_codec, nullptr, itsApi));
    beside.connector = connector;
    beside.recorder = recorder;
    beside.player = player;
    beside.id = id;
    return beside;
}

void
Session::Connect()
{
    if (m_port)
    {
        m_port->Abandon();
    }
    m_formerPort = std::move(m_port);
    m_port = connector(api);
}

Task<void>
Session::Opened()
{
    co_await m_port->Opened();
}

Task<bool>
Session::OpenedWithin(ns3::Time limit)
{
    return m_port->OpenedWithin(limit);
}

bool
Session::IsOpen() const
{
    return m_port && m_port->IsOpen();
}

bool
Session::IsLost() const
{
    return m_port && m_port->IsLost();
}

bool
Session::HasReceived() const
{
    return m_port && m_port->HasReceived();
}

void
Session::Close()
{
    for (const std::unique_ptr<Session>& beside : m_beside)
    {
        beside->Close();
    }
    if (m_port)
    {
        m_port->Close();
    }
}

void
Session::Abandon()
{
    for (const std::unique_ptr<Session>& beside : m_beside)
    {
        beside->Abandon();
    }
    if (m_port)
    {
        m_port->Abandon();
    }
}

const ConnectionId&
Session::Connection() const
{
    return m_port->Connection();
}

Task<void>
Session::Send(MessageKind kind, std::size_t position, std::size_t layer, Tensor tensor)
{
    Payload payload = co_await Encode(kind, layer, std::move(tensor));
    Send(kind, position, layer, std::move(payload), m_codec->Exact());
}

Task<Payload>
Session::Encode(MessageKind kind, std::size_t layer, Tensor tensor)
{
    return Encode(kind, layer, std::move(tensor), *m_codec);
}

Task<Payload>
Session::Encode(MessageKind kind, std::size_t layer, Tensor tensor, const TensorCodec& codec)
{
    const CodecCost cost = codec.EncodeCost(tensor.Rows(), tensor.Cols());
    auto computed = Timed(Operation::Encode, tensor.Rows(), WorkOf(cost), [&] {
        Payload payload = codec.Encode(tensor, {.kind = NameOf(kind), .layer = layer});
        if (codec.SizeDependsOnNumbers())
        {
            payload.size = Outcome(tensor.Rows(), layer, [&] { return PayloadSize{payload.size}; }).bytes;
        }
        return payload;
    });
    if (cost.IsFree())
    {
        co_return std::move(computed.value);
    }
    co_return co_await Occupy(std::move(computed), nullptr, layer, codec.Exact());
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

Task<std::optional<Message>>
Session::ReceiveWithin(ns3::Time limit, std::function<bool(const Message&)> wanted)
{
    const ns3::Time asked = ns3::Simulator::Now();
    const ns3::Time until = asked + limit;
    const auto charge = [this, asked] { path.Charge(Component::Network, ns3::Simulator::Now() - asked); };
    try
    {
        while (true)
        {
            std::optional<Arrival> arrival = co_await m_port->ReceiveWithin(until - ns3::Simulator::Now());
            if (!arrival)
            {
                charge();
                co_return std::nullopt;
            }
            if (wanted(arrival->message))
            {
                path.Receive(arrival->senderPath, arrival->sent, arrival->arrived, ns3::Simulator::Now());
                co_return std::move(arrival->message);
            }
        }
    }
    catch (...)
    {
        charge();
        throw;
    }
}

std::optional<Message>
Session::TakeArrived()
{
    std::optional<Arrival> arrival = m_port->TakeArrived();
    return arrival ? std::optional(std::move(arrival->message)) : std::nullopt;
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
    std::vector<TokenId> tokens = WordsIn(message);
    ExpectKnown(tokens, vocab);
    return tokens;
}

std::vector<std::uint32_t>
Session::WordsIn(const Message& message)
{
    if (message.dtype != DType::I32)
    {
        throw ProtocolError("expected token ids, got elements of " + std::string(NameOf(message.dtype)));
    }
    try
    {
        return DecodeTokens(message.payload);
    }
    catch (const DecodeError& error)
    {
        throw ProtocolError(std::string(NameOf(message.kind)) + ": " + error.what());
    }
}

void
Session::ExpectKnown(std::span<const TokenId> tokens, std::size_t vocab)
{
    for (const TokenId token : tokens)
    {
        if (token >= vocab)
        {
            throw ProtocolError("token " + std::to_string(token) + " is outside the vocabulary of " +
                                std::to_string(vocab));
        }
    }
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

void
Session::ReportLogits(std::size_t position, std::span<const float> logits)
{
    if (onLogits)
    {
        onLogits({.session = id,
                  .request = request,
                  .position = static_cast<std::uint32_t>(position),
                  .place = path.At(),
                  .values = logits.data(),
                  .vocab = logits.size()});
    }
}

Task<Tensor>
Session::TensorIn(Message message, std::size_t cols)
{
    return TensorIn(std::move(message), cols, *m_codec);
}

Task<Tensor>
Session::TensorIn(Message message, std::size_t rows, std::size_t cols)
{
    const std::string_view kind = NameOf(message.kind);
    Tensor tensor = co_await TensorIn(std::move(message), cols);
    if (tensor.Rows() != rows)
    {
        throw ProtocolError(std::string(kind) + ": " + std::to_string(tensor.Rows()) + " rows instead of " +
                            std::to_string(rows));
    }
    co_return tensor;
}

Task<Tensor>
Session::TensorIn(Message message, std::size_t cols, const TensorCodec& codec)
{
    Computed<Tensor> computed = Decoded(message, cols, codec);
    if (computed.value.IsPhantom() && host.backend->HasNumbers())
    {
        throw ProtocolError(std::string(NameOf(message.kind)) + ": a phantom, where numbers are computed with");
    }
    const CodecCost cost = codec.DecodeCost(computed.rows, cols);
    if (cost.IsFree())
    {
        co_return std::move(computed.value);
    }
    computed.work = WorkOf(cost);
    co_return co_await Occupy(std::move(computed), nullptr, message.layer, codec.Exact());
}

Computed<Tensor>
Session::Decoded(const Message& message, std::size_t cols, const TensorCodec& codec)
{
    if (message.dtype != codec.Exact())
    {
        throw ProtocolError("expected elements of " + std::string(NameOf(codec.Exact())) + ", got " +
                            std::string(NameOf(message.dtype)));
    }
    try
    {
        auto computed = Timed(Operation::Decode, 0, Work(), [&] {
            return codec.Decode(message.payload, cols, {.kind = NameOf(message.kind), .layer = message.layer});
        });
        computed.rows = computed.value.Rows();
        return computed;
    }
    catch (const DecodeError& error)
    {
        throw ProtocolError(std::string(NameOf(message.kind)) + ": " + error.what());
    }
}

ns3::Time
Session::EncodingTime(const TensorCodec& codec, std::size_t rows, std::size_t cols) const
{
    const Work work = WorkOf(codec.EncodeCost(rows, cols));
    return ns3::NanoSeconds(host.profile->TimeOf(Operation::Encode, rows, work, codec.Exact(), {}).count());
}

ns3::Time
Session::WorstArrival(MessageKind kind, std::uint64_t payloadBytes) const
{
    const std::optional<ns3::Time> time = m_port->WorstArrival(kind, payloadBytes);
    if (!time)
    {
        throw std::logic_error("the link cannot tell how long a message takes");
    }
    return *time;
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
    case Operation::Bottleneck:
    case Operation::SideInput:
    case Operation::Side:
    case Operation::Combine:
        return Component::Adapter;
    case Operation::Exit:
    case Operation::Gate:
    case Operation::Calibrate:
        return Component::Calibrator;
    case Operation::Encode:
    case Operation::Decode:
        return Component::Codec;
    case Operation::Embed:
    case Operation::Project:
    case Operation::FinishLayer:
    case Operation::Attend:
    case Operation::FeedForward:
    case Operation::Prune:
    case Operation::Snapshot:
    case Operation::Restore:
    case Operation::Head:
    case Operation::Sample:
    case Operation::Search:
    case Operation::Fork:
        break;
    }
    return Component::Base;
}

} // namespace splitllm
