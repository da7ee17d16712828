// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_OFFLOAD_POLICY_H
#define SPLITLLM_OFFLOAD_POLICY_H

#include "base/strict-json.h"
#include "llm/config.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace splitllm
{

/// LoRA at one layer for one token: what an exchange between edge and device is for.
struct Cell
{
    std::uint32_t request = 0; //!< index in the workload
    std::size_t position = 0;  //!< in the sequence, from 0
    std::size_t layer = 1;     //!< from 1
};

/// What the edge server knows about a cell when Tier 1 decides.
struct EdgeView
{
    Cell cell;
    std::span<const float> embedding; //!< h0 of the token, d elements; empty in shape mode
    std::span<const float> hidden;    //!< the residual that enters the layer, d elements; empty in shape mode
    double draw = 0.0;                //!< uniform in [0, 1), of this cell
    double tokenDraw = 0.0;           //!< uniform in [0, 1), the same for all layers of the token
};

/// What the device knows about an offloaded cell when Tier 2 decides.
struct DeviceView
{
    Cell cell;
    std::span<const float> update;   //!< LoRA's [Q | K | V], q + 2 kv elements; empty in shape mode
    std::span<const float> previous; //!< that of the last layer computed for this token; empty if there is none
    std::array<float, 3> baseNorms{}; //!< of the base projections, where the policy asks for them
    double draw = 0.0;               //!< uniform in [0, 1), of this cell
};

/// A decision, and the score that it was taken by where there is one.
struct Verdict
{
    bool yes = true;
    std::optional<double> score;
};

/// What a decision about one cell costs the node that takes it.
struct DecisionCost
{
    std::uint64_t flops = 0;
    std::uint64_t bytes = 0;      //!< of parameters read for a layer, however many cells it decides about
    std::uint64_t bytesEach = 0;  //!< of inputs read for a cell
    bool IsFree() const
    {
        return flops == 0 && bytes == 0 && bytesEach == 0;
    }
};

/**
 * Decides which cells of LoRA are worth an exchange (TLC-Calibrator, section 4): Tier 1 at the edge, whether the layer's
 * input goes to the device; Tier 2 at the device, whether its updates come back. One object serves all sessions, so a
 * decision depends on the view alone.
 *
 * To try a policy of your own: derive from this class, give it a name with RegisterOffloadPolicy, and name it in a
 * study's scheme.policy (examples/split-llm-own-policy.cc).
 */
class OffloadPolicy
{
  public:
    virtual ~OffloadPolicy() = default;

    virtual Verdict Offload(const EdgeView& view) const = 0;

    /// Default: what was computed comes back.
    virtual Verdict Return(const DeviceView& view) const;

    /// Whether a message must say which rows it carries. Default: yes.
    virtual bool Selects() const;

    /// Whether the norms of the base projections travel with a layer's input. Default: no.
    virtual bool UsesBaseNorms() const;

    /// Costs that are charged to simulated time. Default: none.
    virtual DecisionCost OffloadCost() const;
    virtual DecisionCost ReturnCost() const;

    /// Bytes that it keeps on each node for a session: it was made for the user's adapter. Default: none.
    virtual std::uint64_t EdgeBytes() const;
    virtual std::uint64_t DeviceBytes() const;
};

/// What a policy is made for.
struct PolicyContext
{
    ModelConfig config;
    bool shapeMode = false;              //!< views hold no numbers
    std::vector<std::size_t> positions;  //!< of each request: what is decided about
    bool shuffled = false;               //!< requests come in an order that is not known yet
    std::filesystem::path calibrators;   //!< where relative paths of calibrators begin
    std::filesystem::path study;         //!< folder of the study, where relative paths of files begin
};

/// Makes a policy from its parameters in a study. Reads every key but "name". \throws InputError
using PolicyFactory =
    std::function<std::shared_ptr<const OffloadPolicy>(StrictObject& parameters, const PolicyContext& context)>;

/// Makes \p name known to studies. A name that exists is replaced.
void RegisterOffloadPolicy(const std::string& name, PolicyFactory factory);

/// The names that studies may use, in alphabetical order.
std::vector<std::string> OffloadPolicyNames();

/// The policy that \p parameters name and describe. \throws InputError
std::shared_ptr<const OffloadPolicy> MakeOffloadPolicy(StrictObject& parameters, const PolicyContext& context);

} // namespace splitllm

#endif // SPLITLLM_OFFLOAD_POLICY_H
