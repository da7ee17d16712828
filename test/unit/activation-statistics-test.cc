// SPDX-License-Identifier: GPL-2.0-only
#include "codec/activation-statistics.h"
#include "support/catch.h"
#include "support/error-of.h"

#include <filesystem>
#include <string>

using namespace splitllm;
using splitllm::test::ErrorOf;

namespace
{

constexpr const char* kText = R"({
  "format": "split-llm-activation-statistics", "version": 1,
  "model": {"layers": 2, "hidden": 2, "query": 4, "kv": 4},
  "levels": [0.5, 0.99],
  "sites": {
    "embedding": [{"quantiles": [1, 2]}],
    "hidden-state": [
      {"quantiles": [1, 2], "channel_max": [3, 4], "channel_rms": [1, 2], "shift": [-1, 0], "scale": [1, 2],
       "clip": {"3": [0.5, 0.75]}},
      {"quantiles": [5, 6]}
    ]
  },
  "made_by": {"command": "by hand"}
})";

ModelConfig
Config()
{
    ModelConfig config;
    config.name = "tiny";
    config.layers = 2;
    config.hidden = 2;
    config.heads = 2;
    config.kvHeads = 2;
    config.headDim = 2;
    return config;
}

ActivationStatistics
Read(const std::string& text)
{
    return ActivationStatistics::Read(ParseStrictJson(text, "s.json"), "s.json", Config());
}

/// The error that reading gives when the first \p from is \p to.
std::string
ErrorWith(const std::string& from, const std::string& to)
{
    std::string text = kText;
    text.replace(text.find(from), from.size(), to);
    return ErrorOf([&] { Read(text); });
}

} // namespace

TEST_CASE("Activation statistics are looked up by kind and layer")
{
    const ActivationStatistics statistics = Read(kText);
    CHECK(statistics.Quantile({.kind = "hidden-state", .layer = 1}, 0.99) == 2.0F);
    CHECK(statistics.Quantile({.kind = "hidden-state", .layer = 2}, 0.5) == 5.0F);
    CHECK(statistics.Quantile({.kind = "final-state", .layer = 2}, 0.5) == 5.0F);
    CHECK(statistics.Quantile({.kind = "embedding", .layer = 0}, 0.5) == 1.0F);
    CHECK(statistics.Find({.kind = "hidden-state", .layer = 3}) == nullptr);
    CHECK(statistics.Find({.kind = "deltas", .layer = 1}) == nullptr);
    const ChannelStatistics& channels = statistics.Find({.kind = "hidden-state", .layer = 1})->channels;
    CHECK(channels.largest == std::vector<float>{3.0F, 4.0F});
    CHECK(channels.shift == std::vector<float>{-1.0F, 0.0F});
    CHECK(channels.clip.at(3).high == 0.75F);
}

TEST_CASE("What is wrong with activation statistics is said with its place")
{
    CHECK(ErrorWith("\"hidden\": 2", "\"hidden\": 3").find("s.json: model.hidden: 3 does not fit the model tiny") == 0);
    CHECK(ErrorWith("\"channel_max\": [3, 4]", "\"channel_max\": [3]")
              .find("s.json: sites.hidden-state[0].channel_max: ") == 0);
    CHECK(
        ErrorWith("\"scale\": [1, 2]", "\"scale\": [1, 0]").find("s.json: sites.hidden-state[0].scale: entry 1 is 0") ==
        0);
    CHECK(ErrorWith("[0.5, 0.75]", "[0.5, 1.5]").find("s.json: sites.hidden-state[0].clip.3: entry 1 is 1.5") == 0);
    CHECK(ErrorWith("{\"3\"", "{\"9\"").find("s.json: sites.hidden-state[0].clip.9: ") == 0);
    CHECK(ErrorWith("[0.5, 0.99]", "[0.99, 0.5]").find("s.json: levels: ") == 0);
    CHECK(ErrorWith("[5, 6]", "[5, \"6\"]").find("s.json: sites.hidden-state[1].quantiles: entry 1 is \"6\"") == 0);
    CHECK(ErrorWith("[5, 6]", "[5, 6, 7]").find("s.json: sites.hidden-state[1].quantiles: ") == 0);
    CHECK(ErrorWith("{\"quantiles\": [5, 6]}", "{\"quantiles\": [5, 6]}, {\"quantiles\": [5, 6]}")
              .find("s.json: sites.hidden-state: 3 entries") == 0);
    CHECK(ErrorWith("\"version\": 1", "\"version\": 2").find("s.json: version: ") == 0);
}

TEST_CASE("The committed activation statistics fit their model")
{
    const std::filesystem::path file =
        std::filesystem::path(SPLITLLM_SOURCE_DIR) / "scenarios/calibrations/smollm2-135m.json";
    const ActivationStatistics statistics = ActivationStatistics::Load(file, NamedShape("smollm2-135m", DType::BF16));
    for (const char* kind : {"hidden-state", "layer-input", "deltas", "kv-cache"})
    {
        for (std::size_t layer = 1; layer <= 30; layer++)
        {
            const CodecSite site{.kind = kind, .layer = layer};
            CHECK(statistics.Quantile(site, 0.9) < statistics.Quantile(site, 0.999));
        }
    }
    // what is measured at layer 16 of this model: a fifth of the elements exceeds 5
    CHECK(statistics.Quantile({.kind = "hidden-state", .layer = 16}, 0.5) < 5.0F);
    CHECK(statistics.Quantile({.kind = "hidden-state", .layer = 16}, 0.9) > 5.0F);
}
