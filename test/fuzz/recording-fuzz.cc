// SPDX-License-Identifier: GPL-2.0-only
#include "base/input-error.h"
#include "recording.h"

#include "net/crc32c.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

/// Any file is a recording or an error of one line; behind a right checksum as well.
extern "C" int
LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    using namespace splitllm;
    std::vector<std::byte> bytes(size);
    if (size > 0)
    {
        std::memcpy(bytes.data(), data, size);
    }
    constexpr std::size_t kHeader = 24;
    for (const bool mended : {false, true})
    {
        if (mended && size >= kHeader)
        {
            const std::uint32_t crc = Crc32c(std::span(bytes).subspan(kHeader));
            const std::uint64_t length = size - kHeader;
            std::memcpy(bytes.data() + 12, &crc, sizeof crc);
            std::memcpy(bytes.data() + 16, &length, sizeof length);
        }
        try
        {
            ParseRecording(bytes, "fuzz");
        }
        catch (const InputError& error)
        {
            if (std::strchr(error.what(), '\n') != nullptr)
            {
                std::abort();
            }
        }
    }
    return 0;
}
