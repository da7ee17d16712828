// SPDX-License-Identifier: GPL-2.0-only
#include "base/input-error.h"
#include "compute/cpu/kernels.h"
#include "compute/exp.h"
#include "support/catch.h"
#include "support/random-model.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

using namespace splitllm;
using splitllm::test::Random;

namespace
{

const std::vector<std::size_t> kSizes{1, 3, 7, 15, 16, 17, 31, 64, 100, 576, 577, 1536};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Elements between NaNs, \p shift elements off the allocation's alignment.
template <typename T>
class Padded
{
  public:
    Padded(std::size_t size, std::size_t shift, T nan)
        : m_all(size + 2 * kPadding + shift, nan),
          m_begin(kPadding + shift)
    {
    }

    T* Data()
    {
        return m_all.data() + m_begin;
    }

    /// The bytes of everything, padding included.
    std::string Bytes() const
    {
        return {reinterpret_cast<const char*>(m_all.data()), m_all.size() * sizeof(T)};
    }

  private:
    static constexpr std::size_t kPadding = 32;
    std::vector<T> m_all;
    std::size_t m_begin;
};

using Floats = Padded<float>;
using Halves = Padded<std::uint16_t>;

Floats
RandomFloats(Random& random, std::size_t size, std::size_t shift, float spread = 1.0F)
{
    Floats floats(size, shift, kNan);
    for (std::size_t i = 0; i < size; ++i)
    {
        floats.Data()[i] = spread * random.Uniform();
    }
    return floats;
}

Halves
RandomHalves(Random& random, std::size_t size, std::size_t shift, std::uint16_t (*round)(float))
{
    Halves halves(size, shift, round(kNan));
    for (std::size_t i = 0; i < size; ++i)
    {
        halves.Data()[i] = round(random.Uniform());
    }
    return halves;
}

const Kernels&
Plain()
{
    return *SupportedKernels().front();
}

/// The bytes that \p matMul leaves in a padded result with a row longer than it needs.
std::string
ProductBytes(Kernels::MatMul matMul,
             const void* weights,
             std::size_t rows,
             std::size_t n,
             const float* x,
             std::size_t tokens,
             std::size_t shift)
{
    Floats y(tokens * (rows + 3), shift, kNan);
    matMul(weights, rows, n, x, tokens, y.Data(), rows + 3);
    return y.Bytes();
}

float
PlainDot(const std::vector<float>& a, const std::vector<float>& b)
{
    float result = 0.0F;
    Plain().matMulF32(a.data(), 1, a.size(), b.data(), 1, &result, 1);
    return result;
}

/// SPLITLLM_ISA for as long as this lives.
class ForcedIsa
{
  public:
    explicit ForcedIsa(const char* name)
        : m_before(std::getenv("SPLITLLM_ISA") == nullptr ? "" : std::getenv("SPLITLLM_ISA"))
    {
        setenv("SPLITLLM_ISA", name, 1);
    }

    ~ForcedIsa()
    {
        setenv("SPLITLLM_ISA", m_before.c_str(), 1);
    }

  private:
    std::string m_before;
};

} // namespace

TEST_CASE("A dot product has sixteen lanes that are added as a tree")
{
    std::vector<float> ones(32, 1.0F);
    std::vector<float> x(32, 0.0F);
    x[0] = 0x1p24F; // the next float is 2^24 + 2: a lone 1 is lost, two that met before are not

    SECTION("elements sixteen apart meet first")
    {
        x[8] = x[24] = 1.0F;
        CHECK(PlainDot(x, ones) == 0x1p24F + 2.0F);
    }
    SECTION("an element eight off meets lane 0 alone")
    {
        x[8] = x[4] = 1.0F;
        CHECK(PlainDot(x, ones) == 0x1p24F);
    }
    SECTION("then lanes eight apart")
    {
        x[4] = x[12] = 1.0F;
        CHECK(PlainDot(x, ones) == 0x1p24F + 2.0F);
    }
    SECTION("then lanes four apart")
    {
        x[2] = x[6] = 1.0F;
        CHECK(PlainDot(x, ones) == 0x1p24F + 2.0F);
    }
    SECTION("then lanes two apart")
    {
        x[1] = x[3] = 1.0F;
        CHECK(PlainDot(x, ones) == 0x1p24F + 2.0F);
    }
}

TEST_CASE("A dot product rounds once for each multiply-add")
{
    std::vector<float> a(17, 0.0F);
    a[0] = 1.0F;
    a[16] = 1.0F + 0x1p-12F;
    std::vector<float> b = a;
    b[0] = -(1.0F + 0x1p-11F);
    // (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24, whose last term a rounded product does not have
    CHECK(PlainDot(a, b) == 0x1p-24F);
}

TEST_CASE("The tail of a dot product leaves the other lanes alone")
{
    // Every product underflows to -0, and so does every lane; fma(0, 0, lane) on a lane without a tail would make
    // it +0.
    const std::vector<float> a(17, -0x1p-149F);
    const std::vector<float> b(17, 0x1p-149F);
    for (const Kernels* kernels : SupportedKernels())
    {
        float y = 1.0F;
        kernels->matMulF32(a.data(), 1, a.size(), b.data(), 1, &y, 1);
        CHECK(y == 0.0F);
        CHECK(std::signbit(y));
    }
}

TEST_CASE("Products on every instruction set have the bytes of the plain kernel")
{
    Random random(1);
    for (const std::size_t n : kSizes)
    {
        for (const std::size_t rows : {1, 3, 4, 11})
        {
            const std::size_t tokens = 1 + random.Below(9);
            const std::size_t shift = random.Below(16);
            Floats x = RandomFloats(random, tokens * n, shift);
            Floats floats = RandomFloats(random, rows * n, 15 - shift);
            Halves fp16 = RandomHalves(random, rows * n, shift, ToF16);
            Halves bf16 = RandomHalves(random, rows * n, shift, ToBf16);
            const auto bytes = [&](const Kernels& kernels) {
                return ProductBytes(kernels.matMulF32, floats.Data(), rows, n, x.Data(), tokens, shift) +
                       ProductBytes(kernels.matMulF16, fp16.Data(), rows, n, x.Data(), tokens, shift) +
                       ProductBytes(kernels.matMulBf16, bf16.Data(), rows, n, x.Data(), tokens, shift);
            };
            const std::string expected = bytes(Plain());
            for (const Kernels* kernels : SupportedKernels())
            {
                INFO(kernels->name << " n " << n << " rows " << rows << " tokens " << tokens << " shift " << shift);
                CHECK((bytes(*kernels) == expected));
            }
        }
    }
}

TEST_CASE("Products of codes have the bytes of fp32 products of what the codes stand for")
{
    Random random(5);
    for (const std::size_t n : {32, 64, 96, 128, 160, 384, 576, 1536})
    {
        for (const std::size_t group : {32, 64, 128})
        {
            if (n % group != 0)
            {
                continue;
            }
            for (const std::size_t rows : {1, 3, 4, 11})
            {
                const std::size_t tokens = 1 + random.Below(9);
                const std::size_t shift = random.Below(16);
                Floats x = RandomFloats(random, tokens * n, shift);
                Padded<std::uint8_t> codes(rows * n, shift, 0xff);
                std::generate_n(codes.Data(), rows * n, [&] { return static_cast<std::uint8_t>(random.Below(256)); });
                Halves scales = RandomHalves(random, rows * n / group * 2, shift, ToF16); // between NaNs
                scales.Data()[0] = 1;                                                     // a subnormal
                for (const unsigned bits : {4, 8})
                {
                    std::vector<float> weights(rows * n);
                    for (std::size_t i = 0; i < weights.size(); ++i)
                    {
                        // 16 bytes for 32 codes of 4 bits, the first 16 in the low halves
                        const std::uint8_t byte = codes.Data()[bits == 8 ? i : i / 32 * 16 + i % 16];
                        const int code = bits == 8 ? byte : (i % 32 < 16 ? byte % 16 : byte / 16);
                        const std::uint16_t* pair = scales.Data() + i / group * 2;
                        weights[i] = std::fma(static_cast<float>(code), FromF16(pair[0]), FromF16(pair[1]));
                    }
                    const std::string expected =
                        ProductBytes(Plain().matMulF32, weights.data(), rows, n, x.Data(), tokens, shift);
                    for (const Kernels* kernels : SupportedKernels())
                    {
                        const auto matMul = bits == 8 ? kernels->matMulInt8 : kernels->matMulInt4;
                        Floats y(tokens * (rows + 3), shift, kNan);
                        matMul({codes.Data(), scales.Data(), group}, rows, n, x.Data(), tokens, y.Data(), rows + 3);
                        INFO(kernels->name << " " << bits << " bits, n " << n << " group " << group << " rows " << rows
                                           << " tokens " << tokens << " shift " << shift);
                        CHECK((y.Bytes() == expected));
                    }
                }
            }
        }
    }
}

TEST_CASE("A product is right")
{
    Random random(2);
    for (const std::size_t n : kSizes)
    {
        Halves weights = RandomHalves(random, 5 * n, 0, ToBf16);
        Floats x = RandomFloats(random, 3 * n, 0);
        std::vector<float> y(15);
        BestKernels().matMulBf16(weights.Data(), 5, n, x.Data(), 3, y.data(), 5);
        for (std::size_t i = 0; i < y.size(); ++i)
        {
            double expected = 0.0;
            double size = 0.0;
            for (std::size_t k = 0; k < n; ++k)
            {
                const double product = double{FromBf16(weights.Data()[i % 5 * n + k])} * x.Data()[i / 5 * n + k];
                expected += product;
                size += std::abs(product);
            }
            // a lane adds n / 16 products and the tree four levels, each within half an ulp
            CHECK(std::abs(y[i] - expected) <= (static_cast<double>(n) / 16 + 5) * 0x1p-24 * size);
        }
    }
}

TEST_CASE("fp16 weights are exact in every kernel, subnormals included")
{
    std::vector<std::uint16_t> weights;
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits)
    {
        if ((bits & 0x7c00U) != 0x7c00U) // neither infinite nor NaN
        {
            weights.push_back(static_cast<std::uint16_t>(bits));
        }
    }
    const float one = 1.0F;
    for (const Kernels* kernels : SupportedKernels())
    {
        std::vector<float> y(weights.size());
        kernels->matMulF16(weights.data(), weights.size(), 1, &one, 1, y.data(), y.size());
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < y.size(); ++i)
        {
            const int exponent = weights[i] >> 10 & 0x1f;
            const int fraction = weights[i] & 0x3ff;
            const double size = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
            wrong += y[i] != (weights[i] >> 15 != 0 ? -size : size);
        }
        CHECK(wrong == 0);
    }
}

TEST_CASE("exp is within two units in the last place")
{
    double worst = 0.0;
    const auto compare = [&](float x) {
        const double exact = std::exp(static_cast<double>(x));
        const int exponent = std::max(std::ilogb(exact), -126);
        const double ulp = std::ldexp(1.0, exponent - 23);
        worst = std::max(worst, std::abs(Exp(x) - exact) / ulp);
    };
    for (std::uint32_t bits = 0; bits < 0x42b17218U; bits += 499) // to the logarithm of the largest float
    {
        float x = 0.0F;
        std::memcpy(&x, &bits, sizeof(x));
        compare(x);
        if (x < 104.0F)
        {
            compare(-x);
        }
    }
    for (float x = 88.72284F; x <= 103.99F; x += 0.01F)
    {
        compare(-x);
    }
    INFO("worst " << worst << " ulp");
    CHECK(worst <= 2.0);
}

TEST_CASE("exp keeps its limits")
{
    CHECK(Exp(0.0F) == 1.0F);
    CHECK(Exp(-0.0F) == 1.0F);
    CHECK(std::isfinite(Exp(88.7228317F)));
    CHECK(Exp(88.7228394F) == std::numeric_limits<float>::infinity());
    CHECK(Exp(std::numeric_limits<float>::infinity()) == std::numeric_limits<float>::infinity());
    CHECK(Exp(-104.5F) == 0.0F);
    CHECK(Exp(-std::numeric_limits<float>::infinity()) == 0.0F);
    CHECK(std::isnan(Exp(kNan)));
}

TEST_CASE("Elementwise kernels and norms on every instruction set have the bytes of the plain kernel")
{
    Random random(3);
    for (const std::size_t n : kSizes)
    {
        const std::size_t shift = random.Below(16);
        Floats x = RandomFloats(random, n, shift, 30.0F);
        x.Data()[n / 2] = random.Below(2) == 0 ? -150.0F : 120.0F; // beyond exp's range on either side
        Floats scale = RandomFloats(random, n, 15 - shift);
        Floats offset = RandomFloats(random, n, shift);
        const auto bytes = [&](const Kernels& kernels) {
            Floats softmax = x;
            kernels.softmax(softmax.Data(), n);
            Floats silu = x;
            kernels.siluTimes(silu.Data(), scale.Data(), n);
            Floats rms(n, shift, kNan);
            kernels.rmsNorm(x.Data(), scale.Data(), 1e-5F, n, rms.Data());
            Floats layer(n, shift, kNan);
            kernels.layerNorm(x.Data(), scale.Data(), offset.Data(), 1e-5F, n, layer.Data());
            return softmax.Bytes() + silu.Bytes() + rms.Bytes() + layer.Bytes();
        };
        const std::string expected = bytes(Plain());
        for (const Kernels* kernels : SupportedKernels())
        {
            INFO(kernels->name << " n " << n << " shift " << shift);
            CHECK((bytes(*kernels) == expected));
        }
    }
}

TEST_CASE("Weighted sums on every instruction set have the bytes of the plain kernel")
{
    Random random(4);
    for (const std::size_t width : {1, 8, 13, 16, 31, 64, 80, 100, 128})
    {
        for (const std::size_t queries : {1, 2, 3, 7})
        {
            const std::size_t positions = 1 + random.Below(40);
            const std::size_t stride = positions + random.Below(3);
            const std::size_t shift = random.Below(16);
            Floats scores = RandomFloats(random, queries * stride, shift);
            Floats values = RandomFloats(random, positions * width, shift);
            const auto bytes = [&](const Kernels& kernels) {
                Floats y(queries * width, shift, kNan);
                kernels.weightedSum(scores.Data(), stride, queries, values.Data(), positions, width, y.Data());
                return y.Bytes();
            };
            const std::string expected = bytes(Plain());
            for (const Kernels* kernels : SupportedKernels())
            {
                INFO(kernels->name << " width " << width << " queries " << queries << " positions " << positions);
                CHECK((bytes(*kernels) == expected));
            }
        }
    }
}

TEST_CASE("Weighted sums add positions in their order")
{
    const std::vector<float> scores{1.0F, 1.0F, 1.0F};
    float y = 0.0F;
    const std::vector<float> rising{1.0F, 1.0F, 0x1p24F};
    Plain().weightedSum(scores.data(), 3, 1, rising.data(), 3, 1, &y);
    CHECK(y == 0x1p24F + 2.0F);
    const std::vector<float> falling{0x1p24F, 1.0F, 1.0F};
    Plain().weightedSum(scores.data(), 3, 1, falling.data(), 3, 1, &y);
    CHECK(y == 0x1p24F);
}

TEST_CASE("Softmax, SiLU and the norms are what their formulas say")
{
    std::vector<float> x{0.0F, std::log(3.0F), -200.0F};
    Plain().softmax(x.data(), x.size());
    CHECK(x[0] == Approx(0.25).epsilon(1e-6));
    CHECK(x[1] == Approx(0.75).epsilon(1e-6));
    CHECK(x[2] == 0.0F);

    std::vector<float> gate{std::log(3.0F), 0.0F, -150.0F};
    const std::vector<float> up{2.0F, 5.0F, 1.0F};
    Plain().siluTimes(gate.data(), up.data(), gate.size());
    CHECK(gate[0] == Approx(std::log(3.0) * 0.75 * 2.0).epsilon(1e-6));
    CHECK(gate[1] == 0.0F);
    CHECK(gate[2] == 0.0F);

    const std::vector<float> values{1.0F, 2.0F, 3.0F, 4.0F}; // mean square 7.5, mean 2.5, variance 1.25
    const std::vector<float> scale{1.0F, 2.0F, 1.0F, 2.0F};
    const std::vector<float> shift{0.0F, 0.0F, 5.0F, 5.0F};
    std::vector<float> y(4);
    Plain().rmsNorm(values.data(), scale.data(), 0.5F, 4, y.data());
    CHECK(y[0] == Approx(1.0 / std::sqrt(8.0)).epsilon(1e-6));
    CHECK(y[3] == Approx(8.0 / std::sqrt(8.0)).epsilon(1e-6));
    Plain().layerNorm(values.data(), scale.data(), shift.data(), 0.75F, 4, y.data());
    CHECK(y[0] == Approx(-1.5 / std::sqrt(2.0)).epsilon(1e-6));
    CHECK(y[3] == Approx(5.0 + 3.0 / std::sqrt(2.0)).epsilon(1e-6));
}

TEST_CASE("SPLITLLM_ISA forces an instruction set and names the accepted ones")
{
    for (const Kernels* kernels : SupportedKernels())
    {
        const ForcedIsa forced(std::string(kernels->name).c_str());
        CHECK(&BestKernels() == kernels);
    }
    const ForcedIsa unknown("sse9");
    try
    {
        BestKernels();
        FAIL("accepted");
    }
    catch (const InputError& error)
    {
        const std::string message = error.what();
        INFO(message);
        CHECK(message.find("SPLITLLM_ISA") != std::string::npos);
        CHECK(message.find("sse9") != std::string::npos);
        for (const Kernels* kernels : SupportedKernels())
        {
            CHECK(message.find(kernels->name) != std::string::npos);
        }
    }
}
