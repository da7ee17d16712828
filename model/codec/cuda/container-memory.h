// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CONTAINER_MEMORY_H
#define SPLITLLM_CONTAINER_MEMORY_H

#include "base/cuda/device-array.h"
#include "codec/cuda/container-decode.h"
#include "codec/cuda/container-encode.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

/// \file
/// The GPU's memory that the kernels of containers work in.

namespace splitllm
{

/// The static tables on a GPU.
class StaticTablesMemory
{
  public:
    /// \throws OutOfMemory
    explicit StaticTablesMemory(const std::shared_ptr<CudaStream>& stream);

    DeviceStaticTables Tables() const;

  private:
    DeviceArray<RansFrequencies> m_tables;
    DeviceArray<std::uint64_t> m_means;
    DeviceArray<std::uint16_t> m_costs;
};

/// What making one container takes.
class EncodeMemory
{
  public:
    /**
     * \param x rows x cols on the GPU
     * \param tau positive; nothing: no elements are above
     * \throws OutOfMemory
     */
    EncodeMemory(const std::shared_ptr<CudaStream>& stream,
                 const float* x,
                 std::size_t rows,
                 std::size_t cols,
                 std::optional<float> tau,
                 const ContainerParameters& parameters,
                 const DeviceStaticTables& statics);

    const EncodeJob& Job() const
    {
        return m_job;
    }

    /// What the kernels found out so far. Waits for them.
    MessagePlan Message() const;

  private:
    DeviceArray<std::uint8_t> m_symbols;
    DeviceArray<std::uint32_t> m_above;
    DeviceArray<std::uint32_t> m_histograms;
    DeviceArray<std::uint16_t> m_words;
    DeviceArray<std::uint32_t> m_states;
    DeviceArray<RowPlan> m_plans;
    DeviceArray<MessagePlan> m_message;
    EncodeJob m_job{};
};

/// What decoding one container takes.
class DecodeMemory
{
  public:
    /**
     * \param bytes the container
     * \param sections of \p bytes
     * \throws OutOfMemory
     */
    DecodeMemory(const std::shared_ptr<CudaStream>& stream,
                 std::span<const std::byte> bytes,
                 const ContainerSections& sections,
                 const DeviceStaticTables& statics);

    const DecodeJob& Job() const
    {
        return m_job;
    }

    /// Whether the kernels found nothing wrong. Waits for them.
    bool Succeeded() const;

    /// rows x cols, what the kernels decoded. Once.
    DeviceArray<float> TakeValues();

  private:
    DeviceArray<std::byte> m_container;
    DeviceArray<RowSource> m_sources;
    DeviceArray<std::uint32_t> m_order;
    DeviceArray<StreamGroup> m_groups;
    DeviceArray<RansFrequencies> m_own;
    DeviceArray<float> m_values;
    DeviceArray<std::uint32_t> m_failed;
    DecodeJob m_job{};
};

} // namespace splitllm

#endif // SPLITLLM_CONTAINER_MEMORY_H
