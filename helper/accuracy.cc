// SPDX-License-Identifier: GPL-2.0-only
#include "accuracy.h"

#include "base/deterministic-math.h"
#include "base/input-error.h"
#include "codec/container-summary.h"
#include "codec/dense-codec.h"
#include "compute/cpu/cpu-backend.h"
#include "compute/cpu/team.h"
#include "compute/weight-precision.h"
#include "llm/model.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <span>
#include <utility>

namespace splitllm
{

namespace
{

// ---- reading

/// The windows of \p length tokens of a text, end to end within each document.
std::vector<std::vector<TokenId>>
ReadWindows(StrictObject& study, const std::filesystem::path& file, std::size_t length, std::size_t vocab)
{
    std::ifstream stream(file);
    if (!stream)
    {
        study.Fail("text", "no text " + file.string() + " (one JSON object a line, made by scripts/make-text)");
    }
    std::vector<std::vector<TokenId>> windows;
    std::string line;
    for (std::size_t number = 1; std::getline(stream, line); number++)
    {
        const std::string origin = file.string() + ":" + std::to_string(number);
        Json json = ParseStrictJson(line, origin);
        StrictObject document(json, origin);
        document.String("id");
        document.String("source");
        const Json& list = document.Raw("tokens");
        if (!list.is_array())
        {
            document.Fail("tokens", "a list of token ids is expected");
        }
        std::vector<TokenId> tokens;
        tokens.reserve(list.size());
        for (const Json& id : list)
        {
            if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= vocab)
            {
                document.Fail("tokens", id.dump() + " is no token id below " + std::to_string(vocab));
            }
            tokens.push_back(id.get<TokenId>());
        }
        document.Finish();
        for (auto at = tokens.begin(); tokens.end() - at >= static_cast<std::ptrdiff_t>(length);
             at += static_cast<std::ptrdiff_t>(length))
        {
            windows.emplace_back(at, at + static_cast<std::ptrdiff_t>(length));
        }
    }
    return windows;
}

/// The values of a key that may be a list of them.
std::vector<Json>
Alternatives(StrictObject& object, const std::string& key, const Json& fallback)
{
    if (!object.Has(key))
    {
        return {fallback};
    }
    const Json value = object.Raw(key);
    if (!value.is_array())
    {
        return {value};
    }
    if (value.empty())
    {
        object.Fail(key, "an empty list; a value or a list of values is expected");
    }
    return {value.begin(), value.end()};
}

unsigned
ReadBits(StrictObject& object, const std::string& key, const ModelConfig& config, std::size_t group)
{
    const auto bits = static_cast<unsigned>(object.Integer(key, 0, 64));
    std::vector<unsigned> accepted = AcceptedWeightBits(config.dtype);
    const std::vector<std::size_t> groups = AcceptedGroups(config);
    if (std::ranges::find(groups, group) == groups.end())
    {
        accepted = {accepted.back()}; // as stored: rows of this model are no whole number of such groups
    }
    if (std::ranges::find(accepted, bits) == accepted.end())
    {
        object.Fail(key, std::to_string(bits) + " bits; one of " + Joined(accepted) + " is expected");
    }
    return bits;
}

/// All combinations of what \p object lists.
void
ReadConfigurations(StrictObject& object,
                   const std::string& path,
                   const CodecContext& context,
                   std::size_t group,
                   std::vector<AccuracyConfiguration>& configurations)
{
    const unsigned stored = static_cast<unsigned>(8 * SizeOf(context.config.dtype));
    const std::vector<Json> splits = Alternatives(object, "split", nullptr);
    const std::vector<Json> fronts = Alternatives(object, "front_bits", stored);
    const std::vector<Json> backs = Alternatives(object, "back_bits", stored);
    const std::vector<Json> codecs = Alternatives(object, "codec", "fp32");
    object.Finish();
    for (const Json& codec : codecs)
    {
        for (const Json& front : fronts)
        {
            for (const Json& back : backs)
            {
                for (const Json& split : splits)
                {
                    Json one{{"front_bits", front}, {"back_bits", back}, {"codec", codec}};
                    if (!split.is_null())
                    {
                        one["split"] = split;
                    }
                    StrictObject reader(one, object.Origin(), path);
                    AccuracyConfiguration configuration;
                    configuration.split = reader.Integer("split", 1, context.config.layers);
                    configuration.frontBits = ReadBits(reader, "front_bits", context.config, group);
                    configuration.backBits = ReadBits(reader, "back_bits", context.config, group);
                    configuration.codec = ReadTensorCodec(reader, "codec", context);
                    configuration.codecJson = one["codec"];
                    configurations.push_back(std::move(configuration));
                }
            }
        }
    }
}

// ---- measuring

/// Sums over tokens, of which Accuracy has the means.
struct Sums
{
    double nll = 0.0;
    double kl = 0.0;
    double agreements = 0.0;
    double bytes = 0.0;
    double squaredError = 0.0;
    double aboveBytes = 0.0;
    double bits = 0.0;
    std::size_t above = 0;
    std::size_t states = 0;
    std::size_t elements = 0;
};

/// A model's layers in every precision that a study asks for.
class Layers
{
  public:
    Layers(const AccuracyStudy& study, std::size_t threads)
        : m_backend(threads)
    {
        const std::shared_ptr<const Model> model = Model::Load(study.model);
        const ModelConfig& config = model->config;
        std::set<unsigned> bits{study.storedBits};
        for (const AccuracyConfiguration& configuration : study.configurations)
        {
            bits.insert({configuration.frontBits, configuration.backBits});
        }
        for (const unsigned b : bits)
        {
            const bool stored = b == study.storedBits;
            m_models[b] = m_backend.Resident(
                model,
                stored ? WeightPrecision(config) : WeightPrecision::Front(config, config.layers, b, study.weightGroup));
        }
    }

    std::size_t Count() const
    {
        return m_models.begin()->second->Config().layers;
    }

    Tensor Embed(std::span<const TokenId> tokens)
    {
        return m_backend.Embed(*m_models.begin()->second, tokens, 0).value;
    }

    /// Layers [first, last) of \p bits on the states \p hidden of a whole window. \param seen called after each layer
    Tensor Run(Tensor hidden,
               std::size_t first,
               std::size_t last,
               unsigned bits,
               const std::function<void(std::size_t, const Tensor&)>& seen = {})
    {
        if (first == last)
        {
            return hidden;
        }
        const ResidentModel& model = *m_models.at(bits);
        const std::unique_ptr<KvCache> cache = m_backend.NewCache(model, first, last, hidden.Rows());
        for (std::size_t l = first; l < last; l++)
        {
            const Projections projections = m_backend.Project(model, l, hidden).value;
            hidden = m_backend.FinishLayer(model, l, hidden, projections, *cache).value;
            if (seen)
            {
                seen(l + 1, hidden);
            }
        }
        return hidden;
    }

    /// Logits after each row but the last, whose next token nobody knows.
    Tensor Logits(const Tensor& hidden)
    {
        return m_backend.Head(*m_models.begin()->second, hidden.Slice(0, hidden.Rows() - 1)).value;
    }

  private:
    CpuBackend m_backend;
    std::map<unsigned, std::shared_ptr<const ResidentModel>> m_models; //!< by bits
};

/// The full-precision model's predictions of a window, with which others are compared.
class Reference
{
  public:
    Reference(Tensor logits, std::span<const TokenId> window, Team& team)
        : m_logits(std::move(logits)),
          m_window(window),
          m_team(team),
          m_probabilities(m_logits.Elements()),
          m_logSums(m_logits.Rows())
    {
        const Tensor& reference = m_logits;
        m_team.Run(reference.Rows(), true, [&](std::size_t row, std::size_t) {
            const std::span<const float> values = reference.Row(row);
            m_logSums[row] = LogSumExp(values);
            for (std::size_t i = 0; i < values.size(); i++)
            {
                m_probabilities[row * values.size() + i] = deterministic::Exp(values[i] - m_logSums[row]);
            }
        });
    }

    const Tensor& Logits() const
    {
        return m_logits;
    }

    /// Adds to \p sums what \p logits say about the window.
    void Compare(const Tensor& logits, Sums& sums) const
    {
        std::vector<Sums> rows(logits.Rows());
        m_team.Run(logits.Rows(), true, [&](std::size_t row, std::size_t) {
            const std::span<const float> values = logits.Row(row);
            const std::span<const float> reference = m_logits.Row(row);
            const double* probabilities = m_probabilities.data() + row * values.size();
            const double logSum = LogSumExp(values);
            double divergence = 0.0;
            for (std::size_t i = 0; i < values.size(); i++)
            {
                divergence += probabilities[i] * ((reference[i] - m_logSums[row]) - (values[i] - logSum));
            }
            rows[row].kl = divergence;
            rows[row].nll = logSum - values[m_window[row + 1]];
            rows[row].agreements = Greedy(values) == Greedy(reference) ? 1.0 : 0.0;
        });
        for (const Sums& row : rows)
        {
            sums.kl += row.kl;
            sums.nll += row.nll;
            sums.agreements += row.agreements;
        }
    }

  private:
    Tensor m_logits;
    std::span<const TokenId> m_window;
    Team& m_team;
    std::vector<double> m_probabilities;
    std::vector<double> m_logSums;
};

/// What the other side of the split gets of \p states, message by message.
Tensor
Cross(const Tensor& states, const AccuracyConfiguration& configuration, std::size_t rowsPerMessage, Sums& sums)
{
    const CodecSite site{.kind = "hidden-state", .layer = configuration.split};
    Tensor received = Tensor::Zeros(states.Rows(), states.Cols());
    for (std::size_t first = 0; first < states.Rows(); first += rowsPerMessage)
    {
        const std::size_t rows = std::min(rowsPerMessage, states.Rows() - first);
        const Payload payload = configuration.codec->Encode(states.Slice(first, rows), site);
        const Tensor decoded = configuration.codec->Decode(payload, states.Cols(), site);
        std::ranges::copy(decoded.Values(), received.Row(first).data());
        sums.bytes += static_cast<double>(payload.size);
        if (const auto summary = SummariseContainer(payload.bytes, states.Cols()))
        {
            sums.above += summary->above;
            sums.aboveBytes += static_cast<double>(summary->aboveBytes);
            sums.bits += static_cast<double>(summary->bits);
        }
    }
    for (std::size_t i = 0; i < states.Elements(); i++)
    {
        const double error = double{received.Values()[i]} - states.Values()[i];
        sums.squaredError += error * error;
    }
    sums.states += states.Rows();
    sums.elements += states.Elements();
    return received;
}

Accuracy
MeanOf(const Sums& sums, std::size_t tokens)
{
    const auto n = static_cast<double>(tokens);
    const double states = static_cast<double>(std::max<std::size_t>(sums.states, 1));
    const double elements = static_cast<double>(std::max<std::size_t>(sums.elements, 1));
    return {.perplexity = deterministic::Exp(sums.nll / n),
            .klNats = sums.kl / n,
            .top1Agreement = sums.agreements / n,
            .bytesPerToken = sums.bytes / states,
            .meanSquaredError = sums.squaredError / elements,
            .aboveShare = static_cast<double>(sums.above) / elements,
            .aboveBytesShare = sums.bytes == 0.0 ? 0.0 : sums.aboveBytes / sums.bytes,
            .meanBits = sums.bits / states};
}

// ---- reporting

Json
RowOf(std::size_t split,
      unsigned front,
      unsigned back,
      unsigned activation,
      const Json& codec,
      const Accuracy& accuracy)
{
    Json row{{"split", split},
             {"front_bits", front},
             {"back_bits", back},
             {"activation_bits", activation},
             {"codec", codec.is_object() ? codec.at("name") : codec}};
    if (codec.is_object())
    {
        row["parameters"] = codec;
        row["parameters"].erase("name");
    }
    row["perplexity"] = accuracy.perplexity;
    row["kl_nats"] = accuracy.klNats;
    row["top1_agreement"] = accuracy.top1Agreement;
    row["payload_bytes_per_token"] = accuracy.bytesPerToken;
    row["mean_squared_error"] = accuracy.meanSquaredError;
    if (row["codec"] == "tab-q")
    {
        row["above_share"] = accuracy.aboveShare;
        row["above_bytes_share"] = accuracy.aboveBytesShare;
        row["mean_bits"] = accuracy.meanBits;
    }
    return row;
}

/// Qa: the bits that a codec gives an element, nominally.
unsigned
ActivationBits(const AccuracyConfiguration& configuration)
{
    const Json& codec = configuration.codecJson;
    return codec.is_object() && codec.contains("bits")
               ? codec.at("bits").get<unsigned>()
               : static_cast<unsigned>(8 * SizeOf(configuration.codec->Exact()));
}

} // namespace

AccuracyStudy
ReadAccuracyStudy(Json& json, const std::string& origin, const AccuracyFolders& folders)
{
    StrictObject object(json, origin);
    AccuracyStudy study;
    study.modelName = object.String("model");
    study.model = folders.models / study.modelName;
    const std::shared_ptr<const Model> model = Model::Load(study.model);
    const CodecContext context{.config = model->config, .shapeMode = false, .calibrations = folders.calibrations};
    study.storedBits = static_cast<unsigned>(8 * SizeOf(model->config.dtype));
    study.text = object.String("text");
    const std::size_t length = object.Integer("window", 2, model->config.maxPositions, 256);
    const std::size_t tokens = object.Integer("tokens", length, 1U << 30);
    study.rowsPerMessage = object.Integer("rows_per_message", 1, 1U << 20, 1);
    study.weightGroup = object.Integer("weight_group", 1, 65536, WeightPrecision::kGroup);
    std::vector<std::vector<TokenId>> windows =
        ReadWindows(object, folders.texts / (study.text + ".jsonl"), length, model->config.vocab);
    const std::size_t count = tokens / length;
    if (windows.size() < count)
    {
        object.Fail("tokens",
                    std::to_string(tokens) + "; the text has " + std::to_string(windows.size()) + " windows of " +
                        std::to_string(length) + " tokens");
    }
    for (std::size_t i = 0; i < count; i++) // evenly spread over the text
    {
        study.windows.push_back(std::move(windows[i * windows.size() / count]));
    }
    std::vector<StrictObject> configurations = object.Objects("configurations");
    for (std::size_t i = 0; i < configurations.size(); i++)
    {
        ReadConfigurations(configurations[i],
                           "configurations[" + std::to_string(i) + "]",
                           context,
                           study.weightGroup,
                           study.configurations);
    }
    object.Finish();
    return study;
}

AccuracyResult
MeasureAccuracy(const AccuracyStudy& study, std::size_t threads, const std::function<void(std::size_t done)>& onWindow)
{
    Layers layers(study, threads);
    Team team(threads == 0 ? Cores() : threads);
    std::map<std::pair<unsigned, std::size_t>, Tensor> fronts; // states by front bits and layer
    std::map<unsigned, std::size_t> deepest;                   // split by front bits
    for (const AccuracyConfiguration& configuration : study.configurations)
    {
        fronts[{configuration.frontBits, configuration.split}];
        deepest[configuration.frontBits] = std::max(deepest[configuration.frontBits], configuration.split);
    }
    deepest[study.storedBits] = layers.Count();

    AccuracyResult result;
    Sums base;
    std::vector<Sums> sums(study.configurations.size());
    for (std::size_t w = 0; w < study.windows.size(); w++)
    {
        const std::vector<TokenId>& window = study.windows[w];
        const Tensor embedded = layers.Embed(window);
        Tensor last;
        for (const auto& [bits, depth] : deepest)
        {
            Tensor hidden = layers.Run(embedded, 0, depth, bits, [&](std::size_t layer, const Tensor& state) {
                const auto wanted = fronts.find({bits, layer});
                if (wanted != fronts.end())
                {
                    wanted->second = state;
                }
            });
            if (bits == study.storedBits)
            {
                last = std::move(hidden);
            }
        }
        const Reference reference(layers.Logits(last), window, team);
        reference.Compare(reference.Logits(), base);
        for (std::size_t c = 0; c < study.configurations.size(); c++)
        {
            const AccuracyConfiguration& configuration = study.configurations[c];
            const Tensor& states = fronts.at({configuration.frontBits, configuration.split});
            try
            {
                Tensor received = Cross(states, configuration, study.rowsPerMessage, sums[c]);
                const Tensor hidden =
                    layers.Run(std::move(received), configuration.split, layers.Count(), configuration.backBits);
                reference.Compare(layers.Logits(hidden), sums[c]);
            }
            catch (const EncodeError& error)
            {
                throw InputError(configuration.codecJson.dump() + ", split " + std::to_string(configuration.split) +
                                 ": " + error.what());
            }
        }
        result.tokens += window.size() - 1;
        onWindow(w + 1);
    }
    result.base = MeanOf(base, result.tokens);
    for (const Sums& sum : sums)
    {
        result.configurations.push_back(MeanOf(sum, result.tokens));
    }
    return result;
}

Json
AccuracyReport(const AccuracyStudy& study, const AccuracyResult& result, const std::string& command)
{
    Json rows = Json::array();
    rows.push_back(RowOf(0, study.storedBits, study.storedBits, 32, "none", result.base));
    for (std::size_t c = 0; c < study.configurations.size(); c++)
    {
        const AccuracyConfiguration& configuration = study.configurations[c];
        rows.push_back(RowOf(configuration.split,
                             configuration.frontBits,
                             configuration.backBits,
                             ActivationBits(configuration),
                             configuration.codecJson,
                             result.configurations[c]));
    }
    return {{"command", command},
            {"model", study.modelName},
            {"text", study.text},
            {"window", study.windows.empty() ? 0 : study.windows.front().size()},
            {"tokens", result.tokens},
            {"weight_group", study.weightGroup},
            {"rows", rows}};
}

Json
MeasureStudies(Json& json,
               const std::string& origin,
               const AccuracyFolders& folders,
               std::size_t threads,
               const std::function<void(const std::string& line)>& say)
{
    const std::string command = "split-llm-accuracy " + origin;
    const auto measure = [&](Json& one, const std::string& where) {
        const AccuracyStudy study = ReadAccuracyStudy(one, where, folders);
        say(study.modelName + ": " + std::to_string(study.configurations.size()) + " configurations");
        const auto onWindow = [&](std::size_t done) {
            say("window " + std::to_string(done) + " of " + std::to_string(study.windows.size()));
        };
        return AccuracyReport(study, MeasureAccuracy(study, threads, onWindow), command);
    };
    StrictObject object(json, origin);
    if (!object.Has("models"))
    {
        return measure(json, origin);
    }
    Json& studies = object.Raw("models");
    object.Finish();
    if (!studies.is_array() || studies.empty())
    {
        object.Fail("models", "must be a list of at least one accuracy study");
    }
    Json report{{"command", command}, {"models", Json::array()}, {"not_run", Json::array()}};
    for (std::size_t i = 0; i < studies.size(); i++)
    {
        const std::string where = origin + ": models[" + std::to_string(i) + "]";
        const std::string model = StrictObject(studies[i], where).String("model");
        if (std::filesystem::exists(folders.models / model / "config.json"))
        {
            report["models"].push_back(measure(studies[i], where));
            continue;
        }
        say(model + ": not run, there is no such model folder");
        report["not_run"].push_back({{"model", model}, {"why", "there is no such model folder"}});
    }
    return report;
}

} // namespace splitllm
