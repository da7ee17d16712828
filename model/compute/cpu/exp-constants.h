// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_EXP_CONSTANTS_H
#define SPLITLLM_EXP_CONSTANTS_H

namespace splitllm::expf32
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

} // namespace splitllm::expf32

#endif // SPLITLLM_EXP_CONSTANTS_H
