// SPDX-License-Identifier: GPL-2.0-only

// Invariants 1 and 2: only bytes cross nodes, and a split without loss gives the bits of the whole model.

#include "support/catch.h"
#include "support/same-bits.h"
#include "support/split-run.h"
#include "support/tampering-port.h"
#include "support/test-models.h"
#include "support/tiny-deployment.h"

using namespace splitllm;
using namespace splitllm::test;

TEST_CASE("LInfer over an fp32 wire gives the bits of the whole model with the same adapter", "[invariant-2]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        CAPTURE(model);
        Monolithic whole(TestModel(model), TestModel(model + "-lora"));
        const Answer split = SplitRun(Deployment(model, "linfer", "fp32")).Ask(Prompt(), kNewTokens);
        CHECK(SameBits(split, whole.Ask(Prompt(), kNewTokens)));

        // The adapter matters here: without it the bits differ.
        Monolithic base(TestModel(model), "");
        CHECK_FALSE(SameBits(split, base.Ask(Prompt(), kNewTokens)));
    }
}

TEST_CASE("LInfer over a 16-bit wire gives the bits of a model that rounds where tensors cross", "[invariant-2]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        for (const auto& [wire, dtype] : {std::pair{"fp16", DType::F16}, std::pair{"bf16", DType::BF16}})
        {
            CAPTURE(model, wire);
            Monolithic rounding(TestModel(model), TestModel(model + "-lora"), dtype);
            const Answer split = SplitRun(Deployment(model, "linfer", wire)).Ask(Prompt(), kNewTokens);
            CHECK(SameBits(split, rounding.Ask(Prompt(), kNewTokens)));

            Monolithic plain(TestModel(model), TestModel(model + "-lora"));
            CHECK_FALSE(SameBits(split, plain.Ask(Prompt(), kNewTokens)));
        }
    }
}

TEST_CASE("Server and Local give the bits of the whole model", "[invariant-2]")
{
    Monolithic whole(TestModel("tiny-llama"), TestModel("tiny-llama-lora"));
    const Answer expected = whole.Ask(Prompt(), kNewTokens);
    CHECK(SameBits(SplitRun(Deployment("tiny-llama", "server", "fp32")).Ask(Prompt(), kNewTokens), expected));
    CHECK(SameBits(SplitRun(Deployment("tiny-llama", "local", "fp32")).Ask(Prompt(), kNewTokens), expected));
}

TEST_CASE("one flipped bit in one payload changes the bits of the answer", "[invariant-1][invariant-2]")
{
    Monolithic whole(TestModel("tiny-llama"), TestModel("tiny-llama-lora"));
    const Answer expected = whole.Ask(Prompt(), kNewTokens);

    const auto untouched = [](Message&) {};
    CHECK(SameBits(
        SplitRun(Deployment("tiny-llama", "linfer", "fp32"), TamperingPair(untouched)).Ask(Prompt(), kNewTokens),
        expected));

    // The mantissa's middle bit of one element, in each kind of message in turn: if any tensor came by another way
    // than its payload, the flip would go unnoticed.
    for (const MessageKind kind :
         {MessageKind::Embedding, MessageKind::LayerInput, MessageKind::Deltas, MessageKind::FinalState})
    {
        CAPTURE(std::string(NameOf(kind)));
        bool flipped = false;
        const auto flip = [&flipped, kind](Message& message) {
            if (message.kind == kind && !std::exchange(flipped, true))
            {
                message.payload.bytes.at(message.payload.size / 2 - 2) ^= std::byte{0x10};
            }
        };
        const Answer tampered =
            SplitRun(Deployment("tiny-llama", "linfer", "fp32"), TamperingPair(flip)).Ask(Prompt(), kNewTokens);
        CHECK(flipped);
        CHECK(tampered.tokens.size() == kNewTokens);
        CHECK_FALSE(SameBits(tampered, expected));
    }
}

TEST_CASE("a payload of the wrong size, type or place ends the session with a reason", "[protocol]")
{
    const auto reasonOf = [](const TamperingPort::Tamper& tamper) {
        SplitRun run(Deployment("tiny-llama", "linfer", "fp32"), TamperingPair(tamper));
        const Answer answer = run.Ask(Prompt(), kNewTokens);
        CHECK(answer.tokens.empty());
        REQUIRE_FALSE(run.lost.empty());
        return run.lost.front();
    };
    CHECK(reasonOf([](Message& message) {
              if (message.kind == MessageKind::Deltas)
              {
                  message.payload.bytes.pop_back();
                  message.payload.size--;
              }
          }) == "deltas: payload of 9727 bytes is no whole number of rows of 512 bytes");
    CHECK(reasonOf([](Message& message) {
              if (message.kind == MessageKind::LayerInput)
              {
                  message.layer = 2;
              }
          }) == "expected layer-input of layer 1, request 0, got layer-input of layer 2, request 0");
    CHECK(reasonOf([](Message& message) {
              if (message.kind == MessageKind::Embedding)
              {
                  message.dtype = DType::F16;
              }
          }) == "expected elements of fp32, got fp16");
}
