// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/opsc/opsc-options.h"

#include "base/input-error.h"

#include <string>

namespace splitllm
{

WeightPrecision
OpscPrecision(const ModelConfig& config, std::size_t split, FrontBack bits, std::size_t group)
{
    const auto stored = static_cast<unsigned>(8 * SizeOf(config.dtype));
    const auto of = [stored](unsigned asked) { return asked == 16 ? stored : asked; };
    return WeightPrecision::FrontBack(config, split, of(bits.front), of(bits.back), group);
}

void
CheckOpsc(const OpscOptions& options, const ModelConfig& config, bool hasAdapter)
{
    if (options.split < 1 || options.split > config.layers)
    {
        throw InputError("a split after layer " + std::to_string(options.split) + " of " + config.name +
                         "; accepted: 1 to " + std::to_string(config.layers));
    }
    if (hasAdapter)
    {
        throw InputError("a split by layers has no place for an adapter; accepted: a model without one");
    }
    if (options.deadline && options.controlled && !options.compressed)
    {
        throw InputError("scheme \"opsc\" with a deadline needs a codec to compress with");
    }
}

} // namespace splitllm
