// SPDX-License-Identifier: GPL-2.0-only
#include "study.h"

#include "base/input-error.h"
#include "base/units.h"
#include "ce-collm-spec.h"
#include "codec/container-coder.h"
#include "llm/adapter.h"
#include "llm/beam-search.h"
#include "llm/config.h"
#include "llm/model.h"
#include "opsc-spec.h"
#include "policy/calibrator.h"
#include "policy/offload-policies.h"
#include "schemes/scheme.h"
#include "replay.h"
#include "spa-spec.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace splitllm
{

using namespace ns3;

namespace
{

const std::vector<std::string> kFloatTypes{"fp32", "fp16", "bf16"};
const std::vector<std::string> kWeightTypes{"fp32", "fp16", "bf16", "int8"};

/// Runs \p parse and prefixes what it complains about with the key's path.
template <typename F>
auto
At(const StrictObject& object, const std::string& key, F&& parse)
{
    try
    {
        return parse();
    }
    catch (const InputError& error)
    {
        object.Fail(key, error.what());
    }
}

/// A name becomes folder/NAME; anything with a slash is a path as it is.
std::filesystem::path
Resolve(const std::string& name, const std::filesystem::path& folder)
{
    const std::filesystem::path path(name);
    return path.is_absolute() || name.find('/') != std::string::npos ? path : folder / path;
}

BackendName
ReadBackend(StrictObject& object, bool shapeMode)
{
    if (shapeMode)
    {
        if (object.Has("backend"))
        {
            object.Fail("backend", "shape mode computes nothing; accepted: mode \"numeric\", or no backend");
        }
        return BackendName::Cpu;
    }
    const std::string name = object.Choice("backend", BackendNames(), BackendNames().front());
    const std::string why = WhyNot(BackendFromName(name));
    if (!why.empty())
    {
        object.Fail("backend", "is \"" + name + "\", but " + why);
    }
    return BackendFromName(name);
}

ModelSpec
ReadModel(StrictObject study, bool shapeMode, const StudyFolders& folders)
{
    ModelSpec model;
    StrictObject object = study.Object("model");
    if (shapeMode && !object.Has("path"))
    {
        model.shape = object.Choice("shape", ShapeNames());
    }
    else
    {
        model.folder = Resolve(object.String("path"), folders.models);
    }
    if (shapeMode)
    {
        model.dtype = object.Choice("dtype", kWeightTypes, "fp16");
    }
    if (object.Has("adapter"))
    {
        StrictObject adapter = object.Object("adapter");
        if (shapeMode)
        {
            const bool bottleneck = adapter.Has("bottleneck");
            const auto width = static_cast<std::uint32_t>(adapter.Integer(bottleneck ? "bottleneck" : "rank", 1, 65536));
            (bottleneck ? model.bottleneckWidth : model.adapterRank) = width;
            model.adapterDtype = adapter.Choice("dtype", kFloatTypes, model.dtype == "int8" ? "fp16" : model.dtype);
        }
        else
        {
            const std::string name = adapter.String("path");
            model.adapterFolder = Resolve(name, folders.models);
            if (!std::filesystem::exists(model.adapterFolder))
            {
                model.adapterFolder = Resolve(name, folders.adapters);
            }
        }
        adapter.Finish();
    }
    object.Finish();
    return model;
}

NodeSpec
ReadNode(StrictObject& nodes, const std::string& name, const StudyFolders& folders)
{
    NodeSpec node;
    node.name = name;
    StrictObject object = nodes.Object(name);
    const std::string role = object.Choice("role", {"user-device", "edge-server", "cloud", "gateway"});
    if (role == "gateway")
    {
        node.role = NodeRole::Gateway;
        object.Finish();
        return node;
    }
    node.role = role == "user-device" ? NodeRole::UserDevice
                                      : (role == "edge-server" ? NodeRole::EdgeServer : NodeRole::Cloud);
    const std::uint64_t most = node.role == NodeRole::UserDevice ? 10000 : 1;
    node.count = static_cast<std::uint32_t>(object.Integer("count", 1, most, 1));
    if (object.Has("hardware") && object.Raw("hardware").is_object())
    {
        StrictObject hardware = object.Object("hardware");
        node.hardware = DeviceProfile::Read(hardware, folders.profiles);
    }
    else
    {
        const std::string profile = object.String("hardware");
        node.hardware = At(object, "hardware", [&] { return DeviceProfile::Load(profile, folders.profiles); });
    }
    if (node.role != NodeRole::UserDevice)
    {
        node.outages = ReadOutages(object);
        node.batch = static_cast<std::uint32_t>(object.Integer("batch", 1, 4096, 1));
        if (object.Has("kv_memory"))
        {
            node.kvMemory = ReadBytes(object, "kv_memory");
            if (node.kvMemory == 0)
            {
                object.Fail("kv_memory", "is 0; accepted: at least a byte, or no such key where no request is to wait");
            }
        }
    }
    object.Finish();
    return node;
}

/// A list of token ids, at least one.
std::vector<TokenId>
ReadTokens(StrictObject& object, const std::string& key)
{
    std::vector<TokenId> tokens;
    const Json& list = object.Raw(key);
    const auto isToken = [](const Json& token) {
        return token.is_number_unsigned() && token.get<std::uint64_t>() <= std::numeric_limits<TokenId>::max();
    };
    if (!list.is_array() || list.empty() || !std::ranges::all_of(list, isToken))
    {
        object.Fail(key, "must be a list of at least one token id");
    }
    std::ranges::transform(list, std::back_inserter(tokens), [](const Json& token) { return token.get<TokenId>(); });
    return tokens;
}

std::vector<RequestSpec>
ReadPromptFile(StrictObject& workload, std::uint64_t requests, bool shuffled, const StudyFolders& folders)
{
    const std::string name = workload.String("prompts");
    const std::filesystem::path file = Resolve(name + (name.ends_with(".jsonl") ? "" : ".jsonl"), folders.prompts);
    std::ifstream stream(file);
    if (!stream)
    {
        workload.Fail("prompts", "no prompt file " + file.string() + " (one JSON object a line, made by scripts/make-prompts)");
    }
    std::vector<RequestSpec> prompts;
    std::string line;
    for (std::size_t number = 1; std::getline(stream, line); number++)
    {
        const std::string origin = file.string() + ":" + std::to_string(number);
        Json json = ParseStrictJson(line, origin);
        StrictObject object(json, origin);
        RequestSpec prompt{.id = object.String("id"), .group = {}, .prompt = {}, .answer = {}};
        object.String("text");
        prompt.prompt = ReadTokens(object, "tokens");
        if (object.Has("group"))
        {
            prompt.group = object.String("group");
        }
        if (object.Has("answer"))
        {
            object.String("answer_text");
            prompt.answer = ReadTokens(object, "answer");
        }
        object.Finish();
        prompts.push_back(std::move(prompt));
    }
    if (prompts.empty())
    {
        workload.Fail("prompts", file.string() + " holds no prompts");
    }
    // A drawn order draws from the whole file.
    const std::size_t count = shuffled ? prompts.size() : static_cast<std::size_t>(requests);
    std::vector<RequestSpec> all;
    for (std::size_t i = 0; i < std::max<std::size_t>(count, requests); i++)
    {
        all.push_back(prompts[i % prompts.size()]);
    }
    return all;
}

/// The recorded requests, from the beginning again where more are asked for; of each recorded repetition in turn.
std::vector<RequestSpec>
ReplayedRequests(StrictObject& workload, const Study& study)
{
    workload.String("prompts");
    std::vector<RequestSpec> all;
    for (const std::shared_ptr<const RecordedRun>& run : study.replayed)
    {
        for (std::uint32_t r = 0; r < study.requestCount; r++)
        {
            all.push_back(run->prompts[run->requests[r % run->requests.size()]]);
        }
    }
    return all;
}

/// "prompt_tokens": prompts of a given length and no text, for shape mode.
std::vector<RequestSpec>
ReadPromptLengths(StrictObject& workload)
{
    std::vector<RequestSpec> all;
    for (StrictObject& entry : workload.Objects("prompt_tokens"))
    {
        const std::uint64_t tokens = entry.Integer("tokens", 1, 1 << 20);
        const std::uint64_t requests = entry.Integer("requests", 1, 1'000'000);
        entry.Finish();
        for (std::uint64_t i = 0; i < requests; i++)
        {
            all.push_back({.id = std::to_string(tokens) + "-tokens",
                           .group = {},
                           .prompt = std::vector<TokenId>(tokens, 0),
                           .answer = {}});
        }
    }
    if (all.empty())
    {
        workload.Fail("prompt_tokens", "must hold at least one entry");
    }
    return all;
}

void
ReadWorkload(StrictObject& object,
             Study& study,
             const ModelConfig& config,
             const std::string& origin,
             const StudyFolders& folders)
{
    StrictObject workload = object.Object("workload");
    const auto devices = std::ranges::find(study.nodes, NodeRole::UserDevice, &NodeSpec::role);
    const std::uint32_t users = devices != study.nodes.end() ? devices->count : 1;
    const std::uint32_t askers = workload.Bool("per_user", false) ? users : 1;
    if (workload.Has("prompt_tokens"))
    {
        if (!study.shapeMode)
        {
            workload.Fail("prompt_tokens", "prompts without text need mode \"shape\"; numeric mode takes \"prompts\"");
        }
        const std::vector<RequestSpec> each = ReadPromptLengths(workload);
        for (std::uint32_t user = 0; user < askers; user++)
        {
            study.requests.insert(study.requests.end(), each.begin(), each.end());
        }
        study.requestCount = static_cast<std::uint32_t>(study.requests.size());
    }
    else
    {
        study.requestCount = askers * static_cast<std::uint32_t>(workload.Integer("requests", 1, 1'000'000 / askers));
        study.shuffled = workload.Choice("order", {"file", "random"}, "file") == "random";
        study.requests = study.Replays()
                             ? ReplayedRequests(workload, study)
                             : ReadPromptFile(workload, study.requestCount, study.shuffled, folders);
        study.quality = workload.Bool("quality", false);
        const bool answered = std::ranges::none_of(study.requests, [](const RequestSpec& request) {
            return request.answer.empty();
        });
        if (study.quality && (study.shapeMode || !answered))
        {
            workload.Fail("quality", study.shapeMode ? "shape mode has no text to judge; numeric mode has"
                                                     : "every prompt must have an answer to compare with");
        }
    }
    if (workload.Choice("stop", {"length", "eos"}, "length") == "eos")
    {
        study.stop = config.eosTokens;
        if (study.shapeMode || study.stop.empty())
        {
            workload.Fail("stop", "needs numeric mode and a model whose config.json names eos_token_id");
        }
    }
    study.newTokens = static_cast<std::uint32_t>(workload.Integer("new_tokens", 1, 1 << 20));
    study.sampling.temperature = workload.Number("temperature", 0.0, 100.0, 0.0);
    study.sampling.topP = workload.Number("top_p", 0.0, 1.0, 1.0);
    if (study.sampling.topP == 0.0)
    {
        workload.Fail("top_p", "must be above 0 and at most 1");
    }
    study.sampling.beams = static_cast<std::size_t>(workload.Integer("beams", 0, kMostBeams, 0));
    study.sampling.lengthPenalty =
        workload.Number("length_penalty", -kMostLengthPenalty, kMostLengthPenalty, study.sampling.lengthPenalty);
    if (study.sampling.beams > 0 && study.sampling.temperature > 0.0)
    {
        workload.Fail("beams", "a beam search does not sample; accepted with temperature 0");
    }
    const std::size_t candidates = std::max(std::size_t{2}, 1 + study.stop.size()); // of each beam, that some go on
    if (candidates * study.sampling.beams > config.vocab)
    {
        workload.Fail("beams",
                      "is " + std::to_string(study.sampling.beams) + "; accepted: at most " +
                          std::to_string(config.vocab / candidates) + " with a vocabulary of " +
                          std::to_string(config.vocab));
    }
    study.arrivals =
        ReadArrivals(workload, study.requestCount, users, std::filesystem::path(origin).parent_path());
    workload.Finish();
}

/// Which groups and links a scheme needs: the user's node, and the server with a link to it.
void
CheckTopology(const StrictObject& object, const Study& study)
{
    const std::string& scheme = study.scheme.name;
    std::set<NodeRole> roles;
    for (const NodeSpec& node : study.nodes)
    {
        if (!roles.insert(node.role).second)
        {
            object.Fail("nodes", "two groups have the role of \"" + node.name + "\"; one group a role is supported");
        }
    }
    if (!roles.contains(NodeRole::UserDevice))
    {
        object.Fail("nodes", "no group has the role \"user-device\"");
    }
    const bool alone = scheme == "ce-collm" && study.scheme.ceCollm.mode == CeCollmMode::Standalone;
    if (scheme == "local" || scheme == "mlora" || alone)
    {
        return;
    }
    if (!roles.contains(NodeRole::EdgeServer) && !roles.contains(NodeRole::Cloud))
    {
        object.Fail("nodes", "scheme \"" + scheme + "\" needs a group with the role \"edge-server\" or \"cloud\"");
    }
    const std::string& user = study.Node(NodeRole::UserDevice).name;
    const std::string& server = study.Server().name;
    const auto find = [&study](const std::string& a, const std::string& b) {
        const auto found = std::ranges::find_if(study.links, [&](const LinkSpec& link) {
            return (link.from == a && link.to == b) || (link.from == b && link.to == a);
        });
        return found == study.links.end() ? nullptr : &*found;
    };
    const auto need = [&](const std::string& a, const std::string& b) {
        if (find(a, b) == nullptr)
        {
            object.Fail("links", "no link \"" + a + "-" + b + "\", which scheme \"" + scheme + "\" needs");
        }
    };
    const NodeSpec* gateway = study.Gateway();
    if (gateway == nullptr)
    {
        need(user, server);
        return;
    }
    need(user, gateway->name);
    need(gateway->name, server);
    if (const LinkSpec* direct = find(user, server))
    {
        object.Fail("links." + direct->name,
                    "goes past the gateway \"" + gateway->name + "\"; accepted: either this link or the gateway");
    }
    const LinkSpec& access = *find(user, gateway->name);
    const LinkSpec& backhaul = *find(gateway->name, server);
    if (access.type != backhaul.type || (access.type != LinkType::Wired && access.type != LinkType::Service))
    {
        object.Fail("links." + backhaul.name + ".type",
                    "differs from that of \"" + access.name +
                        "\", or goes through no gateway; accepted: both \"wired\", or both \"service\"");
    }
    if (study.scheme.opsc.deadline)
    {
        object.Fail("scheme.deadline",
                    "nobody can tell how long a message waits at the gateway \"" + gateway->name +
                        "\" for those of other users; accepted without a gateway");
    }
}

/// The model's shape. Its weights and adapter are checked here as well, before anything runs; a replay needs neither.
ModelConfig
CheckModel(const Study& study)
{
    const ModelSpec& model = study.model;
    if (study.Replays())
    {
        return study.ReplayedRun(0).config;
    }
    if (!model.shape.empty())
    {
        return NamedShape(model.shape, *DTypeFromName(model.dtype));
    }
    ModelConfig config;
    if (study.shapeMode)
    {
        config = LoadConfig(model.folder);
        config.dtype = *DTypeFromName(model.dtype);
    }
    else
    {
        config = Model::Load(model.folder)->config;
        if (model.HasBottleneck())
        {
            BottleneckAdapter::Load(model.adapterFolder, config);
        }
        if (model.HasLora())
        {
            Adapter::Load(model.adapterFolder, config);
        }
    }
    return config;
}

/// The longest prompt and its answer must fit the model's context, and its ids the vocabulary.
void
CheckPrompts(const StrictObject& object, const Study& study, const ModelConfig& config)
{
    for (const RequestSpec& request : study.requests)
    {
        const std::size_t positions = study.PositionsOf(request);
        if (positions > config.maxPositions)
        {
            object.Fail("workload",
                        "prompt \"" + request.id + "\" of " + std::to_string(request.prompt.size()) + " tokens and " +
                            std::to_string(positions + 1 - request.prompt.size()) + " new ones exceed the context of " + config.name + ", " +
                            std::to_string(config.maxPositions) + " positions");
        }
        for (const std::vector<TokenId>* tokens : {&request.prompt, &request.answer})
        {
            for (const TokenId token : *tokens)
            {
                if (token >= config.vocab)
                {
                    object.Fail("workload",
                                "prompt \"" + request.id + "\": token " + std::to_string(token) +
                                    " is outside the vocabulary of " + config.name + ", " +
                                    std::to_string(config.vocab) + " tokens");
                }
            }
        }
    }
}

/// What a policy decides about: the positions of every request, along the reference answer as well.
PolicyContext
ContextOf(const Study& study, const ModelConfig& config, const std::string& origin, const StudyFolders& folders)
{
    PolicyContext context{.config = config,
                          .shapeMode = study.shapeMode,
                          .positions = {},
                          .shuffled = study.shuffled,
                          .calibrators = folders.calibrators,
                          .study = std::filesystem::path(origin).parent_path()};
    for (const RequestSpec& request : study.requests)
    {
        context.positions.push_back(study.PositionsOf(request));
    }
    return context;
}

void
ReadScheme(StrictObject& object,
           Study& study,
           const ModelConfig& config,
           const std::string& origin,
           const StudyFolders& folders)
{
    StrictObject scheme = object.Object("scheme");
    const std::string name = scheme.Choice("name", SchemeNames());
    study.scheme.name = name;
    if (study.sampling.beams > 0 && !WhyNoBeams(name).empty())
    {
        object.Fail("workload.beams",
                    "scheme \"" + name + "\" cannot search with beams: " + std::string(WhyNoBeams(name)));
    }
    const CodecContext codecs{
        .config = config,
        .shapeMode = study.shapeMode,
        .calibrations = folders.calibrations,
        .coder = study.backend.name == BackendName::Cuda ? MakeCudaContainerCoder() : HostContainerCoder()};
    if (!scheme.Has("choose")) // which names a codec as well
    {
        study.scheme.codec = ReadTensorCodec(scheme, "codec", codecs, name == "naive-split" ? "fp32" : "fp16");
    }
    if (scheme.Has("label"))
    {
        scheme.String("label"); // for tables and plots
    }
    const bool splits = name == "linfer" || name == "dlora" || name == "tlc";
    if (splits && !study.model.HasLora())
    {
        object.Fail("model.adapter",
                    "scheme \"" + name + "\" needs a LoRA adapter; give its " +
                        std::string(study.shapeMode ? "rank" : "path"));
    }
    if (name == "adapter-split" && !study.model.HasBottleneck())
    {
        object.Fail("model.adapter",
                    "scheme \"" + name + "\" needs bottleneck adapters; give their " +
                        std::string(study.shapeMode ? "width (\"bottleneck\")" : "path"));
    }
    if (name == "dlora")
    {
        const double keep = scheme.Number("keep", 0.0, 1.0);
        if (scheme.Choice("importance", {"norm", "random"}, "norm") == "random")
        {
            study.scheme.policy = KeepRandomTokens(keep);
        }
        else if (study.shapeMode)
        {
            scheme.Fail("importance", "shape mode has no numbers to look at; \"random\" is accepted there");
        }
        else
        {
            study.scheme.policy =
                KeepLargeTokens(keep, LoadTokenNormQuantiles(folders.calibrators / scheme.String("statistics")));
        }
        study.scheme.firstLayer = true;
    }
    static constexpr std::array<std::string_view, 5> kBareSchemes{"opsc", "naive-split", "ce-collm", "spa", "lst"};
    const bool bare = std::ranges::find(kBareSchemes, name) != kBareSchemes.end();
    if (bare && (study.model.HasLora() || study.model.HasBottleneck()))
    {
        object.Fail("model.adapter", "scheme \"" + name + "\" has no place for an adapter");
    }
    if (name == "naive-split")
    {
        study.scheme.opsc.split = scheme.Integer("split", 1, config.layers);
    }
    if (name == "opsc")
    {
        ReadOpsc(scheme, study, std::filesystem::path(origin).parent_path(), codecs);
    }
    if (name == "ce-collm")
    {
        ReadCeCollm(scheme, study, folders.exits);
    }
    if (name == "spa" || name == "lst")
    {
        ReadSpa(scheme, study, folders.sideNetworks);
    }
    if (name == "server")
    {
        study.scheme.stream = scheme.Bool("stream", false);
    }
    if (name == "mlora")
    {
        study.scheme.keep = scheme.Number("keep", 1e-9, 1.0);
    }
    if (name == "tlc")
    {
        StrictObject policy = scheme.Object("policy");
        study.scheme.policy = MakeOffloadPolicy(policy, ContextOf(study, config, origin, folders));
        study.scheme.firstLayer = scheme.Bool("first_layer", false);
        // The paper's accounting, where saying that nothing comes back costs nothing.
        ReadAccounting(scheme, study, "skip_notice", {MessageKind::Skip});
    }
    scheme.Finish();
}

/// \param overridden what an override took out of the sweep need not be there any more
std::vector<Expectation>
ReadExpectations(StrictObject& object, const std::vector<PointSet>& points, bool overridden)
{
    std::vector<Expectation> expectations;
    for (StrictObject& entry : object.Objects("expect"))
    {
        Expectation expectation;
        if (entry.Has("where"))
        {
            expectation.where = entry.Raw("where");
            if (!expectation.where.is_object())
            {
                entry.Fail("where", "must be an object of swept keys and their values");
            }
        }
        expectation.metric = entry.String("metric");
        expectation.value = entry.Number("value", -std::numeric_limits<double>::max());
        if (entry.Has("rel") == entry.Has("abs"))
        {
            entry.Fail("rel", "exactly one of rel (relative tolerance) and abs (absolute) must be given");
        }
        expectation.tolerance = entry.Has("rel") ? entry.Number("rel", 0.0) * std::abs(expectation.value)
                                                 : entry.Number("abs", 0.0);
        expectation.source = entry.String("source", "");
        entry.Finish();
        const bool selects =
            std::ranges::any_of(points, [&](const PointSet& point) { return Selects(expectation, point); });
        if (!selects && !overridden)
        {
            entry.Fail("where", "selects no point of the sweep: " + expectation.where.dump());
        }
        if (selects)
        {
            expectations.push_back(std::move(expectation));
        }
    }
    return expectations;
}

/**
 * Puts \p value at a dotted path, making objects on the way. What follows "sweep.", and "sweep.sample.over." likewise,
 * is one key with dots of its own.
 */
void
SetPath(Json& json, const std::string& path, Json value, const std::string& origin)
{
    Json* at = &json;
    for (std::size_t start = 0;;)
    {
        const std::string parents = path.substr(0, start);
        const bool swept = parents == "sweep.sample.over." || (parents == "sweep." && !path.starts_with("sweep.sample."));
        const std::size_t dot = swept ? std::string::npos : path.find('.', start);
        const std::string key = path.substr(start, dot == std::string::npos ? dot : dot - start);
        if (key.empty() || !(at->is_object() || at->is_null()))
        {
            throw InputError(origin + ": " + path + ": the path leads to no key of the study");
        }
        if (dot == std::string::npos)
        {
            (*at)[key] = std::move(value);
            return;
        }
        at = &(*at)[key];
        start = dot + 1;
    }
}

} // namespace

const NodeSpec&
Study::Server() const
{
    static constexpr std::array<std::string_view, 6> kCloudSchemes{
        "opsc", "ce-collm", "naive-split", "spa", "lst", "adapter-split"};
    const bool ofCloud = std::ranges::find(kCloudSchemes, scheme.name) != kCloudSchemes.end();
    const std::array preferred = ofCloud ? std::array{NodeRole::Cloud, NodeRole::EdgeServer}
                                         : std::array{NodeRole::EdgeServer, NodeRole::Cloud};
    const bool first = std::ranges::find(nodes, preferred[0], &NodeSpec::role) != nodes.end();
    return Node(preferred[first ? 0 : 1]);
}

const RecordedRun&
Study::ReplayedRun(std::uint32_t repetition) const
{
    if (!Replays())
    {
        throw std::logic_error("the study replays nothing");
    }
    return *replayed[repetition % replayed.size()];
}

std::size_t
Study::PositionsOf(const RequestSpec& request) const
{
    const std::size_t longest = std::max<std::size_t>(newTokens, quality ? request.answer.size() : 0);
    return request.prompt.size() + longest - 1;
}

std::size_t
Study::LongestContext() const
{
    std::size_t longest = 0;
    for (const RequestSpec& request : requests)
    {
        longest = std::max(longest, PositionsOf(request));
    }
    return longest;
}

const NodeSpec&
Study::Node(NodeRole role) const
{
    const auto found = std::ranges::find_if(nodes, [role](const NodeSpec& node) { return node.role == role; });
    if (found == nodes.end())
    {
        throw std::logic_error("the study has no such node");
    }
    return *found;
}

const NodeSpec*
Study::Gateway() const
{
    const auto found = std::ranges::find(nodes, NodeRole::Gateway, &NodeSpec::role);
    return found == nodes.end() ? nullptr : &*found;
}

const LinkSpec&
Study::LinkBetween(const NodeSpec& a, const NodeSpec& b) const
{
    const auto found = std::ranges::find_if(links, [&](const LinkSpec& link) {
        return (link.from == a.name && link.to == b.name) || (link.from == b.name && link.to == a.name);
    });
    if (found == links.end())
    {
        throw std::logic_error("the study has no such link");
    }
    return *found;
}

void
ReadAccounting(StrictObject& scheme, Study& study, const std::string& key, const std::vector<MessageKind>& kinds)
{
    if (scheme.Choice(key, {"message", "free"}, "message") == "message")
    {
        return;
    }
    for (LinkSpec& link : study.links)
    {
        if (link.type != LinkType::Service)
        {
            scheme.Fail(key, "\"free\" needs service links; on link \"" + link.name + "\" every message costs");
        }
        for (const MessageKind kind : kinds)
        {
            link.kinds[kind] = {.startup = Time(0), .payloadBytes = 0};
        }
    }
}

Study
ReadStudy(Json& json, const std::string& origin, const StudyFolders& folders)
{
    Study study;
    if (json.is_object() && json.contains("mode") && json["mode"] == "replay")
    {
        Replay replay = FindReplay(json, origin);
        json = std::move(replay.study);
        study.replayed = std::move(replay.runs);
    }
    StrictObject object(json, origin);
    study.name = object.String("study");
    study.seed = static_cast<std::uint32_t>(object.Integer("seed", 1, std::numeric_limits<std::uint32_t>::max(), 1));
    study.repeat = static_cast<std::uint32_t>(object.Integer("repeat", 1, 100'000, 1));
    study.shapeMode = object.Choice("mode", {"numeric", "shape", "replay"}) == "shape";
    study.backend.name = ReadBackend(object, study.shapeMode);
    study.model = ReadModel(object, study.shapeMode, folders);
    object.Raw("model");
    if (study.Replays())
    {
        object.String("recording");
        const RecordedRun& run = study.ReplayedRun(0);
        study.model.adapterFolder.clear();
        study.model.adapterRank = run.adapterRank;
        study.model.bottleneckWidth = run.bottleneckWidth;
        study.model.adapterDtype = run.adapterDtype;
    }

    StrictObject nodes = object.Object("nodes");
    for (const std::string& name : nodes.Keys())
    {
        study.nodes.push_back(ReadNode(nodes, name, folders));
        if (study.nodes.back().hardware.Mode() == Timing::Measured)
        {
            if (study.Replays())
            {
                nodes.Fail(name + ".hardware",
                           "times what kernels take, and a replay runs none; accepted: timing by roofline or table");
            }
            study.backend.times = CudaTimes::Events;
        }
    }
    if (object.Has("links"))
    {
        std::map<std::string, std::uint32_t> groups;
        for (const NodeSpec& node : study.nodes)
        {
            groups[node.name] = node.count;
        }
        StrictObject links = object.Object("links");
        for (const std::string& name : links.Keys())
        {
            study.links.push_back(ReadLink(links, name, groups));
        }
    }
    study.config = CheckModel(study);
    const ModelConfig& config = study.config;
    ReadWorkload(object, study, config, origin, folders);
    ReadScheme(object, study, config, origin, folders);
    if (!object.Has("timeline"))
    {
        json["timeline"] = Json::object();
    }
    StrictObject timeline = object.Object("timeline");
    study.timelineTokens = static_cast<std::uint32_t>(timeline.Integer("tokens", 0, 1 << 20, 3));
    timeline.Finish();
    object.Finish();
    CheckTopology(object, study);
    CheckPrompts(object, study, config);
    CheckDeadline(object, study);
    if (const std::string why = WhyNoReplay(study); study.Replays() && !why.empty())
    {
        throw InputError(origin + ": " + why);
    }
    return study;
}

bool
Selects(const Expectation& expectation, const PointSet& point)
{
    return std::ranges::all_of(expectation.where.items(), [&](const auto& item) {
        return std::ranges::any_of(point, [&](const auto& swept) {
            const bool named = swept.second.is_object() && item.value() == SweptText(swept.second);
            return swept.first == item.key() && (named || swept.second == item.value());
        });
    });
}

StudyFile
LoadStudyFile(const std::filesystem::path& path, const std::vector<std::pair<std::string, std::string>>& overrides)
{
    StudyFile file;
    file.origin = path.string();
    file.study = LoadStrictJson(path);
    for (const auto& [key, text] : overrides)
    {
        // What parses as JSON is taken as such (numbers, lists, true), anything else is a string.
        Json value = Json::parse(text, nullptr, /* allow_exceptions */ false);
        if (value.is_discarded())
        {
            value = text;
        }
        OverrideSwept(file.study, key, value);
        SetPath(file.study, key, std::move(value), "--set");
    }
    StrictObject object(file.study, file.origin);
    file.points = object.Has("sweep") ? ReadSweep(object.Raw("sweep"), file.origin) : std::vector<PointSet>{{}};
    if (object.Has("expect"))
    {
        file.expectations = ReadExpectations(object, file.points, !overrides.empty());
    }
    file.study.erase("sweep");
    file.study.erase("expect");
    return file;
}

Json
PointOf(const StudyFile& file, const PointSet& point)
{
    Json json = file.study;
    const std::string origin = file.origin + ": sweep";
    for (const auto& [key, value] : point)
    {
        if (key != kSweepCase)
        {
            SetPath(json, key, value, origin);
            continue;
        }
        for (const auto& [itsKey, itsValue] : value.items())
        {
            if (itsKey != "label")
            {
                SetPath(json, itsKey, itsValue, origin + "." + kSweepCase);
            }
        }
    }
    return json;
}

} // namespace splitllm
