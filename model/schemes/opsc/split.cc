// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/opsc/split.h"

#include "codec/dense-codec.h"
#include "schemes/full-model.h"
#include "schemes/opsc/opsc-options.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>
#include <vector>

namespace splitllm
{

using ns3::Simulator;
using ns3::Time;

namespace
{

/// A message that is coded and not sent yet.
struct Upload
{
    MessageKind kind;
    std::size_t position;
    Payload payload;
    DType dtype;
};

using Uploads = std::vector<Upload>;

/// What the cloud tells with a token: within what time from a step's start it wants the next upload, in microseconds.
using Announcement = std::uint32_t;

Announcement
Announced(Time deadline)
{
    const std::int64_t most = std::numeric_limits<Announcement>::max();
    return static_cast<Announcement>(std::clamp<std::int64_t>(deadline.GetMicroSeconds(), 0, most));
}

/// Layers [first, last) of \p model for \p h, whose keys and values go to \p cache.
Task<Tensor>
RunLayers(Session& s, const ResidentModel& model, std::size_t first, std::size_t last, Tensor h, RequestCache& cache)
{
    Backend& backend = *s.host.backend;
    cache.Reserve(h.Rows());
    for (std::size_t l = first; l < last; l++)
    {
        const Projections qkv = co_await s.Run(model, backend.Project(model, l, h), l + 1);
        h = co_await s.Run(model, backend.FinishLayer(model, l, h, qkv, cache.Cache()), l + 1);
    }
    co_return h;
}

/// The user's device: embedding, the front layers, and Algorithm 2.
class Device final : public UserRole
{
  public:
    Device(Session& session, const SchemeParts& parts, const OpscOptions& options)
        : s(session),
          m_parts(parts),
          m_options(options),
          m_model(options.device ? *options.device : *parts.model),
          m_deadline(options.deadline)
    {
    }

    Task<std::optional<TokenId>> Step(std::span<const TokenId> tokens, std::size_t position) override
    {
        m_start = Simulator::Now();
        m_position = position;
        Tensor h = co_await Front(tokens);
        m_newest = h;
        if (RemembersStates())
        {
            m_states.Append(h);
            m_stateMemory.Resize(m_states.Elements() * SizeOf(m_model.Activations()));
        }
        std::optional<Uploads> uploads;
        if (m_deadline && m_options.controlled)
        {
            uploads = co_await WithinDeadline();
        }
        else
        {
            uploads = co_await Code(SendsKeysAndValues(), *m_parts.codec);
            if (m_deadline)
            {
                Report(*uploads, SendsKeysAndValues(), false);
            }
        }
        if (!uploads)
        {
            co_return std::nullopt; // early exit
        }
        for (Upload& upload : *uploads)
        {
            s.Send(upload.kind, upload.position, m_options.split, std::move(upload.payload), upload.dtype);
        }
        co_return co_await ReceiveAnswer();
    }

    void EndRequest() override
    {
        s.Send(MessageKind::End, 0, 0, {}, DType::F32);
        m_front.reset();
        m_back.reset();
        m_states = {};
        m_newest = {};
        m_stateMemory = {};
    }

  private:
    bool SendsKeysAndValues() const
    {
        return m_options.context == OpscContext::StatelessKv;
    }

    /// Whether all states may have to travel.
    bool RemembersStates() const
    {
        return m_options.context == OpscContext::Stateless ||
               (SendsKeysAndValues() && m_options.deadline && m_options.controlled);
    }

    /// Whether there are layers behind the split.
    bool HasBack() const
    {
        return m_options.split < m_model.Config().layers;
    }

    /// Embedding and layers 1 to l.
    Task<Tensor> Front(std::span<const TokenId> tokens)
    {
        const std::size_t layers = m_model.Config().layers;
        if (!m_front)
        {
            m_front = std::make_unique<RequestCache>(s, m_model, 0, m_options.split);
            m_stateMemory = Reservation(s.host.memory, MemoryUse::Activations, 0);
            if (SendsKeysAndValues() && HasBack())
            {
                m_back = std::make_unique<RequestCache>(s, m_model, m_options.split, layers);
            }
        }
        Tensor h = co_await s.Run(m_model, s.host.backend->Embed(m_model, tokens, m_position));
        co_return co_await RunLayers(s, m_model, 0, m_options.split, std::move(h), *m_front);
    }

    /// Eq 3: what the cloud needs for this step. \param keysAndValues I_kv, where the context has them
    Task<Uploads> Code(bool keysAndValues, const TensorCodec& codec)
    {
        Uploads uploads;
        if (keysAndValues)
        {
            Tensor entries = co_await KeysAndValues();
            if (entries.Rows() > 0)
            {
                Payload payload = co_await s.Encode(MessageKind::KvCache, m_options.split, std::move(entries), codec);
                uploads.push_back({MessageKind::KvCache, m_position, std::move(payload), codec.Exact()});
            }
        }
        const bool newestAlone = keysAndValues || m_options.context == OpscContext::Stateful;
        Tensor states = newestAlone ? m_newest : m_states;
        Payload payload = co_await s.Encode(MessageKind::HiddenState, m_options.split, std::move(states), codec);
        uploads.push_back({MessageKind::HiddenState, m_position, std::move(payload), codec.Exact()});
        co_return uploads;
    }

    /// The first two terms of Eq 2: those of the front where they travel, then those of the back.
    Task<Tensor> KeysAndValues()
    {
        Backend& backend = *s.host.backend;
        const std::size_t layers = m_model.Config().layers;
        const std::size_t w = m_front->Position();
        Tensor entries;
        if (m_options.kvPayload == KvPayload::Printed)
        {
            entries = co_await s.Run(m_model, backend.Snapshot(m_front->Cache(), 0, m_options.split, 0, w));
        }
        if (HasBack() && m_position > 0)
        {
            const Tensor back =
                co_await s.Run(m_model, backend.Snapshot(m_back->Cache(), m_options.split, layers, 0, m_position));
            entries.Append(back);
        }
        co_return entries;
    }

    /**
     * Algorithm 2 for one token: what to send so that it arrives by the deadline; nothing if nothing does. It compresses
     * keys and values only while there is time left to send the states instead, and not at all where that would cost
     * more time than there is.
     */
    Task<std::optional<Uploads>> WithinDeadline()
    {
        const TensorCodec& plain = *m_parts.codec;
        const TensorCodec& compressed = *m_options.compressed;
        const bool keysAndValues = SendsKeysAndValues();
        Uploads asItIs = co_await Code(keysAndValues, plain);
        if (Arrives(asItIs, keysAndValues, false))
        {
            co_return asItIs;
        }
        if (keysAndValues && LeavesTimeForStates(asItIs))
        {
            Uploads smaller = co_await Code(true, compressed);
            if (Arrives(smaller, true, true))
            {
                co_return smaller;
            }
        }
        if (keysAndValues)
        {
            asItIs = co_await Code(false, plain);
        }
        const std::size_t rows = StateRows();
        const Time encoding = s.EncodingTime(compressed, rows, m_model.Config().hidden);
        if (Elapsed() + encoding > *m_deadline && Arrives(asItIs, false, false))
        {
            co_return asItIs;
        }
        Uploads smallest = co_await Code(false, compressed);
        if (Arrives(smallest, false, true))
        {
            co_return smallest;
        }
        co_return std::nullopt;
    }

    std::size_t StateRows() const
    {
        return m_options.context == OpscContext::Stateful ? m_newest.Rows() : m_states.Rows();
    }

    /// Whether the states would still arrive in time if \p uploads were compressed in vain.
    bool LeavesTimeForStates(const Uploads& uploads) const
    {
        const ModelConfig& config = m_model.Config();
        const std::size_t entryBytes = config.KvWidth() * SizeOf(m_parts.codec->Exact());
        const std::size_t entries = uploads.front().payload.size / entryBytes;
        const std::size_t stateBytes = StateRows() * config.hidden * SizeOf(m_parts.codec->Exact());
        const Time encoding = s.EncodingTime(*m_options.compressed, entries, config.KvWidth()) +
                              s.EncodingTime(*m_options.compressed, m_newest.Rows(), config.hidden) +
                              s.EncodingTime(*m_options.compressed, StateRows(), config.hidden);
        return Elapsed() + encoding + s.WorstArrival(MessageKind::HiddenState, stateBytes) <= *m_deadline;
    }

    Time Elapsed() const
    {
        return Simulator::Now() - m_start;
    }

    /// Eq 11: time from the step's start until \p uploads, sent now, have arrived at worst.
    Time Latency(const Uploads& uploads) const
    {
        Time latency = Elapsed();
        for (const Upload& upload : uploads)
        {
            latency += s.WorstArrival(upload.kind, upload.payload.size);
        }
        return latency;
    }

    /// Whether \p uploads arrive by the deadline if they are sent now; reports them if so.
    bool Arrives(const Uploads& uploads, bool keysAndValues, bool compressed) const
    {
        const bool arrives = Latency(uploads) <= *m_deadline;
        if (arrives)
        {
            Report(uploads, keysAndValues, compressed);
        }
        return arrives;
    }

    void Report(const Uploads& uploads, bool keysAndValues, bool compressed) const
    {
        std::uint64_t bytes = 0;
        for (const Upload& upload : uploads)
        {
            bytes += upload.payload.size;
        }
        if (s.onUpload)
        {
            s.onUpload({.session = s.id,
                        .request = s.request,
                        .position = static_cast<std::uint32_t>(m_front->Position() - 1),
                        .keysAndValues = keysAndValues,
                        .compressed = compressed,
                        .payloadBytes = bytes,
                        .start = m_start,
                        .deadline = *m_deadline,
                        .predicted = Latency(uploads)});
        }
    }

    /// The next token, with its keys and values behind the split, and the deadline of the next step, where they come.
    Task<TokenId> ReceiveAnswer()
    {
        const ModelConfig& config = m_model.Config();
        Message message = co_await s.Receive();
        if (m_back)
        {
            s.Expect(message, MessageKind::KvCache, m_options.split);
            const std::size_t rows = m_newest.Rows();
            const Tensor entries = co_await s.TensorIn(std::move(message), config.KvWidth());
            if (entries.Rows() != 2 * (config.layers - m_options.split) * rows)
            {
                throw ProtocolError("kv-cache: " + std::to_string(entries.Rows()) + " rows for " +
                                    std::to_string(rows) + " tokens");
            }
            m_back->Reserve(rows);
            Backend& backend = *s.host.backend;
            co_await s.Run(m_model, backend.Restore(m_back->Cache(), m_options.split, config.layers, entries));
            message = co_await s.Receive();
        }
        s.Expect(message, MessageKind::NextToken, 0);
        if (m_deadline)
        {
            m_deadline = ns3::MicroSeconds(TakeAnnouncement(message));
        }
        co_return Session::TokensIn(message, config.vocab).front();
    }

    /// Takes the announcement from the end of \p message. \throws ProtocolError if it has none
    static Announcement TakeAnnouncement(Message& message)
    {
        if (message.payload.phantom || message.payload.size != sizeof(TokenId) + sizeof(Announcement))
        {
            throw ProtocolError("next-token: no deadline for the next step");
        }
        const Announcement announcement = DecodeTokens(message.payload).back();
        message.payload.bytes.resize(sizeof(TokenId));
        message.payload.size = sizeof(TokenId);
        return announcement;
    }

    Session& s;
    const SchemeParts& m_parts;
    const OpscOptions& m_options;
    const ResidentModel& m_model;   //!< in the device's precision
    std::optional<Time> m_deadline; //!< of this step
    Time m_start;                   //!< of this step
    std::size_t m_position = 0;     //!< of this step's first token
    Tensor m_newest;                //!< states of this step's tokens after layer l
    Tensor m_states;                //!< of all tokens, where they may have to travel
    Reservation m_stateMemory;
    std::unique_ptr<RequestCache> m_front;
    std::unique_ptr<RequestCache> m_back; //!< what came back, where keys and values travel
};

/// The cloud: the back layers, head and sampling.
class CloudRole final : public ServerRole
{
  public:
    CloudRole(Session& session, const SchemeParts& parts, const OpscOptions& options)
        : s(session),
          m_parts(parts),
          m_options(options),
          m_layers(parts.model->Config().layers)
    {
    }

    Task<void> Serve() override
    {
        while (true)
        {
            Message message = co_await s.Receive();
            if (message.kind == MessageKind::End)
            {
                Forget();
                continue;
            }
            s.id = message.session;
            s.request = message.request;
            co_await ServeStep(std::move(message));
        }
    }

  private:
    bool HasBack() const
    {
        return m_options.split < m_layers;
    }

    const TensorCodec& CodecOf(const Message& message) const
    {
        const bool plain = !message.payload.coded && message.dtype == m_parts.codec->Exact();
        return !plain && m_options.compressed ? *m_options.compressed : *m_parts.codec;
    }

    void Forget()
    {
        m_cache.reset();
        m_admission = {};
        m_consumed = 0;
    }

    Task<void> ServeStep(Message message)
    {
        const ResidentModel& model = *m_parts.model;
        if (!m_cache && HasBack())
        {
            m_admission = co_await s.Admit(LongestKvBytes(m_parts, m_layers - m_options.split));
            m_cache = std::make_unique<RequestCache>(s, model, m_options.split, m_layers);
        }
        Time began = Simulator::Now();
        if (message.kind == MessageKind::KvCache)
        {
            co_await TakeKeysAndValues(std::move(message));
            message = co_await s.Receive();
            began = Simulator::Now();
        }
        s.Expect(message, MessageKind::HiddenState, m_options.split);
        const std::size_t position = message.position;
        const TensorCodec& codec = CodecOf(message);
        Tensor h = co_await s.TensorIn(std::move(message), model.Config().hidden, codec);
        // A cloud that knows nothing of the tokens before gets their states with the new ones.
        if (HasBack() && position != m_consumed && (m_consumed != 0 || h.Rows() <= position))
        {
            throw ProtocolError("hidden-state at position " + std::to_string(position) + " of a request that has " +
                                std::to_string(m_consumed) + " behind it");
        }
        const std::size_t rows = HasBack() ? h.Rows() - (position - m_consumed) : h.Rows();
        m_consumed = position + rows;
        if (HasBack())
        {
            h = co_await RunLayers(s, model, m_options.split, m_layers, std::move(h), *m_cache);
        }
        const TokenId next = co_await NextToken(s, m_parts, position + rows - 1, h.Slice(h.Rows() - 1, 1));
        if (m_options.context == OpscContext::StatelessKv && HasBack())
        {
            co_await SendKeysAndValues(position, rows);
        }
        SendToken(next, position + rows, Simulator::Now() - began);
        if (m_options.context != OpscContext::Stateful)
        {
            Forget(); // until the next step a stateless cloud holds nothing
        }
    }

    /// Keys and values of the tokens before; those of the front, where they travel, are of no use here.
    Task<void> TakeKeysAndValues(Message message)
    {
        const ModelConfig& config = m_parts.model->Config();
        s.Expect(message, MessageKind::KvCache, m_options.split);
        const std::size_t position = message.position;
        const TensorCodec& codec = CodecOf(message);
        const Tensor entries = co_await s.TensorIn(std::move(message), config.KvWidth(), codec);
        const std::size_t back = 2 * (m_layers - m_options.split) * position;
        if (entries.Rows() < back || position >= config.maxPositions)
        {
            throw ProtocolError("kv-cache: " + std::to_string(entries.Rows()) + " rows for " +
                                std::to_string(position) + " tokens");
        }
        if (back > 0)
        {
            m_cache->Reserve(position);
            Tensor own = entries.Slice(entries.Rows() - back, back);
            Backend& backend = *s.host.backend;
            co_await s.Run(*m_parts.model, backend.Restore(m_cache->Cache(), m_options.split, m_layers, own));
        }
        m_consumed = position;
    }

    /// Those of the step's \p rows tokens go back to the device, which keeps them.
    Task<void> SendKeysAndValues(std::size_t position, std::size_t rows)
    {
        Backend& backend = *s.host.backend;
        Tensor entries =
            co_await s.Run(*m_parts.model,
                           backend.Snapshot(m_cache->Cache(), m_options.split, m_layers, position, rows));
        co_await s.Send(MessageKind::KvCache, position, m_options.split, std::move(entries));
    }

    /// \param served what the step took from its arrival on
    void SendToken(TokenId next, std::size_t position, Time served)
    {
        std::vector<std::uint32_t> payload{next};
        if (m_options.deadline)
        {
            // Smoothed as TCP smooths its round trips: an eighth of each new value.
            Time& smoothed = s.host.stepTime;
            smoothed = smoothed.IsZero() ? served : smoothed + (served - smoothed) / 8;
            payload.push_back(Announced(*m_options.deadline - smoothed));
        }
        s.Send(MessageKind::NextToken, position, 0, EncodeTokens(payload), DType::I32);
    }

    Session& s;
    const SchemeParts& m_parts;
    const OpscOptions& m_options;
    std::size_t m_layers;
    ByteSemaphore::Ticket m_admission;     //!< of the request, or of a stateless step
    std::unique_ptr<RequestCache> m_cache; //!< of the back layers; null where there are none
    std::size_t m_consumed = 0;            //!< positions whose keys and values are there
};

} // namespace

OpscSplitScheme::OpscSplitScheme(SchemeParts parts, OpscOptions options)
    : Scheme(std::move(parts)),
      m_options(std::move(options))
{
    CheckOpsc(m_options, Parts().model->Config(), Parts().adapter != nullptr);
}

bool
OpscSplitScheme::HasServer() const
{
    return true;
}

std::unique_ptr<UserRole>
OpscSplitScheme::MakeUser(Session& session) const
{
    return std::make_unique<Device>(session, Parts(), m_options);
}

std::unique_ptr<ServerRole>
OpscSplitScheme::MakeServer(Session& session) const
{
    return std::make_unique<CloudRole>(session, Parts(), m_options);
}

Footprint
OpscSplitScheme::UserFootprint() const
{
    const ModelConfig& config = Parts().model->Config();
    const WeightPrecision& precision = m_options.device ? m_options.device->Precision() : Parts().model->Precision();
    return {EmbeddingBytes(config) + LayerBytes(config, precision, 0, m_options.split).Total(), 0};
}

Footprint
OpscSplitScheme::ServerFootprint() const
{
    return {ModelBytes(Parts().model->Config()), 0};
}

} // namespace splitllm
