// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_HELPER_H
#define SPLITLLM_HELPER_H

#include "ns3/address.h"
#include "ns3/node.h"
#include "ns3/object-factory.h"
#include "ns3/split-llm-servers.h"
#include "ns3/split-llm-user-device.h"

#include <cstddef>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace splitllm
{

struct CeCollmOptions;
class DeviceProfile;
struct Exits;
struct ModelConfig;
class OffloadPolicy;
struct OpscOptions;
class OutcomePlayer;
class OutcomeRecorder;
struct SideNetwork;
struct SpaOptions;
class TensorCodec;

/**
 * Installs the applications of one split model on nodes of a topology that you built.
 *
 *     SplitLlmHelper llm;
 *     llm.SetShape("llama-7b", "fp16");
 *     llm.SetAdapterShape(16, "fp16");
 *     llm.SetScheme("linfer");
 *     auto edge = llm.InstallEdgeServer(nodes.Get(1), "a800-80gb");
 *     auto user = llm.InstallUserDevice(nodes.Get(0), "device-13tflops", InetSocketAddress(address, 9000));
 *     user->AddRequest({.index = 0, .prompt = {1, 2, 3}, .newTokens = 8});
 *
 * A model is loaded once, when the first application is installed, and shared by all nodes. Paths and names that do not
 * fit throw InputError with one line that says what would.
 */
class SplitLlmHelper
{
  public:
    SplitLlmHelper();
    ~SplitLlmHelper();
    SplitLlmHelper(SplitLlmHelper&&) noexcept;

    /// Computes with the weights of a Hugging Face folder (numeric mode).
    void SetModel(const std::filesystem::path& folder);

    /// Computes with phantoms of a published shape (shape mode). \param dtype of weights: "fp32", "fp16", "bf16", or
    /// "int8", whose activations are fp16
    void SetShape(const std::string& name, const std::string& dtype);

    /// Computes with phantoms of the shape that a folder's config.json describes (shape mode); weights are not read.
    void SetShapeOf(const std::filesystem::path& folder, const std::string& dtype);

    /// Computes with phantoms of \p config (shape mode). \param activations element type that Work and KV bytes count
    void SetShape(const ModelConfig& config, const std::string& activations);

    /// The adapter in a folder: LoRA's in PEFT's format, or bottlenecks (llm/bottleneck.h) (numeric mode).
    void SetAdapter(const std::filesystem::path& folder);

    /// A phantom adapter of that rank (shape mode).
    void SetAdapterShape(std::uint32_t rank, const std::string& dtype);

    /// Phantom bottleneck adapters of that width (shape mode).
    void SetBottleneckShape(std::uint32_t width, const std::string& dtype);

    /// "server", "local", "mlora", "linfer", "dlora", "tlc", "opsc", "ce-collm", "naive-split", "spa", "lst" or
    /// "adapter-split".
    void SetScheme(const std::string& name);

    /// What decides about the cells of "tlc" and "dlora". \param firstLayer whether about those of layer 1 as well
    void SetPolicy(std::shared_ptr<const OffloadPolicy> policy, bool firstLayer = false);

    /// Whether "server" streams: the user sends a prompt once, and the tokens come without being asked for.
    void SetStream(bool stream);

    /// Share of the positions that "mlora" keeps in each layer's KV cache, above 0 and at most 1.
    void SetKeep(double share);

    /// What "ce-collm" is to do, all but its exits, and these.
    void SetCeCollm(const CeCollmOptions& options, std::shared_ptr<const Exits> exits);

    /// What "spa" or "lst" is to do, all but its side network, and that.
    void SetSpa(const SpaOptions& options, std::shared_ptr<const SideNetwork> side);

    /// What "opsc" is to do ("naive-split" has its split alone), and how many bits the weights of its device have in the
    /// layers up to the split and behind
    /// it: 4, 8, or 16 for those they are stored with. \param group columns that share a scale
    void SetOpsc(const OpscOptions& options, unsigned frontBits = 16, unsigned backBits = 16, std::size_t group = 64);

    /// Element type of tensors between nodes: "fp32", "fp16" (default) or "bf16".
    void SetWireType(const std::string& dtype);

    /// How tensors between nodes are coded, instead of element by element.
    void SetCodec(std::shared_ptr<const TensorCodec> codec);

    /// Temperature 0 (default) is greedy.
    void SetSampling(double temperature, double topP);

    /**
     * Beam search with so many hypotheses, in place of sampling; 0 (default) is none. "server" then streams.
     * \param lengthPenalty power of an answer's length that its score is divided by
     */
    void SetBeams(std::size_t beams, double lengthPenalty = 1.0);

    /// Positions that a request takes at most: of its prompt and its answer, without the last token. A server with
    /// KvMemory counts on it. Default: as many as the model has.
    void SetContext(std::size_t positions);

    /// Where named hardware profiles lie. Default: scenarios/hardware of the source tree.
    void SetProfileFolder(const std::filesystem::path& folder);

    /**
     * What computes: "cpu" (default) or "cuda".
     * \param timed the GPU times its operations: for hardware profiles with measured timing
     * \throws InputError if it cannot be had here
     */
    void SetBackend(const std::string& name, bool timed = false);

    /// Threads of the CPU backend; 0 (default) takes all cores. Never changes a result.
    void SetThreads(std::uint32_t threads);

    /**
     * For the applications installed from now on: who notes what numbers decide, or hands out what those of an earlier
     * run decided (then in shape mode); either may be null.
     */
    void SetOutcomes(std::shared_ptr<OutcomeRecorder> recorder, std::shared_ptr<OutcomePlayer> player);

    /// Attributes of the servers installed from now on.
    void SetServerAttribute(const std::string& name, const ns3::AttributeValue& value);

    /// Attributes of the user devices installed from now on.
    void SetUserAttribute(const std::string& name, const ns3::AttributeValue& value);

    ns3::Ptr<EdgeServer> InstallEdgeServer(ns3::Ptr<ns3::Node> node, const std::string& hardware);
    ns3::Ptr<EdgeServer> InstallEdgeServer(ns3::Ptr<ns3::Node> node, const DeviceProfile& hardware);
    ns3::Ptr<Cloud> InstallCloud(ns3::Ptr<ns3::Node> node, const std::string& hardware);
    ns3::Ptr<Cloud> InstallCloud(ns3::Ptr<ns3::Node> node, const DeviceProfile& hardware);

    /// \param server where the device connects; an invalid Address for a device that needs none
    ns3::Ptr<UserDevice> InstallUserDevice(ns3::Ptr<ns3::Node> node,
                                           const std::string& hardware,
                                           const ns3::Address& server);
    ns3::Ptr<UserDevice> InstallUserDevice(ns3::Ptr<ns3::Node> node,
                                           const DeviceProfile& hardware,
                                           const ns3::Address& server);

    /// Likewise; equal devices share \p hardware.
    ns3::Ptr<UserDevice> InstallUserDevice(ns3::Ptr<ns3::Node> node,
                                           std::shared_ptr<const DeviceProfile> hardware,
                                           const ns3::Address& server);

    /// Loads what was set, if that has not happened; throws InputError. \return the scheme that applications share
    std::shared_ptr<const Scheme> GetScheme();

  private:
    struct Parts;
    template <typename Application>
    ns3::Ptr<Application> Install(ns3::ObjectFactory& factory,
                                  ns3::Ptr<ns3::Node> node,
                                  std::shared_ptr<const DeviceProfile> hardware);
    DeviceProfile Profile(const std::string& name) const;

    ns3::ObjectFactory m_edge;
    ns3::ObjectFactory m_cloud;
    ns3::ObjectFactory m_user;
    std::uint32_t m_users = 0;
    std::unique_ptr<Parts> m_parts;
};

} // namespace splitllm

#endif // SPLITLLM_HELPER_H
