// SPDX-License-Identifier: GPL-2.0-only
#include "answers.h"

#include "base/deterministic-math.h"
#include "llm/adapter.h"
#include "llm/model.h"
#include "simulation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

namespace splitllm
{

namespace
{

/// \p tokens before the first of \p stop.
std::span<const TokenId>
Before(std::span<const TokenId> tokens, std::span<const TokenId> stop)
{
    const auto end = std::ranges::find_first_of(tokens, stop);
    return tokens.first(static_cast<std::size_t>(end - tokens.begin()));
}

} // namespace

bool
ExactMatch(std::span<const TokenId> generated, std::span<const TokenId> answer, std::span<const TokenId> stop)
{
    return std::ranges::equal(Before(generated, stop), Before(answer, stop));
}

double
TokenF1(std::span<const TokenId> generated, std::span<const TokenId> answer, std::span<const TokenId> stop)
{
    const std::span<const TokenId> said = Before(generated, stop);
    const std::span<const TokenId> right = Before(answer, stop);
    if (said.empty() && right.empty())
    {
        return 1.0;
    }
    std::map<TokenId, std::size_t> left;
    for (const TokenId token : right)
    {
        left[token]++;
    }
    std::size_t common = 0;
    for (const TokenId token : said)
    {
        if (left[token] > 0)
        {
            left[token]--;
            common++;
        }
    }
    return 2.0 * static_cast<double>(common) / static_cast<double>(said.size() + right.size());
}

double
RougeL(std::span<const TokenId> generated, std::span<const TokenId> answer, std::span<const TokenId> stop)
{
    const std::span<const TokenId> said = Before(generated, stop);
    const std::span<const TokenId> right = Before(answer, stop);
    if (said.empty() && right.empty())
    {
        return 1.0;
    }
    // common[j]: length of the longest common subsequence of what was seen of `said` and the first j tokens of `right`.
    std::vector<std::size_t> common(right.size() + 1, 0);
    for (const TokenId token : said)
    {
        std::size_t diagonal = 0; // common[j] before `token`
        for (std::size_t j = 0; j < right.size(); j++)
        {
            const std::size_t above = common[j + 1];
            common[j + 1] = token == right[j] ? diagonal + 1 : std::max(above, common[j]);
            diagonal = above;
        }
    }
    return 2.0 * static_cast<double>(common.back()) / static_cast<double>(said.size() + right.size());
}

std::optional<double>
ExpectedCalibrationError(const std::vector<QualityRow>& rows)
{
    constexpr std::size_t kBins = 10;
    struct Bin
    {
        double confidence = 0.0;
        double agreement = 0.0;
    };

    std::array<Bin, kBins> bins;
    std::size_t judged = 0;
    for (const QualityRow& row : rows)
    {
        if (!std::isnan(row.confidence))
        {
            const double right = std::clamp<double>(std::ceil(row.confidence * kBins), 1, kBins);
            Bin& bin = bins[static_cast<std::size_t>(right) - 1];
            bin.confidence += row.confidence;
            bin.agreement += row.agrees ? 1.0 : 0.0;
            judged++;
        }
    }
    if (judged == 0)
    {
        return std::nullopt;
    }
    double error = 0.0;
    for (const Bin& bin : bins)
    {
        error += std::abs(bin.agreement - bin.confidence);
    }
    return error / static_cast<double>(judged);
}

std::map<std::uint32_t, AnswerQuality>
QualityByRequest(const std::vector<QualityRow>& rows)
{
    std::map<std::uint32_t, AnswerQuality> requests;
    for (const QualityRow& row : rows)
    {
        AnswerQuality& quality = requests[row.request];
        quality.klNats += row.klNats;
        quality.agreement += row.agrees ? 1.0 : 0.0;
        quality.nll += row.nll;
        quality.tokens++;
    }
    for (auto& [request, quality] : requests)
    {
        const auto tokens = static_cast<double>(quality.tokens);
        quality.klNats /= tokens;
        quality.agreement /= tokens;
        quality.nll /= tokens;
    }
    return requests;
}

QualityRow
Compare(std::span<const float> logits, std::span<const float> reference, TokenId token)
{
    const double ofScheme = LogSumExp(logits);
    const double ofReference = LogSumExp(reference);
    double divergence = 0.0;
    for (std::size_t i = 0; i < reference.size(); i++)
    {
        const double logP = reference[i] - ofReference;
        divergence += deterministic::Exp(logP) * (logP - (logits[i] - ofScheme));
    }
    return {.request = 0,
            .position = 0,
            .layer = 0,
            .confidence = std::numeric_limits<double>::quiet_NaN(),
            .klNats = divergence,
            .agrees = Greedy(logits) == Greedy(reference),
            .nll = ofScheme - logits[token]};
}

struct ReferenceModel::Parts
{
    std::shared_ptr<Backend> backend;
    std::shared_ptr<const ResidentModel> model;
    std::shared_ptr<const ResidentAdapter> adapter;
    std::shared_ptr<const ResidentBottleneck> bottleneck;
    std::shared_ptr<const ResidentSide> side;
};

ReferenceModel::ReferenceModel(const ModelSpec& spec,
                               std::shared_ptr<const SideNetwork> side,
                               const BackendChoice& backend)
    : m_parts(std::make_unique<Parts>())
{
    m_parts->backend = MakeBackend(backend);
    const std::shared_ptr<const Model> model = Model::Load(spec.folder);
    m_parts->model = m_parts->backend->Resident(model);
    if (spec.HasLora())
    {
        m_parts->adapter =
            m_parts->backend->Resident(Adapter::Load(spec.adapterFolder, model->config), model->config);
    }
    if (spec.HasBottleneck())
    {
        m_parts->bottleneck =
            m_parts->backend->Resident(BottleneckAdapter::Load(spec.adapterFolder, model->config), model->config);
    }
    if (side)
    {
        m_parts->side = m_parts->backend->Resident(std::move(side), model->config);
    }
}

ReferenceModel::~ReferenceModel() = default;

Tensor
ReferenceModel::Logits(std::span<const TokenId> prompt, std::span<const TokenId> answer)
{
    std::vector<TokenId> tokens(prompt.begin(), prompt.end());
    tokens.insert(tokens.end(), answer.begin(), answer.end() - 1);
    Backend& backend = *m_parts->backend;
    const ResidentModel& model = *m_parts->model;
    const std::size_t layers = model.Config().layers;
    const std::unique_ptr<KvCache> cache = backend.NewCache(model, 0, layers, tokens.size());
    KvCache* const view = cache.get();
    const auto ofAnswer = [&](const Tensor& states) { return states.Slice(prompt.size() - 1, answer.size()); };
    std::vector<Tensor> states; // of the answer, behind every layer
    Tensor h = backend.Embed(model, tokens, 0).value;
    for (std::size_t l = 0; l < layers; l++)
    {
        Projections qkv = backend.Project(model, l, h).value;
        if (m_parts->adapter)
        {
            const Deltas deltas = backend.Adapt(*m_parts->adapter, l, qkv.input).value;
            qkv = backend.Merge(std::move(qkv), deltas).value;
        }
        if (m_parts->bottleneck)
        {
            const ResidentBottleneck& bottleneck = *m_parts->bottleneck;
            const auto adapted = [&](Sublayer sublayer, Tensor output) {
                const Tensor added = backend.Bottleneck(bottleneck, l, sublayer, output).value;
                output += added;
                h += output;
            };
            adapted(Sublayer::Attention, backend.Attend(model, l, qkv, {&view, 1}).value);
            adapted(Sublayer::Mlp, backend.FeedForward(model, l, h).value);
        }
        else
        {
            h = backend.FinishLayer(model, l, h, qkv, *cache).value;
        }
        if (m_parts->side)
        {
            states.push_back(ofAnswer(h));
        }
    }
    if (!m_parts->side)
    {
        return backend.Head(model, ofAnswer(h)).value;
    }
    const Tensor g = backend.Side(*m_parts->side, backend.SideInput(*m_parts->side, states).value).value;
    return backend.Head(model, m_parts->side->Alone() ? g : backend.Combine(std::move(states.back()), g).value).value;
}

void
ChosenLogits::OnLogits(const LogitsRecord& record)
{
    Reports& row = m_pending[record.request].rows[record.position];
    row.logits[static_cast<std::size_t>(record.place)].emplace(record.values, record.values + record.vocab);
    row.latest = record.place;
}

void
ChosenLogits::OnExit(const ExitRecord& record)
{
    m_pending[record.request].exit = record;
}

ChosenLogits::Choice
ChosenLogits::OnToken(std::uint32_t request, std::uint32_t position)
{
    Pending& pending = m_pending[request];
    const std::optional<ExitRecord> exit = std::exchange(pending.exit, std::nullopt);
    Choice choice{.logits = {}, .layer = 0, .confidence = std::numeric_limits<double>::quiet_NaN()};
    Reports& row = pending.rows[position];
    Place place = row.latest;
    if (exit && exit->position == position)
    {
        place = exit->source == TokenSource::Cloud ? Place::Server : Place::User;
        if (exit->source != TokenSource::Cloud)
        {
            choice.layer = exit->layer;
            choice.confidence = exit->confidence;
        }
    }
    std::optional<std::vector<float>>& logits = row.logits[static_cast<std::size_t>(place)];
    if (!logits)
    {
        throw std::logic_error("request " + std::to_string(request) + ": no logits for the token after position " +
                               std::to_string(position));
    }
    choice.logits = std::move(*logits);
    pending.rows.erase(pending.rows.begin(), pending.rows.upper_bound(position));
    return choice;
}

std::vector<QualityRow>
JudgeQuality(const Study& study,
             std::uint32_t repetition,
             std::uint32_t threads,
             const std::vector<RequestRow>& requests,
             const std::function<void()>& onToken)
{
    struct Answering
    {
        Tensor reference;
        std::size_t token = 0;
    };

    BackendChoice backend = study.backend;
    backend.threads = threads;
    ReferenceModel model(study.model, study.scheme.side, backend);
    std::map<std::uint32_t, Answering> answering; // by request: users may be answered at the same time
    std::vector<QualityRow> rows;
    ChosenLogits chosen;
    const auto judge = [&](const TokenRecord& token) {
        const RequestSpec& spec = study.requests[requests.at(token.request).prompt];
        Answering& its = answering[token.request];
        if (its.token == 0)
        {
            its.reference = model.Logits(spec.prompt, spec.answer);
        }
        const auto position = static_cast<std::uint32_t>(spec.prompt.size() + its.token - 1);
        const ChosenLogits::Choice choice = chosen.OnToken(token.request, position);
        QualityRow row = Compare(choice.logits, std::as_const(its.reference).Row(its.token), spec.answer[its.token]);
        row.request = token.request;
        row.position = position;
        row.layer = choice.layer;
        row.confidence = choice.confidence;
        rows.push_back(row);
        its.token++;
        if (its.token == spec.answer.size())
        {
            answering.erase(token.request);
        }
        onToken();
    };
    const AnswerTraces traces{.onLogits = [&](const LogitsRecord& record) { chosen.OnLogits(record); },
                              .onExit = [&](const ExitRecord& record) { chosen.OnExit(record); },
                              .onToken = judge};
    SimulateAlongAnswers(study, repetition, threads, traces);
    return rows;
}

} // namespace splitllm
