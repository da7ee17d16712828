// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_TEST_MODELS_H
#define SPLITLLM_TEST_TEST_MODELS_H

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace splitllm::test
{

/**
 * The folder of a model that scripts/make-tiny-models wrote: "tiny-llama", "tiny-opt", "tiny-llama-lora",
 * "tiny-opt-lora". They lie in $SPLITLLM_TEST_MODELS, or where the build put them.
 */
inline std::filesystem::path
TestModel(const std::string& name)
{
    const char* folder = std::getenv("SPLITLLM_TEST_MODELS");
#ifdef SPLITLLM_TEST_MODELS_DIR
    if (folder == nullptr)
    {
        folder = SPLITLLM_TEST_MODELS_DIR;
    }
#endif
    if (folder == nullptr || !std::filesystem::is_directory(std::filesystem::path(folder) / name))
    {
        throw std::runtime_error("no test model " + name +
                                 ": run scripts/make-tiny-models DIR and set SPLITLLM_TEST_MODELS=DIR");
    }
    return std::filesystem::path(folder) / name;
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_TEST_MODELS_H
