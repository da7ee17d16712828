// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/spa/side-states.h"

#include "codec/dense-codec.h"

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace splitllm
{

namespace
{

constexpr std::size_t kLengthBytes = sizeof(std::uint32_t);

/// Whether the last state crosses besides what the cloud projected.
bool
SendsLast(const SpaOptions& options)
{
    return options.head == SpaNode::Device && !options.side->Alone();
}

/// Two payloads as one: the length of the first, and both.
Payload
Joined(Payload first, Payload second)
{
    if (first.phantom && !second.bytes.empty())
    {
        throw std::logic_error("only the front of a phantom payload is real");
    }
    const auto length = static_cast<std::uint32_t>(first.size);
    Payload joined = EncodeTokens({&length, 1});
    joined.bytes.insert(joined.bytes.end(), first.bytes.begin(), first.bytes.end());
    joined.bytes.insert(joined.bytes.end(), second.bytes.begin(), second.bytes.end());
    joined.size += first.size + second.size;
    joined.phantom = first.phantom;
    joined.coded = first.coded;
    return joined;
}

/// The inverse of Joined. \throws ProtocolError
std::pair<Payload, Payload>
Parted(Payload joined)
{
    if (joined.bytes.size() < kLengthBytes)
    {
        throw ProtocolError("side-states: " + std::to_string(joined.size) + " bytes have no room for a length");
    }
    const std::uint32_t length = DecodeTokens(
        Payload::Of({joined.bytes.begin(), joined.bytes.begin() + static_cast<std::ptrdiff_t>(kLengthBytes)})).front();
    if (length > joined.size - kLengthBytes)
    {
        throw ProtocolError("side-states: a first part of " + std::to_string(length) + " bytes in a payload of " +
                            std::to_string(joined.size));
    }
    Payload first{.bytes = {}, .size = length, .phantom = joined.phantom, .coded = joined.coded};
    Payload second{.bytes = {}, .size = joined.size - kLengthBytes - length, .phantom = joined.phantom,
                   .coded = joined.coded};
    if (!joined.phantom)
    {
        const auto middle = joined.bytes.begin() + static_cast<std::ptrdiff_t>(kLengthBytes + length);
        first.bytes.assign(joined.bytes.begin() + static_cast<std::ptrdiff_t>(kLengthBytes), middle);
        second.bytes.assign(middle, joined.bytes.end());
    }
    return {std::move(first), std::move(second)};
}

/// \p message with another payload.
Message
With(Message message, Payload payload)
{
    message.payload = std::move(payload);
    return message;
}

} // namespace

Task<void>
SendSideStates(Session& s,
               const SchemeParts& parts,
               const SpaOptions& options,
               std::size_t position,
               const LayerStates& states)
{
    Payload payload;
    if (options.downProjection == SpaNode::Device)
    {
        Tensor all;
        for (const Tensor& state : states)
        {
            all.Append(state);
        }
        payload = co_await s.Encode(MessageKind::SideStates, 0, std::move(all));
    }
    else
    {
        Tensor input = co_await s.Run(*parts.model, s.host.backend->SideInput(*options.side, states));
        payload = co_await s.Encode(MessageKind::SideStates, 0, std::move(input));
        if (SendsLast(options))
        {
            Payload last = co_await s.Encode(MessageKind::SideStates, states.size(), states.back());
            payload = Joined(std::move(payload), std::move(last));
        }
    }
    s.Send(MessageKind::SideStates, position, 0, std::move(payload), s.Codec().Exact());
}

Task<SideInputs>
TakeSideStates(Session& s, const SchemeParts& parts, const SpaOptions& options, Message message, std::size_t rows)
{
    const ResidentModel& model = *parts.model;
    const ModelConfig& config = model.Config();
    SideInputs inputs;
    if (options.downProjection == SpaNode::Device)
    {
        const Tensor all = co_await s.TensorIn(std::move(message), config.layers * rows, config.hidden);
        LayerStates states;
        for (std::size_t l = 0; l < config.layers; l++)
        {
            states.push_back(all.Slice(l * rows, rows));
        }
        inputs.input = co_await s.Run(model, s.host.backend->SideInput(*options.side, states));
        inputs.last = std::move(states.back());
        co_return inputs;
    }
    const std::size_t width = config.layers * options.side->Width();
    if (!SendsLast(options))
    {
        inputs.input = co_await s.TensorIn(std::move(message), rows, width);
        co_return inputs;
    }
    auto [projected, last] = Parted(std::move(message.payload));
    Message lastMessage = With(message, std::move(last));
    lastMessage.layer = static_cast<std::uint16_t>(config.layers);
    inputs.input = co_await s.TensorIn(With(std::move(message), std::move(projected)), rows, width);
    inputs.last = co_await s.TensorIn(std::move(lastMessage), rows, config.hidden);
    co_return inputs;
}

} // namespace splitllm
