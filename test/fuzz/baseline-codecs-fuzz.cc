// SPDX-License-Identifier: GPL-2.0-only
#include "codec/baseline-codecs.h"
#include "codec/dense-codec.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

namespace
{

constexpr std::size_t kCols = 5;

splitllm::ActivationStatistics
Statistics()
{
    using splitllm::Json;
    const Json ones(std::vector<double>{1, 2, 3, 4, 5});
    const Json site{{"quantiles", {1.0}},
                    {"channel_max", ones},
                    {"channel_rms", ones},
                    {"shift", ones},
                    {"scale", ones},
                    {"clip", {{"3", {0.9, 0.8}}}}};
    splitllm::ModelConfig config;
    config.layers = 1;
    config.hidden = kCols;
    config.heads = config.kvHeads = config.headDim = 1;
    return splitllm::ActivationStatistics::Read(
        Json{{"format", "split-llm-activation-statistics"},
             {"version", 1},
             {"model", {{"layers", 1}, {"hidden", kCols}, {"query", 1}, {"kv", 1}}},
             {"levels", {0.5}},
             {"sites", {{"hidden-state", Json::array({site})}}},
             {"made_by", "fuzz"}},
        "fuzz",
        config);
}

} // namespace

/// The first byte chooses a quantiser; the others decode to finite rows, or are refused.
extern "C" int
LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    using namespace splitllm;
    static const ActivationStatistics statistics = Statistics();
    static const std::shared_ptr<const TensorCodec> codecs[] = {MakeRoundToNearest(3),
                                                                MakeSmoothQuant(3, statistics, 0.5),
                                                                MakeOmniQuant(3, statistics),
                                                                MakeAtom(3, statistics, 1, 3)};
    if (size == 0)
    {
        return 0;
    }
    const auto* bytes = reinterpret_cast<const std::byte*>(data);
    try
    {
        const Tensor tensor = codecs[data[0] % 4]->Decode(Payload::Of({bytes + 1, bytes + size}),
                                                          kCols,
                                                          {.kind = "hidden-state", .layer = 1});
        for (const float x : tensor.Values())
        {
            if (!std::isfinite(x))
            {
                std::abort();
            }
        }
    }
    catch (const DecodeError&)
    {
    }
    return 0;
}
