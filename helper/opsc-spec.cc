// SPDX-License-Identifier: GPL-2.0-only
#include "opsc-spec.h"

#include "base/input-error.h"
#include "base/units.h"
#include "compute/shape-backend.h"
#include "policy/opsc-configuration.h"
#include "policy/outage.h"

#include <algorithm>
#include <iterator>
#include <sstream>

namespace splitllm
{

using namespace ns3;

namespace
{

constexpr std::uint64_t kLeastStateBytes = 16; // the record that TAB-Q has of every row; no codec takes less

/// A number of bits that weights of the device can have.
unsigned
ReadWeightBits(StrictObject& object, const std::string& key)
{
    const std::uint64_t bits = object.Integer(key, 1, 64, 16);
    if (bits != 4 && bits != 8 && bits != 16)
    {
        object.Fail(key, "is " + std::to_string(bits) + "; accepted: 4, 8, and 16, which leaves the weights as they are");
    }
    return static_cast<unsigned>(bits);
}

/// Columns of quantised weights that share a scale.
std::size_t
ReadGroup(StrictObject& object, const ModelConfig& config)
{
    const std::vector<std::size_t> accepted = AcceptedGroups(config);
    const std::size_t group = object.Integer("group", 1, 1 << 16, WeightPrecision::kGroup);
    if (std::ranges::find(accepted, group) == accepted.end())
    {
        object.Fail("group", "is " + std::to_string(group) + "; accepted: " + Joined(accepted));
    }
    return group;
}

/// Eq 8: "choose" says within what limits a configuration is looked for. The codec is that of its measurement.
void
Choose(StrictObject& scheme, Study& study, const std::filesystem::path& folder, const CodecContext& codecs)
{
    StrictObject choose = scheme.Object("choose");
    const std::filesystem::path file = folder / choose.String("accuracy");
    const OpscLimits limits{
        .drop = choose.Number("drop", 0.0, 1.0, 0.01),
        .memory = ReadBytes(choose, "memory"),
        .tokens = choose.Integer("tokens", 1, study.config.maxPositions, study.LongestContext())};
    choose.Finish();
    const AccuracyTable accuracy = AccuracyTable::Load(file, study.config);
    const auto chosen = ChooseConfiguration(study.config, accuracy, limits);
    if (!chosen)
    {
        scheme.Fail("choose",
                    "no configuration in " + file.string() + " keeps the accuracy and fits into " +
                        std::to_string(limits.memory) + " bytes with " + std::to_string(limits.tokens) + " tokens");
    }
    study.scheme.opsc.split = chosen->configuration.split;
    study.scheme.weightBits = chosen->configuration.weights;
    study.scheme.weightGroup = accuracy.group;
    study.scheme.activationBits = chosen->configuration.activationBits;
    Json json{{"codec", chosen->codec}};
    StrictObject measured(json, file.string());
    study.scheme.codec = ReadTensorCodec(measured, "codec", codecs);
}

void
ReadDeadline(StrictObject& scheme, Study& study, const CodecContext& codecs)
{
    OpscOptions& opsc = study.scheme.opsc;
    opsc.deadline = NanoSeconds(ReadDuration(scheme, "deadline").count());
    opsc.controlled = scheme.Choice("control", {"algorithm-2", "none"}, "algorithm-2") == "algorithm-2";
    if (opsc.controlled || scheme.Has("compressed")) // which a sweep over "control" leaves there
    {
        opsc.compressed = ReadTensorCodec(scheme, "compressed", codecs);
    }
    if (study.quality)
    {
        scheme.Fail("deadline", "may end an answer early, and quality is judged along whole answers; drop one of them");
    }
    for (const LinkSpec& link : study.links)
    {
        if (!link.CarriesWholeMessages())
        {
            scheme.Fail("deadline",
                        "needs a link that can tell how long a message takes; over TCP, as on link \"" + link.name +
                            "\", nobody can");
        }
    }
}

/// What the device computes before it can send the states of \p tokens tokens, if it is idle.
Time
FrontTime(const Study& study, std::size_t tokens)
{
    const DeviceProfile& hardware = study.Node(NodeRole::UserDevice).hardware;
    const SchemeSpec& scheme = study.scheme;
    ShapeBackend backend(study.shapeMode ? study.config.dtype : DType::F32);
    const auto model = std::make_shared<Model>();
    model->config = study.config;
    const auto resident = backend.Resident(
        model,
        OpscPrecision(study.config, scheme.opsc.split, scheme.weightBits, scheme.weightGroup));
    const auto cache = backend.NewCache(*resident, 0, scheme.opsc.split, study.config.maxPositions);
    Time total;
    const auto run = [&](auto computed) {
        const auto time = hardware.TimeOf(computed.operation, computed.rows, computed.work, study.config.dtype, {});
        total += NanoSeconds(time.count());
        return std::move(computed.value);
    };
    Tensor h = run(backend.Embed(*resident, std::vector<TokenId>(tokens, 0), 0));
    for (std::size_t l = 0; l < scheme.opsc.split; l++)
    {
        const Projections qkv = run(backend.Project(*resident, l, h));
        h = run(backend.FinishLayer(*resident, l, h, qkv, *cache));
    }
    return total;
}

/// What \p bytes take on \p link at worst.
Time
LinkTime(const LinkSpec& link, std::uint64_t bytes)
{
    if (link.type == LinkType::Service)
    {
        return ServiceLink(ServiceConfigOf(link)).ServiceTime(MessageKind::HiddenState, bytes) + link.delay;
    }
    const double seconds = WorstCaseLatency(link.fading.channel,
                                            static_cast<double>(link.rate.GetBitRate()),
                                            link.fading.epsilon,
                                            8.0 * static_cast<double>(bytes));
    return NanoSeconds(static_cast<std::int64_t>(std::min(seconds, 1e9) * 1e9)) + link.delay;
}

} // namespace

void
ReadOpsc(StrictObject& scheme, Study& study, const std::filesystem::path& folder, const CodecContext& codecs)
{
    OpscOptions& opsc = study.scheme.opsc;
    const bool split = scheme.Choice("placement", {"split", "device-first"}, "split") == "split";
    opsc.placement = split ? OpscPlacement::Split : OpscPlacement::DeviceFirst;
    if (scheme.Has("choose"))
    {
        Choose(scheme, study, folder, codecs);
    }
    else
    {
        opsc.split = scheme.Integer("split", 1, study.config.layers);
        study.scheme.weightBits.front = ReadWeightBits(scheme, "front_bits");
        study.scheme.weightBits.back = split ? 16 : ReadWeightBits(scheme, "back_bits");
        if (study.scheme.weightBits != FrontBack())
        {
            study.scheme.weightGroup = ReadGroup(scheme, study.config);
        }
        const std::uint64_t exact = 8 * SizeOf(study.scheme.codec->Exact());
        study.scheme.activationBits = static_cast<unsigned>(scheme.Integer("activation_bits", 1, 32, exact));
    }
    if (!split)
    {
        opsc.deviceTokens = static_cast<std::uint32_t>(scheme.Integer("device_tokens", 0, 1 << 20));
        return;
    }
    const std::string context = scheme.Choice("context", {"stateful", "stateless", "stateless-kv"}, "stateful");
    opsc.context = context == "stateful" ? OpscContext::Stateful
                                         : (context == "stateless" ? OpscContext::Stateless : OpscContext::StatelessKv);
    if (opsc.context == OpscContext::StatelessKv)
    {
        const bool printed = scheme.Choice("kv_payload", {"eq2", "needed"}, "eq2") == "eq2";
        opsc.kvPayload = printed ? KvPayload::Printed : KvPayload::Needed;
    }
    if (scheme.Has("deadline"))
    {
        ReadDeadline(scheme, study, codecs);
    }
}

void
CheckDeadline(const StrictObject& object, const Study& study)
{
    const std::optional<Time>& deadline = study.scheme.opsc.deadline;
    if (!deadline)
    {
        return;
    }
    std::size_t tokens = study.requests.front().prompt.size();
    for (const RequestSpec& request : study.requests)
    {
        tokens = std::min(tokens, request.prompt.size());
    }
    const std::string& user = study.Node(NodeRole::UserDevice).name;
    const std::string& server = study.Server().name;
    const auto link = std::ranges::find_if(study.links, [&](const LinkSpec& one) {
        return (one.from == user && one.to == server) || (one.to == user && one.from == server);
    });
    const Time computing = FrontTime(study, tokens);
    const Time sending = LinkTime(*link, tokens * kLeastStateBytes);
    if (computing + sending > *deadline)
    {
        std::ostringstream message;
        message << "is " << deadline->As(Time::MS) << ", which not even the shortest prompt, of " << tokens
                << " tokens, can keep: the front layers take " << computing.As(Time::MS) << " and its states "
                << sending.As(Time::MS) << " at least; accepted: more than both together";
        object.Fail("scheme.deadline", message.str());
    }
}

} // namespace splitllm
