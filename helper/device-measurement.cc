// SPDX-License-Identifier: GPL-2.0-only
#include "device-measurement.h"

#include "base/input-error.h"
#include "compute/codec-work.h"
#include "compute/timed.h"
#include "llm/sampling.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <map>
#include <random>
#include <utility>

namespace splitllm
{

namespace
{

/// What was measured so far, call by call.
class Recorder
{
  public:
    std::size_t context = 0; //!< that the sequences of the next calls have before

    /// Notes what \p computed took, and hands its result on.
    template <typename T>
    T operator()(Computed<T> computed)
    {
        const Work& work = computed.work;
        const bool ownCaches = work.caches > 1;
        const auto operation = static_cast<std::uint64_t>(computed.operation);
        Call& call = m_calls[{operation, work.weightBytes, ownCaches, computed.rows, work.flops}];
        call.work = work;
        call.context = work.caches > 0 ? context : 0;
        call.times.push_back(computed.elapsed);
        return std::move(computed.value);
    }

    /// Forgets what was noted.
    void Clear()
    {
        m_calls.clear();
    }

    std::vector<MeasuredCall> Calls() const
    {
        std::vector<MeasuredCall> calls;
        for (const auto& [key, call] : m_calls)
        {
            std::vector<std::chrono::nanoseconds> times = call.times;
            std::ranges::sort(times);
            const std::size_t last = times.size() - 1;
            const TimeSample sample{.rows = static_cast<std::size_t>(key[3]),
                                    .work = call.work,
                                    .median = times[last / 2],
                                    .p10 = times[last / 10],
                                    .p90 = times[last - last / 10],
                                    .repeats = times.size()};
            calls.push_back({static_cast<Operation>(key[0]), sample, call.context});
        }
        return calls;
    }

  private:
    struct Call
    {
        Work work;
        std::size_t context = 0;
        std::vector<std::chrono::nanoseconds> times;
    };

    using Key = std::array<std::uint64_t, 5>; //!< operation, bytes of weights, own caches, rows, FLOPs
    std::map<Key, Call> m_calls;
};

/// Runs the operations of a model and notes them.
class Measurement
{
  public:
    Measurement(Backend& backend, const MeasuredParts& parts, const MeasurementPlan& plan)
        : m_backend(backend),
          m_parts(parts),
          m_plan(plan),
          m_config(parts.models.front()->Config()),
          m_layers(std::min(plan.layers, m_config.layers)),
          m_entries(Numbers(2 * m_layers * std::max<std::size_t>(1, std::ranges::max(Contexts(1))), m_config.KvWidth()))
    {
    }

    /// Every shape once. \param round which layers
    void Round(std::size_t round, Recorder& note)
    {
        const std::size_t first = round % (m_config.layers / m_layers) * m_layers;
        for (const auto& model : m_parts.models)
        {
            for (const std::size_t rows : m_plan.rows)
            {
                for (const std::size_t context : Contexts(rows))
                {
                    Sequence(*model, first, rows, context, note);
                }
            }
            for (const std::size_t sequences : m_plan.sequences)
            {
                for (const std::size_t context : Contexts(1))
                {
                    Batch(*model, first, sequences, context, note);
                }
            }
        }
        for (const std::size_t context : Contexts(1))
        {
            Copies(first, context, round, note);
        }
    }

  private:
    /// The planned contexts for \p rows rows, as many of each as fit into the model.
    std::vector<std::size_t> Contexts(std::size_t rows) const
    {
        std::vector<std::size_t> contexts;
        for (const std::size_t context : m_plan.contexts)
        {
            const std::size_t fitting = std::min(context, m_config.maxPositions - rows);
            if (std::ranges::find(contexts, fitting) == contexts.end())
            {
                contexts.push_back(fitting);
            }
        }
        return contexts;
    }

    std::vector<TokenId> Tokens(std::size_t count)
    {
        std::vector<TokenId> tokens(count);
        std::ranges::generate(tokens, [&] { return static_cast<TokenId>(m_random() % m_config.vocab); });
        return tokens;
    }

    /// Numbers in [-1, 1).
    Tensor Numbers(std::size_t rows, std::size_t cols)
    {
        Tensor tensor = Tensor::Zeros(rows, cols);
        std::ranges::generate(tensor.Values(),
                              [&] { return static_cast<float>(m_random() >> 7) * 0x1p-23F - 1.0F; });
        return tensor;
    }

    /// A cache of the layers from \p first on that has \p context entries and room for \p rows more.
    std::unique_ptr<KvCache>
    Cache(const ResidentModel& model, std::size_t first, std::size_t context, std::size_t rows, Recorder& note)
    {
        auto cache = m_backend.NewCache(model, first, first + m_layers, context + rows);
        if (context > 0)
        {
            const Tensor entries = m_entries.Slice(0, 2 * m_layers * context);
            note(m_backend.Restore(*cache, first, first + m_layers, entries));
        }
        return cache;
    }

    /// Rows of one sequence, with everything that may be beside the model.
    void
    Sequence(const ResidentModel& model, std::size_t first, std::size_t rows, std::size_t context, Recorder& note)
    {
        note.context = context;
        const Tensor embedded = note(m_backend.Embed(model, Tokens(rows), context));
        const auto cache = Cache(model, first, context, rows, note);
        KvCache* const caches[] = {cache.get()};
        Tensor hidden = embedded;
        for (std::size_t layer = first; layer < first + m_layers; layer++)
        {
            Projections projected = note(m_backend.Project(model, layer, hidden));
            if (m_parts.adapter)
            {
                const Deltas deltas = note(m_backend.Adapt(*m_parts.adapter, layer, projected.input));
                projected = note(m_backend.Merge(std::move(projected), deltas));
            }
            hidden = note(m_backend.FinishLayer(model, layer, hidden, projected, caches));
        }
        if (m_parts.bottleneck)
        {
            Halves(model, first, embedded, *Cache(model, first, context, rows, note), note);
        }
        if (m_parts.side)
        {
            const std::vector<Tensor> states(m_config.layers, hidden);
            const Tensor input = note(m_backend.SideInput(*m_parts.side, states));
            hidden = note(m_backend.Combine(std::move(hidden), note(m_backend.Side(*m_parts.side, input))));
        }
        if (m_parts.codec)
        {
            Code(hidden, note);
            Code(Numbers(rows, m_config.KvWidth()), note); // the narrowest and the widest that schemes send by rows
            Code(Numbers(rows, m_config.QueryWidth() + 2 * m_config.KvWidth()), note);
        }
        if (rows == 1)
        {
            Answers(model, hidden, note);
        }
    }

    /// \p tensor into bytes and back, as a state behind the last layer.
    void Code(const Tensor& tensor, Recorder& note)
    {
        const TensorCodec& codec = *m_parts.codec;
        const std::size_t rows = tensor.Rows();
        const CodecSite site{.kind = "hidden-state", .layer = m_config.layers};
        const Work encoding = WorkOf(codec.EncodeCost(rows, tensor.Cols()));
        const Work decoding = WorkOf(codec.DecodeCost(rows, tensor.Cols()));
        const Payload payload =
            note(Timed(Operation::Encode, rows, encoding, [&] { return codec.Encode(tensor, site); }));
        note(Timed(Operation::Decode, rows, decoding, [&] { return codec.Decode(payload, tensor.Cols(), site); }));
    }

    /// The layers with bottleneck adapters.
    void Halves(const ResidentModel& model, std::size_t first, Tensor hidden, KvCache& cache, Recorder& note)
    {
        KvCache* const caches[] = {&cache};
        for (std::size_t layer = first; layer < first + m_layers; layer++)
        {
            const auto adapt = [&](Sublayer sublayer, Tensor output) {
                const Tensor added = note(m_backend.Bottleneck(*m_parts.bottleneck, layer, sublayer, output));
                output = note(m_backend.Combine(std::move(output), added));
                hidden = note(m_backend.Combine(std::move(hidden), output));
            };
            const Projections projected = note(m_backend.Project(model, layer, hidden));
            adapt(Sublayer::Attention, note(m_backend.Attend(model, layer, projected, caches)));
            adapt(Sublayer::Mlp, note(m_backend.FeedForward(model, layer, hidden)));
        }
    }

    /// A row of each of several sequences, as a server batches them.
    void
    Batch(const ResidentModel& model, std::size_t first, std::size_t sequences, std::size_t context, Recorder& note)
    {
        note.context = context;
        const std::vector<std::size_t> positions(sequences, context);
        Tensor hidden = note(m_backend.Embed(model, Tokens(sequences), positions));
        std::vector<std::unique_ptr<KvCache>> owned;
        std::vector<KvCache*> caches;
        for (std::size_t i = 0; i < sequences; i++)
        {
            owned.push_back(Cache(model, first, context, 1, note));
            caches.push_back(owned.back().get());
        }
        for (std::size_t layer = first; layer < first + m_layers; layer++)
        {
            const Projections projected = note(m_backend.Project(model, layer, hidden));
            hidden = note(m_backend.FinishLayer(model, layer, hidden, projected, caches));
        }
        Answers(model, hidden, note);
    }

    /// What comes behind the layers, of the newest row of each sequence.
    void Answers(const ResidentModel& model, const Tensor& hidden, Recorder& note)
    {
        const Tensor logits = note(m_backend.Head(model, hidden));
        note(m_backend.Search(logits, 4));
        const Tensor newest = logits.Slice(0, 1);
        note(m_backend.Sample(newest, {}, 0.5));
        note(m_backend.Sample(newest, {.temperature = 0.7, .topP = 0.9}, 0.5));
        if (m_parts.exits)
        {
            for (std::size_t exit = 0; exit < m_parts.exits->Layers().size(); exit++)
            {
                note(m_backend.Exit(model, *m_parts.exits, exit, hidden));
            }
        }
        if (m_parts.side)
        {
            note(m_backend.Gate(*m_parts.side, hidden));
        }
    }

    /// Copying out of and into caches, of all entries of some layers and of one entry of one layer; and pruning.
    void Copies(std::size_t first, std::size_t context, std::size_t round, Recorder& note)
    {
        const ResidentModel& model = *m_parts.models.front();
        const std::size_t entries = std::max<std::size_t>(context, 1);
        const auto cache = Cache(model, first, entries, 1, note);
        note(m_backend.Snapshot(*cache, first, first + m_layers, 0, entries));
        const Tensor newest = note(m_backend.Snapshot(*cache, first, first + 1, entries - 1, 1));
        note(m_backend.Restore(*cache, first, first + 1, newest));
        note(m_backend.Fork(*cache));
        if (m_plan.prune && entries > 1)
        {
            const std::size_t layer = round % m_config.layers;
            const auto tracked = m_backend.NewCache(model, layer, layer + 1, entries);
            tracked->TrackAttention();
            const Tensor hidden = Numbers(entries, m_config.hidden);
            KvCache* const caches[] = {tracked.get()};
            m_backend.FinishLayer(model, layer, hidden, m_backend.Project(model, layer, hidden).value, caches);
            const auto all = static_cast<double>(entries);
            note(m_backend.Prune(*tracked, layer, (all - 1.0) / all)); // one entry, as behind each token
        }
    }

    Backend& m_backend;
    const MeasuredParts& m_parts;
    const MeasurementPlan& m_plan;
    const ModelConfig& m_config;
    std::size_t m_layers;
    std::minstd_rand m_random{1};
    Tensor m_entries; //!< keys and values of the longest context
};

void
Expect(const char* name, const std::vector<std::size_t>& counts, std::size_t least, std::size_t most)
{
    for (const std::size_t count : counts)
    {
        if (count < least || count > most)
        {
            throw InputError(std::string(name) + ": " + std::to_string(count) + " is not from " +
                             std::to_string(least) + " to " + std::to_string(most));
        }
    }
}

std::string
Dumped(const Json& json)
{
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// \p format of \p values, a line.
template <typename... Values>
std::string
Line(const char* format, Values... values)
{
    std::array<char, 160> text{};
    std::snprintf(text.data(), text.size(), format, values...);
    return text.data();
}

double
Milliseconds(std::chrono::nanoseconds time)
{
    return static_cast<double>(time.count()) / 1e6;
}

} // namespace

std::vector<MeasuredCall>
MeasureDevice(Backend& backend,
              const MeasuredParts& parts,
              const MeasurementPlan& plan,
              const std::function<void(const std::string& line)>& say)
{
    const ModelConfig& config = parts.models.front()->Config();
    constexpr std::size_t kMost = 4096;
    Expect("rows", plan.rows, 1, config.maxPositions);
    Expect("sequences", plan.sequences, 2, kMost);
    Expect("layers", {plan.layers}, 1, config.layers);
    Expect("repeats", {plan.repeats}, 1, 1'000'000);
    if (parts.codec && parts.codec->EncodeCost(1, config.hidden).IsFree())
    {
        throw InputError("codec: costs nothing; accepted: a codec that compresses");
    }
    if (plan.rows.empty() || plan.contexts.empty())
    {
        throw InputError("rows and contexts: none; at least one of each is expected");
    }

    Measurement measurement(backend, parts, plan);
    Recorder recorder;
    measurement.Round(0, recorder);
    say("warm");
    recorder.Clear();
    for (std::size_t round = 1; round <= plan.repeats; round++)
    {
        measurement.Round(round, recorder);
        say("round " + std::to_string(round) + " of " + std::to_string(plan.repeats));
    }
    return recorder.Calls();
}

std::string
MeasuredProfile(const std::string& name, const MeasuredOn& on, const std::vector<MeasuredCall>& calls)
{
    Json measuredOn{{"device", on.device}, {"software", on.software}, {"model", on.model}, {"command", on.command}};
    if (!on.date.empty())
    {
        measuredOn["date"] = on.date;
    }
    std::string text = "{\n  \"name\": " + Dumped(name) +
                       ",\n  \"source\": \"measured, see measured_on: medians of repeated calls\",\n" +
                       "  \"measured_on\": " + Dumped(measuredOn) +
                       ",\n  \"timing\": {\n    \"otherwise\": \"error\",\n    \"table\": {";
    for (std::size_t i = 0; i < calls.size(); i++)
    {
        const bool opens = i == 0 || calls[i].operation != calls[i - 1].operation;
        const bool closes = i + 1 == calls.size() || calls[i].operation != calls[i + 1].operation;
        if (opens)
        {
            text += (i == 0 ? "\n      " : ",\n      ") + Dumped(NameOf(calls[i].operation)) + ": { \"samples\": [";
        }
        text += (opens ? "\n        " : ",\n        ") + Dumped(MeasuredTimes::Written(calls[i].sample)) +
                (closes ? "\n      ] }" : "");
    }
    return text + "\n    }\n  }\n}\n";
}

std::string
MeasuredTable(const std::vector<MeasuredCall>& calls)
{
    std::string table = Line("%-12s %6s %9s %7s %12s %12s %12s %8s %9s %7s\n",
                             "operation",
                             "rows",
                             "sequences",
                             "context",
                             "ms",
                             "p10",
                             "p90",
                             "GB/s",
                             "GFLOP/s",
                             "repeats");
    for (const auto& [operation, sample, context] : calls)
    {
        const Work& work = sample.work;
        const auto perNs = [took = static_cast<double>(sample.median.count())](std::uint64_t amount) {
            return took == 0.0 ? 0.0 : static_cast<double>(amount) / took;
        };
        table += Line("%-12s %6zu %9zu %7zu %12.6f %12.6f %12.6f %8.2f %9.2f %7zu\n",
                      std::string(NameOf(operation)).c_str(),
                      sample.rows,
                      static_cast<std::size_t>(work.caches),
                      context,
                      Milliseconds(sample.median),
                      Milliseconds(sample.p10),
                      Milliseconds(sample.p90),
                      perNs(work.bytesRead + work.bytesWritten),
                      perNs(work.flops),
                      sample.repeats);
    }
    return table;
}

} // namespace splitllm
