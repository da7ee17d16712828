// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_STUDY_H
#define SPLITLLM_STUDY_H

#include "arrivals.h"
#include "base/strict-json.h"
#include "codec/tensor-codec.h"
#include "compute/device-profile.h"
#include "compute/make-backend.h"
#include "compute/weight-precision.h"
#include "link-spec.h"
#include "llm/bottleneck.h"
#include "llm/config.h"
#include "llm/sampling.h"
#include "outage-spec.h"
#include "policy/offload-policy.h"
#include "llm/exits.h"
#include "llm/side-network.h"
#include "schemes/ce-collm/ce-collm-options.h"
#include "schemes/opsc/opsc-options.h"
#include "schemes/spa/spa-options.h"
#include "sweep-space.h"
#include "tensor/dtype.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace splitllm
{

/// Where a study's names are looked up.
struct StudyFolders
{
    std::filesystem::path models;   //!< model folders, and adapters that belong to one
    std::filesystem::path adapters; //!< adapters that are not there
    std::filesystem::path profiles; //!< NAME.json hardware profiles
    std::filesystem::path prompts;  //!< NAME.jsonl prompt sets
    std::filesystem::path calibrators; //!< calibrator folders
    std::filesystem::path calibrations; //!< activation statistics
    std::filesystem::path exits; //!< folders of trained early exits
    std::filesystem::path sideNetworks; //!< folders of trained side networks
};

/// The model of a study and its adapter.
struct ModelSpec
{
    std::filesystem::path folder;        //!< numeric mode; in shape mode its config.json alone is read
    std::string shape;                   //!< shape mode, where no folder is given
    std::string dtype;                   //!< of weights, shape mode
    std::filesystem::path adapterFolder; //!< numeric mode; empty without an adapter
    std::uint32_t adapterRank = 0;       //!< shape mode; 0 without a LoRA adapter
    std::uint32_t bottleneckWidth = 0;   //!< shape mode; 0 without bottleneck adapters
    std::string adapterDtype;            //!< shape mode

    bool HasLora() const
    {
        return adapterRank > 0 || (!adapterFolder.empty() && !HasBottleneck());
    }

    bool HasBottleneck() const
    {
        return bottleneckWidth > 0 || BottleneckAdapter::IsIn(adapterFolder);
    }
};

enum class NodeRole
{
    UserDevice,
    EdgeServer,
    Cloud,
    Gateway, //!< forwards what users and server send, and computes nothing
};

/// A group of equal nodes.
struct NodeSpec
{
    std::string name;
    NodeRole role = NodeRole::UserDevice;
    std::uint32_t count = 1;
    DeviceProfile hardware;
    std::uint32_t batch = 1;    //!< servers: sessions whose equal operations run as one, at most
    std::uint64_t kvMemory = 0; //!< servers: bytes that requests under way may need for KV; 0: no request waits
    std::vector<OutageSpec> outages; //!< servers: when they are down, and lose what they kept for users
};

/// How the model is split, and what decides on the way.
struct SchemeSpec
{
    std::string name;
    std::shared_ptr<const TensorCodec> codec; //!< of tensors between nodes
    std::shared_ptr<const OffloadPolicy> policy; //!< "tlc" and "dlora"
    bool firstLayer = false; //!< whether the policy decides about layer 1
    bool stream = false;     //!< "server": the user asks once an answer, not once a token
    double keep = 1.0;       //!< "mlora": share of the positions that each layer's cache keeps
    OpscOptions opsc;        //!< "opsc", all but the model in the device's precision; "naive-split": its split
    FrontBack weightBits;    //!< "opsc": of the device's layers; 16 for what they are stored with
    std::size_t weightGroup = WeightPrecision::kGroup; //!< "opsc": columns of quantised weights that share a scale
    unsigned activationBits = 16; //!< "opsc": nominal, for Eq 2
    CeCollmOptions ceCollm; //!< "ce-collm", all but the exits
    std::shared_ptr<const Exits> exits; //!< "ce-collm"
    SpaOptions spa; //!< "spa" and "lst", all but the side network
    std::shared_ptr<const SideNetwork> side; //!< "spa" and "lst"
};

/// One request of the workload.
struct RequestSpec
{
    std::string id;    //!< of the prompt
    std::string group; //!< of the prompt; may be empty
    std::vector<TokenId> prompt;
    std::vector<TokenId> answer; //!< what a correct model says, with the token that ends it; may be empty
};

struct RecordedRun;

/// One point of a study: everything that a run needs.
struct Study
{
    std::string name;
    std::uint32_t seed = 1;
    std::uint32_t repeat = 1;
    bool shapeMode = false;
    std::vector<std::shared_ptr<const RecordedRun>> replayed; //!< mode "replay": one a recorded repetition
    BackendChoice backend; //!< numeric mode: what computes, apart from its threads
    ModelSpec model;
    ModelConfig config; //!< the model's shape
    std::vector<NodeSpec> nodes;
    std::vector<LinkSpec> links;
    SchemeSpec scheme;
    Sampling sampling;
    std::vector<RequestSpec> requests; //!< of a replay those of each recorded repetition in turn
    bool shuffled = false; //!< requests come in an order drawn from the seed; in a replay in the recorded one
    std::uint32_t requestCount = 0; //!< how many of them run
    ArrivalSpec arrivals;        //!< when they come in
    std::uint32_t newTokens = 0; //!< at most, for each
    std::vector<TokenId> stop;   //!< tokens that end an answer before that
    bool quality = false;        //!< compares with the full model along the reference answers
    std::uint32_t timelineTokens = 0; //!< of the first request that the timeline shows

    /// Whether recorded runs decide what numbers would.
    bool Replays() const
    {
        return !replayed.empty();
    }

    /// The recorded run that \p repetition replays. \throws std::logic_error unless it Replays
    const RecordedRun& ReplayedRun(std::uint32_t repetition) const;

    /// The group with the given role. \throws std::logic_error if there is none
    const NodeSpec& Node(NodeRole role) const;

    /// The gateway between users and server; null if there is none.
    const NodeSpec* Gateway() const;

    /// The link between two groups. \throws std::logic_error if there is none
    const LinkSpec& LinkBetween(const NodeSpec& a, const NodeSpec& b) const;

    /**
     * The group that serves the users: of an edge server and a cloud the one that the scheme is made for.
     * \throws std::logic_error if there is none
     */
    const NodeSpec& Server() const;

    /// Positions that a request takes at most, along the reference answer as well.
    std::size_t PositionsOf(const RequestSpec& request) const;

    /// That of the longest request.
    std::size_t LongestContext() const;
};

/**
 * Reads whether what messages of \p kinds say costs what the link charges ("message", default) or nothing ("free", as
 * some papers count), which only service links can do.
 */
void ReadAccounting(StrictObject& scheme, Study& study, const std::string& key, const std::vector<MessageKind>& kinds);

/**
 * Reads a point: a study object without "sweep" and "expect". Defaults are written into \p json, so that it lists every
 * key that the study has.
 * \param origin the study's file, for messages
 * \throws InputError "ORIGIN: PATH: what is wrong; what is accepted"
 */
Study ReadStudy(Json& json, const std::string& origin, const StudyFolders& folders);

/// What an "expect" entry claims about the points that it selects.
struct Expectation
{
    Json where; //!< swept keys and their values, of objects their labels will do; empty selects every point
    std::string metric;
    double value = 0.0;
    double tolerance = 0.0; //!< absolute
    std::string source;
};

/// Whether \p expectation is about \p point.
bool Selects(const Expectation& expectation, const PointSet& point);

/// A study file: the study itself, what is swept, and what is expected.
struct StudyFile
{
    Json study; //!< without "sweep" and "expect"
    std::vector<PointSet> points; //!< one empty set where nothing is swept
    std::vector<Expectation> expectations;
    std::string origin;
};

/**
 * Loads a study file and applies overrides to it.
 * \param overrides path = value; a swept path is then swept over that value alone, and "sweep.KEY" sets what is swept
 * \throws InputError
 */
StudyFile LoadStudyFile(const std::filesystem::path& file,
                        const std::vector<std::pair<std::string, std::string>>& overrides);

/// The study with the values of \p point in place. \throws InputError if a path leads through something that is no object
Json PointOf(const StudyFile& file, const PointSet& point);

} // namespace splitllm

#endif // SPLITLLM_STUDY_H
