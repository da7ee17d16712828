// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_PAYLOAD_H
#define SPLITLLM_PAYLOAD_H

#include <cstddef>
#include <vector>

namespace splitllm
{

/// The content of a message: bytes, or in shape mode their number alone.
struct Payload
{
    std::vector<std::byte> bytes; //!< empty where phantom
    std::size_t size = 0;         //!< what travels
    bool phantom = false;

    static Payload Of(std::vector<std::byte> bytes)
    {
        const std::size_t size = bytes.size();
        return {std::move(bytes), size, false};
    }

    static Payload Phantom(std::size_t size)
    {
        return {{}, size, true};
    }
};

} // namespace splitllm

#endif // SPLITLLM_PAYLOAD_H
