// SPDX-License-Identifier: GPL-2.0-only

#include "support/catch.h"
#include "support/error-of.h"
#include "support/split-run.h"
#include "support/test-models.h"

#include "sim/frame-pool.h"

#include "ns3/nstime.h"
#include "ns3/uinteger.h"

#include <utility>

using namespace splitllm;
using splitllm::test::ErrorOf;
using splitllm::test::SplitRun;
using splitllm::test::TestModel;

namespace
{

SplitLlmHelper
TinyLInfer()
{
    SplitLlmHelper llm;
    llm.SetModel(TestModel("tiny-llama"));
    llm.SetAdapter(TestModel("tiny-llama-lora"));
    return llm;
}

} // namespace

TEST_CASE("an error in a role ends the run with node, time, session and request", "[applications]")
{
    SplitRun run(TinyLInfer());
    std::string message;
    try
    {
        // Nothing checked this prompt against the vocabulary: it comes from a program, not from a study.
        run.Ask({1, 2, 999}, 2);
    }
    catch (const RoleError& error)
    {
        message = error.what();
    }
    CHECK(message.starts_with("node at +"));
    CHECK(message.find("s, session 0, request 0: ") != std::string::npos);
    CHECK(message.find("999") != std::string::npos);
}

TEST_CASE("a simulation that stops in mid-token leaves no coroutine behind", "[applications]")
{
    const std::size_t before = FramePool::Live();
    for (const ns3::Time& stop : {ns3::MicroSeconds(1), ns3::MicroSeconds(350), ns3::MicroSeconds(777), ns3::MilliSeconds(2)})
    {
        SplitRun run(TinyLInfer());
        ns3::Simulator::Stop(stop);
        CHECK(run.Ask({1, 2, 3}, 50).tokens.size() < 50);
        CHECK(FramePool::Live() > before);
    }
    CHECK(FramePool::Live() == before);
}

TEST_CASE("an application that stops in mid-token drops what it holds, and the other node's session ends", "[applications]")
{
    for (const auto& [stopsUser, batch] : {std::pair(true, 1), {false, 1}, {true, 8}, {false, 8}})
    {
        CAPTURE(stopsUser, batch);
        const std::size_t before = FramePool::Live();
        {
            SplitLlmHelper llm = TinyLInfer();
            const ns3::TimeValue stop(ns3::MilliSeconds(3));
            llm.SetServerAttribute("Batch", ns3::UintegerValue(batch));
            stopsUser ? llm.SetUserAttribute("StopTime", stop) : llm.SetServerAttribute("StopTime", stop);
            SplitRun run(std::move(llm));
            const auto answer = run.Ask({1, 2, 3}, 50); // returns: nothing waits for ever
            CHECK_FALSE(answer.tokens.empty());
            CHECK(answer.tokens.size() < 50);
        }
        CHECK(FramePool::Live() == before);
    }
}

TEST_CASE("a session that loses its server reports the reason once", "[applications]")
{
    SplitLlmHelper llm = TinyLInfer();
    llm.SetServerAttribute("StopTime", ns3::TimeValue(ns3::MilliSeconds(3)));
    SplitRun run(std::move(llm));
    run.Ask({1, 2, 3}, 50);
    REQUIRE(run.lost.size() == 1);
    CHECK_FALSE(run.lost.front().empty());
}

TEST_CASE("an unknown scheme, shape, profile or element type says what is accepted", "[applications]")
{
    SplitLlmHelper llm;
    CHECK(ErrorOf([&] { llm.SetShape("llama-8b", "fp16"); }).find("llama-7b") != std::string::npos);
    CHECK(ErrorOf([&] { llm.SetShape("llama-7b", "int4"); }) ==
          "\"int4\" is not an element type of weights; accepted: fp32, fp16, bf16, int8");
    llm.SetShape("llama-7b", "fp16");
    llm.SetScheme("tcl");
    CHECK(ErrorOf([&] { llm.GetScheme(); }) == "unknown scheme \"tcl\"; accepted: server, local, mlora, linfer, dlora, tlc, opsc, naive-split, ce-collm, spa, lst, adapter-split");
    llm.SetScheme("linfer");
    CHECK(ErrorOf([&] { llm.GetScheme(); }) ==
          "scheme \"linfer\" splits a LoRA adapter off the model: give model.adapter");
}
