// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CODEC_KERNELS_H
#define SPLITLLM_CODEC_KERNELS_H

#include "base/instruction-set.h"
#include "codec/rans.h"

#include <cstddef>
#include <cstdint>

namespace splitllm
{

/// Magnitudes |x| of a row as the bits of fp32, whose order as integers is their order as numbers.
struct RowRange
{
    std::uint32_t least = 0;  //!< of T_below: |x| where it is below the threshold, 0 elsewhere
    std::uint32_t most = 0;   //!< of T_below
    std::uint32_t peak = 0;   //!< of the row; from 0x7F800000 on it has a value that is not finite
    std::size_t above = 0;    //!< how many are not below the threshold
};

/// A step of the integer quantiser, OPSC Eqs 5 and 6: code = round(|x| / scale + zero), kept inside [0, top].
struct QuantiserStep
{
    float scale;            //!< s, positive
    float zero;             //!< z, an integer
    float top;              //!< Qmax
    std::uint32_t threshold; //!< bits of tau: what is not below it counts as zero
};

/**
 * The inner loops of the codec for one instruction set. All sets give the same bytes: everything is integers, but for the
 * quantiser, which is one division and one addition in fp32 for each element, rounded half to even.
 * Nothing needs to be aligned, and nothing outside the stated ranges is read or written.
 */
struct CodecKernels
{
    InstructionSet instructionSet;

    /// \param threshold bits of tau; those of infinity where there is none
    RowRange (*range)(const float* x, std::size_t n, std::uint32_t threshold);

    /// One code for each element.
    void (*quantise)(const float* x, std::size_t n, const QuantiserStep& step, std::uint8_t* codes);

    /// Sum of |(first >> shift) - second|: OPSC Algorithm 1, line 10.
    std::uint64_t (*distortion)(const std::uint8_t* first, const std::uint8_t* second, std::size_t n, unsigned shift);

    /**
     * code * 2 + sign, in place of the codes; the sign of code 0 is dropped unless \p signedZero.
     * \param codes below 128
     */
    void (*addSigns)(const float* x, std::size_t n, bool signedZero, std::uint8_t* codes);

    /// Adds how often each of the symbols 0 to 15 occurs to \p histogram; there are no others.
    void (*count16)(const std::uint8_t* symbols, std::size_t n, std::uint32_t* histogram);

    /**
     * Puts 32 * \p steps symbols, from the last to the first, into 32 lanes.
     * \param top one past the place of the first word that leaves; the next goes before it
     * \return the place of the last word. Up to 16 words before it may have been overwritten.
     */
    std::uint16_t* (*ransPut32)(const std::uint8_t* symbols,
                                std::size_t steps,
                                const RansEncodeTable& table,
                                std::uint32_t* states,
                                std::uint16_t* top);

    /**
     * Takes up to 32 * \p steps symbols out of 32 lanes, for as long as 32 words are left.
     * \param words where the next word lies; left behind the last one used
     * \param end one past the last word
     * \return how many steps were made
     */
    std::size_t (*ransTake32)(std::uint8_t* symbols,
                              std::size_t steps,
                              const RansDecodeTable& table,
                              std::uint32_t* states,
                              const std::byte*& words,
                              const std::byte* end);
};

/// The loops for \p set, which this CPU must be able to run.
const CodecKernels& CodecKernelsFor(InstructionSet set);

/// CodecKernelsFor(BestInstructionSet()), found out once. \throws InputError as that does
const CodecKernels& BestCodecKernels();

} // namespace splitllm

#endif // SPLITLLM_CODEC_KERNELS_H
