// SPDX-License-Identifier: GPL-2.0-only
#include "recording.h"

#include "base/input-error.h"
#include "llm/adapter.h"
#include "llm/bottleneck.h"
#include "net/crc32c.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <set>
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

/// Keys of a node's outcomes, in the order of NodeOutcomes.
constexpr std::array<const char*, kOutcomeKinds> kKinds{"tokens", "candidates", "verdicts", "gates", "sizes"};
constexpr std::array<const char*, kPlaces> kPlaceNames{"user", "server"};

// --- what a replay may change ---------------------------------------------------------------------------------------

/// Keys of the workload that are about load.
const std::set<std::string> kLoadKeys{"requests", "per_user", "arrival"};

/// Keys of a scheme that are about time, accounting or names.
const std::set<std::string> kFreeSchemeKeys{
    "label", "skip_notice", "notice", "reply", "timeout", "retry", "context_timeout", "context_memory"};

Json
Without(const Json& object, const std::set<std::string>& keys)
{
    Json rest = Json::object();
    for (const auto& [key, value] : object.items())
    {
        if (!keys.contains(key))
        {
            rest[key] = value;
        }
    }
    return rest;
}

/// What the numbers of a study depend on.
Json
Decisive(const Json& study)
{
    return {{"model", study["model"]},
            {"scheme", Without(study["scheme"], kFreeSchemeKeys)},
            {"workload", Without(study["workload"], kLoadKeys)}};
}

/// The first key at which \p a and \p b, two Decisive, differ; empty where they do not.
std::string
Difference(const Json& a, const Json& b)
{
    for (const auto& [part, keys] : a.items())
    {
        std::set<std::string> all;
        for (const Json* side : {&keys, &b[part]})
        {
            for (const auto& [key, value] : side->items())
            {
                all.insert(key);
            }
        }
        for (const std::string& key : all)
        {
            if (!keys.contains(key) || !b[part].contains(key) || keys[key] != b[part][key])
            {
                return part + "." + key;
            }
        }
    }
    return {};
}

/// The value under a dotted path of two keys, as a message shows it.
std::string
Shown(const Json& study, const std::string& path)
{
    const std::size_t dot = path.find('.');
    const Json& part = study[path.substr(0, dot)];
    const std::string key = path.substr(dot + 1);
    return part.contains(key) ? part[key].dump() : "absent";
}

/// \p study over \p recorded: objects key by key, of which null takes one away; a link whose type is given, hardware
/// and lists as a whole.
Json
Over(const Json& recorded, const Json& study, const std::string& path = "")
{
    const bool whole = !recorded.is_object() || !study.is_object() || path.ends_with(".hardware") ||
                       (path.starts_with("links.") && study.contains("type"));
    if (whole)
    {
        return study;
    }
    Json merged = recorded;
    for (const auto& [key, value] : study.items())
    {
        const std::string at = path.empty() ? key : path + "." + key;
        if (value.is_null())
        {
            merged.erase(key);
            continue;
        }
        merged[key] = recorded.contains(key) ? Over(recorded[key], value, at) : value;
    }
    return merged;
}

// --- writing --------------------------------------------------------------------------------------------------------

/// Occasions as runs of equal steps, each [step of the position, step of the layer, how many].
template <typename T>
Json
Steps(const std::vector<Outcome<T>>& outcomes)
{
    Json steps = Json::array();
    std::array<std::int64_t, 2> last{};
    std::array<std::int64_t, 3> run{};
    const auto close = [&steps, &run] {
        if (run[2] > 0)
        {
            steps.insert(steps.end(), {run[0], run[1], run[2]});
        }
    };
    for (const Outcome<T>& outcome : outcomes)
    {
        const std::array<std::int64_t, 2> at{outcome.occasion.position, outcome.occasion.layer};
        if (run[2] == 0 || at[0] - last[0] != run[0] || at[1] - last[1] != run[1])
        {
            close();
            run = {at[0] - last[0], at[1] - last[1], 0};
        }
        run[2]++;
        last = at;
    }
    close();
    return steps;
}

/// A bit each, the first in the lowest bit of the first byte.
template <typename T, typename F>
Json
Bits(const std::vector<Outcome<T>>& outcomes, const F& isSet)
{
    std::vector<std::uint8_t> bits((outcomes.size() + 7) / 8);
    for (std::size_t i = 0; i < outcomes.size(); i++)
    {
        bits[i / 8] |= static_cast<std::uint8_t>(isSet(outcomes[i].value) ? 1U << (i % 8) : 0U);
    }
    return Json::binary(std::move(bits));
}

template <typename T, typename F>
Json
List(const std::vector<Outcome<T>>& outcomes, const F& jsonOf)
{
    Json list = Json::array();
    for (const Outcome<T>& outcome : outcomes)
    {
        list.push_back(jsonOf(outcome.value));
    }
    return list;
}

Json
Values(const std::vector<Outcome<TokenId>>& outcomes)
{
    return {{"tokens", List(outcomes, [](TokenId token) { return token; })}};
}

/// A row's tokens and logarithms in turn.
Json
Values(const std::vector<Outcome<Candidates>>& outcomes)
{
    return {{"rows", List(outcomes, [](const Candidates& candidates) {
                 Json rows = Json::array();
                 for (const std::vector<ScoredToken>& row : candidates)
                 {
                     Json list = Json::array();
                     for (const ScoredToken& token : row)
                     {
                         list.push_back(token.token);
                         list.push_back(token.logProbability);
                     }
                     rows.push_back(std::move(list));
                 }
                 return rows;
             })}};
}

Json
Values(const std::vector<Outcome<Verdict>>& outcomes)
{
    Json values{{"count", outcomes.size()}, {"yes", Bits(outcomes, [](const Verdict& verdict) { return verdict.yes; })}};
    const auto scored = [](const Outcome<Verdict>& outcome) { return outcome.value.score.has_value(); };
    if (std::ranges::any_of(outcomes, scored))
    {
        values["scores"] = List(outcomes, [](const Verdict& verdict) {
            return verdict.score ? Json(*verdict.score) : Json();
        });
    }
    return values;
}

Json
Values(const std::vector<Outcome<GateDecision>>& outcomes)
{
    return {{"count", outcomes.size()},
            {"open", Bits(outcomes, [](const GateDecision& decision) { return decision.open; })},
            {"probabilities", List(outcomes, [](const GateDecision& decision) { return decision.probability; })}};
}

Json
Values(const std::vector<Outcome<PayloadSize>>& outcomes)
{
    return {{"bytes", List(outcomes, [](const PayloadSize& size) { return size.bytes; })}};
}

template <typename T>
void
Put(Json& node, const char* kind, const std::vector<Outcome<T>>& outcomes)
{
    if (!outcomes.empty())
    {
        Json json = Values(outcomes);
        json["at"] = Steps(outcomes);
        node[kind] = std::move(json);
    }
}

Json
JsonOf(const NodeOutcomes& outcomes)
{
    Json node = Json::object();
    [&]<std::size_t... I>(std::index_sequence<I...>) {
        (Put(node, kKinds[I], std::get<I>(outcomes)), ...);
    }(std::make_index_sequence<kOutcomeKinds>());
    return node;
}

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

// --- reading --------------------------------------------------------------------------------------------------------

/// A list under \p key.
const Json::array_t&
ListOf(StrictObject& object, const std::string& key)
{
    const Json& list = object.Raw(key);
    if (!list.is_array())
    {
        object.Fail(key, "must be a list");
    }
    return list.get_ref<const Json::array_t&>();
}

/// The elements of the list under \p key, each an integer of at most \p most.
template <typename T>
std::vector<T>
IntegersOf(StrictObject& object, const std::string& key, std::uint64_t most = std::numeric_limits<T>::max())
{
    std::vector<T> integers;
    for (const Json& element : ListOf(object, key))
    {
        if (!element.is_number_unsigned() || element.get<std::uint64_t>() > most)
        {
            object.Fail(key, "must hold integers of at most " + std::to_string(most));
        }
        integers.push_back(element.get<T>());
    }
    return integers;
}

/// The bits that Bits wrote, as many as "count" says.
std::vector<bool>
BitsOf(StrictObject& object, const std::string& key)
{
    const std::uint64_t count = object.Integer("count", 0, std::numeric_limits<std::uint32_t>::max());
    const Json& json = object.Raw(key);
    if (!json.is_binary() || json.get_binary().size() != (count + 7) / 8)
    {
        object.Fail(key, "must be bytes that hold " + std::to_string(count) + " bits");
    }
    const Json::binary_t& bytes = json.get_binary();
    std::vector<bool> bits(count);
    for (std::size_t i = 0; i < count; i++)
    {
        bits[i] = (bytes[i / 8] >> (i % 8) & 1U) != 0;
    }
    return bits;
}

void
Take(StrictObject& object, std::vector<TokenId>& values)
{
    values = IntegersOf<TokenId>(object, "tokens");
}

void
Take(StrictObject& object, std::vector<Candidates>& values)
{
    for (const Json& candidates : ListOf(object, "rows"))
    {
        Candidates& rows = values.emplace_back();
        for (const Json& row : candidates)
        {
            std::vector<ScoredToken>& tokens = rows.emplace_back();
            for (std::size_t i = 0; row.is_array() && i + 1 < row.size(); i += 2)
            {
                const bool isToken = row[i].is_number_unsigned() &&
                                     row[i].get<std::uint64_t>() <= std::numeric_limits<TokenId>::max() &&
                                     row[i + 1].is_number();
                if (!isToken)
                {
                    object.Fail("rows", "must hold tokens with their logarithms");
                }
                tokens.push_back({row[i].get<TokenId>(), row[i + 1].get<float>()});
            }
        }
    }
}

void
Take(StrictObject& object, std::vector<Verdict>& values)
{
    for (const bool yes : BitsOf(object, "yes"))
    {
        values.push_back({.yes = yes, .score = {}});
    }
    if (!object.Has("scores"))
    {
        return;
    }
    const Json::array_t& scores = ListOf(object, "scores");
    const auto isScore = [](const Json& score) { return score.is_null() || score.is_number(); };
    if (scores.size() != values.size() || !std::ranges::all_of(scores, isScore))
    {
        object.Fail("scores", "must be a number or null for each of " + std::to_string(values.size()) + " verdicts");
    }
    for (std::size_t i = 0; i < scores.size(); i++)
    {
        values[i].score = scores[i].is_null() ? std::nullopt : std::optional(scores[i].get<double>());
    }
}

void
Take(StrictObject& object, std::vector<GateDecision>& values)
{
    const std::vector<bool> open = BitsOf(object, "open");
    const Json::array_t& probabilities = ListOf(object, "probabilities");
    const auto isNumber = [](const Json& value) { return value.is_number(); };
    if (probabilities.size() != open.size() || !std::ranges::all_of(probabilities, isNumber))
    {
        object.Fail("probabilities", "must be a number for each of " + std::to_string(open.size()) + " gates");
    }
    for (std::size_t i = 0; i < open.size(); i++)
    {
        values.push_back({.open = open[i], .probability = probabilities[i].get<double>()});
    }
}

void
Take(StrictObject& object, std::vector<PayloadSize>& values)
{
    constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max(); // of a message's header
    for (const std::uint64_t bytes : IntegersOf<std::uint64_t>(object, "bytes", kMost))
    {
        values.push_back({bytes});
    }
}

/// Where each of \p count outcomes was decided: the inverse of Steps.
std::vector<Occasion>
OccasionsOf(StrictObject& object, std::size_t count)
{
    const Json::array_t& steps = ListOf(object, "at");
    std::vector<Occasion> occasions;
    std::array<std::int64_t, 2> at{};
    constexpr std::int64_t kMost = std::numeric_limits<std::uint32_t>::max();
    const auto isStep = [](const Json& step) {
        return step.is_number_integer() && step >= -kMost && step <= kMost;
    };
    bool fits = steps.size() % 3 == 0 && std::ranges::all_of(steps, isStep);
    for (std::size_t i = 0; fits && i < steps.size(); i += 3)
    {
        const auto repeats = steps[i + 2].get<std::int64_t>();
        fits = repeats > 0 && static_cast<std::uint64_t>(repeats) <= count - occasions.size();
        for (std::int64_t k = 0; fits && k < repeats; k++)
        {
            at[0] += steps[i].get<std::int64_t>();
            at[1] += steps[i + 1].get<std::int64_t>();
            fits = at[0] >= 0 && at[0] <= kMost && at[1] >= 0 && at[1] <= kMost;
            occasions.push_back({static_cast<std::uint32_t>(at[0]), static_cast<std::uint32_t>(at[1])});
        }
    }
    if (!fits || occasions.size() != count)
    {
        object.Fail("at", "must lead to a place for each of " + std::to_string(count) + " outcomes");
    }
    return occasions;
}

template <typename T>
void
Take(StrictObject& node, const char* kind, std::vector<Outcome<T>>& outcomes)
{
    if (!node.Has(kind))
    {
        return;
    }
    StrictObject object = node.Object(kind);
    std::vector<T> values;
    Take(object, values);
    const std::vector<Occasion> occasions = OccasionsOf(object, values.size());
    object.Finish();
    for (std::size_t i = 0; i < values.size(); i++)
    {
        outcomes.push_back({occasions[i], std::move(values[i])});
    }
}

NodeOutcomes
OutcomesOf(StrictObject node)
{
    NodeOutcomes outcomes;
    [&]<std::size_t... I>(std::index_sequence<I...>) {
        (Take(node, kKinds[I], std::get<I>(outcomes)), ...);
    }(std::make_index_sequence<kOutcomeKinds>());
    node.Finish();
    return outcomes;
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

std::vector<std::byte>
BytesOf(const std::filesystem::path& file)
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
    return bytes;
}

} // namespace

std::string
WhyNoReplay(const Study& study)
{
    if (study.scheme.opsc.deadline && study.scheme.opsc.controlled)
    {
        return "scheme.control: Algorithm 2 decides by the time that is left, which depends on the network; accepted: "
               "\"none\", or no deadline";
    }
    return {};
}

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
RecordingWriter::Write(const std::filesystem::path& file) const
{
    const std::vector<std::byte> bytes = Bytes();
    const std::filesystem::path aside = file.string() + ".part";
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
        throw InputError("--record=" + file.string() + ": cannot be written; accepted: a file in a folder that exists");
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

std::vector<QualityRow>
ReplayedQuality(const Study& study, std::uint32_t repetition)
{
    const RecordedRun& run = study.ReplayedRun(repetition);
    const auto recorded = static_cast<std::uint32_t>(run.requests.size());
    std::vector<QualityRow> rows;
    for (std::uint32_t first = 0; first < study.requestCount; first += recorded)
    {
        for (QualityRow row : run.quality)
        {
            row.request += first;
            if (row.request < study.requestCount)
            {
                rows.push_back(row);
            }
        }
    }
    return rows;
}

Replay
FindReplay(const Json& study, const std::string& origin)
{
    Json json = study;
    StrictObject object(json, origin);
    const std::string name = object.String("recording");
    const std::filesystem::path beside = std::filesystem::path(origin).parent_path() / name;
    const std::filesystem::path file = std::filesystem::exists(beside) ? beside : std::filesystem::path(name);
    if (object.Has("backend"))
    {
        object.Fail("backend", "a replay computes nothing; accepted: no backend");
    }
    Json changes = Without(study, {"recording"});
    Replay replay;
    std::string difference;
    std::string otherwise;
    for (const std::shared_ptr<const RecordedRun>& run : ParseRecording(BytesOf(file), file.string()))
    {
        Json merged = Over(Without(run->study, {"backend"}), changes);
        const std::string at = Difference(Decisive(run->study), Decisive(merged));
        if (!at.empty())
        {
            difference = at;
            otherwise = Shown(run->study, at);
            continue;
        }
        if (replay.runs.empty())
        {
            replay.study = std::move(merged);
        }
        else if (const std::string two = Difference(Decisive(replay.study), Decisive(merged)); !two.empty())
        {
            object.Fail("recording",
                        "points that differ in " + two + " were recorded; accepted: a study that says which: " +
                            Shown(replay.study, two) + ", " + Shown(merged, two));
        }
        replay.runs.push_back(run);
    }
    if (replay.runs.empty())
    {
        throw InputError(origin + ": " + difference + ": was recorded as " + otherwise +
                         "; a replay takes other links, nodes, seeds and loads, everything else as it was recorded");
    }
    replay.study["recording"] = name;
    return replay;
}

} // namespace splitllm
