// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SWEEP_SPACE_H
#define SPLITLLM_SWEEP_SPACE_H

#include "base/strict-json.h"

#include <string>
#include <utility>
#include <vector>

namespace splitllm
{

/// What a sweep calls a list of labelled sets of keys that go together.
inline constexpr const char* kSweepCase = "case";

/// A value for every swept key, in the order of the study.
using PointSet = std::vector<std::pair<std::string, Json>>;

/// A swept value as people read it: of an object its label, or its name.
std::string SweptText(const Json& value);

/**
 * The points of a study's "sweep": the grid of everything that it names, of which the first changes slowest.
 *
 * - "PATH": a list of values.
 * - "case": a list of objects, each a label and the paths that it sets; one swept value, under this key.
 * - "points": a list of objects, each of the same paths with values of their own.
 * - "sample": `size` points over the ranges and lists of `over`, drawn at `random` or as a `latin-hypercube`. Each path
 *   of `over` draws from a generator of its own, std::mt19937_64 seeded by `seed` and the path's name, so that a path
 *   less or a larger random sample moves no other value. The same on every platform.
 *
 * \param json the object; defaults are written into it
 * \throws InputError "ORIGIN: sweep.PATH: what is wrong; what is accepted"
 */
std::vector<PointSet> ReadSweep(Json& json, const std::string& origin);

/**
 * Makes \p value the only one that \p study sweeps \p path over, in its grid or its sample; nothing if it is not swept.
 * \throws InputError if a case or a listed point sets what lies at \p path, so that the override would not be seen
 */
void OverrideSwept(Json& study, const std::string& path, const Json& value);

} // namespace splitllm

#endif // SPLITLLM_SWEEP_SPACE_H
