// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_PAYLOAD_H
#define SPLITLLM_PAYLOAD_H

#include <cstddef>
#include <utility>
#include <vector>

namespace splitllm
{

/// The content of a message: bytes, or in shape mode their number, and those at the front that say what it holds.
struct Payload
{
    std::vector<std::byte> bytes; //!< all of them; of a phantom those at its front, mostly none
    std::size_t size = 0;         //!< what travels
    bool phantom = false;
    bool coded = false; //!< what a compressing codec made; otherwise plain elements

    static Payload Of(std::vector<std::byte> bytes)
    {
        const std::size_t size = bytes.size();
        return {std::move(bytes), size, false};
    }

    /// \param front the first of the \p size bytes, which are real
    static Payload Phantom(std::size_t size, std::vector<std::byte> front = {})
    {
        return {std::move(front), size, true};
    }
};

} // namespace splitllm

#endif // SPLITLLM_PAYLOAD_H
