// SPDX-License-Identifier: GPL-2.0-only
#include "base/deterministic-math.h"

#include "support/catch.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

using namespace splitllm;

namespace
{

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// In [least, most).
double
Uniform(std::mt19937_64& random, double least, double most)
{
    return least + static_cast<double>(random() >> 11) * 0x1p-53 * (most - least);
}

double
RelativeError(double value, long double truth)
{
    return static_cast<double>(std::fabs((value - truth) / truth));
}

} // namespace

TEST_CASE("Exp, Log, sine and cosine have the bits of their formula rounded step by step")
{
    // From a transcription of the formulas in exact rational arithmetic that is rounded after every operation.
    CHECK(deterministic::Exp(1.0) == 0x1.5bf0a8b14576ap+1);
    CHECK(deterministic::Exp(-0.7) == 0x1.fc80db9dd5542p-2);
    CHECK(deterministic::Exp(-3.25) == 0x1.3da368521902dp-5);
    CHECK(deterministic::Exp(88.7) == 0x1.f4705bbffae5cp+127);
    CHECK(deterministic::Exp(-708.3) == 0x1.19e98b83de7a3p-1022);
    CHECK(deterministic::Exp(-744.0) == 0x0.0000000000002p-1022);
    CHECK(deterministic::Exp(709.5) == 0x1.81e9b4b52d0c9p+1023);

    CHECK(deterministic::Log(10.0) == 0x1.26bb1bbb55516p+1);
    CHECK(deterministic::Log(0.3) == -0x1.34378fcbda721p+0);
    CHECK(deterministic::Log(1.0000001) == 0x1.ad7f2847b6492p-24);
    CHECK(deterministic::Log(3e-310) == -0x1.6459f44103e87p+9);
    CHECK(deterministic::Log(1.7e308) == 0x1.62dd08fdc6f88p+9);
    CHECK(deterministic::Log(1e5) == 0x1.7069e2aa2aa5bp+3);

    struct Angle
    {
        double x;
        double sin;
        double cos;
    };
    for (const Angle& angle : {Angle{1.0, 0x1.aed548f090ceep-1, 0x1.14a280fb5068cp-1},
                               Angle{-2.5, -0x1.326af0dcfcab0p-1, -0x1.9a2f7ef858b7dp-1},
                               Angle{100.0, -0x1.03425b78c4db8p-1, 0x1.b981dbf665fe0p-1},
                               Angle{8191.0, -0x1.86a8d36dca1dcp-1, -0x1.4af3b1102ac8bp-1},
                               Angle{999999.5, -0x1.833357b1489f3p-1, 0x1.4efdfc640fc4dp-1},
                               Angle{-123456.789, 0x1.ff50e60ab53f9p-1, 0x1.a74d27c41b22ap-5}})
    {
        double sin = 0.0;
        double cos = 0.0;
        deterministic::SinCos(angle.x, sin, cos);
        CAPTURE(angle.x);
        CHECK(sin == angle.sin);
        CHECK(cos == angle.cos);
    }
}

TEST_CASE("Exp and Log are within 1e-15 of the truth over their whole range")
{
    std::mt19937_64 random(1);
    double exp = 0.0;
    double log = 0.0;
    for (int i = 0; i < 20000; ++i)
    {
        for (const double x : {Uniform(random, -708.0, 709.7), Uniform(random, -1.0, 1.0), Uniform(random, -30.0, 0.0)})
        {
            exp = std::max(exp, RelativeError(deterministic::Exp(x), std::exp(static_cast<long double>(x))));
        }
        for (const double x : {std::ldexp(Uniform(random, 1.0, 2.0), static_cast<int>(random() % 2000) - 1000),
                               Uniform(random, 0.5, 0.999),
                               Uniform(random, 1.001, 2.0)})
        {
            log = std::max(log, RelativeError(deterministic::Log(x), std::log(static_cast<long double>(x))));
        }
    }
    CHECK(exp < 1e-15);
    CHECK(log < 1e-15);
}

TEST_CASE("Sine and cosine are within 1e-15 of the truth for every angle that a long context has")
{
    std::mt19937_64 random(2);
    double worst = 0.0;
    for (int i = 0; i < 20000; ++i)
    {
        for (const double x : {Uniform(random, -1e6, 1e6),
                               Uniform(random, -10.0, 10.0),
                               // The hardest to reduce: near a multiple of pi / 2.
                               1.5707963267948966 * static_cast<double>(random() % 640000)})
        {
            double sin = 0.0;
            double cos = 0.0;
            deterministic::SinCos(x, sin, cos);
            const long double wide = x;
            worst = std::max({worst,
                              static_cast<double>(std::fabs(sin - std::sin(wide))),
                              static_cast<double>(std::fabs(cos - std::cos(wide)))});
        }
    }
    CHECK(worst < 1e-15);
}

TEST_CASE("The ends of the range are exact")
{
    CHECK(deterministic::Exp(0.0) == 1.0);
    CHECK(deterministic::Exp(kInfinity) == kInfinity);
    CHECK(deterministic::Exp(709.79) == kInfinity);
    CHECK(deterministic::Exp(1e300) == kInfinity);
    CHECK(deterministic::Exp(-kInfinity) == 0.0);
    CHECK(deterministic::Exp(-746.0) == 0.0);
    CHECK(deterministic::Exp(-1e300) == 0.0);
    CHECK(std::isnan(deterministic::Exp(std::nan(""))));

    CHECK(deterministic::Log(1.0) == 0.0);
    CHECK(deterministic::Log(0.0) == -kInfinity);
    CHECK(deterministic::Log(kInfinity) == kInfinity);
    CHECK(std::isnan(deterministic::Log(-1.0)));
    CHECK(std::isnan(deterministic::Log(std::nan(""))));

    double sin = 1.0;
    double cos = 0.0;
    deterministic::SinCos(0.0, sin, cos);
    CHECK(sin == 0.0);
    CHECK(cos == 1.0);
    for (const double x : {kInfinity, -kInfinity, 1e300, std::nan("")})
    {
        deterministic::SinCos(x, sin, cos);
        CHECK(std::isnan(sin));
        CHECK(std::isnan(cos));
    }
}

TEST_CASE("Expm1 and Log1p keep their digits near 0")
{
    std::mt19937_64 random(3);
    double expm1 = 0.0;
    double log1p = 0.0;
    for (int i = 0; i < 20000; ++i)
    {
        for (const double scale : {1e-300, 1e-17, 1e-8, 1e-3, 0.6, 30.0})
        {
            const double x = Uniform(random, -scale, scale);
            expm1 = std::max(expm1, RelativeError(deterministic::Expm1(x), std::expm1(static_cast<long double>(x))));
            if (x > -1.0)
            {
                log1p =
                    std::max(log1p, RelativeError(deterministic::Log1p(x), std::log1p(static_cast<long double>(x))));
            }
        }
    }
    CHECK(expm1 < 2e-15);
    CHECK(log1p < 2e-15);
    CHECK(deterministic::Expm1(0.0) == 0.0);
    CHECK(deterministic::Expm1(kInfinity) == kInfinity);
    CHECK(deterministic::Expm1(-kInfinity) == -1.0);
    CHECK(deterministic::Log1p(0.0) == 0.0);
    CHECK(deterministic::Log1p(-1.0) == -kInfinity);
    CHECK(deterministic::Log1p(kInfinity) == kInfinity);
    CHECK(std::isnan(deterministic::Log1p(-1.5)));
}
