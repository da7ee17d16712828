// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_INSTRUCTION_SET_H
#define SPLITLLM_INSTRUCTION_SET_H

#include <string_view>
#include <vector>

namespace splitllm
{

/// What inner loops are written for, slowest first. All of them give the same bits.
enum class InstructionSet
{
    Plain,  //!< any CPU
    Avx2,   //!< with FMA and F16C
    Avx512, //!< F, BW, VL and DQ
};

/// The name that SPLITLLM_ISA selects: "plain", "avx2" or "avx512".
std::string_view NameOf(InstructionSet set);

/// What this CPU can run, slowest first; Plain is always the first.
std::vector<InstructionSet> SupportedInstructionSets();

/**
 * The fastest that this CPU can run, or the one that the environment variable SPLITLLM_ISA names.
 * \throws InputError listing the accepted names if that one is unknown or not supported
 */
InstructionSet BestInstructionSet();

} // namespace splitllm

#endif // SPLITLLM_INSTRUCTION_SET_H
