// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_OUTAGE_H
#define SPLITLLM_OUTAGE_H

#include <cstdint>

/**
 * \file
 * Which rate to send at over a channel that fades (OPSC, section 2.4.2, Eqs 9, 10 and 13).
 *
 * An attempt to send at rate R fails where the channel's capacity of that moment is below R. The rate that gets data
 * across soonest is neither low (every attempt is long) nor high (many attempts are needed). Rates are in bit/s, SNRs
 * linear. All functions throw std::invalid_argument for values outside the ranges given here.
 */

namespace splitllm
{

/// A channel with Rayleigh block fading: its SNR is exponentially distributed, and constant during an attempt.
struct RayleighChannel
{
    double bandwidth; //!< W in Hz, above 0
    double snr;       //!< mean, linear, above 0
};

/// The smallest SNR at which \p rate gets across: 2^(R/W) - 1, where W log2(1 + SNR) = R. \param rate not below 0
double ThresholdSnr(const RayleighChannel& channel, double rate);

/// Po(R) = 1 - exp(-(2^(R/W) - 1) / snr), the probability that an attempt fails (Eq 10). \param rate not below 0
double OutageProbability(const RayleighChannel& channel, double rate);

/**
 * N = ceil(ln(epsilon) / ln(Po(R))), the least number of attempts that all fail with probability epsilon at most; 1 at
 * least, and 2^53 where more would be needed.
 * \param rate above 0
 * \param epsilon above 0 and below 1
 */
std::uint64_t OutageAttempts(const RayleighChannel& channel, double rate, double epsilon);

/// D/R ceil(ln(epsilon) / ln(Po(R))) seconds: all but epsilon of the transfers of \p bits take no longer (Eq 9).
double WorstCaseLatency(const RayleighChannel& channel, double rate, double epsilon, double bits);

/**
 * The rate with the smallest worst case if attempts came in fractions: it maximises R ln(1/Po(R)), whatever epsilon is.
 *
 * Eq 13 as printed minimises ln(1/Po(R)) / R, which any larger rate makes smaller; this is what it stands for.
 */
double RelaxedRate(const RayleighChannel& channel);

/**
 * The rate with the smallest worst case, Eq 9 with its ceiling: the largest R_N / N over whole N, where N attempts just
 * suffice at R_N = W log2(1 - snr ln(1 - epsilon^(1/N))).
 */
double OptimalRate(const RayleighChannel& channel, double epsilon);

} // namespace splitllm

#endif // SPLITLLM_OUTAGE_H
