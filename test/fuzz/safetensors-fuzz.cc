// SPDX-License-Identifier: GPL-2.0-only
#include "base/input-error.h"
#include "llm/safetensors.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

/// Any bytes are an error of one line, or tensors that lie inside them (which the sanitizers see when they are read).
extern "C" int
LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    using namespace splitllm;
    const auto bytes = std::as_bytes(std::span(data, size));
    try
    {
        for (const auto& [name, tensor] : ParseSafetensors(bytes, "fuzz"))
        {
            const bool known = tensor.dtype == "F32" || tensor.dtype == "BF16" || tensor.dtype == "I8";
            if (!known)
            {
                continue;
            }
            const std::size_t elements = ArrayView{DType::F32, tensor.shape, tensor.data}.Elements();
            const std::size_t length = elements * (tensor.dtype == "F32" ? 4 : (tensor.dtype == "BF16" ? 2 : 1));
            unsigned sum = 0;
            for (std::size_t i = 0; i < length; ++i)
            {
                sum += std::to_integer<unsigned>(tensor.data[i]);
            }
            if (sum > 255 * length)
            {
                std::abort();
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
