// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_LINKS_H
#define SPLITLLM_LINKS_H

#include "link-spec.h"
#include "recorder.h"

#include "ns3/address.h"
#include "ns3/node.h"
#include "ns3/nstime.h"
#include "ns3/ptr.h"
#include "ns3/split-llm-servers.h"
#include "ns3/split-llm-user-device.h"

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace splitllm
{

/// The ends of a link.
struct LinkEnds
{
    ns3::Ptr<ns3::Node> server; //!< with an internet stack
    std::string serverName;
    std::vector<std::string> userNames;
};

/**
 * The link between the users of a study and its server: makes the network of each user, and reports what it did. Packets
 * and attempts go to the recorder as they happen.
 */
class Link
{
  public:
    /// \param recorder must outlive the link, which must outlive the simulation
    static std::unique_ptr<Link> Make(const LinkSpec& spec, const LinkEnds& ends, Recorder& recorder);

    /**
     * Links in a row: from each user to a gateway, which is made here and called \p gateway, and the one \p backhaul,
     * which all users share, from there to the server. Both are wired, or both service links.
     */
    static std::unique_ptr<Link> MakeThroughGateway(const LinkSpec& access,
                                                    const LinkSpec& backhaul,
                                                    const std::string& gateway,
                                                    const LinkEnds& ends,
                                                    Recorder& recorder);

    virtual ~Link() = default;

    /**
     * Writes what the server sends and receives over the link to the pcap file \p file, in place of one that is there:
     * frames, or messages where they go whole. Called before users join.
     */
    virtual void Capture(const std::string& file) = 0;

    /// TCP payload of a full segment.
    virtual std::uint32_t SegmentBytes() const;

    /**
     * Brings \p node, the next user's, to the server's network. Called for all users in turn.
     * \return where the server is found; an invalid Address where messages go whole
     */
    virtual ns3::Address Join(ns3::Ptr<ns3::Node> node) = 0;

    /// Gives both applications their ends of the connection of the user that joined last, where messages go whole.
    virtual void Attach(ns3::Ptr<UserDevice> user, ns3::Ptr<ServerApplication> server);

    /// When the link is ready for connections.
    virtual ns3::Time ReadyAt() const;

    /// Whether it makes events for as long as the simulation lasts.
    virtual bool RunsForEver() const;

    /// When what of it is out of order.
    virtual std::vector<OutageRow> Outages() const;

    /// What the network devices of users and server sent so far; of messages sent whole, header and payload.
    virtual std::array<std::uint64_t, kDirections> BytesSent() const = 0;

    /// Adds what only the end of the run tells.
    virtual void Collect(RunRecords& records) const;
};

} // namespace splitllm

#endif // SPLITLLM_LINKS_H
