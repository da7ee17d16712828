// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_STATIC_TABLES_H
#define SPLITLLM_STATIC_TABLES_H

#include "codec/container-arithmetic.h"
#include "codec/rans.h"

#include <cstdint>
#include <span>

namespace splitllm
{

/**
 * \file
 * Frequency tables that both sides know, so that a row names one by its index instead of sending its own.
 *
 * For Q = 1 to 7 bits of magnitude there are 3 shapes in 44 widths each. The density of a magnitude t is
 * exp(-(t / w)^p), with p = 2 (Gauss), 1 (Laplace) and 1/2 (heavier tails), and w such that the mean is 2^(k / 4) / 16,
 * k = 0 to 43. A code c has what lies between c - 1/2 and c + 1/2, half of it for either sign, and code 0 no sign.
 * Index 44 * shape + k. Every symbol but 1 has a frequency.
 */
constexpr unsigned kStaticWidths = 44;
constexpr unsigned kStaticShapes = 3;
constexpr unsigned kStaticTables = kStaticShapes * kStaticWidths;

/// The table for \p bits = 1 to 7 bits of magnitude, \p index below kStaticTables. The same bits on every machine.
const RansFrequencies& StaticTable(unsigned bits, unsigned index);

/// The mean magnitude of each table for \p bits, in units of 1 / kRansTotal. Ascending within a shape.
std::span<const std::uint64_t, kStaticTables> StaticMeans(unsigned bits);

/// log2(kRansTotal / f) in 2^-12 bits, rounded, for f = 1 to kRansTotal: what a symbol of frequency f takes.
std::span<const std::uint16_t, kRansTotal + 1> SymbolCosts();

/**
 * What \p frequencies make of symbols that occur \p histogram[i] times each, in 2^-12 bits, without lane states.
 * \return kNotCodable if a symbol occurs that has no frequency
 */
std::uint64_t CodedSize(std::span<const std::uint32_t> histogram, const RansFrequencies& frequencies);

/// A static table and its CodedSize.
struct StaticChoice
{
    unsigned index = 0;
    std::uint64_t size = kNotCodable;
};

/**
 * Of each shape the two widths between whose means the histogram's lies are tried, and the first of the smallest is taken.
 * \param histogram of 2^(bits + 1) symbols
 */
StaticChoice BestStaticTable(unsigned bits, std::span<const std::uint32_t> histogram);

} // namespace splitllm

#endif // SPLITLLM_STATIC_TABLES_H
