// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_DETERMINISTIC_MATH_H
#define SPLITLLM_DETERMINISTIC_MATH_H

/**
 * Elementary functions with the same bits on every machine.
 *
 * libm chooses its code by the CPU it runs on, and its last bits change with it. These use IEEE 754 double +, -, *, /
 * and fma in a fixed order only; they need round-to-nearest and a build without fast-math and without contraction.
 */
namespace splitllm::deterministic
{

/// e^x, relative error below 1e-15 where the result is normal. Overflow gives infinity, underflow zero, NaN NaN.
double Exp(double x);

/// Natural logarithm, relative error below 1e-15. Zero gives -infinity, a negative number NaN.
double Log(double x);

/// e^x - 1 without the loss of digits near 0, relative error below 2e-15 where the result is normal.
double Expm1(double x);

/// ln(1 + x) without the loss of digits near 0, relative error below 2e-15. -1 gives -infinity, less NaN.
double Log1p(double x);

/**
 * Sine and cosine of \p x radians, absolute error below 1e-15.
 * Both are NaN beyond |x| = 2^40, where the reduction by pi/2 would lose digits.
 */
void SinCos(double x, double& sin, double& cos);

} // namespace splitllm::deterministic

#endif // SPLITLLM_DETERMINISTIC_MATH_H
