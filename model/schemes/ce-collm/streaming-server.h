// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_STREAMING_SERVER_H
#define SPLITLLM_STREAMING_SERVER_H

#include "schemes/tlc/server.h"

namespace splitllm
{

/**
 * The whole model on the server, as services offer it (CE-CoLLM, baseline "Cloud LLM Deployment", Fig 2a): the user sends
 * the prompt once, with what ends the answer, and the server sends each token as it comes, without waiting for the user.
 * One exchange a response (Table I).
 */
class StreamingServerScheme final : public ServerScheme
{
  public:
    using ServerScheme::ServerScheme;

    std::unique_ptr<UserRole> MakeUser(Session& session) const override;
    std::unique_ptr<ServerRole> MakeServer(Session& session) const override;
};

} // namespace splitllm

#endif // SPLITLLM_STREAMING_SERVER_H
