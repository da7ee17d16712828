// SPDX-License-Identifier: GPL-2.0-only
#include "spa-spec.h"

#include "llm/side-network.h"

namespace splitllm
{

namespace
{

constexpr std::uint64_t kMaxWidth = 1 << 16;

/// "side": a trained side network of a folder, or in shape mode one of given widths.
std::shared_ptr<const SideNetwork>
ReadSide(StrictObject& scheme, const Study& study, const std::filesystem::path& folder)
{
    StrictObject object = scheme.Object("side");
    if (object.Has("label"))
    {
        object.String("label"); // for tables and plots
    }
    std::shared_ptr<const SideNetwork> side;
    if (study.shapeMode)
    {
        const auto shape = std::make_shared<SideNetwork>();
        shape->width = object.Integer("width", 1, kMaxWidth);
        shape->inner = object.Integer("inner", 1, kMaxWidth, shape->width);
        shape->alone = object.Choice("combination", {"sum", "alone"}, "sum") == "alone";
        side = shape;
    }
    else
    {
        const std::filesystem::path path(object.String("path"));
        // A name may lead into a subfolder; what begins with . or / is a path.
        const bool named = path.is_relative() && *path.begin() != "." && *path.begin() != "..";
        side = SideNetwork::Load(named ? folder / path : path, study.config);
    }
    object.Finish();
    return side;
}

SpaNode
ReadNode(StrictObject& scheme, const std::string& key, const std::string& otherwise)
{
    return scheme.Choice(key, {"cloud", "device"}, otherwise) == "cloud" ? SpaNode::Cloud : SpaNode::Device;
}

} // namespace

void
ReadSpa(StrictObject& scheme, Study& study, const std::filesystem::path& folder)
{
    SpaOptions& options = study.scheme.spa;
    study.scheme.side = ReadSide(scheme, study, folder);
    options.downProjection = ReadNode(scheme, "down_projection", "cloud");
    options.head = ReadNode(scheme, "head", "device");
    options.stream = scheme.Bool("stream", true);
    options.policy = study.scheme.name == "spa" ? ReadGatePolicy(scheme, study.shapeMode) : OpenAlways();
    ReadAccounting(scheme, study, "notice", {MessageKind::NextToken});
    ReadAccounting(scheme, study, "reply", {MessageKind::Tokens, MessageKind::SideOutput, MessageKind::Candidates});
}

} // namespace splitllm
