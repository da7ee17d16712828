// SPDX-License-Identifier: GPL-2.0-only
#include "base/deterministic-math.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace splitllm::deterministic
{

namespace
{

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// ln 2 in two parts. The first ends in 21 zero bits, so its product with an exponent is exact.
constexpr double kLn2High = 0x1.62e42feep-1;
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
constexpr double kInverseLn2 = 0x1.71547652b82fep+0;

// pi/2 in two parts of 53 bits each.
constexpr double kHalfPiHigh = 0x1.921fb54442d18p+0;
constexpr double kHalfPiLow = 0x1.1a62633145c07p-54;
constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;

constexpr double kSinCosLimit = 0x1p40;

/// The integer nearest to \p value, which is far inside the range of the type; halves away from zero.
std::int64_t
Nearest(double value)
{
    return static_cast<std::int64_t>(value < 0 ? value - 0.5 : value + 0.5);
}

/// 2^exponent for a normal result.
double
PowerOfTwo(std::int64_t exponent)
{
    return std::bit_cast<double>(static_cast<std::uint64_t>(exponent + 1023) << 52);
}

/// coefficients[0] + x coefficients[1] + ..., by Horner's rule.
template <std::size_t N>
double
Polynomial(double x, const std::array<double, N>& coefficients)
{
    double sum = coefficients[N - 1];
    for (std::size_t i = N - 1; i-- > 0;)
    {
        sum = coefficients[i] + x * sum;
    }
    return sum;
}

// Taylor coefficients. Each series ends where the next term is below 1e-17 on the reduced range.

constexpr std::array<double, 14> kExp{1.0,
                                      1.0,
                                      1.0 / 2,
                                      1.0 / 6,
                                      1.0 / 24,
                                      1.0 / 120,
                                      1.0 / 720,
                                      1.0 / 5040,
                                      1.0 / 40320,
                                      1.0 / 362880,
                                      1.0 / 3628800,
                                      1.0 / 39916800,
                                      1.0 / 479001600,
                                      1.0 / 6227020800};

/// (e^x - 1) / x.
constexpr std::array<double, 15> kExpm1{1.0,
                                        1.0 / 2,
                                        1.0 / 6,
                                        1.0 / 24,
                                        1.0 / 120,
                                        1.0 / 720,
                                        1.0 / 5040,
                                        1.0 / 40320,
                                        1.0 / 362880,
                                        1.0 / 3628800,
                                        1.0 / 39916800,
                                        1.0 / 479001600,
                                        1.0 / 6227020800,
                                        1.0 / 87178291200,
                                        1.0 / 1307674368000};

/// artanh(s) / s in s^2, without its first term, 1.
constexpr std::array<double, 11> kArtanh{1.0 / 3,
                                         1.0 / 5,
                                         1.0 / 7,
                                         1.0 / 9,
                                         1.0 / 11,
                                         1.0 / 13,
                                         1.0 / 15,
                                         1.0 / 17,
                                         1.0 / 19,
                                         1.0 / 21,
                                         1.0 / 23};

/// (sin(r) - r) / r^3 in r^2.
constexpr std::array<double, 8> kSin{-1.0 / 6,
                                     1.0 / 120,
                                     -1.0 / 5040,
                                     1.0 / 362880,
                                     -1.0 / 39916800,
                                     1.0 / 6227020800,
                                     -1.0 / 1307674368000,
                                     1.0 / 355687428096000};

/// cos(r) in r^2.
constexpr std::array<double, 10> kCos{1.0,
                                      -1.0 / 2,
                                      1.0 / 24,
                                      -1.0 / 720,
                                      1.0 / 40320,
                                      -1.0 / 3628800,
                                      1.0 / 479001600,
                                      -1.0 / 87178291200,
                                      1.0 / 20922789888000,
                                      -1.0 / 6402373705728000};

} // namespace

double
Exp(double x)
{
    if (!(x >= -746.0 && x <= 710.0)) // also where x is NaN
    {
        return x > 0 ? kInfinity : (x < 0 ? 0.0 : x);
    }
    const std::int64_t k = Nearest(x * kInverseLn2);
    const auto scale = static_cast<double>(k);
    const double r = (x - scale * kLn2High) - scale * kLn2Low; // |r| <= ln(2) / 2
    // In two steps: 2^k alone may be beyond the normal range although the result is not.
    const std::int64_t half = k / 2;
    return Polynomial(r, kExp) * PowerOfTwo(half) * PowerOfTwo(k - half);
}

double
Log(double x)
{
    if (!(x > 0.0))
    {
        return x == 0.0 ? -kInfinity : kNaN;
    }
    if (x == kInfinity)
    {
        return kInfinity;
    }
    std::int64_t k = 0;
    if (x < std::numeric_limits<double>::min())
    {
        x *= 0x1p54;
        k = -54;
    }
    // x = 2^k m with m in [1, 2), then in [sqrt(1/2), sqrt(2)].
    const auto bits = std::bit_cast<std::uint64_t>(x);
    k += static_cast<std::int64_t>(bits >> 52) - 1023;
    double m = std::bit_cast<double>((bits & 0xfffffffffffffU) | 0x3ff0000000000000U);
    if (m > 0x1.6a09e667f3bcdp+0)
    {
        m *= 0.5;
        ++k;
    }
    // log(m) = 2 artanh(s) with s = f / (2 + f), and 2 s = f - s f keeps the digits of the exact f.
    const double f = m - 1.0;
    const double s = f / (2.0 + f);
    const double square = s * s;
    const double tail = 2.0 * s * square * Polynomial(square, kArtanh) - s * f;
    const auto scale = static_cast<double>(k);
    return scale * kLn2High + (f + (tail + scale * kLn2Low));
}

double
Expm1(double x)
{
    // Beyond, 1 is taken off a value that is far enough from it.
    return x > -0.5 && x < 0.5 ? x * Polynomial(x, kExpm1) : Exp(x) - 1.0;
}

double
Log1p(double x)
{
    const double sum = 1.0 + x;
    if (sum == 1.0 || sum == kInfinity)
    {
        return x;
    }
    // ln(sum) / (sum - 1) varies slowly, so that the rounding of the sum cancels (W. Kahan).
    return Log(sum) * (x / (sum - 1.0));
}

void
SinCos(double x, double& sin, double& cos)
{
    if (!(x >= -kSinCosLimit && x <= kSinCosLimit))
    {
        sin = kNaN;
        cos = kNaN;
        return;
    }
    const std::int64_t quarter = Nearest(x * kTwoOverPi);
    const auto scale = static_cast<double>(quarter);
    const double r = std::fma(-scale, kHalfPiLow, std::fma(-scale, kHalfPiHigh, x)); // |r| <= pi / 4
    const double square = r * r;
    const double s = r + r * square * Polynomial(square, kSin);
    const double c = Polynomial(square, kCos);
    switch (static_cast<std::uint64_t>(quarter) & 3U)
    {
    case 0:
        sin = s;
        cos = c;
        break;
    case 1:
        sin = c;
        cos = -s;
        break;
    case 2:
        sin = -s;
        cos = -c;
        break;
    default:
        sin = -c;
        cos = s;
        break;
    }
}

} // namespace splitllm::deterministic
