// SPDX-License-Identifier: GPL-2.0-only

// SPA's Eq 4 for the schemes that exchange something at every layer: T_net = M (tau + data / rate).

#include "support/catch.h"
#include "support/study-fixture.h"
#include "support/temporary-folder.h"

#include "simulation.h"

#include <cstdint>
#include <string>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

constexpr std::uint32_t kNewTokens = 3;
constexpr std::uint32_t kHidden = 48;

/// The folder of a LLaMA of \p layers layers, of which shape mode reads the shape alone.
std::string
ShapeOf(const TemporaryFolder& folder, unsigned layers)
{
    const Json config{{"model_type", "llama"},
                      {"num_hidden_layers", layers},
                      {"hidden_size", kHidden},
                      {"num_attention_heads", 4},
                      {"num_key_value_heads", 2},
                      {"intermediate_size", 40},
                      {"vocab_size", 64},
                      {"max_position_embeddings", 32},
                      {"rms_norm_eps", 1e-5},
                      {"rope_theta", 1e4},
                      {"tie_word_embeddings", true},
                      {"hidden_act", "silu"}};
    folder.Write("config.json", config.dump());
    return folder.Path().string();
}

} // namespace

TEST_CASE("SPA: network latency is M (tau + data / rate) for any layers, startup and rate", "[papers]")
{
    struct Exchange
    {
        const char* scheme;
        const char* adapter;
        const char* kind;
        const char* reply;
        unsigned each; // exchanges a layer
    };

    const TemporaryFolder folder;
    const Exchange lora{"linfer", R"({"rank": 4})", "layer-input", "deltas", 1};
    const Exchange bottleneck{"adapter-split", R"({"bottleneck": 5})", "adapter-input", "adapter-output", 2};
    for (const Exchange& exchange : {lora, bottleneck})
    {
        for (const unsigned layers : {1U, 2U, 3U, 6U})
        {
            for (const unsigned startup : {0U, 1U, 3900U}) // microseconds
            {
                for (const unsigned rate : {1U, 8U, 1000U}) // Mbps
                {
                    CAPTURE(exchange.scheme, layers, startup, rate);
                    Json json = Json::parse(R"({
                      "study": "eq-4", "mode": "shape", "model": { "dtype": "fp16" },
                      "nodes": {
                        "device": { "role": "user-device", "hardware":
                          { "profile": "device-13tflops", "timing": { "table": {}, "otherwise": "free" } } },
                        "cloud": { "role": "cloud", "hardware":
                          { "profile": "a800-80gb", "timing": { "table": { "layer": { "ms": 2 } }, "otherwise": "free" } } }
                      },
                      "links": { "device-cloud": { "type": "service", "delay": "0ns" } },
                      "scheme": { "codec": "fp16" },
                      "workload": { "prompt_tokens": [ { "tokens": 1, "requests": 1 } ] }
                    })");
                    json["model"]["path"] = ShapeOf(folder, layers);
                    json["model"]["adapter"] = Json::parse(exchange.adapter);
                    json["scheme"]["name"] = exchange.scheme;
                    json["workload"]["new_tokens"] = kNewTokens;
                    Json& link = json["links"]["device-cloud"];
                    link["rate"] = std::to_string(rate) + "Mbps";
                    link["kinds"][exchange.kind] = {{"startup", std::to_string(startup) + "us"}};
                    for (const char* kind : {exchange.reply, "embedding", "final-state"})
                    {
                        link["kinds"][kind] = {{"startup", "0ns"}, {"payload_bytes", 0}};
                    }
                    const Study study = ReadStudy(json, "test", Folders());
                    const RunRecords records = Simulate(study, 0, 1, [] {});
                    REQUIRE(records.tokens.size() == kNewTokens);

                    const std::int64_t messages = exchange.each * layers; // a token's M
                    const std::int64_t data = std::int64_t{kHidden} * 2 * 8 * 1000 / rate; // ns of the state in fp16
                    for (const TokenRow& row : records.tokens)
                    {
                        const auto network = row.token.components[static_cast<std::size_t>(Component::Network)];
                        CHECK(network.GetNanoSeconds() == messages * (std::int64_t{startup} * 1000 + data));
                        CHECK(row.token.latency == network + ns3::MilliSeconds(2 * layers));
                    }
                }
            }
        }
    }
}
