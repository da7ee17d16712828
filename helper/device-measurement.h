// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_DEVICE_MEASUREMENT_H
#define SPLITLLM_DEVICE_MEASUREMENT_H

#include "base/strict-json.h"
#include "codec/tensor-codec.h"
#include "compute/backend.h"
#include "compute/measured-times.h"

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace splitllm
{

/**
 * \file
 * How long a device takes for the operations of a model, as a hardware profile that studies anywhere may use. Without
 * simulated time and without ns-3.
 */

/// What is measured: a model, and what may be there beside it (null where it is not).
struct MeasuredParts
{
    /// The same model, resident in each precision that is measured; at least one.
    std::vector<std::shared_ptr<const ResidentModel>> models;
    std::shared_ptr<const ResidentAdapter> adapter;
    std::shared_ptr<const ResidentBottleneck> bottleneck;
    std::shared_ptr<const ResidentExits> exits;
    std::shared_ptr<const ResidentSide> side;
    std::shared_ptr<const TensorCodec> codec;
};

/// Which calls are measured, and how often.
struct MeasurementPlan
{
    std::vector<std::size_t> rows{1, 2, 4, 8, 16, 32, 64, 128}; //!< rows of one sequence
    std::vector<std::size_t> contexts{0, 64, 256, 512};         //!< entries that each sequence has before, or what fits
    std::vector<std::size_t> sequences{2, 4, 8};                //!< sequences of a row each; none: no batches
    std::size_t layers = 4;                                     //!< that follow one another
    std::size_t repeats = 10;
    bool prune = false; //!< measures Prune, for which caches must be filled by attending
};

/// An operation, and one call of it that was measured.
struct MeasuredCall
{
    Operation operation;
    TimeSample sample;
    std::size_t context; //!< entries that each sequence had before, where there is attention
};

/**
 * Measures every operation that \p parts have, as a decoder asks for them: token embeddings, some layers, and what
 * comes behind the last one, of random tokens. Repeats go round over all shapes, so that a device that gets slower is
 * slower for all alike, and each takes the model's next layers, so that no weights are found in a cache that in a whole
 * pass over the model would have been lost from it. The first round warms up and does not count.
 *
 * Where a context and the rows together are more than the model's positions, the longest context that fits is measured.
 * \param say called with a line of progress
 * \return by operation, then by bytes of weights, kind, rows and FLOPs
 * \throws InputError if \p plan has counts that are 0 or beyond the model
 */
std::vector<MeasuredCall> MeasureDevice(Backend& backend,
                                        const MeasuredParts& parts,
                                        const MeasurementPlan& plan,
                                        const std::function<void(const std::string& line)>& say);

/// What a profile says of where it was measured. A date may be empty.
struct MeasuredOn
{
    std::string device;
    std::string software;
    std::string model;
    std::string command;
    std::string date;
};

/// The profile \p name of \p calls, as text that DeviceProfile reads. Operations that are not there are errors in it.
std::string MeasuredProfile(const std::string& name, const MeasuredOn& on, const std::vector<MeasuredCall>& calls);

/// A line for each call, in columns: times, spread and rates.
std::string MeasuredTable(const std::vector<MeasuredCall>& calls);

} // namespace splitllm

#endif // SPLITLLM_DEVICE_MEASUREMENT_H
