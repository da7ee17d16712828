// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CAPTURE_H
#define SPLITLLM_CAPTURE_H

#include "net/connection-id.h"
#include "sim/split-llm-records.h"

#include "ns3/packet.h"
#include "ns3/pcap-file-wrapper.h"
#include "ns3/ptr.h"

#include <string>

namespace splitllm
{

/// What follows a record's header in a capture file.
enum class CaptureOf
{
    PppFrames, //!< of packets, DLT_PPP
    Messages,  //!< whole ones, DLT_USER0: see CaptureMessage
};

/// Makes the pcap files that ns-3 begins from now on tell nanoseconds, as OpenCapture does.
void CaptureNanoseconds();

/// A pcap file, in place of one that has its name. Aborts if it cannot be written.
ns3::Ptr<ns3::PcapFileWrapper> OpenCapture(const std::string& file, CaptureOf content);

/**
 * Writes a message that a link carried whole, with the time that is now. Bytes of a record, little-endian:
 *
 *      0           1   4            8
 *      +-----------+---+------------+---------------------------+
 *      | direction | 0 | connection | message: header, payload  |
 *      +-----------+---+------------+---------------------------+
 *
 * direction is 0 up, 1 down; connection counts the connections of one user from 0. A phantom payload is zeros. A record
 * holds 262,144 bytes at most, since Wireshark reads no longer ones; the rest of a longer message is cut off.
 */
void CaptureMessage(ns3::PcapFileWrapper& file,
                    Direction direction,
                    const ConnectionId& connection,
                    ns3::Ptr<const ns3::Packet> message);

} // namespace splitllm

#endif // SPLITLLM_CAPTURE_H
