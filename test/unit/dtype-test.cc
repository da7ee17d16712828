// SPDX-License-Identifier: GPL-2.0-only
#include "tensor/dtype.h"

#include "support/catch.h"
#include "tensor/tensor.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

using namespace splitllm;

namespace
{

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The value of an fp16 pattern, by the definition of the format.
double
F16Value(std::uint16_t bits)
{
    const int exponent = (bits >> 10) & 0x1f;
    const int mantissa = bits & 0x3ff;
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

} // namespace

TEST_CASE("Rounding to fp16 and bf16 is torch's")
{
    struct Case
    {
        float value;
        std::uint16_t f16;
        std::uint16_t bf16;
    };
    // torch.tensor(value).half() and .bfloat16()
    for (const Case& c : {Case{0.1F, 0x2e66, 0x3dcd},
                          Case{-65519.0F, 0xfbff, 0xc780},
                          Case{65520.0F, 0x7c00, 0x4780},
                          Case{5.9604645e-08F, 0x0001, 0x3380},
                          Case{2.9802322e-08F, 0x0000, 0x3300},
                          Case{4.4703484e-08F, 0x0001, 0x3340},
                          Case{6.1e-5F, 0x03ff, 0x3880},
                          Case{3.14159265F, 0x4248, 0x4049},
                          Case{1e-40F, 0x0000, 0x0001},
                          Case{-0.0F, 0x8000, 0x8000},
                          Case{3.3895314e38F, 0x7c00, 0x7f7f},
                          Case{3.4e38F, 0x7c00, 0x7f80}})
    {
        CAPTURE(c.value);
        CHECK(ToF16(c.value) == c.f16);
        CHECK(ToBf16(c.value) == c.bf16);
    }
}

TEST_CASE("Every fp16 and bf16 pattern has its value and comes back from it")
{
    for (std::uint32_t i = 0; i <= 0xffff; ++i)
    {
        const auto bits = static_cast<std::uint16_t>(i);
        const float half = FromF16(bits);
        const float brain = FromBf16(bits);
        const bool halfIsNaN = (bits & 0x7fff) > 0x7c00;
        const bool brainIsNaN = (bits & 0x7fff) > 0x7f80;
        bool right = std::isnan(half) == halfIsNaN && std::isnan(brain) == brainIsNaN;
        right = right && (halfIsNaN || ToF16(half) == bits) && (brainIsNaN || ToBf16(brain) == bits);
        right = right && ((bits & 0x7c00) == 0x7c00 || half == F16Value(bits));
        right = right && std::bit_cast<std::uint32_t>(brain) == i << 16;
        if (!right)
        {
            FAIL("pattern " << i);
        }
    }
    CHECK(FromF16(0x7c00) == kInfinity);
    CHECK(FromF16(0xfc00) == -kInfinity);
}

TEST_CASE("Halfway between two fp16 neighbours rounds to the even one, a hair beyond it away")
{
    for (std::uint16_t bits = 0; bits < 0x7bff; ++bits)
    {
        const auto middle = static_cast<float>((F16Value(bits) + F16Value(bits + 1)) / 2); // exact
        const std::uint16_t even = bits % 2 == 0 ? bits : bits + 1;
        const bool right = ToF16(middle) == even && ToF16(std::nextafter(middle, kInfinity)) == bits + 1 &&
                           ToF16(std::nextafter(middle, 0.0F)) == bits && ToF16(-middle) == (even | 0x8000);
        if (!right)
        {
            FAIL("pattern " << bits);
        }
    }
    CHECK(ToBf16(std::bit_cast<float>(0x3f808000U)) == 0x3f80);
    CHECK(ToBf16(std::bit_cast<float>(0x3f818000U)) == 0x3f82);
    CHECK(ToBf16(std::bit_cast<float>(0x3f808001U)) == 0x3f81);
}

TEST_CASE("Not a number stays one even where its payload is lost")
{
    for (const std::uint32_t bits : {0x7f800001U, 0xff800001U, 0x7fc00000U, 0x7fffffffU})
    {
        const auto value = std::bit_cast<float>(bits);
        CHECK(std::isnan(FromF16(ToF16(value))));
        CHECK(std::isnan(FromBf16(ToBf16(value))));
    }
    CHECK(ToF16(kInfinity) == 0x7c00);
    CHECK(ToBf16(-kInfinity) == 0xff80);
}

TEST_CASE("Dtypes have the names of studies and the sizes of their elements")
{
    struct Case
    {
        DType dtype;
        std::size_t size;
        const char* name;
    };
    for (const Case& c : {Case{DType::F32, 4, "fp32"},
                          Case{DType::F16, 2, "fp16"},
                          Case{DType::BF16, 2, "bf16"},
                          Case{DType::I32, 4, "int32"},
                          Case{DType::I8, 1, "int8"}})
    {
        CHECK(SizeOf(c.dtype) == c.size);
        CHECK(NameOf(c.dtype) == c.name);
        CHECK(DTypeFromName(c.name) == c.dtype);
    }
    CHECK(!DTypeFromName("float16"));
    CHECK(!DTypeFromName(""));
}

TEST_CASE("A tensor's rows, slices and sums are those of its row-major values")
{
    Tensor tensor = Tensor::Zeros(5, 3);
    for (std::size_t i = 0; i < tensor.Elements(); ++i)
    {
        tensor.Values()[i] = static_cast<float>(i);
    }
    CHECK(tensor.Row(4)[2] == 14.0F);

    Tensor slice = tensor.Slice(1, 3);
    CHECK(slice.Rows() == 3);
    CHECK(slice.Cols() == 3);
    CHECK(slice.Row(0)[0] == 3.0F);
    CHECK(slice.Row(2)[2] == 11.0F);
    CHECK(tensor.Slice(5, 0).Elements() == 0);

    slice += tensor.Slice(0, 3);
    CHECK(slice.Row(0)[0] == 3.0F);
    CHECK(slice.Row(2)[2] == 19.0F);
    CHECK(tensor.Row(3)[2] == 11.0F); // the slice was a copy
}

TEST_CASE("A phantom has a shape and no bytes, and turns into a phantom what it is added to")
{
    Tensor phantom = Tensor::Phantom(1 << 20, 1 << 20);
    CHECK(phantom.IsPhantom());
    CHECK(phantom.Elements() == std::size_t{1} << 40);
    CHECK(phantom.Values().empty());
    CHECK(phantom.Slice(7, 11).IsPhantom());
    CHECK(phantom.Slice(7, 11).Rows() == 11);

    Tensor tensor = Tensor::Zeros(2, 3);
    CHECK(!tensor.IsPhantom());
    tensor += Tensor::Phantom(2, 3);
    CHECK(tensor.IsPhantom());
    CHECK(tensor.Values().empty());
    CHECK(tensor.Elements() == 6);
}

TEST_CASE("A moved-from tensor is 0 x 0")
{
    Tensor tensor = Tensor::Zeros(2, 3);
    Tensor other = std::move(tensor);
    CHECK(tensor.Rows() == 0); // NOLINT(bugprone-use-after-move)
    CHECK(tensor.Cols() == 0);
    CHECK(tensor.Values().empty());
    CHECK(other.Elements() == 6);

    tensor = Tensor::Phantom(4, 5);
    other = std::move(tensor);
    CHECK(!tensor.IsPhantom()); // NOLINT(bugprone-use-after-move)
    CHECK(tensor.Elements() == 0);
    CHECK(other.IsPhantom());
    CHECK(other.Cols() == 5);
}
