// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_EXP_H
#define SPLITLLM_EXP_H

#include "base/host-device.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace splitllm
{

namespace expf32
{

/*
 * e^x = 2^n e^r with n = round(x / ln 2) and |r| <= ln 2 / 2. ln 2 is split so that n * kLn2High is exact; the
 * polynomial approximates (e^r - 1 - r) / r^2 (coefficients of the Cephes library, highest power first).
 */
constexpr float kLog2E = 1.44269504088896341F;
constexpr float kLn2High = 0.693359375F;
constexpr float kLn2Low = -2.12194440e-4F;
constexpr float kPolynomial[] = {1.9875691500e-4F,
                                 1.3981999507e-3F,
                                 8.3334519073e-3F,
                                 4.1665795894e-2F,
                                 1.6666665459e-1F,
                                 5.0000001201e-1F};
constexpr float kLargest = 88.7228317F; //!< exp is infinite above
constexpr float kSmallest = -104.0F;    //!< exp is zero below (half the smallest subnormal is e^-103.97)

/// 2^exponent for an integer from -126 to 127.
SPLITLLM_HOST_DEVICE inline float
PowerOfTwo(float exponent)
{
    const auto bits = static_cast<std::uint32_t>(static_cast<std::int32_t>(exponent) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return power;
}

} // namespace expf32

/**
 * e^x in fp32 within 2 ulp, by fused multiply-adds; the bits that every kernel's exp has, on every CPU and GPU. 0 below
 * -104, infinity above the logarithm of the largest float, NaN for NaN.
 */
SPLITLLM_HOST_DEVICE inline float
Exp(float x)
{
    if (!(x <= expf32::kLargest)) // also NaN
    {
        return x + std::numeric_limits<float>::infinity();
    }
    if (x < expf32::kSmallest)
    {
        return 0.0F;
    }
    const float n = rintf(x * expf32::kLog2E);
    const float r = fmaf(n, -expf32::kLn2Low, fmaf(n, -expf32::kLn2High, x));
    constexpr float c0 = expf32::kPolynomial[0]; // an array of the host is none of a GPU
    constexpr float c1 = expf32::kPolynomial[1];
    constexpr float c2 = expf32::kPolynomial[2];
    constexpr float c3 = expf32::kPolynomial[3];
    constexpr float c4 = expf32::kPolynomial[4];
    constexpr float c5 = expf32::kPolynomial[5];
    float p = fmaf(c0, r, c1);
    p = fmaf(p, r, c2);
    p = fmaf(p, r, c3);
    p = fmaf(p, r, c4);
    p = fmaf(p, r, c5);
    p = fmaf(p, r * r, r) + 1.0F;
    // In two steps, because neither 2^128 nor 2^-150 is a normal float.
    const float half = rintf(n * 0.5F);
    return p * expf32::PowerOfTwo(half) * expf32::PowerOfTwo(n - half);
}

} // namespace splitllm

#endif // SPLITLLM_EXP_H
