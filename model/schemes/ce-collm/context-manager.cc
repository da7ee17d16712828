// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/ce-collm/context-manager.h"

#include "compute/footprint.h"

#include "ns3/simulator.h"

#include <algorithm>
#include <string>
#include <utility>

namespace splitllm
{

using ns3::Simulator;
using ns3::Time;

namespace
{

/// The most that an operation on the way from \p rows states to a token takes while it runs.
std::uint64_t
WorkingBytes(const ResidentModel& model, std::size_t rows)
{
    const auto bytes = [&model](Operation operation, std::size_t itsRows) {
        return ActivationBytes(model.Config(), operation, itsRows, model.Activations());
    };
    return std::max(
        {bytes(Operation::Project, rows), bytes(Operation::FinishLayer, rows), bytes(Operation::Head, 1)});
}

} // namespace

CloudContext::CloudContext(Host& host, std::uint32_t itsRequest)
    : request(itsRequest),
      stateMemory(host.memory, MemoryUse::Activations, 0)
{
}

CloudContext::~CloudContext()
{
    expiry.Cancel();
}

std::size_t
CloudContext::FirstMissing() const
{
    std::size_t position = consumed;
    for (auto state = states.begin(); state != states.end() && state->first == position; ++state)
    {
        position++;
    }
    return position;
}

std::uint64_t
CloudContext::Bytes() const
{
    return stateMemory.Bytes() + (cache ? cache->Bytes() : 0);
}

bool
CloudClient::IsOver(std::uint32_t request) const
{
    return (ended && request <= *ended) || request < latest;
}

ContextManager::ContextManager(Host& host, const SchemeParts& parts, const CeCollmOptions& options)
    : m_host(host),
      m_parts(parts),
      m_options(options)
{
}

std::shared_ptr<CloudClient>
ContextManager::Enter(std::uint32_t session, const ConnectionId& connection)
{
    std::weak_ptr<CloudClient>& entry = m_clients[session];
    std::shared_ptr<CloudClient> client = entry.lock();
    if (!client)
    {
        client = std::make_shared<CloudClient>();
        client->host = connection.client;
        entry = client;
    }
    if (client->host != connection.client)
    {
        throw ProtocolError("session " + std::to_string(session) + " belongs to another client");
    }
    return client;
}

void
ContextManager::Store(CloudClient& client, std::uint32_t request, std::size_t position, const Tensor& states, Time arrived)
{
    if (client.IsOver(request) || (client.lost == request && position > 0))
    {
        return;
    }
    client.lost.reset();
    const std::shared_ptr<CloudContext> kept = ContextOf(client, request);
    if (!kept)
    {
        return;
    }
    CloudContext& context = *kept;
    Touch(client, context);
    std::vector<std::size_t> fresh; // rows
    for (std::size_t row = 0; row < states.Rows(); row++)
    {
        if (position + row >= context.consumed && !context.states.contains(position + row))
        {
            fresh.push_back(row);
        }
    }
    const std::uint64_t bytes = fresh.size() * states.Cols() * SizeOf(m_parts.model->Activations());
    MakeRoom(bytes, 0, context);
    context.stateMemory.Resize(context.stateMemory.Bytes() + bytes);
    for (const std::size_t row : fresh)
    {
        context.states.emplace(position + row, states.Slice(row, 1));
    }
    context.arrived = arrived;
    if (context.busy)
    {
        client.changed.Put({});
    }
}

std::shared_ptr<CloudContext>
ContextManager::Use(CloudClient& client, std::uint32_t request)
{
    if (client.ended && request <= *client.ended)
    {
        throw ProtocolError("request " + std::to_string(request) + " is over");
    }
    if (client.IsOver(request))
    {
        return nullptr; // the next one's states have overtaken this
    }
    const bool givenUp = client.context && client.context->busy;
    const bool lost = givenUp || client.lost == request;
    client.lost.reset();
    if (givenUp)
    {
        Forget(client);
    }
    const std::shared_ptr<CloudContext> context = ContextOf(client, request);
    if (context)
    {
        Touch(client, *context);
    }
    return lost ? nullptr : context;
}

Tensor
ContextManager::Take(Session& session, CloudContext& context, std::size_t position)
{
    const ResidentModel& model = *m_parts.model;
    Tensor taken;
    while (!context.states.empty() && context.states.begin()->first <= position)
    {
        taken.Append(context.states.begin()->second);
        context.states.erase(context.states.begin());
    }
    context.consumed = position + 1; // at once: one of these states that comes again meanwhile is not needed
    context.stateMemory.Resize(context.states.size() * taken.Cols() * SizeOf(model.Activations()));
    if (!context.cache)
    {
        context.cache = std::make_unique<RequestCache>(session, model, m_options.uploadLayer, model.Config().layers);
    }
    MakeRoom(context.cache->BytesOf(taken.Rows()), WorkingBytes(model, taken.Rows()), context);
    context.cache->Reserve(taken.Rows());
    return taken;
}

void
ContextManager::Touch(CloudClient& client, CloudContext& context)
{
    context.lastUse = ++m_uses;
    context.lastUsed = Simulator::Now();
    if (!context.expiry.IsPending())
    {
        context.expiry = Simulator::Schedule(m_options.contextTimeout, [this, &client] { DropUnused(client); });
    }
}

void
ContextManager::DropUnused(CloudClient& client)
{
    CloudContext& context = *client.context;
    const Time left = context.lastUsed + m_options.contextTimeout - Simulator::Now();
    if (left.IsStrictlyPositive() || context.busy)
    {
        const Time wait = context.busy ? m_options.contextTimeout : left;
        context.expiry = Simulator::Schedule(wait, [this, &client] { DropUnused(client); });
        return;
    }
    Drop(client);
}

void
ContextManager::End(CloudClient& client, std::uint32_t request)
{
    client.ended = std::max(client.ended.value_or(0), request);
    if (client.lost && *client.lost <= request)
    {
        client.lost.reset();
    }
    if (client.context && client.context->request <= request)
    {
        Forget(client);
    }
}

std::shared_ptr<CloudContext>
ContextManager::ContextOf(CloudClient& client, std::uint32_t request)
{
    client.latest = request;
    if (client.context && client.context->request != request)
    {
        Forget(client); // which may make a context: the role that waited there goes on within this call
    }
    if (client.IsOver(request))
    {
        return nullptr;
    }
    if (!client.context)
    {
        client.context = std::make_shared<CloudContext>(m_host, request);
    }
    return client.context;
}

void
ContextManager::Forget(CloudClient& client)
{
    if (const std::shared_ptr<CloudContext> context = std::exchange(client.context, nullptr))
    {
        context->expiry.Cancel();
        if (context->busy)
        {
            client.changed.Put({}); // nobody waits for the answer any more
        }
    }
}

void
ContextManager::Drop(CloudClient& client)
{
    client.lost = client.context->request;
    Forget(client);
}

void
ContextManager::MakeRoom(std::uint64_t bytes, std::uint64_t working, const CloudContext& except)
{
    while (true)
    {
        std::uint64_t held = 0;
        std::shared_ptr<CloudClient> oldest;
        for (const auto& [session, entry] : m_clients)
        {
            std::shared_ptr<CloudClient> client = entry.lock();
            if (!client || !client->context)
            {
                continue;
            }
            const CloudContext& context = *client->context;
            held += context.Bytes();
            const bool idle = &context != &except && !context.busy && context.Bytes() > 0;
            if (idle && (!oldest || context.lastUse < oldest->context->lastUse))
            {
                oldest = std::move(client);
            }
        }
        const MemoryLedger& memory = m_host.memory;
        const bool fits = memory.Capacity() == 0 || memory.Used() + bytes + working <= memory.Capacity();
        const bool allowed = held + bytes <= m_options.contextMemory.value_or(held + bytes);
        if (fits && allowed)
        {
            return;
        }
        if (oldest)
        {
            Drop(*oldest);
            continue;
        }
        if (!allowed)
        {
            throw OutOfMemory("contexts of " + std::to_string(held + bytes) + " bytes, all in use, where " +
                              std::to_string(*m_options.contextMemory) + " are allowed");
        }
        return; // the reservation says what is missing
    }
}

} // namespace splitllm
