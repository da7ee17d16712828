// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SESSION_H
#define SPLITLLM_SESSION_H

#include "codec/tensor-codec.h"
#include "compute/footprint.h"
#include "net/message-port.h"
#include "policy/offload-policy.h"
#include "schemes/host.h"
#include "schemes/outcomes.h"
#include "sim/byte-semaphore.h"
#include "sim/critical-path.h"
#include "sim/task.h"

#include "ns3/simulator.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace splitllm
{

/// A message that the protocol does not allow here. The session cannot go on.
class ProtocolError : public std::runtime_error
{
  public:
    using std::runtime_error::runtime_error;
};

/// What a random number is drawn for. Each has a stream of its own in every session.
enum class Draw : std::uint8_t
{
    Sample,     //!< the next token
    Tier1,      //!< a decision at the edge
    Tier2,      //!< a decision at the device
    Exit,       //!< whether an early exit is taken
    ExitSample, //!< the next token, at an early exit
    Gate,       //!< whether a side network is asked
};

constexpr std::size_t kDraws = 6;

/// What a connection of a session is for: CE-CoLLM's dual APIs. Other schemes have one connection, for inference.
enum class Api : std::uint8_t
{
    Inference,
    Upload,
};

/**
 * One user's conversation, as one of its two nodes sees it: the verbs that a role is written in. Everything a verb
 * costs is charged to simulated time and to the session's critical path.
 */
class Session
{
  public:
    /**
     * \param host where the role runs
     * \param codec how tensors travel
     * \param port the connection to the other node; null where there is none yet
     * \param api what the connection is for
     */
    Session(Host& host,
            std::shared_ptr<const TensorCodec> codec,
            std::unique_ptr<MessagePort> port = nullptr,
            Api api = Api::Inference);
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    /// Another connection of the same session, with a critical path of its own; it lives as long as this one.
    Session& Beside(Api api);

    /// At the user: begins to connect to the server, in place of the connection that there was.
    void Connect();

    /// Waits until messages can be sent. \throws ConnectionLost if that fails
    Task<void> Opened();

    /// The same for at most \p limit. \return whether messages can be sent
    Task<bool> OpenedWithin(ns3::Time limit);

    /// Whether messages can be sent and may come in.
    bool IsOpen() const;

    /// Whether the connection failed or the other node closed it: nothing comes in any more.
    bool IsLost() const;

    /// Whether a message has come in.
    bool HasReceived() const;

    /// Ends the connections after what was sent so far.
    void Close();

    /// Ends the connections at once.
    void Abandon();

    /// The name of the connection, the same at both ends.
    const ConnectionId& Connection() const;

    /**
     * Occupies the host's compute device for the time of an operation that was just executed, in a batch with those of
     * other sessions where the host makes batches, and returns its result when simulated time has come that far.
     * \param layer from 1; 0 outside the layers
     */
    template <typename T>
    Task<T> Run(const ResidentModel& model, Computed<T> computed, std::size_t layer = 0);

    /**
     * Waits until \p bytes of keys and values, the most that the request may need here, fit into the host's KV memory
     * beside those of the requests admitted before. The request is admitted for as long as the ticket is held.
     * \throws OutOfMemory if they never will
     */
    Task<ByteSemaphore::Ticket> Admit(std::uint64_t bytes);

    /// Codes \p tensor, which takes the codec's time, and hands it to the network, whose time nobody waits for.
    Task<void> Send(MessageKind kind, std::size_t position, std::size_t layer, Tensor tensor);

    /// What Send makes of \p tensor.
    Task<Payload> Encode(MessageKind kind, std::size_t layer, Tensor tensor);

    /// What \p codec makes of it instead.
    Task<Payload> Encode(MessageKind kind, std::size_t layer, Tensor tensor, const TensorCodec& codec);

    /// How tensors travel.
    const TensorCodec& Codec() const
    {
        return *m_codec;
    }

    /// Hands \p payload of elements of \p dtype to the network.
    void Send(MessageKind kind, std::size_t position, std::size_t layer, Payload payload, DType dtype);

    /// The next message, whatever it is. Throws what MessagePort::Receive throws.
    Task<Message> Receive();

    /**
     * The next message that is \p wanted, or nothing after \p limit; others are dropped. Waiting in vain is charged to
     * the network. Throws what MessagePort::Receive throws.
     */
    Task<std::optional<Message>> ReceiveWithin(ns3::Time limit, std::function<bool(const Message&)> wanted);

    /// A message that has come in already, outside the critical path; nothing if there is none.
    std::optional<Message> TakeArrived();

    /// \throws ProtocolError unless \p message is a \p kind for \p layer of the session's request
    void Expect(const Message& message, MessageKind kind, std::size_t layer) const;

    /**
     * The message that begins a step at the server: \p kind at \p position, or End. The session takes its request from
     * the first message of one.
     * \throws ProtocolError for anything else
     */
    Task<Message> ReceiveStep(MessageKind kind, std::size_t position);

    /// The token ids that the next message carries. \throws ProtocolError unless it is a \p kind with ids below \p vocab
    Task<std::vector<TokenId>> ReceiveTokens(MessageKind kind, std::size_t vocab);

    /// The token ids in \p message. \throws ProtocolError unless they are below \p vocab
    static std::vector<TokenId> TokensIn(const Message& message, std::size_t vocab);

    /// The 32-bit integers in \p message, at least one. \throws ProtocolError unless they are all it holds
    static std::vector<std::uint32_t> WordsIn(const Message& message);

    /// \throws ProtocolError unless \p tokens are below \p vocab
    static void ExpectKnown(std::span<const TokenId> tokens, std::size_t vocab);

    /**
     * The tensor in \p message, after the time that decoding it takes.
     * \throws ProtocolError unless it is what the session's codec makes of a tensor of \p cols columns
     */
    Task<Tensor> TensorIn(Message message, std::size_t cols);

    /// The same. \throws ProtocolError as well unless it has \p rows rows
    Task<Tensor> TensorIn(Message message, std::size_t rows, std::size_t cols);

    /// The same for a tensor of any number of rows that \p codec coded.
    Task<Tensor> TensorIn(Message message, std::size_t cols, const TensorCodec& codec);

    /// How long coding \p rows rows of \p cols elements with \p codec takes, once the device is free.
    ns3::Time EncodingTime(const TensorCodec& codec, std::size_t rows, std::size_t cols) const;

    /**
     * How long a message of \p payloadBytes takes to arrive at worst, as the link's figures say.
     * \throws std::logic_error if the connection is none that knows
     */
    ns3::Time WorstArrival(MessageKind kind, std::uint64_t payloadBytes) const;

    /// Reports a decision of tier 1 (at the edge) or 2 (at the device).
    void Decide(const Cell& cell, unsigned tier, const Verdict& verdict);

    /**
     * Reports what a token is chosen from, where this node chooses it.
     * \param position in the sequence, from 0: of the row whose state they come from
     * \param logits of the vocabulary; empty for a phantom
     */
    void ReportLogits(std::size_t position, std::span<const float> logits);

    /**
     * What \p compute decides by looking at numbers, at \p position of the session's request and \p layer (0 outside the
     * layers). Noted where the run is recorded; where a recording is replayed it is what was noted, and nothing is
     * computed. \throws InputError where nothing was recorded for this place
     */
    template <typename F>
    std::invoke_result_t<F> Outcome(std::size_t position, std::size_t layer, F&& compute);

    /// Who notes outcomes; null where nobody does.
    OutcomeRecorder* recorder = nullptr;

    /// Who hands out recorded outcomes; null where numbers decide.
    OutcomePlayer* player = nullptr;

    /// A uniform variate in [0, 1) for the purpose named: the only randomness of a role.
    std::function<double(Draw)> uniform;

    /// Called with every decision the role takes.
    std::function<void(const DecisionRecord&)> onDecision;

    /// Called with what a role decided to send under a deadline.
    std::function<void(const UploadRecord&)> onUpload;

    /// Called by the edge with how each token came about, before the token is the step's result.
    std::function<void(const ExitRecord&)> onExit;

    /// Called by SPA's cloud with what the gate decided, before the token.
    std::function<void(const GateRecord&)> onGate;

    /// Called by the edge when a stretch on its own is over.
    std::function<void(const StandaloneRecord&)> onStandalone;

    /// Called with what ReportLogits reports.
    std::function<void(const LogitsRecord&)> onLogits;

    /// At the user: makes a new connection to the server.
    std::function<std::unique_ptr<MessagePort>(Api)> connector;

    Host& host;
    const Api api;
    std::uint32_t id = 0;
    std::uint32_t request = 0;
    CriticalPath path;

  private:
    static Computed<Tensor> Decoded(const Message& message, std::size_t cols, const TensorCodec& codec);

    /**
     * Occupies the host's compute device for the time of \p computed, and returns its result.
     * \param model what it is an operation of; null for one of a codec
     * \param rate type whose peak rate applies
     * \param memory held meanwhile
     */
    template <typename T>
    Task<T> Occupy(Computed<T> computed,
                   const ResidentModel* model,
                   std::size_t layer,
                   DType rate,
                   Reservation memory = {});

    void Record(const ComputeJob& job, ns3::Time submitted, const ComputeQueue::Slot& slot);

    std::shared_ptr<const TensorCodec> m_codec;
    std::unique_ptr<MessagePort> m_port;
    std::unique_ptr<MessagePort> m_formerPort; //!< kept until the next one: it may be what called
    std::vector<std::unique_ptr<Session>> m_beside;
};

/// Which component an operation's time belongs to.
Component ComponentOf(Operation operation);

template <typename F>
std::invoke_result_t<F>
Session::Outcome(std::size_t position, std::size_t layer, F&& compute)
{
    using T = std::invoke_result_t<F>;
    const Occasion occasion{static_cast<std::uint32_t>(position), static_cast<std::uint32_t>(layer)};
    if (player != nullptr)
    {
        return player->Next<T>(request, path.At(), occasion);
    }
    T value = compute();
    if (recorder != nullptr)
    {
        recorder->Note(request, path.At(), occasion, value);
    }
    return value;
}

template <typename T>
Task<T>
Session::Run(const ResidentModel& model, Computed<T> computed, std::size_t layer)
{
    Reservation activations(host.memory,
                            MemoryUse::Activations,
                            ActivationBytes(model.Config(), computed.operation, computed.rows, model.Activations()));
    return Occupy(std::move(computed), &model, layer, model.Config().dtype, std::move(activations));
}

template <typename T>
Task<T>
Session::Occupy(Computed<T> computed,
                const ResidentModel* model,
                std::size_t layer,
                DType rate,
                [[maybe_unused]] Reservation memory)
{
    const ComputeJob job{.model = model,
                         .operation = computed.operation,
                         .layer = layer,
                         .rows = computed.rows,
                         .rate = rate,
                         .work = computed.work,
                         .elapsed = computed.elapsed};
    const ns3::Time submitted = ns3::Simulator::Now();
    const ComputeQueue::Slot slot = co_await host.queue.Run(job);
    path.Charge(Component::Queue, slot.start - submitted);
    path.Charge(ComponentOf(job.operation), slot.end - slot.start);
    Record(job, submitted, slot);
    co_return std::move(computed.value);
}

} // namespace splitllm

#endif // SPLITLLM_SESSION_H
