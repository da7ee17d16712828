// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CE_COLLM_CLOUD_H
#define SPLITLLM_CE_COLLM_CLOUD_H

#include "schemes/ce-collm/ce-collm-options.h"
#include "schemes/ce-collm/context-manager.h"
#include "schemes/scheme.h"

#include <memory>

namespace splitllm
{

/// CE-CoLLM's cloud: the layers behind the upload layer, over two APIs that share the context manager.
class CeCollmCloud final : public Service
{
  public:
    CeCollmCloud(Host& host, const SchemeParts& parts, const CeCollmOptions& options);

    std::unique_ptr<ServerRole> MakeRole(Session& session) override;

  private:
    const SchemeParts& m_parts;
    const CeCollmOptions& m_options;
    ContextManager m_contexts;
};

} // namespace splitllm

#endif // SPLITLLM_CE_COLLM_CLOUD_H
