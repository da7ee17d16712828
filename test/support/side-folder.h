// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_SIDE_FOLDER_H
#define SPLITLLM_TEST_SIDE_FOLDER_H

#include "support/random-model.h"
#include "support/safetensors-file.h"
#include "support/temporary-folder.h"

#include "base/strict-json.h"
#include "llm/config.h"

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace splitllm::test
{

/// A side network of random weights for the model of \p config, as side.json and side.safetensors. \return \p folder
inline std::filesystem::path
WriteSideNetwork(const TemporaryFolder& folder, const ModelConfig& config, std::size_t width, std::size_t inner)
{
    Random random(81);
    Json header;
    std::string data;
    const auto add = [&](const std::string& name, const std::vector<std::size_t>& shape) {
        std::size_t elements = 1;
        for (const std::size_t size : shape)
        {
            elements *= size;
        }
        // Products of unit inputs are of about unit size.
        const float spread = std::sqrt(3.0F / static_cast<float>(shape.back()));
        const std::size_t begin = data.size();
        for (std::size_t i = 0; i < elements; ++i)
        {
            const float value = spread * random.Uniform();
            data.append(reinterpret_cast<const char*>(&value), sizeof value);
        }
        header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, data.size()}}};
    };
    for (std::size_t layer = 1; layer <= config.layers; ++layer)
    {
        const std::string name = "side." + std::to_string(layer) + ".";
        add(name + "down", {width, config.hidden});
        add(name + "inner", {inner, width});
        add(name + "outer", {width, inner});
    }
    add("up", {config.hidden, width});
    add("gate.weight", {2, config.hidden});
    add("gate.bias", {2});
    folder.Write("side.safetensors", SafetensorsFile(header.dump(), data));
    folder.Write("side.json",
                 Json{{"model", config.name},
                      {"width", width},
                      {"inner", inner},
                      {"combination", "sum"},
                      {"made_by", "train"},
                      {"trained_on", "texts"}}
                     .dump());
    return folder.Path();
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_SIDE_FOLDER_H
