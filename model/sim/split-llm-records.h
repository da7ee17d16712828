// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_RECORDS_H
#define SPLITLLM_RECORDS_H

#include "ns3/nstime.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

/**
 * \file
 * What the applications' trace sources report. Plain data: copy what you want to keep.
 */

namespace splitllm
{

/// What a token's time is spent on. The latency of a token is the exact sum of its components.
enum class Component : std::uint8_t
{
    Base,       //!< layers, embedding, head and sampling
    Adapter,    //!< LoRA or side network
    Calibrator, //!< deciding: calibrators, exits, gates
    Codec,      //!< encoding and decoding payloads
    Network,    //!< from a message's sending to its arrival, packet queues included
    Queue,      //!< waiting for a compute device, or for KV memory
};

constexpr std::size_t kComponents = 6;

/// "base", "adapter", "calibrator", "codec", "network", "queue".
const char* NameOf(Component component);

/// Which way a message goes, seen from the user: up is towards the cloud.
enum class Direction : std::uint8_t
{
    Up,
    Down,
};

constexpr std::size_t kDirections = 2;

/// On which of a session's two nodes something happens.
enum class Place : std::uint8_t
{
    User,   //!< where the user sits
    Server, //!< edge server or cloud
};

constexpr std::size_t kPlaces = 2;

/// What a token was chosen by where a model has early exits (CE-CoLLM, section III-A).
enum class TokenSource : std::uint8_t
{
    Exit,     //!< an exit that was confident enough, or the last one of an edge that is on its own
    Cloud,    //!< the cloud, which was asked
    Fallback, //!< the last exit, because the cloud could not be reached in time
};

/// "exit", "cloud", "fallback".
const char* NameOf(TokenSource source);

/// The session of a connection over which nobody said yet whose it is.
constexpr std::uint32_t kNoSession = 0xFFFFFFFF;

/// One generated token, reported by the node that the user sits at.
struct TokenRecord
{
    std::uint32_t session;  //!< one a user device
    std::uint32_t request;  //!< index in the workload
    std::uint32_t position; //!< 1 is the first generated token
    std::uint32_t token;    //!< its id; 0 in shape mode
    bool last;              //!< of its request
    ns3::Time start;        //!< the request's arrival, or the token before
    ns3::Time latency;
    std::array<ns3::Time, kComponents> components;
    ns3::Time server; //!< part of the latency: computing, coding and queueing at the server; the network is neither's
    std::array<std::uint64_t, kDirections> payloadBytes; //!< of the messages sent for this token
    std::array<std::uint32_t, kDirections> messages;
    std::uint32_t exchanges; //!< messages down with states that an adapter or a side network on the device reads
};

/// What a beam search found, reported by the node that the user sits at after the search's last token.
struct SearchRecord
{
    std::uint32_t session;
    std::uint32_t request;             //!< index in the workload
    std::vector<std::uint32_t> tokens; //!< ids of the answer, which may be shorter than the search was
};

/// One message, reported by its sender when handed to the network and by its receiver when complete.
struct MessageRecord
{
    std::uint32_t session;
    std::uint32_t request;
    std::uint32_t position; //!< of the first row in the sequence
    std::uint16_t layer;
    std::string kind;
    Direction direction;
    bool received;              //!< false: reported by the sender
    std::uint32_t headerBytes;  //!< of the message framing
    std::uint64_t payloadBytes; //!< behind the header
    ns3::Time sent;
    ns3::Time arrived; //!< zero when reported by the sender
};

/// One decision about one layer and token.
struct DecisionRecord
{
    std::uint32_t session;
    std::uint32_t request;
    std::uint32_t position; //!< in the sequence, from 0: the row decided about
    std::uint16_t layer;    //!< from 1
    std::uint8_t tier;      //!< 1: whether the layer's input goes to the device; 2: whether its result comes back
    bool yes;
    double score; //!< that it was taken by; NaN without one
};

/// What a device sent for a token under a deadline, reported by the device before it sends.
struct UploadRecord
{
    std::uint32_t session;
    std::uint32_t request;
    std::uint32_t position;   //!< in the sequence, from 0: of the token's newest row
    bool keysAndValues;       //!< whether they travel, instead of all hidden states
    bool compressed;
    std::uint64_t payloadBytes;
    ns3::Time start;     //!< of the step
    ns3::Time deadline;  //!< time from the start within which it must arrive
    ns3::Time predicted; //!< time from the start at which it will have arrived at worst
};

/// What a token was chosen from, reported by the node that chose it.
struct LogitsRecord
{
    std::uint32_t session;
    std::uint32_t request;
    std::uint32_t position; //!< in the sequence, from 0: of the row whose state they come from
    Place place;            //!< of the node
    const float* values;    //!< valid during the call
    std::size_t vocab;      //!< 0 in shape mode
};

/// How one token came about where a model has early exits, reported by the edge before the token.
struct ExitRecord
{
    std::uint32_t session;
    std::uint32_t request;
    std::uint32_t position; //!< in the sequence, from 0: the row it was chosen from
    TokenSource source;
    std::uint16_t layer; //!< of the exit that it was taken from, from 1; 0 for the cloud
    double confidence;   //!< at that exit, or at the last one evaluated; NaN without one
    ns3::Time asked;     //!< when the cloud was asked; zero if it was not
};

/// A stretch during which an edge went on without its cloud, reported by the edge when it is over.
struct StandaloneRecord
{
    std::uint32_t session;
    ns3::Time start;
    ns3::Time end;
    std::string reason; //!< why it began
};

/// What SPA's gate decided about one token, reported by the cloud before the token.
struct GateRecord
{
    std::uint32_t session;
    std::uint32_t request;
    std::uint32_t position; //!< in the sequence, from 0: the row decided about
    bool open;              //!< the device was asked
    double probability;     //!< of open, by the gate; NaN where the gate was not asked
};

/// One stretch of a compute device.
struct ComputeRecord
{
    std::uint32_t session;
    std::uint32_t request;
    std::string operation;
    int layer; //!< from 1; 0 for operations outside the layers
    std::size_t rows;
    Component component;
    ns3::Time submitted; //!< start - submitted is the time in the device's queue
    ns3::Time start;
    ns3::Time end;
    std::uint32_t batch; //!< operations, this one included, that the device ran as one from start to end
};

/// One attempt to get a packet or message over a fading channel.
struct AttemptRecord
{
    ns3::Time start;
    ns3::Time end;
    std::uint64_t bytes;  //!< that took this time
    std::uint32_t number; //!< of the same packet or message's attempts, from 1
    double snr;           //!< linear, of the channel during the attempt
    bool success;         //!< the channel carried the rate
};

} // namespace splitllm

#endif // SPLITLLM_RECORDS_H
