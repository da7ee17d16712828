// SPDX-License-Identifier: GPL-2.0-only
#include "llm/side-network.h"

#include "base/strict-json.h"
#include "compute/cpu/cpu-backend.h"
#include "compute/shape-backend.h"
#include "support/catch.h"
#include "support/error-of.h"
#include "support/random-model.h"
#include "support/safetensors-file.h"
#include "support/temporary-folder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

/// Widths that are all different and no multiple of a vector.
ModelConfig
Odd()
{
    ModelConfig config;
    config.name = "odd";
    config.layers = 3;
    config.hidden = 50;
    config.normEps = 1e-2; // large enough to be seen
    config.dtype = DType::BF16;
    return config;
}

Tensor
RandomRows(std::size_t rows, std::size_t cols, std::uint64_t seed)
{
    Random random(seed);
    Tensor tensor = Tensor::Zeros(rows, cols);
    std::ranges::generate(tensor.Values(), [&] { return 2.0F * random.Uniform(); });
    return tensor;
}

/// States behind all layers.
std::vector<Tensor>
RandomStates(const ModelConfig& config, std::size_t rows)
{
    std::vector<Tensor> states;
    for (std::size_t layer = 0; layer < config.layers; ++layer)
    {
        states.push_back(RandomRows(rows, config.hidden, 50 + layer));
    }
    return states;
}

std::vector<Tensor>
Slice(const std::vector<Tensor>& states, std::size_t first, std::size_t count)
{
    std::vector<Tensor> slice;
    for (const Tensor& state : states)
    {
        slice.push_back(state.Slice(first, count));
    }
    return slice;
}

bool
SameBits(const Tensor& a, const Tensor& b)
{
    return a.Rows() == b.Rows() && a.Cols() == b.Cols() && a.Elements() > 0 &&
           std::memcmp(a.Values().data(), b.Values().data(), a.Elements() * sizeof(float)) == 0;
}

using Vector = std::vector<double>;

/// The side network's formulas in double, one row at a time.
class Reference
{
  public:
    Reference(const SideNetwork& side, const ModelConfig& config)
        : m_side(side),
          m_eps(config.normEps)
    {
    }

    /// down_l rms(f_l) of all layers, side by side.
    Vector Input(const std::vector<Tensor>& states, std::size_t row) const
    {
        Vector input;
        for (std::size_t layer = 0; layer < states.size(); ++layer)
        {
            const Vector part = Product(m_side.layers[layer].down, Rms(Of(states[layer].Row(row))));
            input.insert(input.end(), part.begin(), part.end());
        }
        return input;
    }

    Vector Output(const Vector& input) const
    {
        Vector state(m_side.width);
        for (std::size_t layer = 0; layer < m_side.layers.size(); ++layer)
        {
            for (std::size_t i = 0; i < m_side.width; ++i)
            {
                state[i] += input[layer * m_side.width + i];
            }
            Vector inner = Product(m_side.layers[layer].inner, Rms(state));
            for (double& x : inner)
            {
                x = x / (1.0 + std::exp(-x));
            }
            const Vector update = Product(m_side.layers[layer].outer, inner);
            std::ranges::transform(state, update, state.begin(), std::plus<>());
        }
        return Product(m_side.up, Rms(state));
    }

    Vector Gate(std::span<const float> hidden) const
    {
        Vector logits = Product(m_side.gate.weight, Rms(Of(hidden)));
        const std::vector<float> bias = Widened(m_side.gate.bias);
        logits[0] += bias[0];
        logits[1] += bias[1];
        return logits;
    }

    static Vector Of(std::span<const float> row)
    {
        return {row.begin(), row.end()};
    }

  private:
    Vector Rms(const Vector& x) const
    {
        double sum = 0.0;
        for (const double element : x)
        {
            sum += element * element;
        }
        Vector y = x;
        for (double& element : y)
        {
            element /= std::sqrt(sum / static_cast<double>(x.size()) + m_eps);
        }
        return y;
    }

    static Vector Product(const ArrayView& matrix, const Vector& x)
    {
        const std::vector<float> elements = Widened(matrix);
        Vector y(matrix.shape[0]);
        for (std::size_t i = 0; i < elements.size(); ++i)
        {
            y[i / x.size()] += static_cast<double>(elements[i]) * x[i % x.size()];
        }
        return y;
    }

    const SideNetwork& m_side;
    double m_eps;
};

/// Normalised mean squared error.
double
Nmse(std::span<const float> values, const Vector& expected)
{
    REQUIRE(values.size() == expected.size());
    double error = 0.0;
    double power = 0.0;
    for (std::size_t i = 0; i < expected.size(); ++i)
    {
        error += (values[i] - expected[i]) * (values[i] - expected[i]);
        power += expected[i] * expected[i];
    }
    return error / power;
}

/// A side network of which only the widths are known.
std::shared_ptr<const SideNetwork>
ShapeOf(std::size_t width, std::size_t inner)
{
    SideNetwork side;
    side.width = width;
    side.inner = inner;
    return std::make_shared<const SideNetwork>(std::move(side));
}

/// A folder with a side network of width 3 and blocks of 5 for a model of 2 layers and width 4, and a change to it.
class SideFolder
{
  public:
    SideFolder()
    {
        m_config.name = "two";
        m_config.layers = 2;
        m_config.hidden = 4;
        m_description = Json::parse(R"({"model": "two", "width": 3, "inner": 5, "combination": "sum",
                                        "made_by": "train", "trained_on": "texts"})");
        for (const char* layer : {"1", "2"})
        {
            const std::string side = std::string("side.") + layer + ".";
            Add(side + "down", {3, 4});
            Add(side + "inner", {5, 3});
            Add(side + "outer", {3, 5});
        }
        Add("up", {4, 3});
        Add("gate.weight", {2, 4});
        Add("gate.bias", {2});
    }

    /// \p key of side.json is \p value.
    SideFolder& Set(const std::string& key, const std::string& value)
    {
        m_description[key] = Json::parse(value);
        return *this;
    }

    SideFolder& Drop(const std::string& key)
    {
        m_description.erase(key);
        return *this;
    }

    /// Another tensor of fp32, whose elements count up through the file.
    SideFolder& Add(const std::string& name, const std::vector<std::size_t>& shape)
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

    SideFolder& Rename(const std::string& from, const std::string& to)
    {
        m_header[to] = m_header[from];
        m_header.erase(from);
        return *this;
    }

    /// \p key of what the file says of the tensor \p name.
    SideFolder& Say(const std::string& name, const std::string& key, const std::string& value)
    {
        m_header[name][key] = Json::parse(value);
        return *this;
    }

    std::shared_ptr<const SideNetwork> Load() const
    {
        m_folder.Write("side.json", m_description.dump());
        m_folder.Write("side.safetensors", SafetensorsFile(m_header.dump(), m_data));
        return SideNetwork::Load(m_folder.Path(), m_config);
    }

    /// The error of Load, without the path of the folder.
    std::string Error() const
    {
        const std::string path = m_folder.Path().string() + "/";
        const std::string error = ErrorOf([&] { Load(); });
        CHECK((error.empty() || error.starts_with(path)));
        CHECK(error.find('\n') == std::string::npos);
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
    return Widened(view).at(index);
}

} // namespace

TEST_CASE("Side network and gate agree with their formulas in double, of all types", "[side-network]")
{
    const ModelConfig config = Odd();
    const std::vector<Tensor> states = RandomStates(config, 7);
    for (const DType dtype : {DType::F32, DType::F16, DType::BF16})
    {
        const auto network = RandomSideNetwork(config, 19, 27, dtype, 61);
        CpuBackend backend(2);
        const auto side = backend.Resident(network, config);
        const Tensor input = backend.SideInput(*side, states).value;
        REQUIRE(input.Rows() == 7);
        REQUIRE(input.Cols() == 3 * 19);
        const Tensor output = backend.Side(*side, input).value;
        REQUIRE(output.Rows() == 7);
        REQUIRE(output.Cols() == 50);
        const Tensor logits = backend.Gate(*side, states.back()).value;
        REQUIRE(logits.Rows() == 7);
        REQUIRE(logits.Cols() == 2);
        const Tensor sum = backend.Combine(states.back(), output).value;
        const Reference reference(*network, config);
        for (std::size_t row = 0; row < 7; ++row)
        {
            CAPTURE(NameOf(dtype), row);
            const Vector expectedInput = reference.Input(states, row);
            CHECK(Nmse(input.Row(row), expectedInput) < 1e-12);
            Vector expected = reference.Output(expectedInput);
            CHECK(Nmse(output.Row(row), expected) < 1e-11);
            CHECK(Nmse(logits.Row(row), reference.Gate(states.back().Row(row))) < 1e-11);
            std::ranges::transform(expected, states.back().Row(row), expected.begin(), std::plus<>());
            CHECK(Nmse(sum.Row(row), expected) < 1e-11);
        }
    }
}

TEST_CASE("A side network's rows have the bits of one row at a time, on any instruction set and threads",
          "[side-network]")
{
    ModelConfig config = Odd();
    config.hidden = 1030; // large enough for work to be shared
    const std::size_t rows = 7;
    const std::vector<Tensor> states = RandomStates(config, rows);
    for (const DType dtype : {DType::F32, DType::F16, DType::BF16})
    {
        const auto network = RandomSideNetwork(config, 71, 1003, dtype, 62);
        CpuBackend reference(1, *SupportedKernels().front());
        const auto plain = reference.Resident(network, config);
        Tensor inputs = Tensor::Zeros(0, 3 * 71);
        Tensor outputs = Tensor::Zeros(0, config.hidden);
        Tensor logits = Tensor::Zeros(0, 2);
        for (std::size_t row = 0; row < rows; ++row)
        {
            inputs.Append(reference.SideInput(*plain, Slice(states, row, 1)).value);
            outputs.Append(reference.Side(*plain, inputs.Slice(row, 1)).value);
            logits.Append(reference.Gate(*plain, states.back().Slice(row, 1)).value);
        }
        for (const Kernels* kernels : SupportedKernels())
        {
            for (const std::size_t threads : {1, 2})
            {
                CpuBackend backend(threads, *kernels);
                const auto side = backend.Resident(network, config);
                for (const std::size_t count : {1, 2, 3, 7})
                {
                    CAPTURE(NameOf(dtype), kernels->name, threads, count);
                    const std::size_t first = rows - count;
                    const Tensor input = backend.SideInput(*side, Slice(states, first, count)).value;
                    CHECK(SameBits(input, inputs.Slice(first, count)));
                    CHECK(SameBits(backend.Side(*side, input).value, outputs.Slice(first, count)));
                    CHECK(SameBits(backend.Gate(*side, states.back().Slice(first, count)).value,
                                   logits.Slice(first, count)));
                }
            }
        }
    }
}

TEST_CASE("What is computed in a backend before leaves no trace in a side network", "[side-network]")
{
    const ModelConfig config = Odd();
    const std::vector<Tensor> states = RandomStates(config, 2);
    const auto network = RandomSideNetwork(config, 5, 6, DType::F32, 63);
    CpuBackend fresh(1);
    CpuBackend used(1);
    const auto wide = used.Resident(RandomSideNetwork(config, 40, 90, DType::F32, 64), config);
    used.Side(*wide, used.SideInput(*wide, RandomStates(config, 5)).value);
    const auto a = fresh.Resident(network, config);
    const auto b = used.Resident(network, config);
    CHECK(SameBits(fresh.Side(*a, fresh.SideInput(*a, states).value).value,
                   used.Side(*b, used.SideInput(*b, states).value).value));
}

TEST_CASE("A side network's work is what a count by hand gives", "[side-network]")
{
    ModelConfig config = Odd();
    config.layers = 2;
    config.hidden = 10;
    const auto expectWork = [&](Backend& backend, const ResidentSide& side, std::uint64_t e, std::uint64_t a) {
        const auto rows = [&](std::size_t cols) {
            return backend.HasNumbers() ? RandomRows(7, cols, 1) : Tensor::Phantom(7, cols);
        };
        // two layers of 3 x 10; two of 2 x 3 x 4 and 10 x 3; 2 x 10 and 2
        CHECK(side.DownBytes() == 60 * e);
        CHECK(side.BlockBytes() == 78 * e);
        CHECK(side.GateBytes() == 22 * e);
        const auto input = backend.SideInput(side, std::vector<Tensor>{rows(10), rows(10)});
        CHECK(input.operation == Operation::SideInput);
        CHECK(input.rows == 7);
        CHECK(input.value.Rows() == 7);
        CHECK(input.value.Cols() == 6);
        CHECK(input.value.IsPhantom() == !backend.HasNumbers());
        // a layer: norm 30, product 60
        CHECK(input.work == Work{7 * 2 * (30 + 60), 60 * e + a * 7 * 2 * 10, a * 7 * 2 * 3, 2, 0});
        const auto output = backend.Side(side, input.value);
        CHECK(output.operation == Operation::Side);
        CHECK(output.rows == 7);
        CHECK(output.value.Rows() == 7);
        CHECK(output.value.Cols() == 10);
        CHECK(output.value.IsPhantom() == !backend.HasNumbers());
        // a layer: addition 3, norm 9, inner 24, activation 16, outer 24, addition 3; then norm 9, up 60
        const std::uint64_t flops = 7 * (2 * (3 + 9 + 24 + 16 + 24 + 3) + 9 + 60);
        CHECK(output.work == Work{flops, 78 * e + a * 7 * 6, a * 7 * 10, 14, 0});
        const auto sum = backend.Combine(rows(10), output.value);
        CHECK(sum.operation == Operation::Combine);
        CHECK(sum.rows == 7);
        CHECK(sum.value.Cols() == 10);
        CHECK(sum.value.IsPhantom() == !backend.HasNumbers());
        CHECK(sum.work == Work{70, a * 140, a * 70, 1, 0});
        const auto logits = backend.Gate(side, rows(10));
        CHECK(logits.operation == Operation::Gate);
        CHECK(logits.rows == 7);
        CHECK(logits.value.Rows() == 7);
        CHECK(logits.value.Cols() == 2);
        CHECK(logits.value.IsPhantom() == !backend.HasNumbers());
        // norm 30, product 40, bias 2, probability 4
        CHECK(logits.work == Work{7 * (30 + 40 + 2 + 4), 22 * e + a * 70, a * 14 + 4 * 7, 3, 0});
    };

    SECTION("a shape, in the model's type")
    {
        ShapeBackend backend(DType::F16);
        const auto side = backend.Resident(ShapeOf(3, 4), config);
        CHECK(side->Weights() == DType::BF16);
        CHECK(side->Width() == 3);
        CHECK(side->Inner() == 4);
        CHECK_FALSE(side->Alone());
        expectWork(backend, *side, 2, 2);
        const auto work = [&](std::size_t rows) { return backend.Side(*side, Tensor::Phantom(rows, 6)).work; };
        CHECK(work(3).bytesRead + work(4).bytesRead == work(7).bytesRead + 78 * 2); // a user's own weights
    }
    SECTION("weights of another type than the model's")
    {
        CpuBackend backend(1);
        const auto side = backend.Resident(RandomSideNetwork(config, 3, 4, DType::F32, 65), config);
        CHECK(side->Weights() == DType::F32);
        expectWork(backend, *side, 4, 4);
    }
    SECTION("weights in the shape backend")
    {
        ShapeBackend backend(DType::F32);
        expectWork(backend, *backend.Resident(RandomSideNetwork(config, 3, 4, DType::F32, 65), config), 4, 4);
    }
    SECTION("matrices of several types")
    {
        const auto random = RandomSideNetwork(config, 3, 4, DType::F16, 66); // owns what the views show
        SideNetwork mixed = *random;
        const auto other = RandomSideNetwork(config, 3, 4, DType::F32, 67);
        mixed.layers[1].down = other->layers[1].down;
        mixed.layers[0].outer = other->layers[0].outer;
        mixed.gate.bias = other->gate.bias;
        mixed.alone = true;
        CpuBackend backend(1);
        const auto side = backend.Resident(std::make_shared<const SideNetwork>(mixed), config);
        CHECK(side->DownBytes() == 2 * 30 + 4 * 30);
        CHECK(side->BlockBytes() == 2 * 78 + 2 * 12);
        CHECK(side->GateBytes() == 2 * 20 + 4 * 2);
        CHECK(side->Alone());
    }
    // Published shapes: 30 x 72 x 576, and 30 x 2 x 72 x 288 + 576 x 72
    const ModelConfig smollm = NamedShape("smollm2-135m", DType::BF16);
    CHECK(DownParameters(smollm, 72) == 1'244'160);
    CHECK(BlockParameters(smollm, 72, 288) == 1'244'160 + 41'472);
    CHECK(SideParameters(smollm, 72, 288) == 2'529'792);
    CHECK(GateParameters(smollm) == 1154);
}

TEST_CASE("A backend refuses a side network of another model, wrong shapes, phantoms and foreign handles",
          "[side-network]")
{
    const ModelConfig config = Odd();
    const auto network = RandomSideNetwork(config, 5, 6, DType::BF16, 68);
    CpuBackend cpu(1);
    ShapeBackend shape(DType::F32);
    const auto side = cpu.Resident(network, config);
    const auto foreign = shape.Resident(network, config);
    const std::vector<Tensor> states = RandomStates(config, 2);
    const Tensor input = RandomRows(2, 15, 2);
    CHECK_NOTHROW(cpu.Side(*side, cpu.SideInput(*side, states).value));

    const auto changed = [&](std::size_t layer, const Tensor& state) {
        std::vector<Tensor> other = states;
        other[layer] = state;
        return other;
    };
    using States = std::vector<Tensor>;
    CHECK_THROWS_AS(cpu.SideInput(*side, States{}), std::logic_error);
    CHECK_THROWS_AS(cpu.SideInput(*side, States(2, states[0])), std::logic_error);
    CHECK_THROWS_AS(cpu.SideInput(*side, States(4, states[0])), std::logic_error);
    CHECK_THROWS_AS(cpu.SideInput(*side, States(3, Tensor::Zeros(0, 50))), std::logic_error);
    CHECK_THROWS_AS(cpu.SideInput(*side, States(3, RandomRows(2, 49, 3))), std::logic_error);
    CHECK_THROWS_AS(cpu.SideInput(*side, changed(2, RandomRows(2, 49, 3))), std::logic_error);
    CHECK_THROWS_AS(cpu.SideInput(*side, changed(1, RandomRows(3, 50, 3))), std::logic_error);
    CHECK_THROWS_AS(cpu.SideInput(*side, changed(2, Tensor::Phantom(2, 50))), std::logic_error);
    CHECK_THROWS_AS(cpu.SideInput(*foreign, states), std::logic_error);

    CHECK_THROWS_AS(cpu.Side(*side, Tensor::Zeros(0, 15)), std::logic_error);
    CHECK_THROWS_AS(cpu.Side(*side, RandomRows(2, 14, 4)), std::logic_error);
    CHECK_THROWS_AS(cpu.Side(*side, RandomRows(2, 16, 4)), std::logic_error);
    CHECK_THROWS_AS(cpu.Side(*side, Tensor::Phantom(2, 15)), std::logic_error);
    CHECK_THROWS_AS(cpu.Side(*foreign, input), std::logic_error);

    CHECK_THROWS_AS(cpu.Gate(*side, RandomRows(2, 51, 5)), std::logic_error);
    CHECK_THROWS_AS(cpu.Gate(*side, Tensor::Zeros(0, 50)), std::logic_error);
    CHECK_THROWS_AS(cpu.Gate(*side, Tensor::Phantom(2, 50)), std::logic_error);
    CHECK_THROWS_AS(cpu.Gate(*foreign, states.back()), std::logic_error);

    CHECK_THROWS_AS(cpu.Combine(states[0], RandomRows(3, 50, 6)), std::logic_error);
    CHECK_THROWS_AS(cpu.Combine(states[0], RandomRows(2, 49, 6)), std::logic_error);
    CHECK(shape.Combine(states[0], Tensor::Phantom(2, 50)).value.IsPhantom());

    ModelConfig other = config;
    other.hidden = 51;
    CHECK_THROWS_AS(cpu.Resident(network, other), std::logic_error);
    other = config;
    other.layers = 4;
    CHECK_THROWS_AS(cpu.Resident(network, other), std::logic_error);
    CHECK_THROWS_AS(shape.Resident(network, other), std::logic_error);
    CHECK_THROWS_AS(cpu.Resident(ShapeOf(5, 6), config), std::logic_error);
    CHECK_NOTHROW(shape.Resident(ShapeOf(5, 6), config));
    CHECK_THROWS_AS(shape.Resident(ShapeOf(0, 6), config), std::logic_error);
    CHECK_THROWS_AS(shape.Resident(ShapeOf(5, 0), config), std::logic_error);
    const auto refuses = [&](auto change) {
        SideNetwork wrong = *network;
        change(wrong);
        CHECK_THROWS_AS(cpu.Resident(std::make_shared<const SideNetwork>(wrong), config), std::logic_error);
    };
    refuses([](SideNetwork& wrong) { wrong.width = 6; });
    refuses([](SideNetwork& wrong) { wrong.inner = 7; });
    refuses([](SideNetwork& wrong) { wrong.up.shape = {5, 50}; });
    refuses([](SideNetwork& wrong) { wrong.gate.weight.shape = {1, 100}; });
    refuses([](SideNetwork& wrong) { wrong.gate.bias.shape = {1}; });
    refuses([](SideNetwork& wrong) { wrong.layers[2].outer.data = nullptr; });
    refuses([](SideNetwork& wrong) { std::swap(wrong.layers[1].inner, wrong.layers[1].outer); });
    refuses([](SideNetwork& wrong) { wrong.layers[1].down.shape = {50, 5}; });
}

TEST_CASE("A side network has its weights in their places", "[side-network][input]")
{
    const SideFolder folder;
    const auto side = folder.Load();
    CHECK(side->width == 3);
    CHECK(side->inner == 5);
    CHECK_FALSE(side->alone);
    REQUIRE(side->layers.size() == 2);
    // In the order in which the folder's tensors count up: 12, 15 and 15 for each layer, then 12, 8 and 2.
    CHECK(Element(side->layers[0].down, 0) == 0.0F);
    CHECK(Element(side->layers[0].inner, 0) == 12.0F);
    CHECK(Element(side->layers[0].outer, 14) == 41.0F);
    CHECK(Element(side->layers[1].down, 11) == 53.0F);
    CHECK(Element(side->layers[1].inner, 14) == 68.0F);
    CHECK(Element(side->layers[1].outer, 0) == 69.0F);
    CHECK(Element(side->up, 0) == 84.0F);
    CHECK(Element(side->gate.weight, 7) == 103.0F);
    CHECK(Element(side->gate.bias, 1) == 105.0F);
    CHECK(side->layers[1].down.shape == std::vector<std::size_t>{3, 4});
    CHECK(side->layers[1].inner.shape == std::vector<std::size_t>{5, 3});
    CHECK(side->layers[1].outer.shape == std::vector<std::size_t>{3, 5});
    CHECK(side->up.shape == std::vector<std::size_t>{4, 3});

    CHECK(SideFolder().Set("combination", R"("alone")").Load()->alone);
    CpuBackend backend(1);
    CHECK(backend.Resident(side, folder.Config())->DownBytes() == 4 * 24);
}

TEST_CASE("A description of a side network that does not fit is refused by key", "[side-network][input]")
{
    const auto error = [](const std::string& key, const std::string& value) {
        return SideFolder().Set(key, value).Error();
    };
    for (const std::string key : {"width", "inner"})
    {
        const std::string start = "side.json: " + key + ": ";
        const std::string accepted = "; accepted: an integer from 1 to 65536";
        for (const std::string value : {"0", "65537", "-1", "3.0", "\"3\"", "18446744073709551615"})
        {
            CHECK(error(key, value) == start + "is " + value + accepted);
        }
        CHECK(SideFolder().Drop(key).Error() == start + "missing" + accepted);
    }
    CHECK(error("combination", R"("product")") == "side.json: combination: is \"product\"; accepted: sum, alone");
    CHECK(SideFolder().Drop("combination").Error() == "side.json: combination: missing; accepted: sum, alone");
    for (const std::string key : {"model", "made_by", "trained_on"})
    {
        CHECK(SideFolder().Drop(key).Error() == "side.json: " + key + ": missing; accepted: a string");
        CHECK(error(key, "1") == "side.json: " + key + ": is 1; accepted: a string");
    }
    CHECK(error("rank", "1").starts_with("side.json: rank: unknown key; accepted: "));
    CHECK_FALSE(error("width", "4").empty()); // shapes of the file's tensors
    CHECK_FALSE(error("inner", "4").empty());

    const SideFolder folder;
    CHECK(ErrorOf([&] { SideNetwork::Load(folder.Path(), folder.Config()); }).find("side.json") != std::string::npos);
    folder.Load();
    std::filesystem::remove(folder.Path() / "side.safetensors");
    CHECK(ErrorOf([&] { SideNetwork::Load(folder.Path(), folder.Config()); }).find("side.safetensors") !=
          std::string::npos);
}

TEST_CASE("Tensors of a side network that do not fit are refused by name", "[side-network][input]")
{
    const std::vector<std::string> names{"side.1.down",
                                         "side.1.inner",
                                         "side.1.outer",
                                         "side.2.down",
                                         "side.2.inner",
                                         "side.2.outer",
                                         "up",
                                         "gate.weight",
                                         "gate.bias"};
    for (const std::string& name : names)
    {
        CAPTURE(name);
        const std::string start = "side.safetensors: tensor \"" + name + "\"";
        CHECK(SideFolder().Rename(name, "side.3.down").Error().starts_with(start));
        CHECK(SideFolder().Say(name, "dtype", "\"I32\"").Error().starts_with(start));
        // as many elements in another shape
        const bool block = name.ends_with("inner") || name.ends_with("outer");
        const std::string matrix = block ? "[15, 1]" : "[1, 12]";
        const std::string shape = name == "gate.bias" ? "[2, 1]" : (name == "gate.weight" ? "[4, 2]" : matrix);
        CHECK(SideFolder().Say(name, "shape", shape).Error().starts_with(start));
    }
    const std::string accepted = ": belongs to no side network; accepted: side.L.down, side.L.inner and side.L.outer "
                                 "of layers L from 1 to 2 of the model two, up, gate.weight and gate.bias";
    for (const std::string name : {"side.3.down", "side.0.down", "down", "side.1.down.bias"})
    {
        CHECK(SideFolder().Add(name, {3, 4}).Error() == "side.safetensors: tensor \"" + name + "\"" + accepted);
    }
}
