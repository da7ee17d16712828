// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CONTAINER_SUMMARY_H
#define SPLITLLM_CONTAINER_SUMMARY_H

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace splitllm
{

/// What a container (tensor-container.h) is made of.
struct ContainerSummary
{
    std::size_t rows = 0;
    std::size_t above = 0;      //!< elements that travel exactly
    std::size_t aboveBytes = 0; //!< of their counts, columns and values, and what fills these up
    std::uint64_t bits = 0;     //!< Q*, bits of a magnitude, summed over the rows
};

/**
 * Reads the sections of a container that say so, not the bodies.
 * \param bytes a whole container of rows of \p cols elements
 * \return nothing if it is something else
 */
std::optional<ContainerSummary> SummariseContainer(std::span<const std::byte> bytes, std::size_t cols);

} // namespace splitllm

#endif // SPLITLLM_CONTAINER_SUMMARY_H
