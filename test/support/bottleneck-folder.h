// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_BOTTLENECK_FOLDER_H
#define SPLITLLM_TEST_BOTTLENECK_FOLDER_H

#include "support/random-model.h"
#include "support/safetensors-file.h"
#include "support/temporary-folder.h"

#include "base/strict-json.h"
#include "llm/bottleneck.h"

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace splitllm::test
{

/// A folder with bottleneck adapters of random fp32 weights for a model, and changes to it.
class BottleneckFolder
{
  public:
    BottleneckFolder(ModelConfig config, std::size_t width, std::uint64_t seed = 71)
        : m_config(std::move(config)),
          m_random(seed),
          m_description({{"model", m_config.name}, {"width", width}, {"made_by", "train"}, {"trained_on", "texts"}})
    {
        for (std::size_t layer = 1; layer <= m_config.layers; ++layer)
        {
            for (const char* sublayer : {".attention.", ".mlp."})
            {
                const std::string name = "layers." + std::to_string(layer) + sublayer;
                Add(name + "down.weight", {width, m_config.hidden});
                Add(name + "down.bias", {width});
                Add(name + "up.weight", {m_config.hidden, width});
                Add(name + "up.bias", {m_config.hidden});
            }
        }
    }

    /// \p key of bottleneck.json is \p value.
    BottleneckFolder& Set(const std::string& key, const std::string& value)
    {
        m_description[key] = Json::parse(value);
        return *this;
    }

    BottleneckFolder& Drop(const std::string& key)
    {
        m_description.erase(key);
        return *this;
    }

    BottleneckFolder& Add(const std::string& name, const std::vector<std::size_t>& shape)
    {
        std::size_t elements = 1;
        for (const std::size_t size : shape)
        {
            elements *= size;
        }
        // Products of unit inputs are of about unit size, biases somewhat smaller.
        const float spread = shape.size() == 2 ? std::sqrt(3.0F / static_cast<float>(shape[1])) : 0.4F;
        const std::size_t begin = m_data.size();
        for (std::size_t i = 0; i < elements; ++i)
        {
            const float value = spread * m_random.Uniform();
            m_data.append(reinterpret_cast<const char*>(&value), sizeof value);
        }
        m_header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, m_data.size()}}};
        return *this;
    }

    BottleneckFolder& Rename(const std::string& from, const std::string& to)
    {
        m_header[to] = m_header[from];
        m_header.erase(from);
        return *this;
    }

    /// The folder, once it is written.
    const std::filesystem::path& Write() const
    {
        m_folder.Write("bottleneck.json", m_description.dump());
        m_folder.Write("bottleneck.safetensors", SafetensorsFile(m_header.dump(), m_data));
        return m_folder.Path();
    }

    std::shared_ptr<const BottleneckAdapter> Load() const
    {
        return BottleneckAdapter::Load(Write(), m_config);
    }

    const ModelConfig& Config() const
    {
        return m_config;
    }

  private:
    TemporaryFolder m_folder;
    ModelConfig m_config;
    Random m_random;
    Json m_description;
    Json m_header;
    std::string m_data;
};

} // namespace splitllm::test

#endif // SPLITLLM_TEST_BOTTLENECK_FOLDER_H
