// SPDX-License-Identifier: GPL-2.0-only
#include "base/input-error.h"
#include "policy/decision-list.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>

/// Any text is a list or an error of one line.
extern "C" int
LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    using namespace splitllm;
    std::istringstream stream(std::string(reinterpret_cast<const char*>(data), size));
    try
    {
        const DecisionList list(stream, "fuzz", 0);
        list.Of({.request = 0, .position = 0, .layer = 1});
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
