// SPDX-License-Identifier: GPL-2.0-only
#include "ce-collm-spec.h"

#include "base/input-error.h"
#include "base/units.h"
#include "llm/exits.h"

namespace splitllm
{

using namespace ns3;

namespace
{

/// "exits": trained ones of a folder, or the model's own norm and head after some layers.
std::shared_ptr<const Exits>
ReadExits(StrictObject& scheme, const Study& study, const std::filesystem::path& folder)
{
    StrictObject object = scheme.Object("exits");
    if (object.Has("label"))
    {
        object.String("label"); // for tables and plots
    }
    std::shared_ptr<const Exits> exits;
    if (object.Has("path"))
    {
        const std::filesystem::path path(object.String("path"));
        const bool named = path.is_relative() && path.string().find('/') == std::string::npos;
        exits = Exits::Load(named ? folder / path : path, study.config);
    }
    else
    {
        const auto untrained = std::make_shared<Exits>();
        untrained->layers = ReadExitLayers(object, study.config);
        if (study.shapeMode)
        {
            untrained->width = object.Integer("width", 0, 1 << 20, 0);
        }
        exits = untrained;
    }
    object.Finish();
    return exits;
}

/// A time above zero.
Time
ReadTime(StrictObject& object, const std::string& key, const std::string& otherwise)
{
    const Time time = NanoSeconds(ReadDuration(object, key, otherwise).count());
    if (!time.IsStrictlyPositive())
    {
        object.Fail(key, "must be above 0");
    }
    return time;
}

} // namespace

void
ReadCeCollm(StrictObject& scheme, Study& study, const std::filesystem::path& folder)
{
    CeCollmOptions& options = study.scheme.ceCollm;
    const bool collaborates = scheme.Choice("mode", {"collaborative", "standalone"}, "collaborative") == "collaborative";
    options.mode = collaborates ? CeCollmMode::Collaborative : CeCollmMode::Standalone;
    study.scheme.exits = ReadExits(scheme, study, folder);
    const std::vector<std::size_t>& layers = study.scheme.exits->layers;
    options.policy = ReadExitPolicy(scheme, layers, study.shapeMode);
    options.uploadLayer = scheme.Integer("upload_layer", 1, layers.back(), layers.back());
    if (scheme.Has("upload_below"))
    {
        options.uploadBelow = scheme.Number("upload_below", 0.0, 1.0);
        if (study.shapeMode)
        {
            scheme.Fail("upload_below", "shape mode has no confidence to compare; numeric mode has");
        }
    }
    options.timeout = ReadTime(scheme, "timeout", "1s");
    options.retry = ReadTime(scheme, "retry", "1s");
    options.contextTimeout = ReadTime(scheme, "context_timeout", "60s");
    for (const NodeSpec& node : study.nodes)
    {
        if (node.kvMemory > 0)
        {
            scheme.Fail("context_memory",
                        "is what limits CE-CoLLM's contexts; no request of it waits for node \"" + node.name +
                            "\" to have kv_memory: leave that out");
        }
    }
    if (scheme.Has("context_memory"))
    {
        options.contextMemory = ReadBytes(scheme, "context_memory");
    }
}

} // namespace splitllm
