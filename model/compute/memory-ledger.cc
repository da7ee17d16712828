// SPDX-License-Identifier: GPL-2.0-only
#include "compute/memory-ledger.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

namespace splitllm
{

namespace
{

constexpr std::array<std::string_view, kMemoryUses> kNames{"weights", "adapters", "kv", "activations", "buffers"};

std::size_t
Index(MemoryUse use)
{
    return static_cast<std::size_t>(use);
}

} // namespace

std::string_view
NameOf(MemoryUse use)
{
    return kNames.at(Index(use));
}

MemoryLedger::MemoryLedger(std::uint64_t capacity)
    : m_capacity(capacity)
{
}

std::uint64_t
MemoryLedger::Capacity() const
{
    return m_capacity;
}

std::uint64_t
MemoryLedger::Used() const
{
    return m_total;
}

std::uint64_t
MemoryLedger::Used(MemoryUse use) const
{
    return m_used.at(Index(use));
}

std::uint64_t
MemoryLedger::Peak() const
{
    return m_totalPeak;
}

std::uint64_t
MemoryLedger::Peak(MemoryUse use) const
{
    return m_peak.at(Index(use));
}

void
MemoryLedger::Add(MemoryUse use, std::uint64_t bytes)
{
    const std::uint64_t limit = m_capacity == 0 ? std::numeric_limits<std::uint64_t>::max() : m_capacity;
    if (bytes > limit - m_total)
    {
        throw OutOfMemory("out of memory: " + std::string(NameOf(use)) + " asked for " + std::to_string(bytes) +
                          " bytes with " + std::to_string(m_total) + " of " + std::to_string(limit) + " in use");
    }
    std::uint64_t& used = m_used.at(Index(use));
    std::uint64_t& peak = m_peak.at(Index(use));
    used += bytes;
    m_total += bytes;
    peak = std::max(peak, used);
    m_totalPeak = std::max(m_totalPeak, m_total);
}

void
MemoryLedger::Subtract(MemoryUse use, std::uint64_t bytes)
{
    std::uint64_t& used = m_used.at(Index(use));
    if (bytes > used)
    {
        throw std::logic_error("memory ledger: " + std::string(NameOf(use)) + " gives back " + std::to_string(bytes) +
                               " bytes but holds " + std::to_string(used));
    }
    used -= bytes;
    m_total -= bytes;
}

Reservation::Reservation(MemoryLedger& ledger, MemoryUse use, std::uint64_t bytes)
    : m_ledger(&ledger),
      m_use(use),
      m_bytes(bytes)
{
    ledger.Add(use, bytes);
}

Reservation::~Reservation()
{
    if (m_ledger != nullptr)
    {
        m_ledger->Subtract(m_use, m_bytes);
    }
}

Reservation::Reservation(Reservation&& other) noexcept
    : m_ledger(std::exchange(other.m_ledger, nullptr)),
      m_use(other.m_use),
      m_bytes(std::exchange(other.m_bytes, 0))
{
}

Reservation&
Reservation::operator=(Reservation&& other) noexcept
{
    // What this held leaves with taken, also when other is this.
    Reservation taken(std::move(other));
    std::swap(m_ledger, taken.m_ledger);
    std::swap(m_use, taken.m_use);
    std::swap(m_bytes, taken.m_bytes);
    return *this;
}

void
Reservation::Resize(std::uint64_t bytes)
{
    if (m_ledger == nullptr)
    {
        throw std::logic_error("memory ledger: an empty reservation cannot be resized");
    }
    if (bytes > m_bytes)
    {
        m_ledger->Add(m_use, bytes - m_bytes);
    }
    else
    {
        m_ledger->Subtract(m_use, m_bytes - bytes);
    }
    m_bytes = bytes;
}

std::uint64_t
Reservation::Bytes() const
{
    return m_bytes;
}

} // namespace splitllm
