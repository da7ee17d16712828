// SPDX-License-Identifier: GPL-2.0-only
#include "base/input-error.h"
#include "codec/activation-statistics.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

/// Any text is statistics that fit the model, or an error of one line.
extern "C" int
LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    using namespace splitllm;
    ModelConfig config;
    config.layers = 2;
    config.hidden = 2;
    config.heads = config.kvHeads = config.headDim = 2;
    try
    {
        const ActivationStatistics statistics = ActivationStatistics::Read(
            ParseStrictJson({reinterpret_cast<const char*>(data), size}, "fuzz"), "fuzz", config);
        for (const auto& [kind, entries] : statistics.Sites())
        {
            for (const SiteStatistics& entry : entries)
            {
                if (entry.quantiles.size() != statistics.Levels().size())
                {
                    std::abort();
                }
            }
        }
    }
    catch (const InputError& error)
    {
        if (std::strchr(error.what(), '\n') != nullptr)
        {
            std::abort();
        }
    }
    return 0;
}
