// SPDX-License-Identifier: GPL-2.0-only
#include "metrics.h"

#include "answers.h"
#include "base/deterministic-math.h"
#include "compute/footprint.h"
#include "llm/config.h"
#include "policy/opsc-sizes.h"
#include "policy/outage.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <tuple>

namespace splitllm
{

namespace
{

constexpr std::array<const char*, kDirections> kDirectionNames{"up", "down"};

double
Milliseconds(ns3::Time time)
{
    return static_cast<double>(time.GetNanoSeconds()) / 1e6;
}

double
Mean(const std::vector<double>& values)
{
    double sum = 0.0;
    for (const double value : values)
    {
        sum += value;
    }
    return sum / static_cast<double>(values.size());
}

/// Mean and percentiles of \p values, which are sorted afterwards; nothing where there are none.
void
AddDistribution(Metrics& metrics, const std::string& name, std::vector<double>& values)
{
    if (values.empty())
    {
        return;
    }
    metrics.emplace_back(name + ".mean", Mean(values));
    std::ranges::sort(values);
    metrics.emplace_back(name + ".p50", Percentile(values, 0.50));
    metrics.emplace_back(name + ".p95", Percentile(values, 0.95));
    metrics.emplace_back(name + ".p99", Percentile(values, 0.99));
}

/// Means of what is counted once for each direction.
void
AddDirections(Metrics& metrics, const std::string& name, const std::array<double, kDirections>& sums, double divisor)
{
    for (std::size_t d = 0; d < kDirections; d++)
    {
        metrics.emplace_back(name + "." + kDirectionNames[d], sums[d] / divisor);
    }
}

/// Tokens 2 to n.
void
AddTokenMetrics(Metrics& metrics, const std::vector<const TokenRecord*>& tokens)
{
    if (tokens.empty())
    {
        return;
    }
    std::vector<double> latencies;
    std::array<double, kComponents> components{};
    std::array<double, kDirections> payload{};
    std::array<double, kDirections> messages{};
    double exchanges = 0.0;
    for (const TokenRecord* token : tokens)
    {
        latencies.push_back(Milliseconds(token->latency));
        for (std::size_t c = 0; c < kComponents; c++)
        {
            components[c] += Milliseconds(token->components[c]);
        }
        for (std::size_t d = 0; d < kDirections; d++)
        {
            payload[d] += static_cast<double>(token->payloadBytes[d]);
            messages[d] += token->messages[d];
        }
        exchanges += token->exchanges;
    }
    const auto count = static_cast<double>(tokens.size());
    AddDistribution(metrics, "token_latency_ms", latencies);
    for (std::size_t c = 0; c < kComponents; c++)
    {
        metrics.emplace_back(std::string("component_ms.") + NameOf(static_cast<Component>(c)) + ".mean",
                             components[c] / count);
    }
    AddDirections(metrics, "payload_bytes_per_token", payload, count);
    AddDirections(metrics, "messages_per_token", messages, count);
    metrics.emplace_back("exchanges_per_token", exchanges / count);
}

/// How long the request of \p first, a first token, waited for its turn: until its user had the answers before.
ns3::Time
WaitOf(const RunRecords& run, const TokenRecord& first)
{
    const bool isKnown = first.request < run.requests.size() && run.requests[first.request].arrival;
    return isKnown ? first.start - *run.requests[first.request].arrival : ns3::Time();
}

/// Whole responses from their requests' arrival on: waiting, and all their tokens, the prompt's work included.
void
AddResponseMetrics(Metrics& metrics, const Study& study, const std::vector<RunRecords>& runs)
{
    std::vector<double> waits;
    std::vector<double> firstTokens;
    std::vector<double> responses;
    std::array<double, kDirections> payload{};
    for (const RunRecords& run : runs)
    {
        std::map<std::pair<std::uint32_t, std::uint32_t>, double> running; // seconds, by session and request
        for (const TokenRow& row : run.tokens)
        {
            double& seconds = running[{row.token.session, row.token.request}];
            if (row.token.position == 1)
            {
                const double wait = Milliseconds(WaitOf(run, row.token));
                waits.push_back(wait);
                firstTokens.push_back(wait + Milliseconds(row.token.latency));
                seconds = wait / 1e3;
            }
            seconds += Milliseconds(row.token.latency) / 1e3;
            if (row.token.last)
            {
                responses.push_back(seconds);
            }
            for (std::size_t d = 0; d < kDirections; d++)
            {
                payload[d] += static_cast<double>(row.token.payloadBytes[d]);
            }
        }
    }
    AddDistribution(metrics, "ttft_ms", firstTokens);
    if (study.arrivals.IsOpen())
    {
        AddDistribution(metrics, "wait_ms", waits);
    }
    AddDistribution(metrics, "response_s", responses);
    if (!responses.empty())
    {
        AddDirections(metrics, "payload_bytes_per_response", payload, static_cast<double>(responses.size()));
    }
}

/// Load and throughput: what came in and what was answered, over the time from the first request to the last token.
void
AddLoadMetrics(Metrics& metrics, const Study& study, const std::vector<RunRecords>& runs)
{
    double requests = 0.0;
    double responses = 0.0;
    double tokens = 0.0;
    double arriving = 0.0; // seconds, to the last arrival
    double running = 0.0;  // seconds, to the last token
    for (const RunRecords& run : runs)
    {
        ns3::Time begin = ns3::Time::Max();
        ns3::Time lastArrival;
        ns3::Time end;
        for (const RequestRow& row : run.requests)
        {
            const ns3::Time arrival = row.arrival.value_or(ns3::Time::Max());
            begin = ns3::Min(begin, arrival);
            lastArrival = row.arrival ? ns3::Max(lastArrival, arrival) : lastArrival;
            requests += 1.0;
        }
        for (const TokenRow& row : run.tokens)
        {
            begin = ns3::Min(begin, row.token.start);
            end = ns3::Max(end, row.token.start + row.token.latency);
            tokens += 1.0;
            responses += row.token.last ? 1.0 : 0.0;
        }
        arriving += Milliseconds(lastArrival - ns3::Min(begin, lastArrival)) / 1e3;
        running += run.tokens.empty() ? 0.0 : Milliseconds(end - begin) / 1e3;
    }
    if (study.arrivals.IsOpen() && arriving > 0.0)
    {
        metrics.emplace_back("offered_requests_per_s", (requests - static_cast<double>(runs.size())) / arriving);
    }
    if (running > 0.0)
    {
        metrics.emplace_back("requests_per_s", responses / running);
        metrics.emplace_back("tokens_per_s", tokens / running);
    }
}

/// Where the time of whole responses went, where the server is a cloud or there is none: the sum is the response's.
void
AddPlaceMetrics(Metrics& metrics, const Study& study, const std::vector<RunRecords>& runs)
{
    if (std::ranges::any_of(study.nodes, [](const NodeSpec& node) { return node.role == NodeRole::EdgeServer; }))
    {
        return;
    }
    struct Places
    {
        ns3::Time edge;
        ns3::Time cloud;
        ns3::Time network;
    };

    Places all;
    double responses = 0.0;
    for (const RunRecords& run : runs)
    {
        std::map<std::pair<std::uint32_t, std::uint32_t>, Places> running; // by session and request
        for (const TokenRow& row : run.tokens)
        {
            const TokenRecord& token = row.token;
            const ns3::Time network = token.components[static_cast<std::size_t>(Component::Network)];
            Places& response = running[{token.session, token.request}];
            response.edge += token.latency - network - token.server;
            response.cloud += token.server;
            response.network += network;
            if (token.last)
            {
                all.edge += response.edge;
                all.cloud += response.cloud;
                all.network += response.network;
                responses += 1.0;
            }
        }
    }
    if (responses > 0.0)
    {
        metrics.emplace_back("component_s_per_response.edge", Milliseconds(all.edge) / 1e3 / responses);
        metrics.emplace_back("component_s_per_response.cloud", Milliseconds(all.cloud) / 1e3 / responses);
        metrics.emplace_back("component_s_per_response.network", Milliseconds(all.network) / 1e3 / responses);
    }
}

/// CE-CoLLM: what tokens were chosen by, and how long edges were on their own.
void
AddExitMetrics(Metrics& metrics, const std::vector<RunRecords>& runs)
{
    std::map<std::uint16_t, double> exits; // by layer
    double asked = 0.0;
    double early = 0.0;
    double fallbacks = 0.0;
    double standalone = 0.0; // seconds
    double tokens = 0.0;
    double responses = 0.0;
    bool any = false;
    for (const RunRecords& run : runs)
    {
        for (const ExitRecord& exit : run.exits)
        {
            any = true;
            asked += exit.asked.IsZero() ? 0.0 : 1.0;
            fallbacks += exit.source == TokenSource::Fallback ? 1.0 : 0.0;
            if (exit.source != TokenSource::Cloud)
            {
                const double taken = exit.source == TokenSource::Exit ? 1.0 : 0.0;
                early += taken;
                exits[exit.layer] += taken;
            }
        }
        for (const StandaloneRecord& stretch : run.standalone)
        {
            standalone += Milliseconds(stretch.end - stretch.start) / 1e3;
        }
        for (const TokenRow& row : run.tokens)
        {
            tokens += 1.0;
            responses += row.token.last ? 1.0 : 0.0;
        }
    }
    if (!any || tokens == 0.0)
    {
        return;
    }
    metrics.emplace_back("cloud_request_ratio", asked / tokens);
    metrics.emplace_back("early_exit_ratio", early / tokens);
    for (const auto& [layer, taken] : exits)
    {
        metrics.emplace_back("exit_ratio.layer_" + std::to_string(layer), taken / tokens);
    }
    metrics.emplace_back("fallback_ratio", fallbacks / tokens);
    if (responses > 0.0)
    {
        metrics.emplace_back("standalone_s_per_response", standalone / responses);
    }
}

/// SPA: for how many of all tokens the device was asked.
void
AddGateMetrics(Metrics& metrics, const std::vector<RunRecords>& runs)
{
    double open = 0.0;
    double tokens = 0.0;
    for (const RunRecords& run : runs)
    {
        for (const GateRecord& gate : run.gates)
        {
            open += gate.open ? 1.0 : 0.0;
            tokens += 1.0;
        }
    }
    if (tokens > 0.0)
    {
        metrics.emplace_back("gate_ratio", open / tokens);
    }
}

/// Bytes of the scales of the device's quantised weights, which Eq 1 leaves out.
std::uint64_t
ScaleBytes(const Study& study)
{
    const SchemeSpec& scheme = study.scheme;
    const bool split = scheme.opsc.placement == OpscPlacement::Split;
    const WeightPrecision precision =
        OpscPrecision(study.config, scheme.opsc.split, scheme.weightBits, scheme.weightGroup);
    return LayerBytes(study.config, precision, 0, split ? scheme.opsc.split : study.config.layers).scales;
}

/// OPSC: what its equations count, and what became of its deadlines.
void
AddOpscMetrics(Metrics& metrics, const Study& study, const std::vector<RunRecords>& runs)
{
    if (study.scheme.name != "opsc")
    {
        return;
    }
    const ModelConfig& config = study.config;
    const SchemeSpec& scheme = study.scheme;
    const FrontBack activations{scheme.activationBits, scheme.activationBits};
    const std::uint64_t eq1 = OpscWeightBytes(config, scheme.opsc.split, scheme.weightBits);
    const std::uint64_t eq2 = OpscKvBits(config, study.LongestContext(), scheme.opsc.split, activations);
    metrics.emplace_back("opsc.eq1_bytes", static_cast<double>(eq1));
    metrics.emplace_back("opsc.eq2_bytes", static_cast<double>(eq2) / 8.0);
    metrics.emplace_back("opsc.scale_bytes", static_cast<double>(ScaleBytes(study)));
    if (!scheme.opsc.deadline)
    {
        return;
    }
    double uploads = 0.0;
    double met = 0.0;
    double keysAndValues = 0.0;
    double compressed = 0.0;
    double requests = 0.0;
    double exits = 0.0;
    double tokens = 0.0;
    for (const RunRecords& run : runs)
    {
        for (const UploadRow& row : run.uploads)
        {
            uploads += 1.0;
            met += !row.arrived.IsZero() && row.arrived <= row.upload.deadline ? 1.0 : 0.0;
            keysAndValues += row.upload.keysAndValues ? 1.0 : 0.0;
            compressed += row.upload.compressed ? 1.0 : 0.0;
        }
        for (const RequestRow& row : run.requests)
        {
            requests += 1.0;
            exits += row.earlyExit ? 1.0 : 0.0;
            tokens += static_cast<double>(row.generated.size());
        }
    }
    if (uploads > 0.0)
    {
        metrics.emplace_back("deadline_met_ratio", met / uploads);
        metrics.emplace_back("opsc.kv_ratio", keysAndValues / uploads);
        metrics.emplace_back("opsc.compressed_ratio", compressed / uploads);
    }
    metrics.emplace_back("opsc.early_exit_ratio", exits / requests);
    metrics.emplace_back("opsc.tokens_per_response", tokens / requests);
}

void
AddMemoryMetrics(Metrics& metrics, const std::vector<RunRecords>& runs)
{
    std::map<std::string, MemoryPeaks> memory;
    std::map<std::string, double> outOfMemory;
    for (const RunRecords& run : runs)
    {
        for (const auto& [node, peaks] : run.memory)
        {
            MemoryPeaks& most = memory[node];
            most.total = std::max(most.total, peaks.total);
            for (std::size_t use = 0; use < kMemoryUses; use++)
            {
                most.uses[use] = std::max(most.uses[use], peaks.uses[use]);
            }
        }
        for (const auto& [node, peaks] : run.memory)
        {
            outOfMemory.try_emplace(node, 0.0);
        }
        if (!run.outOfMemory.empty())
        {
            outOfMemory[run.outOfMemory] = 1.0;
        }
    }
    for (const auto& [node, peaks] : memory)
    {
        for (const MemoryUse use : {MemoryUse::Weights, MemoryUse::Adapters, MemoryUse::Kv, MemoryUse::Activations})
        {
            metrics.emplace_back("memory_bytes." + node + "." + std::string(NameOf(use)),
                                 static_cast<double>(peaks.uses[static_cast<std::size_t>(use)]));
        }
        metrics.emplace_back("memory_bytes." + node + ".peak", static_cast<double>(peaks.total));
    }
    for (const auto& [node, flag] : outOfMemory)
    {
        metrics.emplace_back("oom." + node, flag);
    }
}

/// Bytes on each link of users and server, where a gateway is between.
void
AddLinkBytes(Metrics& metrics, const std::vector<RunRecords>& runs)
{
    std::map<std::string, std::array<double, kDirections>> sums;
    for (const RunRecords& run : runs)
    {
        for (const auto& [name, bytes] : run.linkBytes)
        {
            for (std::size_t d = 0; d < kDirections; d++)
            {
                sums[name][d] += static_cast<double>(bytes[d]);
            }
        }
    }
    for (const auto& [name, bytes] : sums)
    {
        AddDirections(metrics, "link." + name + ".wire_bytes", bytes, 1.0);
    }
}

/// Fading links: attempts in both directions, of all users and repetitions.
void
AddLinkMetrics(Metrics& metrics, const Study& study, const std::vector<RunRecords>& runs)
{
    for (const LinkSpec& link : study.links)
    {
        LinkAttempts all;
        for (const RunRecords& run : runs)
        {
            if (const auto found = run.links.find(link.name); found != run.links.end())
            {
                all.Add(found->second);
            }
        }
        if (all.attempts == 0)
        {
            continue;
        }
        const std::string prefix = "link." + link.name + ".";
        const auto attempts = static_cast<double>(all.attempts);
        const auto rate = static_cast<double>(link.rate.GetBitRate());
        const double largest = 8.0 * static_cast<double>(all.largestFrame);
        const double worst = WorstCaseLatency(link.fading.channel, rate, link.fading.epsilon, largest);
        metrics.emplace_back(prefix + "attempts_mean", attempts / static_cast<double>(all.frames));
        metrics.emplace_back(prefix + "attempts_max", static_cast<double>(all.most));
        metrics.emplace_back(prefix + "outage_ratio", static_cast<double>(all.failed) / attempts);
        metrics.emplace_back(prefix + "messages_lost", static_cast<double>(all.roundsLost));
        metrics.emplace_back(prefix + "goodput_mbps",
                             8e3 * static_cast<double>(all.deliveredBytes) /
                                 static_cast<double>(all.busy.GetNanoSeconds()));
        metrics.emplace_back(prefix + "rate_mbps", rate / 1e6);
        metrics.emplace_back(prefix + "worst_case_ms", 1e3 * worst);
    }
}

/// Answers against the reference answers: those generated freely, and how likely the reference ones are.
void
AddQualityMetrics(Metrics& metrics, const Study& study, const std::vector<RunRecords>& runs)
{
    std::vector<double> divergences;
    std::vector<double> agreements;
    std::vector<double> likelihoods;
    std::vector<double> matches;
    std::vector<double> overlaps;
    std::vector<double> subsequences;
    std::vector<QualityRow> judged;
    for (const RunRecords& run : runs)
    {
        judged.insert(judged.end(), run.quality.begin(), run.quality.end());
        for (const QualityRow& row : run.quality)
        {
            divergences.push_back(row.klNats);
            agreements.push_back(row.agrees ? 1.0 : 0.0);
            likelihoods.push_back(row.nll);
        }
        for (const RequestRow& row : run.requests)
        {
            const std::vector<TokenId>& answer = study.requests[row.prompt].answer;
            if (!answer.empty() && !study.shapeMode && !row.generated.empty())
            {
                matches.push_back(ExactMatch(row.generated, answer, study.stop) ? 1.0 : 0.0);
                overlaps.push_back(TokenF1(row.generated, answer, study.stop));
                subsequences.push_back(RougeL(row.generated, answer, study.stop));
            }
        }
    }
    if (!divergences.empty())
    {
        metrics.emplace_back("quality.kl_nats", Mean(divergences));
        metrics.emplace_back("quality.top1_agreement", Mean(agreements));
        metrics.emplace_back("quality.perplexity", deterministic::Exp(Mean(likelihoods)));
    }
    if (const std::optional<double> error = ExpectedCalibrationError(judged))
    {
        metrics.emplace_back("quality.ece", *error);
    }
    if (!matches.empty())
    {
        metrics.emplace_back("quality.exact_match", Mean(matches));
        metrics.emplace_back("quality.f1", Mean(overlaps));
        metrics.emplace_back("quality.rouge_l", Mean(subsequences));
    }
}

} // namespace

std::optional<double>
Find(const Metrics& metrics, const std::string& name)
{
    const auto found = std::ranges::find(metrics, name, &Metrics::value_type::first);
    return found == metrics.end() ? std::nullopt : std::optional(found->second);
}

double
Percentile(const std::vector<double>& sorted, double fraction)
{
    const double index = fraction * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(std::floor(index));
    const std::size_t above = std::min(below + 1, sorted.size() - 1);
    return sorted[below] + (index - std::floor(index)) * (sorted[above] - sorted[below]);
}

Metrics
ComputeMetrics(const Study& study, const std::vector<RunRecords>& runs)
{
    Metrics metrics;
    std::vector<const TokenRecord*> later;
    std::array<double, kDirections> wire{};
    double cells = 0.0;
    double offloaded = 0.0;
    double returned = 0.0;
    double lost = 0.0;
    double busy = 0.0;
    double serverTokens = 0.0;
    double serverJobs = 0.0;
    double serverBatches = 0.0;
    double tokens = 0.0;
    for (const RunRecords& run : runs)
    {
        for (const TokenRow& row : run.tokens)
        {
            if (row.token.position > 1)
            {
                later.push_back(&row.token);
            }
        }
        for (const DecisionRow& decision : run.decisions)
        {
            cells += 1.0;
            offloaded += decision.offloaded ? 1.0 : 0.0;
            returned += decision.returned ? 1.0 : 0.0;
        }
        for (std::size_t d = 0; d < kDirections; d++)
        {
            wire[d] += static_cast<double>(run.wireBytes[d]);
        }
        lost += static_cast<double>(run.sessionsLost.size());
        busy += run.serverBusySeconds;
        serverTokens += static_cast<double>(run.serverTokens);
        serverJobs += static_cast<double>(run.serverJobs);
        serverBatches += static_cast<double>(run.serverBatches);
        tokens += static_cast<double>(run.tokens.size());
    }
    AddTokenMetrics(metrics, later);
    AddResponseMetrics(metrics, study, runs);
    AddLoadMetrics(metrics, study, runs);
    AddPlaceMetrics(metrics, study, runs);
    AddDirections(metrics, "wire_bytes", wire, 1.0);
    if (cells > 0.0)
    {
        metrics.emplace_back("offload_ratio", offloaded / cells);
        metrics.emplace_back("return_ratio", returned / cells);
    }
    AddExitMetrics(metrics, runs);
    AddGateMetrics(metrics, runs);
    AddQualityMetrics(metrics, study, runs);
    AddOpscMetrics(metrics, study, runs);
    AddMemoryMetrics(metrics, runs);
    AddLinkBytes(metrics, runs);
    AddLinkMetrics(metrics, study, runs);
    metrics.emplace_back("server_busy_s", busy);
    metrics.emplace_back("server_tokens", serverTokens);
    if (serverBatches > 0.0)
    {
        metrics.emplace_back("server_batch.mean", serverJobs / serverBatches);
    }
    metrics.emplace_back("tokens", tokens);
    metrics.emplace_back("sessions_lost", lost);
    return metrics;
}

} // namespace splitllm
