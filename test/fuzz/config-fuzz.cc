// SPDX-License-Identifier: GPL-2.0-only
#include "base/input-error.h"
#include "llm/config.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

/// Any text is a usable configuration or an error of one line.
extern "C" int
LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    using namespace splitllm;
    try
    {
        const ModelConfig config = ParseConfig({reinterpret_cast<const char*>(data), size}, "fuzz");
        const bool usable = config.layers > 0 && config.hidden > 0 && config.kvHeads > 0 && config.headDim > 0 &&
                            config.ffn > 0 && config.vocab > 0 && config.heads % config.kvHeads == 0 &&
                            config.Parameters() / config.layers >= config.LayerParameters() &&
                            config.LayerParameters() >= config.QueryWidth() * config.hidden;
        if (!usable)
        {
            std::abort();
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
