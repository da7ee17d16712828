// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_MEASURED_TIMES_H
#define SPLITLLM_MEASURED_TIMES_H

#include "base/strict-json.h"
#include "compute/work.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace splitllm
{

/// A call that was measured, and how long it took.
struct TimeSample
{
    std::size_t rows = 1;
    Work work; //!< all but its launches
    std::chrono::nanoseconds median{0};
    std::chrono::nanoseconds p10{0};
    std::chrono::nanoseconds p90{0};
    std::size_t repeats = 1;
};

/**
 * How long an operation takes, from calls of it that were measured; doc/hardware.md has the rule.
 *
 * A call is known by the bytes of its weights, by its rows, by whether these are one sequence's or a sequence's each
 * (Work::caches), and by the FLOPs of a row, which grow with the context. Bytes other than the weights' do not count,
 * because they depend on the element type that a backend counts activations in.
 */
class MeasuredTimes
{
  public:
    /**
     * Reads the list under \p key of \p object:
     *
     *     [ { "rows": 8, "caches": 1, "flops": 57, "weight_bytes": 4, "bytes_read": 9, "bytes_written": 5,
     *         "ms": 0.61, "p10": 0.6, "p90": 0.65, "repeats": 20 } ]
     *
     * "caches" may be left out where it is 0. \throws InputError
     */
    static MeasuredTimes Read(StrictObject& object, const std::string& key);

    /// What Read reads of \p sample.
    static Json Written(const TimeSample& sample);

    /**
     * The time of a call of \p rows rows that costs \p work: the median of a call that was measured, else between those
     * around it; 0 of a call without work.
     * \throws InputError that says what was measured, if the call is outside of that
     */
    std::chrono::nanoseconds TimeOf(std::size_t rows, const Work& work) const;

  private:
    /// Calls of the same rows, one for each context, ascending.
    struct Level
    {
        struct Point
        {
            double flops; //!< of a row
            double time;  //!< ns
        };

        double rows;
        std::vector<Point> points;

        /// The time at \p share of the way from the least FLOPs to the most.
        double At(double share) const;
    };

    /// Calls of one kind on the same weights, by rows, ascending.
    struct Surface
    {
        std::vector<Level> levels;

        void Add(double rows, const Level::Point& point);

        /// Nothing where \p rows or \p flops, those of a row, are outside of what was measured. \param orFewer fewer
        /// FLOPs than measured are taken for the fewest
        std::optional<double> At(double rows, double flops, bool orFewer) const;

        std::string Extent() const;
    };

    struct Kinds
    {
        Surface one;  //!< all rows of one sequence, or without attention
        Surface each; //!< a row of each sequence
    };

    std::map<std::uint64_t, Kinds> m_byWeights; //!< key: bytes of weights
};

} // namespace splitllm

#endif // SPLITLLM_MEASURED_TIMES_H
