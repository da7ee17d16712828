// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_STUDY_FIXTURE_H
#define SPLITLLM_TEST_STUDY_FIXTURE_H

#include "support/test-models.h"

#include "study.h"

#include <filesystem>
#include <string>

namespace splitllm::test
{

/// The folders that the repository's own studies use, with the tiny models.
inline StudyFolders
Folders()
{
    const std::filesystem::path scenarios = std::filesystem::path(SPLITLLM_SOURCE_DIR) / "scenarios";
    return {TestModel("tiny-llama").parent_path(),
            {},
            scenarios / "hardware",
            std::filesystem::path(SPLITLLM_SOURCE_DIR) / "test/data",
            std::filesystem::path(SPLITLLM_SOURCE_DIR) / "test/data",
            std::filesystem::path(SPLITLLM_SOURCE_DIR) / "test/data",
            scenarios / "exits",
            scenarios / "side-networks"};
}

/// A numeric study of tiny-llama with two users on one edge server, 2 prompts of 7 and 12 tokens, 4 new tokens each.
inline Json
TinyStudy()
{
    return Json::parse(R"({
      "study": "tiny", "mode": "numeric",
      "model": { "path": "tiny-llama", "adapter": { "path": "tiny-llama-lora" } },
      "nodes": { "device": { "role": "user-device", "count": 2, "hardware": "device-13tflops" },
                 "edge": { "role": "edge-server", "hardware": "a800-80gb" } },
      "links": { "device-edge": { "type": "wired", "rate": "1Gbps", "delay": "100us" } },
      "scheme": { "name": "linfer", "codec": "fp16" },
      "workload": { "prompts": "tiny", "requests": 4, "new_tokens": 4 }
    })");
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_STUDY_FIXTURE_H
