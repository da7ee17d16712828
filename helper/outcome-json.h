// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_OUTCOME_JSON_H
#define SPLITLLM_OUTCOME_JSON_H

#include "base/strict-json.h"
#include "schemes/outcomes.h"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace splitllm
{

/**
 * \file
 * What was decided on a node, as an object of a recording (doc/replay.md): for CBOR, since it has byte strings.
 */

Json JsonOf(const NodeOutcomes& outcomes);

/// The inverse of JsonOf. \throws InputError
NodeOutcomes OutcomesOf(StrictObject node);

/// The list under \p key. \throws InputError
const Json::array_t& ListOf(StrictObject& object, const std::string& key);

/// The elements of the list under \p key, each an integer of at most \p most. \throws InputError
template <typename T>
std::vector<T>
IntegersOf(StrictObject& object, const std::string& key, std::uint64_t most = std::numeric_limits<T>::max())
{
    std::vector<T> integers;
    for (const Json& element : ListOf(object, key))
    {
        if (!element.is_number_unsigned() || element.get<std::uint64_t>() > most)
        {
            object.Fail(key, "must hold integers of at most " + std::to_string(most));
        }
        integers.push_back(element.get<T>());
    }
    return integers;
}

} // namespace splitllm

#endif // SPLITLLM_OUTCOME_JSON_H
