// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_USER_DEVICE_H
#define SPLITLLM_USER_DEVICE_H

#include "split-llm-application.h"

#include "ns3/address.h"
#include "ns3/nstime.h"

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace splitllm
{

class UserRole;

/// What a user asks for.
struct UserRequest
{
    std::uint32_t index = 0;           //!< in the workload, for results
    std::vector<std::uint32_t> prompt{}; //!< token ids
    std::uint32_t newTokens = 0;       //!< how many to generate at most
    std::vector<std::uint32_t> stop{};   //!< token ids after any of which the answer ends; none: newTokens it is
    std::vector<std::uint32_t> forced{}; //!< teacher forcing: the answer to go along, whatever is generated; or empty
    ns3::Time arrival{};               //!< the simulated time before which it is not asked
};

/**
 * The node where a user sits: it sends requests one after the other and reports every token.
 *
 * A request starts when it has arrived, the application's connection is up, and the last token of the one before has
 * come; attribute "ThinkTime" is time that the user takes after that. So requests wait for each other, first come, first
 * served.
 */
class UserDevice : public SplitLlmApplication
{
  public:
    static ns3::TypeId GetTypeId();
    UserDevice();
    ~UserDevice() override;

    /// Number of this user, unique in the simulation: its session's id.
    void SetSession(std::uint32_t session);

    /// Appends a request. \pre the application has not started
    void AddRequest(UserRequest request);

    /// Makes a connection to the server, the user's end of it.
    using Connector = std::function<std::unique_ptr<MessagePort>(Api api)>;

    /// How to connect, where it is not by TCP to attribute "Remote".
    void SetConnector(Connector connector);

    /// Requests whose last token came.
    std::uint32_t RequestsFinished() const;

    typedef void (*TokenCallback)(const TokenRecord& record);
    typedef void (*EarlyExitCallback)(std::uint32_t session, std::uint32_t request, std::uint32_t tokens);
    typedef void (*SearchedCallback)(const SearchRecord& record);

  protected:
    void DoDispose() override;

  private:
    void StartApplication() override;
    void StopApplication() override;
    std::unique_ptr<MessagePort> ConnectByTcp(Api api);

    struct Conversation; //!< what lives as long as the user's session

    ns3::Address m_remote;
    std::uint32_t m_session = 0;
    ns3::Time m_thinkTime;
    std::deque<UserRequest> m_requests;
    std::uint32_t m_finished = 0;
    Connector m_connector;
    std::unique_ptr<Conversation> m_conversation;

    ns3::TracedCallback<const TokenRecord&> m_tokenTrace;
    ns3::TracedCallback<std::uint32_t, std::uint32_t, std::uint32_t> m_earlyExitTrace;
    ns3::TracedCallback<const SearchRecord&> m_searchedTrace;
};

} // namespace splitllm

#endif // SPLITLLM_USER_DEVICE_H
