// SPDX-License-Identifier: GPL-2.0-only

// Features and scores against scripts/make-calibrator-reference, which computes them with numpy from the formulas.

#include "support/catch.h"
#include "support/error-of.h"
#include "support/temporary-folder.h"

#include "llm/config.h"
#include "llm/safetensors.h"
#include "policy/calibrator.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

using namespace splitllm;

namespace
{

const std::filesystem::path kSource = SPLITLLM_SOURCE_DIR;

/// A tensor of the golden file, of whatever type, as doubles.
struct Golden
{
    std::shared_ptr<const MappedTensors> file =
        MappedTensors::OpenFile(kSource / "test/golden/calibrator-reference.safetensors");

    template <typename T>
    const T* Raw(const std::string& name) const
    {
        return reinterpret_cast<const T*>(file->Index().at(name).data);
    }

    std::size_t Length(const std::string& name, std::size_t dimension) const
    {
        return file->Index().at(name).shape.at(dimension);
    }

    std::span<const float> Row(const std::string& name, std::size_t row) const
    {
        const std::size_t n = Length(name, 1);
        return {Raw<float>(name) + row * n, n};
    }
};

UpdateView
Cut(std::span<const float> row)
{
    return {row.subspan(0, 8), row.subspan(8, 4), row.subspan(12, 4)};
}

bool
Near(double value, double expected)
{
    return std::abs(value - expected) <= 1e-5 * std::max(1.0, std::abs(expected));
}

ModelConfig
GoldenConfig()
{
    ModelConfig config;
    config.name = "golden";
    config.layers = 3;
    config.hidden = 10;
    config.heads = 2;
    config.kvHeads = 1;
    config.headDim = 4;
    return config;
}

/// The golden calibrator as a folder. \param bias replaces what the networks' outputs start from
void
WriteCalibrator(const std::filesystem::path& folder,
                const std::string& variant,
                const std::string& model,
                std::optional<float> bias = std::nullopt)
{
    const Golden golden;
    std::filesystem::create_directories(folder);
    const auto copy = [&](const std::filesystem::path& file, const std::map<std::string, std::string>& names) {
        Json header = Json::object();
        std::string data;
        for (const auto& [to, from] : names)
        {
            const StoredTensor& tensor = golden.file->Index().at(from);
            std::size_t bytes = tensor.dtype == "F16" ? 2 : 4;
            for (const std::size_t length : tensor.shape)
            {
                bytes *= length;
            }
            header[to] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {data.size(), data.size() + bytes}}};
            if (bias && to.ends_with(".b2"))
            {
                for (std::size_t i = 0; i < bytes / sizeof(float); i++)
                {
                    data.append(reinterpret_cast<const char*>(&*bias), sizeof(float));
                }
                continue;
            }
            data.append(reinterpret_cast<const char*>(tensor.data), bytes);
        }
        std::string text = header.dump();
        text.append((8 - text.size() % 8) % 8, ' ');
        const std::uint64_t length = text.size();
        std::ofstream stream(file, std::ios::binary);
        stream.write(reinterpret_cast<const char*>(&length), sizeof(length));
        stream << text << data;
    };
    copy(folder / "statistics.safetensors",
         {{"position_mean", "position_mean"}, {"projection_mean", "projection_mean"}});
    std::map<std::string, std::string> names;
    for (const std::string tier : {"tier1.", "tier2."})
    {
        for (const char* name : {"mean", "scale", "w1", "b1", "w2", "b2", "projection"})
        {
            if (golden.file->Index().contains(variant + "." + tier + name))
            {
                names[tier + name] = variant + "." + tier + name;
            }
        }
    }
    copy(folder / "calibrator.safetensors", names);
    const auto weights = [&](const char* tier) {
        Json list = Json::array();
        for (std::size_t i = 0; i < 4; i++)
        {
            list.push_back(golden.Raw<float>(variant + "." + tier + ".weights")[i]);
        }
        return list.dump();
    };
    std::ofstream(folder / "calibrator.json")
        << R"({"format": "split-llm-calibrator", "version": 1, "model": )" << model
        << R"(, "statistics": "statistics.safetensors", "tier1": {"weights": )" << weights("tier1")
        << R"(}, "tier2": {"weights": )" << weights("tier2") << "}}";
}

const char* const kModel = R"({"layers": 3, "hidden": 10, "query": 8, "kv": 4})";

} // namespace

TEST_CASE("the features of both tiers are those of Eqs 1 to 9", "[policy]")
{
    const Golden golden;
    const auto* positionMean = golden.Raw<std::uint16_t>("position_mean");
    const std::size_t positions = golden.Length("position_mean", 1);
    const std::size_t cases = golden.Length("case.h", 0);
    REQUIRE(cases >= 30);
    for (std::size_t i = 0; i < cases; i++)
    {
        CAPTURE(i);
        const auto layer = static_cast<std::size_t>(golden.Raw<std::int32_t>("case.layer")[i]);
        const auto position = static_cast<std::size_t>(golden.Raw<std::int32_t>("case.position")[i]);
        std::vector<float> usual(10);
        for (std::size_t j = 0; j < usual.size(); j++)
        {
            usual[j] = FromF16(positionMean[(layer * positions + std::min(position, positions - 1)) * 10 + j]);
        }
        const Tier1Features first = ComputeTier1Features(golden.Row("case.h", i), usual);
        for (std::size_t f = 0; f < first.size(); f++)
        {
            CHECK(Near(first[f], golden.Raw<double>("tier1.features")[i * first.size() + f]));
        }
        std::array<float, 3> norms;
        std::memcpy(norms.data(), golden.Row("case.norms", i).data(), sizeof(norms));
        const bool hasPrevious = golden.Raw<std::int32_t>("case.has_previous")[i] != 0;
        const Tier2Features second = ComputeTier2Features(Cut(golden.Row("case.delta", i)),
                                                          hasPrevious ? Cut(golden.Row("case.previous", i)) : UpdateView{},
                                                          norms,
                                                          Cut(golden.Row("projection_mean", layer)));
        for (std::size_t f = 0; f < second.size(); f++)
        {
            CAPTURE(f);
            CHECK(Near(second[f], golden.Raw<double>("tier2.features")[i * second.size() + f]));
        }
    }
}

TEST_CASE("the scores of both tiers are those of the reference, with and without learned inputs", "[policy]")
{
    const Golden golden;
    for (const std::string variant : {"narrow", "wide"})
    {
        const test::TemporaryFolder folder;
        WriteCalibrator(folder.Path() / "c", variant, kModel);
        const auto calibrator = Calibrator::Load(folder.Path() / "c", GoldenConfig());
        const auto reweighted = Calibrator::Load(folder.Path() / "c",
                                                 GoldenConfig(),
                                                 std::array{0.1, 0.2, 0.3, 0.4},
                                                 std::array{0.4, 0.3, 0.2, 0.1});
        std::size_t changed = 0;
        for (std::size_t i = 0; i < golden.Length("case.h", 0); i++)
        {
            CAPTURE(variant, i);
            const auto layer = static_cast<std::size_t>(golden.Raw<std::int32_t>("case.layer")[i]);
            const auto position = static_cast<std::size_t>(golden.Raw<std::int32_t>("case.position")[i]);
            const double first = calibrator->Tier1Score(layer, position, golden.Row("case.h", i));
            CHECK(Near(first, golden.Raw<double>(variant + ".tier1.score")[i]));
            std::array<float, 3> norms;
            std::memcpy(norms.data(), golden.Row("case.norms", i).data(), sizeof(norms));
            const auto previous = golden.Raw<std::int32_t>("case.has_previous")[i] != 0 ? golden.Row("case.previous", i)
                                                                                         : std::span<const float>();
            const double second = calibrator->Tier2Score(layer, golden.Row("case.delta", i), previous, norms);
            CHECK(Near(second, golden.Raw<double>(variant + ".tier2.score")[i]));
            changed += first != reweighted->Tier1Score(layer, position, golden.Row("case.h", i)) ? 1 : 0;
        }
        CHECK(changed > 20);
    }
}

TEST_CASE("a score is never 0 or 1, so that those thresholds mean everything and nothing", "[policy]")
{
    const Golden golden;
    for (const float bias : {-1e6F, 1e6F})
    {
        const test::TemporaryFolder folder;
        WriteCalibrator(folder.Path() / "c", "narrow", kModel, bias);
        const auto calibrator = Calibrator::Load(folder.Path() / "c", GoldenConfig());
        const double score = calibrator->Tier1Score(0, 0, golden.Row("case.h", 0));
        CHECK(score == (bias < 0 ? std::ldexp(1.0, -20) : 1.0 - std::ldexp(1.0, -20)));
    }
}

TEST_CASE("a calibrator for another model, or one that is damaged, is refused with the reason", "[policy][input]")
{
    const test::TemporaryFolder folder;
    const auto reason = [&] { return test::ErrorOf([&] { Calibrator::Load(folder.Path() / "c", GoldenConfig()); }); };
    WriteCalibrator(folder.Path() / "c", "narrow", R"({"layers": 4, "hidden": 10, "query": 8, "kv": 4})");
    CHECK(reason().ends_with("model.layers: made for a model with 4, but golden has 3"));
    WriteCalibrator(folder.Path() / "c", "narrow", R"({"layers": 3, "hidden": 10, "query": 8, "kv": 8})");
    CHECK(reason().ends_with("model.kv: made for a model with 8, but golden has 4"));
    WriteCalibrator(folder.Path() / "c", "narrow", kModel);
    CHECK(reason().empty());
    std::filesystem::resize_file(folder.Path() / "c/calibrator.safetensors", 100);
    CHECK(reason().find("calibrator.safetensors") != std::string::npos);
    std::filesystem::remove(folder.Path() / "c/calibrator.json");
    CHECK(reason().find("calibrator.json") != std::string::npos);
}
