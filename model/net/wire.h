// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_WIRE_H
#define SPLITLLM_WIRE_H

#include "codec/payload.h"
#include "tensor/dtype.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string_view>
#include <vector>

namespace splitllm
{

/// What a message carries. The values travel: never renumber.
enum class MessageKind : std::uint8_t
{
    Tokens = 1,     //!< "tokens": token ids, up
    NextToken = 2,  //!< "next-token": one token id, down
    Embedding = 3,  //!< "embedding": h0, up
    LayerInput = 4, //!< "layer-input": the Q/K/V input of one layer, down
    Deltas = 5,     //!< "deltas": LoRA's Q, K and V updates side by side, up
    FinalState = 6, //!< "final-state": hL of the last row, down
    End = 7,        //!< "end": the request is finished, no payload
    Skip = 8,       //!< "skip": no updates of this layer come back, no payload, up
    HiddenState = 9, //!< "hidden-state": what a layer made of some tokens, up
    KvCache = 10,   //!< "kv-cache": keys and values of some layers and tokens, as Backend::Snapshot lays them out
    Request = 11,   //!< "request": the next token is wanted of what was uploaded, no payload, up
    ContextLost = 12, //!< "context-lost": what was uploaded for the request is gone, no payload, down
    Generate = 13,  //!< "generate": a prompt and what answer is wanted to it, up
    SideStates = 14, //!< "side-states": what a side network reads of the states behind all layers, down
    SideOutput = 15, //!< "side-output": what a side network made of them, up
    AdapterInput = 16, //!< "adapter-input": what a bottleneck adapter reads, down
    AdapterOutput = 17, //!< "adapter-output": what it adds, up
    Answer = 18,    //!< "answer": what a beam search at the server found, down
    Candidates = 19, //!< "candidates": the most likely next tokens of each hypothesis, up
};

std::string_view NameOf(MessageKind kind);
std::optional<MessageKind> MessageKindFromName(std::string_view name);
std::vector<std::string> MessageKindNames();

/// One message between roles.
struct Message
{
    MessageKind kind = MessageKind::End;
    DType dtype = DType::F32;   //!< element type of the payload, or of what a codec kept exactly in it
    std::uint32_t session = 0;  //!< one a connection
    std::uint32_t request = 0;  //!< index in the workload
    std::uint32_t sequence = 0; //!< counts the messages of one direction of a session from 0; set when sent
    std::uint32_t position = 0; //!< of the first row in the sequence
    std::uint16_t layer = 0;    //!< from 1; 0 outside the layers
    Payload payload;
};

/// Bytes that do not parse as a message: the session cannot go on.
class MalformedFrame : public std::runtime_error
{
  public:
    using std::runtime_error::runtime_error;
};

/**
 * Bytes in front of every payload, all little-endian:
 *
 *      0        4       5    6     7     8       12      16       20       24    26       28     32     36
 *      +--------+-------+----+-----+-----+-------+-------+--------+--------+-----+--------+------+------+
 *      | magic  |version|kind|dtype|flags|session|request|sequence|position|layer| front  |length| crc  |
 *      +--------+-------+----+-----+-----+-------+-------+--------+--------+-----+--------+------+------+
 *
 * magic is "SLLM", version 1. length counts the payload's bytes. crc is CRC-32C of the 32 bytes before it and the
 * payload. Flag 1 marks the phantom payload of shape mode: its bytes travel, carry nothing, and are not summed, except
 * the first of them, whose number is front (0 without that flag): they say which rows the message stands for. Flag 2
 * marks what a compressing codec made; dtype is then the type of the elements that it kept exactly.
 */
constexpr std::size_t kHeaderBytes = 36;
using HeaderBytes = std::array<std::byte, kHeaderBytes>;

HeaderBytes EncodeHeader(const Message& message);

/**
 * Puts a byte stream back together into messages. The caller copies bytes to where Cursor() points, so that a payload
 * is copied once. No length is believed before it was compared with the limit.
 */
class FrameReader
{
  public:
    /// \param maxPayload longest payload accepted, in bytes
    explicit FrameReader(std::size_t maxPayload);

    /// Bytes that the header or payload under way still needs; at least 1.
    std::size_t Missing() const;

    /// True while the missing bytes are those of a phantom payload: they are counted, not copied.
    bool Skips() const;

    /// Where the next bytes belong, unless Skips(). There is room for Missing() of them.
    std::byte* Cursor();

    /**
     * \p count bytes, at most Missing(), came in.
     * \return the message that they completed, if they did
     * \throws MalformedFrame with the reason; the reader is unusable afterwards
     */
    std::optional<Message> Advance(std::size_t count);

    /// True between messages: a stream may end here.
    bool IsIdle() const;

  private:
    void ParseHeader();
    Message Finish();

    std::size_t m_maxPayload;
    HeaderBytes m_header{};
    std::size_t m_headerFilled = 0;
    Message m_message;
    std::uint32_t m_crc = 0;
    std::size_t m_payloadFilled = 0;
};

} // namespace splitllm

#endif // SPLITLLM_WIRE_H
