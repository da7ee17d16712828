// SPDX-License-Identifier: GPL-2.0-only
#include "recording.h"

#include "base/input-error.h"
#include "llm/adapter.h"
#include "llm/bottleneck.h"
#include "net/crc32c.h"
#include "outcome-json.h"
#include "replay.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

namespace splitllm
{

namespace
{

constexpr std::array<char, 8> kMagic{'S', 'L', 'L', 'M', 'R', 'E', 'C', '\n'};
constexpr std::uint32_t kVersion = 1;

/// What is in front of the CBOR. Little-endian, as all machines that ns-3 runs on.
struct FileHeader
{
    std::array<char, 8> magic;
    std::uint32_t version;
    std::uint32_t crc;
    std::uint64_t length;
};

static_assert(sizeof(FileHeader) == 24);

constexpr std::array<const char*, kPlaces> kPlaceNames{"user", "server"};

Json
JsonOf(const std::vector<QualityRow>& quality)
{
    Json rows = Json::array();
    for (const QualityRow& row : quality)
    {
        rows.push_back({row.request, row.position, row.layer, row.confidence, row.klNats, row.agrees, row.nll});
    }
    return rows;
}

/// What a phantom of the model and its adapter has to have.
Json
ShapeOf(const Study& study)
{
    Json model{{"name", study.config.name},
               {"config", LoadStrictJson(study.model.folder / "config.json")},
               {"dtype", NameOf(study.config.dtype)},
               {"activations", NameOf(DType::F32)}}; // of every backend with numbers
    if (study.model.HasBottleneck())
    {
        const ResidentBottleneck its(*BottleneckAdapter::Load(study.model.adapterFolder, study.config), study.config);
        model["adapter"] = {{"bottleneck", its.Width()}, {"dtype", NameOf(its.Weights())}};
    }
    else if (study.model.HasLora())
    {
        const ResidentAdapter its(*Adapter::Load(study.model.adapterFolder, study.config), study.config);
        model["adapter"] = {{"rank", its.Rank()}, {"dtype", NameOf(its.Weights())}};
    }
    return model;
}

/// What a recording is called until it is written.
std::filesystem::path
AsideOf(const std::filesystem::path& file)
{
    return file.string() + ".part";
}

InputError
Unwritable(const std::filesystem::path& file)
{
    return InputError("--record=" + file.string() + ": cannot be written; accepted: a file in a folder that exists");
}

/// Why a replay could not repeat the run; empty where it could.
std::string
WhyNotWhole(const RunRecords& records)
{
    if (!records.outOfMemory.empty())
    {
        return "ran out of memory: " + records.outOfMemoryReason;
    }
    if (!records.sessionsLost.empty())
    {
        return "lost a session: " + records.sessionsLost.front();
    }
    if (!records.standalone.empty())
    {
        return "had an edge go on without its cloud: " + records.standalone.front().reason;
    }
    return {};
}

std::vector<QualityRow>
QualityOf(StrictObject& run)
{
    std::vector<QualityRow> rows;
    for (const Json& row : ListOf(run, "quality"))
    {
        const bool fits = row.is_array() && row.size() == 7 && row[0].is_number_unsigned() &&
                          row[1].is_number_unsigned() && row[2].is_number_unsigned() && row[3].is_number() &&
                          row[4].is_number() && row[5].is_boolean() && row[6].is_number();
        if (!fits)
        {
            run.Fail("quality", "must hold request, position, layer, confidence, kl, agreement and nll of each token");
        }
        rows.push_back({.request = row[0].get<std::uint32_t>(),
                        .position = row[1].get<std::uint32_t>(),
                        .layer = row[2].get<std::uint16_t>(),
                        .confidence = row[3].get<double>(),
                        .klNats = row[4].get<double>(),
                        .agrees = row[5].get<bool>(),
                        .nll = row[6].get<double>()});
    }
    return rows;
}

void
TakeModel(StrictObject model, RecordedRun& run)
{
    const std::vector<std::string> types{"fp32", "fp16", "bf16"};
    run.config = ParseConfig(model.Raw("config").dump(), model.Origin() + ": " + model.PathOf("config"));
    run.config.name = model.String("name");
    run.config.dtype = *DTypeFromName(model.Choice("dtype", types));
    run.activations = model.Choice("activations", types);
    if (model.Has("adapter"))
    {
        StrictObject adapter = model.Object("adapter");
        const bool bottleneck = adapter.Has("bottleneck");
        const auto width = static_cast<std::uint32_t>(adapter.Integer(bottleneck ? "bottleneck" : "rank", 1, 65536));
        (bottleneck ? run.bottleneckWidth : run.adapterRank) = width;
        run.adapterDtype = adapter.Choice("dtype", types);
        adapter.Finish();
    }
    model.Finish();
}

RecordedRun
RunOf(StrictObject object)
{
    RecordedRun run;
    run.study = object.Raw("study");
    for (const char* part : {"model", "scheme", "workload", "nodes"})
    {
        if (!run.study.is_object() || !run.study.contains(part) || !run.study[part].is_object())
        {
            object.Fail("study", std::string("must be a study, with an object \"") + part + "\"");
        }
    }
    run.repetition = static_cast<std::uint32_t>(object.Integer("repetition", 0, 100'000));
    TakeModel(object.Object("model"), run);
    for (StrictObject& prompt : object.Objects("prompts"))
    {
        run.prompts.push_back({.id = prompt.String("id"),
                               .group = prompt.String("group"),
                               .prompt = IntegersOf<TokenId>(prompt, "tokens"),
                               .answer = IntegersOf<TokenId>(prompt, "answer")});
        if (run.prompts.back().prompt.empty())
        {
            prompt.Fail("tokens", "must hold at least one token");
        }
        prompt.Finish();
    }
    auto outcomes = std::make_shared<RunOutcomes>();
    for (StrictObject& request : object.Objects("requests"))
    {
        if (run.prompts.empty())
        {
            request.Fail("prompt", "there is none");
        }
        run.requests.push_back(request.Integer("prompt", 0, run.prompts.size() - 1));
        RequestOutcomes& its = outcomes->emplace_back();
        for (std::size_t place = 0; place < its.size(); place++)
        {
            its[place] = OutcomesOf(request.Object(kPlaceNames[place]));
        }
        request.Finish();
    }
    if (run.requests.empty())
    {
        object.Fail("requests", "must hold at least one request");
    }
    run.outcomes = std::move(outcomes);
    run.quality = QualityOf(object);
    object.Finish();
    return run;
}

} // namespace

void
RecordingWriter::Add(const Study& study,
                     const Json& json,
                     std::uint32_t repetition,
                     const RunRecords& records,
                     const RunOutcomes& outcomes)
{
    const std::string why = WhyNotWhole(records);
    if (!why.empty())
    {
        throw InputError("--record: the run " + why + "; accepted: runs that come to their end without any of that");
    }
    std::vector<std::size_t> prompts; // indices in the study, in the order of their first request
    Json requests = Json::array();
    for (std::size_t r = 0; r < records.requests.size(); r++)
    {
        const std::size_t prompt = records.requests[r].prompt;
        const auto found = std::ranges::find(prompts, prompt);
        requests.push_back({{"prompt", found - prompts.begin()}});
        if (found == prompts.end())
        {
            prompts.push_back(prompt);
        }
        const RequestOutcomes its = r < outcomes.size() ? outcomes[r] : RequestOutcomes();
        for (std::size_t place = 0; place < its.size(); place++)
        {
            requests.back()[kPlaceNames[place]] = JsonOf(its[place]);
        }
    }
    Json texts = Json::array();
    for (const std::size_t prompt : prompts)
    {
        const RequestSpec& spec = study.requests[prompt];
        texts.push_back({{"id", spec.id}, {"group", spec.group}, {"tokens", spec.prompt}, {"answer", spec.answer}});
    }
    Json run{{"study", json},
             {"repetition", repetition},
             {"model", ShapeOf(study)},
             {"prompts", std::move(texts)},
             {"requests", std::move(requests)},
             {"quality", JsonOf(records.quality)}};
    for (const Json& before : m_runs)
    {
        if (before["repetition"] != run["repetition"] || !Difference(Decisive(before["study"]), Decisive(json)).empty())
        {
            continue;
        }
        // CBOR, because a NaN does not equal itself
        if (Json::to_cbor(before["requests"]) != Json::to_cbor(run["requests"]))
        {
            throw InputError("--record: two points that differ in network, hardware and load alone decided otherwise: "
                             "their decisions depend on these, and a replay could not tell them");
        }
        return;
    }
    m_runs.push_back(std::move(run));
}

std::vector<std::byte>
RecordingWriter::Bytes() const
{
    const std::vector<std::uint8_t> body = Json::to_cbor({{"runs", m_runs}});
    const std::span<const std::byte> content(reinterpret_cast<const std::byte*>(body.data()), body.size());
    const FileHeader header{.magic = kMagic, .version = kVersion, .crc = Crc32c(content), .length = body.size()};
    std::vector<std::byte> bytes(sizeof header + content.size());
    std::memcpy(bytes.data(), &header, sizeof header);
    std::ranges::copy(content, bytes.begin() + sizeof header);
    return bytes;
}

void
RecordingWriter::CheckWritable(const std::filesystem::path& file)
{
    const std::filesystem::path aside = AsideOf(file);
    const bool isOpen = std::ofstream(aside, std::ios::binary).is_open();
    std::error_code ignored;
    std::filesystem::remove(aside, ignored);
    if (!isOpen || std::filesystem::is_directory(file, ignored))
    {
        throw Unwritable(file);
    }
}

void
RecordingWriter::Write(const std::filesystem::path& file) const
{
    const std::vector<std::byte> bytes = Bytes();
    const std::filesystem::path aside = AsideOf(file);
    std::ofstream stream(aside, std::ios::binary);
    stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    stream.close();
    std::error_code error;
    if (stream)
    {
        std::filesystem::rename(aside, file, error);
    }
    if (!stream || error)
    {
        std::filesystem::remove(aside, error);
        throw Unwritable(file);
    }
}

RecordedRuns
ParseRecording(std::span<const std::byte> bytes, const std::string& origin)
{
    FileHeader header{};
    if (bytes.size() < sizeof header)
    {
        throw InputError(origin + ": is no recording; accepted: a file made by split-llm-run --record=FILE");
    }
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.magic != kMagic)
    {
        throw InputError(origin + ": is no recording; accepted: a file made by split-llm-run --record=FILE");
    }
    if (header.version != kVersion)
    {
        throw InputError(origin + ": is a recording of version " + std::to_string(header.version) + "; accepted: " +
                         std::to_string(kVersion) + "; record the study again");
    }
    const std::span<const std::byte> content = bytes.subspan(sizeof header);
    if (header.length != content.size() || header.crc != Crc32c(content))
    {
        throw InputError(origin + ": is damaged: " + std::to_string(content.size()) + " bytes instead of " +
                         std::to_string(header.length) + ", or a wrong checksum; record the study again");
    }
    Json json = ParseStrictCbor(content, origin);
    StrictObject object(json, origin);
    RecordedRuns runs;
    for (StrictObject& run : object.Objects("runs"))
    {
        runs.push_back(std::make_shared<const RecordedRun>(RunOf(run)));
    }
    object.Finish();
    if (runs.empty())
    {
        throw InputError(origin + ": holds no run");
    }
    return runs;
}

RecordedRuns
LoadRecording(const std::filesystem::path& file)
{
    std::ifstream stream(file, std::ios::binary);
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(file, ignored) || !stream.is_open())
    {
        throw InputError(file.string() + ": cannot be read; accepted: a recording, made by split-llm-run --record=FILE");
    }
    const std::string content{std::istreambuf_iterator<char>(stream), {}};
    std::vector<std::byte> bytes(content.size());
    std::memcpy(bytes.data(), content.data(), content.size());
    return ParseRecording(bytes, file.string());
}

} // namespace splitllm
