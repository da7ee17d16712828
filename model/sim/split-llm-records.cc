// SPDX-License-Identifier: GPL-2.0-only
#include "sim/split-llm-records.h"

namespace splitllm
{

const char*
NameOf(Component component)
{
    switch (component)
    {
    case Component::Base:
        return "base";
    case Component::Adapter:
        return "adapter";
    case Component::Calibrator:
        return "calibrator";
    case Component::Codec:
        return "codec";
    case Component::Network:
        return "network";
    case Component::Queue:
        return "queue";
    }
    return "?";
}

const char*
NameOf(TokenSource source)
{
    switch (source)
    {
    case TokenSource::Exit:
        return "exit";
    case TokenSource::Cloud:
        return "cloud";
    case TokenSource::Fallback:
        return "fallback";
    }
    return "?";
}

} // namespace splitllm
