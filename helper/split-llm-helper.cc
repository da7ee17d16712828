// SPDX-License-Identifier: GPL-2.0-only
#include "split-llm-helper.h"

#include "base/input-error.h"
#include "base/strict-json.h"
#include "compute/make-backend.h"
#include "compute/device-profile.h"
#include "compute/shape-backend.h"
#include "schemes/scheme.h"

#include "ns3/address.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

namespace splitllm
{

using namespace ns3;

namespace
{

/// The type called \p name, one of \p accepted. \param what kind of element type it is, for the message
DType
ElementType(const std::string& name, const std::string& what, const std::vector<std::string>& accepted)
{
    if (std::ranges::find(accepted, name) == accepted.end())
    {
        throw InputError("\"" + name + "\" is not an element type" + what + "; accepted: " + Joined(accepted));
    }
    return *DTypeFromName(name);
}

DType
WeightType(const std::string& name)
{
    return ElementType(name, " of weights", {"fp32", "fp16", "bf16", "int8"});
}

/// 8-bit weights are multiplied with 16-bit activations.
std::string
ActivationsWith(const std::string& weights)
{
    return weights == "int8" ? "fp16" : weights;
}

DType
ActivationType(const std::string& name)
{
    return ElementType(name, "", {"fp32", "fp16", "bf16"});
}

} // namespace

/// What was set, and what became of it.
struct SplitLlmHelper::Parts
{
    std::filesystem::path modelFolder;
    std::filesystem::path adapterFolder;
    std::optional<ModelConfig> shape; //!< of phantoms
    DType activations = DType::F32;   //!< of phantoms
    std::uint32_t adapterRank = 0;
    std::uint32_t bottleneckWidth = 0;
    DType adapterDtype = DType::F16; //!< of either
    std::string schemeName = "linfer";
    SchemeOptions schemeOptions;
    std::shared_ptr<const TensorCodec> codec = MakeDenseCodec(DType::F16);
    Sampling sampling;
    std::shared_ptr<const Exits> exits; //!< CE-CoLLM's
    std::shared_ptr<const SideNetwork> side; //!< SPA's
    FrontBack deviceBits; //!< of the weights of OPSC's device
    std::size_t group = WeightPrecision::kGroup;
    std::optional<std::size_t> context;
    std::filesystem::path profiles = SPLITLLM_PROFILE_DIR;
    BackendChoice backendChoice;
    std::shared_ptr<OutcomeRecorder> recorder;
    std::shared_ptr<OutcomePlayer> player;

    std::shared_ptr<Backend> backend;
    std::shared_ptr<const Scheme> scheme;

    void Load();
    std::shared_ptr<const ResidentModel> OnDevice(std::shared_ptr<const Model> model) const;
};

void
SplitLlmHelper::Parts::Load()
{
    SchemeParts parts{.model = nullptr, .adapter = nullptr, .bottleneck = nullptr, .sampling = sampling, .codec = codec, .context = context};
    if (shape)
    {
        const auto model = std::make_shared<Model>();
        model->config = *shape;
        backend = std::make_shared<ShapeBackend>(activations);
        parts.model = backend->Resident(model);
        schemeOptions.opsc.device = OnDevice(model);
        if (adapterRank > 0)
        {
            const auto adapter = std::make_shared<Adapter>();
            adapter->rank = adapterRank;
            adapter->layers.resize(model->config.layers);
            adapter->layers.front().query.a.dtype = adapterDtype;
            parts.adapter = backend->Resident(adapter, model->config);
        }
        if (bottleneckWidth > 0)
        {
            const auto bottleneck = std::make_shared<BottleneckAdapter>();
            bottleneck->width = bottleneckWidth;
            bottleneck->layers.resize(model->config.layers);
            bottleneck->layers.front().attention.down.weight.dtype = adapterDtype;
            parts.bottleneck = backend->Resident(bottleneck, model->config);
        }
    }
    else
    {
        if (modelFolder.empty())
        {
            throw InputError("no model: call SetModel or SetShape");
        }
        const std::shared_ptr<const Model> model = Model::Load(modelFolder);
        backend = MakeBackend(backendChoice);
        parts.model = backend->Resident(model);
        schemeOptions.opsc.device = OnDevice(model);
        if (BottleneckAdapter::IsIn(adapterFolder))
        {
            parts.bottleneck = backend->Resident(BottleneckAdapter::Load(adapterFolder, model->config), model->config);
        }
        else if (!adapterFolder.empty())
        {
            parts.adapter = backend->Resident(Adapter::Load(adapterFolder, model->config), model->config);
        }
    }
    if (exits)
    {
        schemeOptions.ceCollm.exits = backend->Resident(exits, parts.model->Config());
    }
    if (side)
    {
        schemeOptions.spa.side = backend->Resident(side, parts.model->Config());
    }
    scheme = MakeScheme(schemeName, std::move(parts), schemeOptions);
}

/// The model in the precision of OPSC's device; null where that is the precision it is stored with.
std::shared_ptr<const ResidentModel>
SplitLlmHelper::Parts::OnDevice(std::shared_ptr<const Model> model) const
{
    if (schemeName != "opsc" || deviceBits == FrontBack())
    {
        return nullptr;
    }
    return backend->Resident(model, OpscPrecision(model->config, schemeOptions.opsc.split, deviceBits, group));
}

SplitLlmHelper::SplitLlmHelper()
    : m_parts(std::make_unique<Parts>())
{
    m_edge.SetTypeId(EdgeServer::GetTypeId());
    m_cloud.SetTypeId(Cloud::GetTypeId());
    m_user.SetTypeId(UserDevice::GetTypeId());
}

SplitLlmHelper::~SplitLlmHelper() = default;
SplitLlmHelper::SplitLlmHelper(SplitLlmHelper&&) noexcept = default;

void
SplitLlmHelper::SetModel(const std::filesystem::path& folder)
{
    m_parts->modelFolder = folder;
}

void
SplitLlmHelper::SetShape(const std::string& name, const std::string& dtype)
{
    SetShape(NamedShape(name, WeightType(dtype)), ActivationsWith(dtype));
}

void
SplitLlmHelper::SetShapeOf(const std::filesystem::path& folder, const std::string& dtype)
{
    ModelConfig config = LoadConfig(folder);
    config.dtype = WeightType(dtype);
    SetShape(config, ActivationsWith(dtype));
}

void
SplitLlmHelper::SetShape(const ModelConfig& config, const std::string& activations)
{
    m_parts->shape = config;
    m_parts->activations = ActivationType(activations);
}

void
SplitLlmHelper::SetAdapter(const std::filesystem::path& folder)
{
    m_parts->adapterFolder = folder;
}

void
SplitLlmHelper::SetAdapterShape(std::uint32_t rank, const std::string& dtype)
{
    m_parts->adapterRank = rank;
    m_parts->adapterDtype = ActivationType(dtype);
}

void
SplitLlmHelper::SetBottleneckShape(std::uint32_t width, const std::string& dtype)
{
    m_parts->bottleneckWidth = width;
    m_parts->adapterDtype = ActivationType(dtype);
}

void
SplitLlmHelper::SetScheme(const std::string& name)
{
    m_parts->schemeName = name;
}

void
SplitLlmHelper::SetPolicy(std::shared_ptr<const OffloadPolicy> policy, bool firstLayer)
{
    m_parts->schemeOptions.policy = std::move(policy);
    m_parts->schemeOptions.firstLayer = firstLayer;
}

void
SplitLlmHelper::SetStream(bool stream)
{
    m_parts->schemeOptions.stream = stream;
}

void
SplitLlmHelper::SetKeep(double share)
{
    m_parts->schemeOptions.keep = share;
}

void
SplitLlmHelper::SetOpsc(const OpscOptions& options, unsigned frontBits, unsigned backBits, std::size_t group)
{
    m_parts->schemeOptions.opsc = options;
    m_parts->deviceBits = {frontBits, backBits};
    m_parts->group = group;
}

void
SplitLlmHelper::SetCeCollm(const CeCollmOptions& options, std::shared_ptr<const Exits> exits)
{
    m_parts->schemeOptions.ceCollm = options;
    m_parts->exits = std::move(exits);
}

void
SplitLlmHelper::SetSpa(const SpaOptions& options, std::shared_ptr<const SideNetwork> side)
{
    m_parts->schemeOptions.spa = options;
    m_parts->side = std::move(side);
}

void
SplitLlmHelper::SetWireType(const std::string& dtype)
{
    m_parts->codec = MakeDenseCodec(ActivationType(dtype));
}

void
SplitLlmHelper::SetCodec(std::shared_ptr<const TensorCodec> codec)
{
    m_parts->codec = std::move(codec);
}

void
SplitLlmHelper::SetSampling(double temperature, double topP)
{
    m_parts->sampling.temperature = temperature;
    m_parts->sampling.topP = topP;
}

void
SplitLlmHelper::SetBeams(std::size_t beams, double lengthPenalty)
{
    m_parts->sampling.beams = beams;
    m_parts->sampling.lengthPenalty = lengthPenalty;
}

void
SplitLlmHelper::SetContext(std::size_t positions)
{
    m_parts->context = positions;
}

void
SplitLlmHelper::SetProfileFolder(const std::filesystem::path& folder)
{
    m_parts->profiles = folder;
}

void
SplitLlmHelper::SetBackend(const std::string& name, bool timed)
{
    const std::vector<std::string> names = BackendNames();
    if (std::ranges::find(names, name) == names.end())
    {
        throw InputError("backend \"" + name + "\" is not known; accepted: " + Joined(names));
    }
    m_parts->backendChoice.name = BackendFromName(name);
    m_parts->backendChoice.times = timed ? CudaTimes::Events : CudaTimes::None;
    const std::string why = WhyNot(m_parts->backendChoice.name);
    if (!why.empty())
    {
        throw InputError("backend \"" + name + "\": " + why);
    }
}

void
SplitLlmHelper::SetThreads(std::uint32_t threads)
{
    m_parts->backendChoice.threads = threads;
}

void
SplitLlmHelper::SetOutcomes(std::shared_ptr<OutcomeRecorder> recorder, std::shared_ptr<OutcomePlayer> player)
{
    m_parts->recorder = std::move(recorder);
    m_parts->player = std::move(player);
}

void
SplitLlmHelper::SetServerAttribute(const std::string& name, const AttributeValue& value)
{
    m_edge.Set(name, value);
    m_cloud.Set(name, value);
}

void
SplitLlmHelper::SetUserAttribute(const std::string& name, const AttributeValue& value)
{
    m_user.Set(name, value);
}

std::shared_ptr<const Scheme>
SplitLlmHelper::GetScheme()
{
    if (!m_parts->scheme)
    {
        m_parts->Load();
    }
    return m_parts->scheme;
}

DeviceProfile
SplitLlmHelper::Profile(const std::string& name) const
{
    return DeviceProfile::Load(name, m_parts->profiles);
}

template <typename Application>
Ptr<Application>
SplitLlmHelper::Install(ObjectFactory& factory, Ptr<Node> node, std::shared_ptr<const DeviceProfile> hardware)
{
    auto application = factory.Create<Application>();
    application->SetScheme(GetScheme());
    application->SetMachine(m_parts->backend, std::move(hardware));
    application->SetOutcomes(m_parts->recorder, m_parts->player);
    node->AddApplication(application);
    return application;
}

Ptr<EdgeServer>
SplitLlmHelper::InstallEdgeServer(Ptr<Node> node, const std::string& hardware)
{
    return InstallEdgeServer(node, Profile(hardware));
}

Ptr<EdgeServer>
SplitLlmHelper::InstallEdgeServer(Ptr<Node> node, const DeviceProfile& hardware)
{
    return Install<EdgeServer>(m_edge, node, std::make_shared<const DeviceProfile>(hardware));
}

Ptr<Cloud>
SplitLlmHelper::InstallCloud(Ptr<Node> node, const std::string& hardware)
{
    return InstallCloud(node, Profile(hardware));
}

Ptr<Cloud>
SplitLlmHelper::InstallCloud(Ptr<Node> node, const DeviceProfile& hardware)
{
    return Install<Cloud>(m_cloud, node, std::make_shared<const DeviceProfile>(hardware));
}

Ptr<UserDevice>
SplitLlmHelper::InstallUserDevice(Ptr<Node> node, const std::string& hardware, const Address& server)
{
    return InstallUserDevice(node, Profile(hardware), server);
}

Ptr<UserDevice>
SplitLlmHelper::InstallUserDevice(Ptr<Node> node, const DeviceProfile& hardware, const Address& server)
{
    return InstallUserDevice(node, std::make_shared<const DeviceProfile>(hardware), server);
}

Ptr<UserDevice>
SplitLlmHelper::InstallUserDevice(Ptr<Node> node, std::shared_ptr<const DeviceProfile> hardware, const Address& server)
{
    auto user = Install<UserDevice>(m_user, node, std::move(hardware));
    user->SetSession(m_users++);
    if (!server.IsInvalid())
    {
        user->SetAttribute("Remote", AddressValue(server));
    }
    return user;
}

} // namespace splitllm
