// SPDX-License-Identifier: GPL-2.0-only
#include "base/input-error.h"
#include "base/strict-json.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

/// Any text is a value or an error of one line; what was accepted survives being written and read again.
extern "C" int
LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    using namespace splitllm;
    try
    {
        const Json value = ParseStrictJson({reinterpret_cast<const char*>(data), size}, "fuzz");
        if (ParseStrictJson(value.dump(), "again") != value)
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
