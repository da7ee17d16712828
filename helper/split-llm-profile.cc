// SPDX-License-Identifier: GPL-2.0-only

// split-llm-profile: measures how long this machine takes for a model's operations, as a hardware profile.
//
//     split-llm-profile --model=models/smollm2-135m-instruct --out=scenarios/hardware/this-host.json

#include "base/input-error.h"
#include "base/out-of-memory.h"
#include "compute/cpu/kernels.h"
#include "compute/make-backend.h"
#include "device-measurement.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

using namespace splitllm;

namespace
{

constexpr int kBadInput = 2;
constexpr int kInternalError = 3;

constexpr const char* kUsage =
    "usage: split-llm-profile --model=DIR --out=NAME.json [OPTION]...\n"
    "  --model=DIR          the model whose operations are measured\n"
    "  --out=FILE           the profile; its name is the file's\n"
    "  --force              replaces a file that is there\n"
    "  --backend=NAME       what computes: cpu, or cuda where there is a GPU; default: cpu\n"
    "  --threads=N          of the CPU; default: one for each core\n"
    "  --adapter=DIR        a LoRA adapter or bottleneck adapters of the model: measures them too\n"
    "  --exits=DIR          early exits of the model, as CE-CoLLM has them\n"
    "  --side-network=DIR   a side network and its gate, as SPA has them\n"
    "  --codec=CODEC        also encoding and decoding, such as {\"name\": \"tab-q\", \"bits\": 4}\n"
    "  --bits=N,...         precisions of the weights; default: as they are stored\n"
    "  --group=N            columns that share a scale in quantised weights; default: 64\n"
    "  --rows=N,...         rows of one sequence; default: 1,2,4,8,16,32,64,128\n"
    "  --contexts=N,...     entries that a sequence has before; default: 0,64,256,512\n"
    "  --sequences=N,...    sequences that a server batches; none: empty; default: 2,4,8\n"
    "  --layers=N           layers that follow one another; default: 4\n"
    "  --repeats=N          default: 10\n"
    "  --prune              measures pruning of caches too\n"
    "  --date=TEXT          the day, for the profile\n";

struct Options
{
    std::filesystem::path model;
    std::filesystem::path out;
    std::filesystem::path adapter;
    std::filesystem::path exits;
    std::filesystem::path side;
    std::string backend = "cpu";
    std::string codec;
    std::string date;
    bool force = false;
    std::vector<std::size_t> bits;
    std::size_t group = WeightPrecision::kGroup;
    std::size_t threads = 0;
    MeasurementPlan plan;
};

/// The numbers of \p text, which has commas between them.
std::vector<std::size_t>
ReadNumbers(const std::string& name, const std::string& text)
{
    std::vector<std::size_t> numbers;
    for (const char *at = text.data(), *end = at + text.size(); at != end;)
    {
        const auto [stop, error] = std::from_chars(at, end, numbers.emplace_back());
        if (error != std::errc() || (stop != end && (*stop != ',' || stop + 1 == end)))
        {
            throw InputError(name + ": \"" + text + "\" is no list of numbers such as 1,2,4");
        }
        at = stop == end ? end : stop + 1;
    }
    return numbers;
}

std::size_t
ReadNumber(const std::string& name, const std::string& text, std::size_t most)
{
    const std::vector<std::size_t> numbers = ReadNumbers(name, text);
    if (numbers.size() != 1 || numbers.front() > most)
    {
        throw InputError(name + ": \"" + text + "\" is no number from 0 to " + std::to_string(most));
    }
    return numbers.front();
}

Options
ReadOptions(int argc, char* argv[])
{
    Options options;
    MeasurementPlan& plan = options.plan;
    using Setter = std::function<void(const std::string& name, const std::string& value)>;
    const auto text = [](auto& to) { return [&to](const std::string&, const std::string& value) { to = value; }; };
    const auto number = [](std::size_t& to, std::size_t most) {
        return [&to, most](const std::string& name, const std::string& value) { to = ReadNumber(name, value, most); };
    };
    const auto numbers = [](std::vector<std::size_t>& to) {
        return [&to](const std::string& name, const std::string& value) { to = ReadNumbers(name, value); };
    };
    const auto flag = [](bool& to) {
        return [&to](const std::string& name, const std::string& value) {
            if (!value.empty())
            {
                throw InputError(name + ": takes no value");
            }
            to = true;
        };
    };
    const std::map<std::string, Setter> setters{{"--model", text(options.model)},
                                                {"--out", text(options.out)},
                                                {"--adapter", text(options.adapter)},
                                                {"--exits", text(options.exits)},
                                                {"--side-network", text(options.side)},
                                                {"--backend", text(options.backend)},
                                                {"--codec", text(options.codec)},
                                                {"--date", text(options.date)},
                                                {"--force", flag(options.force)},
                                                {"--bits", numbers(options.bits)},
                                                {"--group", number(options.group, 1024)},
                                                {"--threads", number(options.threads, 1024)},
                                                {"--rows", numbers(plan.rows)},
                                                {"--contexts", numbers(plan.contexts)},
                                                {"--sequences", numbers(plan.sequences)},
                                                {"--layers", number(plan.layers, 1'000'000)},
                                                {"--repeats", number(plan.repeats, 1'000'000)},
                                                {"--prune", flag(plan.prune)}};
    for (int i = 1; i < argc; i++)
    {
        const std::string argument = argv[i];
        const std::size_t equals = argument.find('=');
        const std::string name = argument.substr(0, equals);
        const auto setter = setters.find(name);
        if (setter == setters.end())
        {
            throw InputError(name + ": no such option; --help lists those that there are");
        }
        setter->second(name, equals == std::string::npos ? "" : argument.substr(equals + 1));
    }
    if (options.model.empty() || options.out.empty())
    {
        throw InputError("--model and --out are expected; --help says more");
    }
    if (options.out.extension() != ".json")
    {
        throw InputError("--out: " + options.out.string() + " is no profile; a name that ends in .json is expected");
    }
    if (!options.force && std::filesystem::exists(options.out))
    {
        throw InputError("--out: " + options.out.string() + " is there; --force replaces it");
    }
    return options;
}

/// What computes, and how a profile calls it.
struct Device
{
    std::shared_ptr<Backend> backend;
    std::string name;
    std::string software;
};

/// What Linux calls this host's processor.
std::string
ProcessorName()
{
    std::ifstream stream("/proc/cpuinfo");
    std::string line;
    while (std::getline(stream, line))
    {
        if (line.starts_with("model name"))
        {
            return line.substr(std::min(line.size(), line.find(':') + 2));
        }
    }
    return "a processor without a name";
}

Device
OpenDevice(const Options& options)
{
    const std::vector<std::string> names = BackendNames();
    if (std::ranges::find(names, options.backend) == names.end())
    {
        throw InputError("--backend: \"" + options.backend + "\" is none; accepted: " + Joined(names));
    }
    const std::size_t cores = std::max(1U, std::thread::hardware_concurrency());
    const BackendChoice choice{.name = BackendFromName(options.backend),
                               .threads = options.threads == 0 ? cores : options.threads,
                               .times = CudaTimes::Events};
    Device device{.backend = MakeBackend(choice),
                  .name = CudaDeviceName(),
                  .software = std::string("split-llm ") + SPLITLLM_VERSION + ", compiler: " + __VERSION__};
    if (choice.name == BackendName::Cpu)
    {
        device.name = ProcessorName() + ", threads: " + std::to_string(choice.threads);
        device.software += ", instruction set: " + std::string(BestKernels().name);
    }
    return device;
}

/// All layers of \p config in \p bits.
WeightPrecision
PrecisionOf(const ModelConfig& config, std::size_t bits, std::size_t group)
{
    const std::vector<unsigned> accepted = AcceptedWeightBits(config.dtype);
    if (std::ranges::find(accepted, bits) == accepted.end())
    {
        throw InputError("--bits: " + std::to_string(bits) + " bits; one of " + Joined(accepted) + " is expected");
    }
    if (bits == accepted.back())
    {
        return WeightPrecision(config);
    }
    const std::vector<std::size_t> groups = AcceptedGroups(config);
    if (std::ranges::find(groups, group) == groups.end())
    {
        throw InputError("--group: " + std::to_string(group) + "; one of " + Joined(groups) + " is expected");
    }
    return WeightPrecision::Front(config, config.layers, static_cast<unsigned>(bits), group);
}

CodecContext
Context(const ModelConfig& config)
{
    return {.config = config, .shapeMode = false, .calibrations = SPLITLLM_CALIBRATION_DIR};
}

MeasuredParts
Load(const Options& options, Backend& backend)
{
    const auto model = Model::Load(options.model);
    const ModelConfig& config = model->config;
    MeasuredParts parts;
    if (options.bits.empty())
    {
        parts.models.push_back(backend.Resident(model));
    }
    for (const std::size_t bits : options.bits)
    {
        parts.models.push_back(backend.Resident(model, PrecisionOf(config, bits, options.group)));
    }
    if (BottleneckAdapter::IsIn(options.adapter))
    {
        parts.bottleneck = backend.Resident(BottleneckAdapter::Load(options.adapter, config), config);
    }
    else if (!options.adapter.empty())
    {
        parts.adapter = backend.Resident(Adapter::Load(options.adapter, config), config);
    }
    if (!options.exits.empty())
    {
        parts.exits = backend.Resident(Exits::Load(options.exits, config), config);
    }
    if (!options.side.empty())
    {
        parts.side = backend.Resident(SideNetwork::Load(options.side, config), config);
    }
    if (!options.codec.empty())
    {
        Json json;
        json["codec"] = options.codec.starts_with("{") ? ParseStrictJson(options.codec, "--codec") : Json(options.codec);
        StrictObject object(json, "--codec");
        parts.codec = ReadTensorCodec(object, "codec", Context(config));
    }
    return parts;
}

void
Run(const Options& options, const std::string& command)
{
    const Device device = OpenDevice(options);
    const MeasuredParts parts = Load(options, *device.backend);
    const auto calls = MeasureDevice(*device.backend, parts, options.plan, [](const std::string& line) {
        std::fprintf(stderr, "%s\n", line.c_str());
    });
    std::fputs(MeasuredTable(calls).c_str(), stdout);
    const MeasuredOn on{.device = device.name,
                        .software = device.software,
                        .model = std::filesystem::weakly_canonical(options.model).filename().string(),
                        .command = command,
                        .date = options.date};
    std::ofstream stream(options.out);
    stream << MeasuredProfile(options.out.stem().string(), on, calls);
    if (!stream.flush())
    {
        throw InputError(options.out.string() + ": cannot be written");
    }
}

} // namespace

int
main(int argc, char* argv[])
{
    try
    {
        if (argc == 2 && std::string(argv[1]) == "--help")
        {
            std::fputs(kUsage, stdout);
            return 0;
        }
        std::string command = "split-llm-profile";
        for (int i = 1; i < argc; i++)
        {
            command += std::string(" ") + argv[i];
        }
        Run(ReadOptions(argc, argv), command);
        return 0;
    }
    catch (const InputError& error)
    {
        std::fprintf(stderr, "split-llm-profile: %s\n", error.what());
        return kBadInput;
    }
    catch (const OutOfMemory& cause)
    {
        std::fprintf(stderr, "split-llm-profile: %s; accepted: fewer rows, contexts or sequences\n", cause.what());
        return kBadInput;
    }
    catch (const std::exception& error)
    {
        std::fprintf(stderr, "split-llm-profile: internal error: %s\n", error.what());
        return kInternalError;
    }
}
