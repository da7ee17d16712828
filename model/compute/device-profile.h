// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_DEVICE_PROFILE_H
#define SPLITLLM_DEVICE_PROFILE_H

#include "base/strict-json.h"
#include "compute/backend.h"
#include "compute/measured-times.h"

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

namespace splitllm
{

/// How a device's time is found.
enum class Timing
{
    Roofline, //!< from Work and the peak rates
    Table,    //!< given milliseconds per operation, as papers report them or as they were measured before
    Measured, //!< what the real kernel took on this host: never reproducible
};

/// One row of a timing table: the time of a call, or of each of its rows, or what calls were measured to take.
struct TableEntry
{
    std::chrono::nanoseconds time{0};
    bool perRow = false;
    std::shared_ptr<const MeasuredTimes> measured; //!< instead of the others, where not null
};

/**
 * A piece of hardware: peak rates, bandwidth, launch overhead, memory, and where the figures come from.
 *
 *     { "name": "a800-80gb", "source": "...",                              both required
 *       "memory": "80GB",                                                  or bytes; default 0, unlimited
 *       "tflops": { "fp32": 19.5, "fp16": 312, "bf16": 312, "int8": 624 },
 *       "bandwidth_gb_per_s": 2039,                                        bytes, not bits
 *       "launch_us": 5,                                                    default 0
 *       "efficiency": { "compute": 0.5, "bandwidth": 0.7 },                in (0, 1], default 1
 *       "timing": "roofline"                                               default
 *               | "measured"
 *               | { "table": { "layer": {"ms": 1.1875}, "adapt": {"ms_per_row": 0.1},
 *                                "head": {"samples": [ ... ]} },             see MeasuredTimes
 *                   "otherwise": "free" | "roofline" | "error" },          required with a table
 *       "measured_on": { "device": "...", "software": "...", "model": "...",
 *                        "command": "...", "date": "..." } }               required with samples, in it all but "date"
 *
 * A table names operations (see Operation), or "layer": the time of project and finish-layer together, which is
 * charged with finish-layer, or with feed-forward where attend and feed-forward stand in for it; the others are free.
 * What a table does not name is free, takes the roofline's time or is an error, as "otherwise" says. "tflops" and
 * "bandwidth_gb_per_s" are required where the roofline is used.
 *
 * With "profile": NAME the named profile is the base and the other keys override it. "tflops" and "efficiency" are
 * overridden key by key, every other value as a whole; the source stays the base's unless it is overridden too.
 */
class DeviceProfile
{
  public:
    /**
     * Reads an inline profile, completely: no other key may be there.
     * \param folder where named profiles lie (NAME.json)
     * \throws InputError naming path and accepted values
     */
    static DeviceProfile Read(StrictObject& object, const std::filesystem::path& folder);

    /**
     * Loads folder/NAME.json, whose "name" must be NAME and which has no base.
     * \throws InputError listing the profiles there if it does not exist
     */
    static DeviceProfile Load(const std::string& name, const std::filesystem::path& folder);

    /**
     * The time of one operation.
     *
     * Roofline: max(flops / rate, bytes / bandwidth) + launches * overhead, rate and bandwidth each times its
     * efficiency, the maximum rounded up to a nanosecond.
     * \param rows rows of the call, for table entries that are per row
     * \param dtype which peak rate applies: the type that the model's weights are stored with. Layers quantised to
     * fewer bits use it too, because their codes are expanded before they are multiplied: they gain by the bytes of
     * Work alone. Of fp16 and bf16 one stands in for the other where only one is given.
     * \param measured what the kernel took on this host, used by Timing::Measured alone
     * \throws InputError naming the profile if it has no rate for \p dtype, the time exceeds 292 years, or the call is
     * none that a table with measured samples or "otherwise": "error" can tell the time of
     */
    std::chrono::nanoseconds TimeOf(Operation operation,
                                    std::size_t rows,
                                    const Work& work,
                                    DType dtype,
                                    std::chrono::nanoseconds measured) const;

    /**
     * Whether calls of several sessions that are run together take the time of one call of all their rows. Measured
     * samples say so where the calls share the weights, as \p work has them; others run one after the other.
     */
    bool RunsAsOne(Operation operation, const Work& work) const;

    const std::string& Name() const;
    const std::string& Source() const;
    Timing Mode() const;

    /// Bytes of memory; 0 means unlimited.
    std::uint64_t Memory() const;

  private:
    void Override(StrictObject& object); //!< takes the keys present over what is there
    void ReadTiming(StrictObject& object);
    void ReadTable(StrictObject& table);
    void ReadMeasuredOn(StrictObject& object);
    double FlopsPerNs(DType dtype) const;
    std::chrono::nanoseconds Roofline(const Work& work, DType dtype) const;
    [[noreturn]] void FailTooLong() const;

    std::string m_name;
    std::string m_source;
    std::uint64_t m_memory = 0;
    std::map<DType, double> m_flopsPerNs;
    double m_bytesPerNs = 0.0; //!< 0: not given
    double m_computeEfficiency = 1.0;
    double m_bandwidthEfficiency = 1.0;
    std::chrono::nanoseconds m_launch{0};
    Timing m_timing = Timing::Roofline;
    std::map<Operation, TableEntry> m_table; //!< "layer" as its parts
    std::string m_otherwise;                 //!< of the operations that the table does not name
};

} // namespace splitllm

#endif // SPLITLLM_DEVICE_PROFILE_H
