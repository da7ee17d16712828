// SPDX-License-Identifier: GPL-2.0-only
#include "llm/exits.h"

#include "compute/cpu/cpu-backend.h"
#include "compute/footprint.h"
#include "compute/shape-backend.h"
#include "support/catch.h"
#include "support/error-of.h"
#include "support/random-model.h"
#include "support/reference-transformer.h"
#include "support/safetensors-file.h"
#include "support/temporary-folder.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

/// Widths that are all different and no multiple of a vector.
ModelConfig
Odd(Family family)
{
    ModelConfig config;
    config.name = "odd";
    config.family = family;
    config.biases = family == Family::Opt;
    config.layers = 5;
    config.hidden = 50;
    config.heads = config.kvHeads = 5;
    config.headDim = 10;
    config.ffn = 77;
    config.vocab = 101;
    config.maxPositions = 64;
    config.dtype = DType::BF16;
    return config;
}

Tensor
RandomRows(std::size_t rows, std::size_t cols)
{
    Random random(41);
    Tensor tensor = Tensor::Zeros(rows, cols);
    std::ranges::generate(tensor.Values(), [&] { return 2.0F * random.Uniform(); });
    return tensor;
}

ReferenceTransformer::Matrix
Widened(const Tensor& tensor)
{
    ReferenceTransformer::Matrix matrix(tensor.Rows(), tensor.Cols());
    std::ranges::copy(tensor.Values(), matrix.data());
    return matrix;
}

bool
SameBits(const Tensor& a, const Tensor& b)
{
    return a.Rows() == b.Rows() && a.Cols() == b.Cols() && a.Elements() > 0 &&
           std::memcmp(a.Values().data(), b.Values().data(), a.Elements() * sizeof(float)) == 0;
}

std::shared_ptr<const Exits>
Untrained(std::vector<std::size_t> layers)
{
    Exits exits;
    exits.layers = std::move(layers);
    return std::make_shared<const Exits>(std::move(exits));
}

std::shared_ptr<const Model>
ShapeOf(const ModelConfig& config)
{
    Model model;
    model.config = config;
    return std::make_shared<const Model>(std::move(model));
}

/// A folder with exits of width 3 after layers 1 and 4 of a model of 6 layers and width 2, and a change to it.
class ExitsFolder
{
  public:
    explicit ExitsFolder(Family family = Family::Llama)
    {
        m_config.name = "six";
        m_config.family = family;
        m_config.layers = 6;
        m_config.hidden = 2;
        m_description = Json::parse(
            R"({"model": "six", "layers": [1, 4], "width": 3, "made_by": "train", "trained_on": "texts"})");
        for (const char* layer : {"1", "4"})
        {
            const std::string exit = std::string("exit.") + layer + ".";
            for (const char* norm : {"input_norm", "norm"})
            {
                Add(exit + norm + ".weight", {2});
                if (family == Family::Opt)
                {
                    Add(exit + norm + ".bias", {2});
                }
            }
            Add(exit + "down.weight", {3, 2});
            Add(exit + "up.weight", {2, 3});
        }
    }

    /// \p key of exits.json is \p value.
    ExitsFolder& Set(const std::string& key, const std::string& value)
    {
        m_description[key] = Json::parse(value);
        return *this;
    }

    ExitsFolder& Drop(const std::string& key)
    {
        m_description.erase(key);
        return *this;
    }

    /// Another tensor of fp32, whose elements count up through the file.
    ExitsFolder& Add(const std::string& name, const std::vector<std::size_t>& shape)
    {
        std::size_t elements = 1;
        for (const std::size_t size : shape)
        {
            elements *= size;
        }
        const std::size_t begin = m_data.size();
        for (std::size_t i = 0; i < elements; ++i)
        {
            const auto value = static_cast<float>(m_data.size() / sizeof(float));
            m_data.append(reinterpret_cast<const char*>(&value), sizeof value);
        }
        m_header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, m_data.size()}}};
        return *this;
    }

    ExitsFolder& Rename(const std::string& from, const std::string& to)
    {
        m_header[to] = m_header[from];
        m_header.erase(from);
        return *this;
    }

    std::shared_ptr<const Exits> Load() const
    {
        m_folder.Write("exits.json", m_description.dump());
        m_folder.Write("exits.safetensors", SafetensorsFile(m_header.dump(), m_data));
        return Exits::Load(m_folder.Path(), m_config);
    }

    /// The error of Load, without the path of the folder.
    std::string Error() const
    {
        const std::string path = m_folder.Path().string() + "/";
        const std::string error = ErrorOf([&] { Load(); });
        CHECK((error.empty() || error.starts_with(path)));
        return error.empty() ? "" : error.substr(path.size());
    }

    const std::filesystem::path& Path() const
    {
        return m_folder.Path();
    }

    const ModelConfig& Config() const
    {
        return m_config;
    }

  private:
    TemporaryFolder m_folder;
    ModelConfig m_config;
    Json m_description;
    Json m_header;
    std::string m_data;
};

float
Element(const ArrayView& view, std::size_t index)
{
    float value = 0.0F;
    std::memcpy(&value, view.data + sizeof(float) * index, sizeof value);
    return value;
}

} // namespace

TEST_CASE("An exit's logits agree with the reference transformer, of both families and all types", "[exits]")
{
    for (const Family family : {Family::Llama, Family::Opt})
    {
        for (const DType dtype : {DType::F32, DType::F16, DType::BF16})
        {
            for (const bool tied : {false, true})
            {
                ModelConfig config = Odd(family);
                config.tiedHead = tied;
                const auto weights = RandomModel(config, 31);
                const auto trained = RandomExits(config, {2, 4}, 19, dtype, 32);
                const Tensor hidden = RandomRows(7, config.hidden);
                CpuBackend backend(2);
                const auto model = backend.Resident(weights);
                const auto exits = backend.Resident(trained, config);
                for (const std::size_t exit : {0, 1})
                {
                    const Tensor logits = backend.Exit(*model, *exits, exit, hidden).value;
                    REQUIRE(logits.Rows() == 7);
                    REQUIRE(logits.Cols() == 101);
                    const ReferenceTransformer reference(*weights);
                    const auto expected = reference.ExitLogits(trained->weights[exit], Widened(hidden));
                    CAPTURE(config.name, NameOf(dtype), exit, tied);
                    CHECK(Nmse(logits.Values(), expected) < 1e-11);
                    // the other exit is another one
                    CHECK(Nmse(logits.Values(),
                               reference.ExitLogits(trained->weights[1 - exit], Widened(hidden))) > 1e-2);
                }
            }
        }
    }
}

TEST_CASE("An exit's rows have the bits of one row at a time, on any instruction set and threads", "[exits]")
{
    for (const Family family : {Family::Llama, Family::Opt})
    {
        ModelConfig config = Odd(family);
        config.hidden = 330; // large enough for work to be shared
        config.vocab = 1001;
        const auto weights = RandomModel(config, 33);
        const auto trained = RandomExits(config, {3}, 213, DType::F16, 34);
        const Tensor hidden = RandomRows(23, config.hidden);
        CpuBackend reference(1, *SupportedKernels().front());
        Tensor expected = Tensor::Zeros(0, config.vocab);
        for (std::size_t row = 0; row < hidden.Rows(); ++row)
        {
            expected.Append(reference.Exit(*reference.Resident(weights),
                                           *reference.Resident(trained, config),
                                           0,
                                           hidden.Slice(row, 1)).value);
        }
        for (const Kernels* kernels : SupportedKernels())
        {
            for (const std::size_t threads : {1, 2, 3})
            {
                CpuBackend backend(threads, *kernels);
                CAPTURE(kernels->name, threads);
                const auto model = backend.Resident(weights);
                const auto exits = backend.Resident(trained, config);
                CHECK(SameBits(backend.Exit(*model, *exits, 0, hidden).value, expected));
                CHECK(SameBits(backend.Exit(*model, *exits, 0, hidden.Slice(4, 6)).value, expected.Slice(4, 6)));
            }
        }
    }
}

TEST_CASE("An untrained exit has the bits of the model's head", "[exits]")
{
    for (const Family family : {Family::Llama, Family::Opt})
    {
        const ModelConfig config = Odd(family);
        CpuBackend backend(2);
        const auto model = backend.Resident(RandomModel(config, 35));
        const auto exits = backend.Resident(Untrained({1, 4}), config);
        const Tensor hidden = RandomRows(5, config.hidden);
        CHECK(SameBits(backend.Exit(*model, *exits, 1, hidden).value, backend.Head(*model, hidden).value));
        CHECK(exits->Bytes() == 0);
        CHECK(exits->Width() == 0);
        CHECK(exits->Weights() == DType::BF16);
    }
}

TEST_CASE("A trained exit that adds nothing and norms as the model does has the bits of the head", "[exits]")
{
    const ModelConfig config = Odd(Family::Llama);
    const auto weights = RandomModel(config, 36);
    const auto random = RandomExits(config, {2}, 6, DType::F32, 37); // owns what the views show
    Exits exits = *random;
    const std::vector<std::byte> zeros(50 * 6 * sizeof(float));
    exits.weights[0].up.data = zeros.data();
    exits.weights[0].norm = weights->finalNorm;
    CpuBackend backend(1);
    const auto model = backend.Resident(weights);
    const auto resident = backend.Resident(std::make_shared<const Exits>(exits), config);
    const Tensor hidden = RandomRows(3, config.hidden);
    CHECK(SameBits(backend.Exit(*model, *resident, 0, hidden).value, backend.Head(*model, hidden).value));
    CHECK(resident->Bytes() == 4 * (50 + 2 * 50 * 6) + 2 * 50); // the model's norm is bf16
}

TEST_CASE("An exit's work is what a count by hand gives", "[exits]")
{
    ModelConfig config = Odd(Family::Llama);
    config.hidden = 10;
    config.vocab = 11;
    Exits shape;
    shape.layers = {1, 3};
    shape.width = 3;
    const auto trained = std::make_shared<const Exits>(shape);
    const Tensor hidden = Tensor::Phantom(7, 10);
    ShapeBackend backend(DType::F32);

    SECTION("LLaMA")
    {
        const auto model = backend.Resident(ShapeOf(config));
        const auto exits = backend.Resident(trained, config);
        // 10 x 3 twice and two norms of 10, in bf16 as the model
        CHECK(ExitParameters(config, 3) == 80);
        CHECK(exits->Bytes(1) == 160);
        CHECK(exits->Bytes() == 320);
        CHECK(exits->Layers() == std::vector<std::size_t>{1, 3});
        const auto logits = backend.Exit(*model, *exits, 1, hidden);
        CHECK(logits.value.IsPhantom());
        CHECK(logits.value.Rows() == 7);
        CHECK(logits.value.Cols() == 11);
        CHECK(logits.operation == Operation::Exit);
        CHECK(logits.rows == 7);
        // norm 40; down and up 60 each; silu 12; sum 10; norm 40; head 220; confidence 44
        CHECK(logits.work == Work{7 * (40 + 60 + 12 + 60 + 10 + 40 + 220 + 44),
                                  160 + 2 * 110 + 4 * 70,
                                  4 * 7 * 11 + 4 * 7,
                                  8,
                                  160 + 2 * 110});
        // hidden state, adapted state, logits
        CHECK(ActivationBytes(config, Operation::Exit, 7, DType::F16) == 2 * 7 * (10 + 10 + 11));

        const auto untrained = backend.Exit(*model, *backend.Resident(Untrained({2}), config), 0, hidden);
        CHECK(untrained.work == Work{7 * (40 + 220 + 44), 2 * 120 + 4 * 70, 4 * 7 * 11 + 4 * 7, 3, 2 * 120});
    }
    SECTION("OPT")
    {
        config.family = Family::Opt;
        const auto model = backend.Resident(ShapeOf(config));
        const auto exits = backend.Resident(trained, config);
        CHECK(ExitParameters(config, 3) == 100);
        // norms of 70 FLOPs and 20 parameters
        CHECK(backend.Exit(*model, *exits, 0, hidden).work ==
              Work{7 * (70 + 60 + 12 + 60 + 10 + 70 + 220 + 44),
                   200 + 2 * 110 + 4 * 70,
                   4 * 7 * 11 + 4 * 7,
                   8,
                   200 + 2 * 110});
        const auto untrained = backend.Exit(*model, *backend.Resident(Untrained({2}), config), 0, hidden);
        CHECK(untrained.work == Work{7 * (70 + 220 + 44), 2 * 130 + 4 * 70, 4 * 7 * 11 + 4 * 7, 3, 2 * 130});
    }
    SECTION("the CPU backend, with weights of another type than the model's")
    {
        CpuBackend cpu(1);
        const auto weights = RandomModel(config, 38);
        const auto exits = cpu.Resident(RandomExits(config, {1, 3}, 3, DType::F32, 39), config);
        CHECK(exits->Weights() == DType::F32);
        CHECK(exits->Bytes() == 2 * 320);
        const auto logits = cpu.Exit(*cpu.Resident(weights), *exits, 0, RandomRows(7, 10));
        CHECK(logits.work.flops == 7 * (40 + 60 + 12 + 60 + 10 + 40 + 220 + 44));
        CHECK(logits.work.weightBytes == 320 + 2 * 110);
        CHECK(logits.work.bytesRead == 320 + 2 * 110 + 4 * 70);
    }
    SECTION("rows of two sessions in one operation cost what they cost in one")
    {
        const auto model = backend.Resident(ShapeOf(config));
        const auto exits = backend.Resident(trained, config);
        const auto work = [&](std::size_t rows) {
            return backend.Exit(*model, *exits, 0, Tensor::Phantom(rows, 10)).work;
        };
        CHECK(work(3).Join(work(4)) == work(7));
    }
    // Published shapes: 2 x 576 x 64 and two norms of 576
    CHECK(ExitParameters(NamedShape("smollm2-135m", DType::BF16), 64) == 74'880);
    CHECK(ExitParameters(config, 0) == 0);
}

TEST_CASE("A backend refuses exits of another model, exits without weights, phantoms and foreign handles", "[exits]")
{
    const ModelConfig config = Odd(Family::Llama);
    const auto weights = RandomModel(config, 40);
    const auto trained = RandomExits(config, {2, 4}, 3, DType::BF16, 41);
    CpuBackend cpu(1);
    ShapeBackend shape(DType::F32);
    const auto model = cpu.Resident(weights);
    const auto exits = cpu.Resident(trained, config);
    const Tensor hidden = RandomRows(1, 50);
    CHECK_NOTHROW(cpu.Exit(*model, *exits, 1, hidden));
    CHECK_THROWS_AS(cpu.Exit(*model, *exits, 2, hidden), std::logic_error);
    CHECK_THROWS_AS(cpu.Exit(*model, *exits, 0, RandomRows(1, 49)), std::logic_error);
    CHECK_THROWS_AS(cpu.Exit(*model, *exits, 0, Tensor::Phantom(1, 50)), std::logic_error);
    CHECK_THROWS_AS(cpu.Exit(*model, *shape.Resident(trained, config), 0, hidden), std::logic_error);
    CHECK_THROWS_AS(cpu.Exit(*shape.Resident(weights), *exits, 0, hidden), std::logic_error);
    ModelConfig wide = config;
    wide.hidden = 51;
    CHECK_THROWS_AS(cpu.Resident(trained, wide), std::logic_error);
    CHECK_THROWS_AS(shape.Exit(*shape.Resident(ShapeOf(config)), *shape.Resident(trained, wide), 0, hidden),
                    std::logic_error);

    Exits changed = *trained;
    changed.weights.clear();
    CHECK_THROWS_AS(cpu.Resident(std::make_shared<const Exits>(changed), config), std::logic_error);
    CHECK_NOTHROW(shape.Resident(std::make_shared<const Exits>(changed), config));
    changed = *trained;
    changed.weights.pop_back();
    CHECK_THROWS_AS(shape.Resident(std::make_shared<const Exits>(changed), config), std::logic_error);
    changed = *trained;
    changed.width = 0;
    CHECK_THROWS_AS(shape.Resident(std::make_shared<const Exits>(changed), config), std::logic_error);
    using Layers = std::vector<std::size_t>;
    for (const Layers& layers : {Layers{}, Layers{0, 2}, Layers{2, 2}, Layers{3, 2}, Layers{2, 5}})
    {
        CHECK_THROWS_AS(shape.Resident(Untrained(layers), config), std::logic_error);
    }
}

TEST_CASE("Exits have their weights in their places", "[exits][input]")
{
    const ExitsFolder llama;
    const auto exits = llama.Load();
    CHECK(exits->layers == std::vector<std::size_t>{1, 4});
    CHECK(exits->width == 3);
    REQUIRE(exits->weights.size() == 2);
    // In the order in which the folder's tensors count up: norms of 2, then 6 and 6, for each exit.
    CHECK(Element(exits->weights[0].inputNorm.scale, 0) == 0.0F);
    CHECK(Element(exits->weights[0].norm.scale, 1) == 3.0F);
    CHECK(Element(exits->weights[0].down, 5) == 9.0F);
    CHECK(Element(exits->weights[0].up, 5) == 15.0F);
    CHECK(Element(exits->weights[1].inputNorm.scale, 1) == 17.0F);
    CHECK(Element(exits->weights[1].norm.scale, 0) == 18.0F);
    CHECK(exits->weights[1].down.shape == std::vector<std::size_t>{3, 2});
    CHECK(exits->weights[1].up.shape == std::vector<std::size_t>{2, 3});
    CHECK(exits->weights[1].norm.shift.data == nullptr);

    const auto opt = ExitsFolder(Family::Opt).Load();
    CHECK(Element(opt->weights[0].inputNorm.shift, 0) == 2.0F);
    CHECK(Element(opt->weights[0].norm.scale, 0) == 4.0F);
    CHECK(Element(opt->weights[0].norm.shift, 1) == 7.0F);
    CHECK(Element(opt->weights[1].down, 0) == 28.0F);
}

TEST_CASE("A description of exits that does not fit is refused by key", "[exits][input]")
{
    const auto error = [](const std::string& key, const std::string& value) {
        return ExitsFolder().Set(key, value).Error();
    };
    const std::string layers = "; accepted: a list of ascending layers from 1 to 5, the one before the last of six";
    CHECK(error("layers", "[1, 6]") == "exits.json: layers: is [1,6]" + layers);
    CHECK(error("layers", "[0, 4]") == "exits.json: layers: is [0,4]" + layers);
    CHECK(error("layers", "[4, 1]") == "exits.json: layers: is [4,1]" + layers);
    CHECK(error("layers", "[1, 1]") == "exits.json: layers: is [1,1]" + layers);
    CHECK(error("layers", "[1, 18446744073709551615]") == "exits.json: layers: is [1,18446744073709551615]" + layers);
    CHECK(error("layers", "[-1]") == "exits.json: layers: is [-1]" + layers);
    CHECK(error("layers", "[1.0]") == "exits.json: layers: is [1.0]" + layers);
    CHECK(error("layers", "[]") == "exits.json: layers: is []" + layers);
    CHECK(error("layers", "4") == "exits.json: layers: is 4" + layers);
    CHECK(error("width", "0") == "exits.json: width: is 0; accepted: an integer from 1 to 65536");
    CHECK(error("model", "1").starts_with("exits.json: model: is 1; accepted: a"));
    CHECK(error("rank", "1").starts_with("exits.json: rank: unknown key; accepted: "));
    for (const char* key : {"model", "layers", "width", "made_by", "trained_on"})
    {
        CHECK(ExitsFolder().Drop(key).Error().starts_with(std::string("exits.json: ") + key + ": missing"));
    }
}

TEST_CASE("Tensors that exits lack or have too many are named", "[exits][input]")
{
    CHECK(ExitsFolder().Rename("exit.4.up.weight", "exit.4.lift.weight").Error() ==
          "exits.safetensors: tensor \"exit.4.up.weight\": missing; accepted: shape [2,3] of F32, F16, BF16");
    CHECK(ExitsFolder().Set("width", "4").Error() ==
          "exits.safetensors: tensor \"exit.1.down.weight\": has shape [3,2]; accepted: [4,2]");
    CHECK(ExitsFolder().Set("layers", "[4]").Error() ==
          "exits.safetensors: tensor \"exit.1.down.weight\": belongs to no exit; accepted: the weights of exits after "
          "layers 4 of the model six");
    CHECK(ExitsFolder().Add("exit.1.norm.bias", {2}).Error().starts_with(
        "exits.safetensors: tensor \"exit.1.norm.bias\": belongs to no exit"));
    CHECK(ExitsFolder(Family::Opt).Rename("exit.4.norm.bias", "exit.4.norm.shift").Error() ==
          "exits.safetensors: tensor \"exit.4.norm.bias\": missing; accepted: shape [2] of F32, F16, BF16");

    const ExitsFolder empty;
    CHECK(ErrorOf([&] { Exits::Load(empty.Path(), empty.Config()); }) ==
          empty.Path().string() + "/exits.json: cannot be read; accepted: a readable JSON file");
}
