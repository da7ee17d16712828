// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_UNITS_H
#define SPLITLLM_UNITS_H

#include "base/strict-json.h"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace splitllm
{

/*
 * Quantities with a unit, as studies write them: a decimal number directly followed by a unit. All are exact: a value
 * that is no whole number of the smallest unit, or too large for the result, is refused and never rounded.
 *
 * The Parse functions throw InputError with what is wrong and what is accepted, but no path; the Read functions take
 * the value from a key and their errors name it.
 */

/// Bytes: "64B", "1.5kB", "1MB", "80GB", "2TB" (powers of 1000; "KB" is "kB"), "512KiB", "1MiB", "80GiB", "1TiB".
std::uint64_t ParseBytes(std::string_view text);

/// A time, "10ns", "100us", "1.5ms" or "2s", of at most 292 years.
std::chrono::nanoseconds ParseDuration(std::string_view text);

/// Bits a second, more than none: "1000bps", "56kbps", "100Mbps", "1Gbps" (powers of 1000).
std::uint64_t ParseBitRate(std::string_view text);

/// Hertz, more than none: "250Hz", "180kHz", "10MHz", "2.4GHz" (powers of 1000).
std::uint64_t ParseFrequency(std::string_view text);

/// Millimetres: "500mm", "10m", "1.5km".
std::uint64_t ParseLength(std::string_view text);

/// ParseBytes of the string under \p key, or the bytes themselves if it is a number.
std::uint64_t ReadBytes(StrictObject& object,
                        const std::string& key,
                        std::optional<std::uint64_t> fallback = std::nullopt);

/// ParseDuration of the string under \p key.
std::chrono::nanoseconds ReadDuration(StrictObject& object,
                                      const std::string& key,
                                      std::optional<std::string> fallback = std::nullopt);

/// ParseBitRate of the string under \p key.
std::uint64_t ReadBitRate(StrictObject& object,
                          const std::string& key,
                          std::optional<std::string> fallback = std::nullopt);

/// ParseFrequency of the string under \p key.
std::uint64_t ReadFrequency(StrictObject& object,
                            const std::string& key,
                            std::optional<std::string> fallback = std::nullopt);

} // namespace splitllm

#endif // SPLITLLM_UNITS_H
