// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_MEMORY_LEDGER_H
#define SPLITLLM_MEMORY_LEDGER_H

#include "base/out-of-memory.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace splitllm
{

/// What a node's memory is used for, by the names of the results.
enum class MemoryUse
{
    Weights,
    Adapters,
    Kv,
    Activations,
    Buffers, //!< messages queued for sending or being received
};

constexpr std::size_t kMemoryUses = 5;

std::string_view NameOf(MemoryUse use);

/**
 * Accounts a node's memory against its capacity. Never negative; empty when every Reservation is gone (invariant 7).
 */
class MemoryLedger
{
  public:
    /// \param capacity bytes; 0 is unlimited
    explicit MemoryLedger(std::uint64_t capacity);

    MemoryLedger(const MemoryLedger&) = delete;
    MemoryLedger& operator=(const MemoryLedger&) = delete;

    std::uint64_t Capacity() const;
    std::uint64_t Used() const;
    std::uint64_t Used(MemoryUse use) const;
    std::uint64_t Peak() const;              //!< largest total at any instant
    std::uint64_t Peak(MemoryUse use) const; //!< largest of one use at any instant

  private:
    friend class Reservation;
    void Add(MemoryUse use, std::uint64_t bytes);      //!< \throws OutOfMemory, leaving the ledger as it was
    void Subtract(MemoryUse use, std::uint64_t bytes); //!< \throws std::logic_error below zero

    std::uint64_t m_capacity;
    std::array<std::uint64_t, kMemoryUses> m_used{};
    std::array<std::uint64_t, kMemoryUses> m_peak{};
    std::uint64_t m_total = 0;
    std::uint64_t m_totalPeak = 0;
};

/// Memory held for as long as this object lives; movable, empty once moved from. The ledger must outlive it.
class Reservation
{
  public:
    Reservation() = default;

    /// \throws OutOfMemory with use, bytes asked for, bytes used and capacity
    Reservation(MemoryLedger& ledger, MemoryUse use, std::uint64_t bytes);
    ~Reservation();
    Reservation(Reservation&& other) noexcept;
    Reservation& operator=(Reservation&& other) noexcept;

    /// Grows or shrinks to \p bytes. \throws OutOfMemory, leaving the reservation as it was; std::logic_error if empty
    void Resize(std::uint64_t bytes);

    std::uint64_t Bytes() const;

  private:
    MemoryLedger* m_ledger = nullptr;
    MemoryUse m_use = MemoryUse::Weights;
    std::uint64_t m_bytes = 0;
};

} // namespace splitllm

#endif // SPLITLLM_MEMORY_LEDGER_H
