// SPDX-License-Identifier: GPL-2.0-only
#include "results.h"

#include "answers.h"
#include "base/input-error.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include <unistd.h>

namespace splitllm
{

namespace
{

constexpr const char* kCaptures = "point-"; // what the names of capture files begin with

std::string
Number(double value)
{
    char text[64];
    std::snprintf(text, sizeof(text), "%.6g", value);
    return text;
}

/// \p value, or nothing where there is none.
std::string
NumberOrEmpty(double value)
{
    return std::isnan(value) ? "" : Number(value);
}

Json
JsonOf(const Metrics& metrics)
{
    Json json = Json::object();
    for (const auto& [name, value] : metrics)
    {
        json[name] = value;
    }
    return json;
}

Json
SummaryOf(const std::string& study, const std::vector<PointResult>& points)
{
    Json list = Json::array();
    for (const PointResult& point : points)
    {
        Json set = Json::object();
        for (const auto& [key, value] : point.set)
        {
            set[key] = value;
        }
        Json& json = list.emplace_back(Json{{"set", std::move(set)}, {"metrics", JsonOf(point.metrics)}});
        if (!point.repetitions.empty())
        {
            Json repetitions = Json::array();
            for (const Metrics& metrics : point.repetitions)
            {
                repetitions.push_back(JsonOf(metrics));
            }
            json["repetitions"] = std::move(repetitions);
            json["ci95"] = JsonOf(point.halfWidths);
        }
    }
    return {{"study", study}, {"points", std::move(list)}};
}

/// Calls \p visit with the point's number, the repetition's number and its records.
void
ForEachRun(const std::vector<PointResult>& points,
           const std::function<void(std::size_t, std::size_t, const RunRecords&)>& visit)
{
    for (std::size_t point = 0; point < points.size(); point++)
    {
        for (std::size_t repetition = 0; repetition < points[point].runs.size(); repetition++)
        {
            visit(point, repetition, points[point].runs[repetition]);
        }
    }
}

void
WriteTokens(std::ostream& stream, const std::vector<PointResult>& points)
{
    stream << "point,repetition,session,request,position,token,start_ns,latency_ns";
    for (std::size_t c = 0; c < kComponents; c++)
    {
        stream << ',' << NameOf(static_cast<Component>(c)) << "_ns";
    }
    stream << ",server_ns,payload_bytes_up,payload_bytes_down,messages_up,messages_down,offloaded,returned,exchanges\n";
    ForEachRun(points, [&stream](std::size_t point, std::size_t repetition, const RunRecords& run) {
        for (const TokenRow& row : run.tokens)
        {
            const TokenRecord& token = row.token;
            stream << point << ',' << repetition << ',' << token.session << ',' << token.request << ','
                   << token.position << ',' << token.token << ',' << token.start.GetNanoSeconds() << ','
                   << token.latency.GetNanoSeconds();
            for (const ns3::Time& component : token.components)
            {
                stream << ',' << component.GetNanoSeconds();
            }
            stream << ',' << token.server.GetNanoSeconds() << ',' << token.payloadBytes[0] << ','
                   << token.payloadBytes[1] << ',' << token.messages[0] << ',' << token.messages[1] << ','
                   << row.offloaded << ',' << row.returned << ',' << token.exchanges << '\n';
        }
    });
}

void
WriteDecisions(std::ostream& stream, const std::vector<PointResult>& points)
{
    stream << "point,repetition,session,request,position,layer,offloaded,returned,score_1,score_2\n";
    ForEachRun(points, [&stream](std::size_t point, std::size_t repetition, const RunRecords& run) {
        for (const DecisionRow& decision : run.decisions)
        {
            stream << point << ',' << repetition << ',' << decision.session << ',' << decision.request << ','
                   << decision.position << ',' << decision.layer << ',' << decision.offloaded << ','
                   << decision.returned;
            for (const double score : decision.scores)
            {
                stream << ',' << NumberOrEmpty(score);
            }
            stream << '\n';
        }
    });
}

void
WriteUploads(std::ostream& stream, const std::vector<PointResult>& points)
{
    stream << "point,repetition,session,request,position,keys_and_values,compressed,payload_bytes,start_ns,deadline_ns,"
              "predicted_ns,arrived_ns\n";
    ForEachRun(points, [&stream](std::size_t point, std::size_t repetition, const RunRecords& run) {
        for (const UploadRow& row : run.uploads)
        {
            const UploadRecord& upload = row.upload;
            stream << point << ',' << repetition << ',' << upload.session << ',' << upload.request << ','
                   << upload.position << ',' << upload.keysAndValues << ',' << upload.compressed << ','
                   << upload.payloadBytes << ',' << upload.start.GetNanoSeconds() << ','
                   << upload.deadline.GetNanoSeconds() << ',' << upload.predicted.GetNanoSeconds() << ',';
            if (!row.arrived.IsZero())
            {
                stream << row.arrived.GetNanoSeconds();
            }
            stream << '\n';
        }
    });
}

void
WriteExits(std::ostream& stream, const std::vector<PointResult>& points)
{
    stream << "point,repetition,session,request,position,source,layer,confidence,asked_ns\n";
    ForEachRun(points, [&stream](std::size_t point, std::size_t repetition, const RunRecords& run) {
        for (const ExitRecord& exit : run.exits)
        {
            stream << point << ',' << repetition << ',' << exit.session << ',' << exit.request << ',' << exit.position
                   << ',' << NameOf(exit.source) << ',' << exit.layer << ',' << NumberOrEmpty(exit.confidence) << ',';
            if (!exit.asked.IsZero())
            {
                stream << exit.asked.GetNanoSeconds();
            }
            stream << '\n';
        }
    });
}

void
WriteGates(std::ostream& stream, const std::vector<PointResult>& points)
{
    stream << "point,repetition,session,request,position,open,probability\n";
    ForEachRun(points, [&stream](std::size_t point, std::size_t repetition, const RunRecords& run) {
        for (const GateRecord& gate : run.gates)
        {
            stream << point << ',' << repetition << ',' << gate.session << ',' << gate.request << ',' << gate.position
                   << ',' << gate.open << ',' << NumberOrEmpty(gate.probability) << '\n';
        }
    });
}

void
WriteStandalone(std::ostream& stream, const std::vector<PointResult>& points)
{
    stream << "point,repetition,session,start_ns,end_ns,reason\n";
    ForEachRun(points, [&stream](std::size_t point, std::size_t repetition, const RunRecords& run) {
        for (const StandaloneRecord& stretch : run.standalone)
        {
            stream << point << ',' << repetition << ',' << stretch.session << ',' << stretch.start.GetNanoSeconds()
                   << ',' << stretch.end.GetNanoSeconds() << ',' << stretch.reason << '\n';
        }
    });
}

void
WriteOutages(std::ostream& stream, const std::vector<PointResult>& points)
{
    stream << "point,repetition,name,start_ns,end_ns\n";
    ForEachRun(points, [&stream](std::size_t point, std::size_t repetition, const RunRecords& run) {
        for (const OutageRow& outage : run.outages)
        {
            stream << point << ',' << repetition << ',' << outage.name << ',' << outage.start.GetNanoSeconds() << ',';
            if (outage.end != ns3::Time::Max())
            {
                stream << outage.end.GetNanoSeconds();
            }
            stream << '\n';
        }
    });
}

/// Whether a token was judged that came from an exit with a confidence.
bool
HasConfidence(const RunRecords& run)
{
    return std::ranges::any_of(run.quality, [](const QualityRow& row) { return !std::isnan(row.confidence); });
}

void
WriteConfidence(std::ostream& stream, const std::vector<PointResult>& points)
{
    stream << "point,repetition,request,position,layer,confidence,agrees\n";
    ForEachRun(points, [&stream](std::size_t point, std::size_t repetition, const RunRecords& run) {
        for (const QualityRow& row : run.quality)
        {
            if (!std::isnan(row.confidence))
            {
                stream << point << ',' << repetition << ',' << row.request << ',' << row.position << ',' << row.layer
                       << ',' << Number(row.confidence) << ',' << row.agrees << '\n';
            }
        }
    });
}

void
WriteRequests(std::ostream& stream, const std::vector<PointResult>& points)
{
    stream << "point,repetition,request,prompt,group,tokens,exact_match,f1,rouge_l,kl_nats,nll,top1_agreement,"
              "answer_tokens,arrival_ns,wait_ns\n";
    ForEachRun(points, [&](std::size_t point, std::size_t repetition, const RunRecords& run) {
        const Study& study = points[point].study;
        const std::map<std::uint32_t, AnswerQuality> judged = QualityByRequest(run.quality);
        std::vector<std::optional<ns3::Time>> starts(run.requests.size());
        for (const TokenRow& row : run.tokens)
        {
            if (row.token.position == 1)
            {
                starts.at(row.token.request) = row.token.start;
            }
        }
        for (std::uint32_t r = 0; r < run.requests.size(); r++)
        {
            const RequestRow& row = run.requests[r];
            const RequestSpec& spec = study.requests[row.prompt];
            stream << point << ',' << repetition << ',' << r << ',' << spec.id << ',' << spec.group << ','
                   << row.generated.size();
            if (spec.answer.empty() || study.shapeMode)
            {
                stream << ",,,";
            }
            else
            {
                stream << ',' << ExactMatch(row.generated, spec.answer, study.stop) << ','
                       << Number(TokenF1(row.generated, spec.answer, study.stop)) << ','
                       << Number(RougeL(row.generated, spec.answer, study.stop));
            }
            if (const auto found = judged.find(r); found != judged.end())
            {
                const AnswerQuality& quality = found->second;
                stream << ',' << Number(quality.klNats) << ',' << Number(quality.nll) << ','
                       << Number(quality.agreement) << ',' << quality.tokens;
            }
            else
            {
                stream << ",,,,";
            }
            const std::optional<ns3::Time>& start = starts[r];
            const std::optional<ns3::Time>& arrival = row.arrival ? row.arrival : start; // closed: it starts at once
            stream << ',' << (arrival ? std::to_string(arrival->GetNanoSeconds()) : "") << ','
                   << (start ? std::to_string((*start - *arrival).GetNanoSeconds()) : "") << '\n';
        }
    });
}

void
WriteTimelines(std::ostream& stream, const std::vector<PointResult>& points)
{
    std::vector<PointTimeline> runs;
    ForEachRun(points, [&](std::size_t point, std::size_t, const RunRecords& run) {
        if (!run.timeline.empty())
        {
            runs.push_back({point, TitleOf(points[point].set), run.timeline});
        }
    });
    WriteTimeline(stream, runs);
}

std::string
Formatted(const char* format, double value)
{
    char text[64];
    std::snprintf(text, sizeof(text), format, value);
    return text;
}

/// A cell of the terminal's table: \p format applied to a metric, or a dash.
std::string
CellOf(const PointResult& point, const std::string& metric, double scale, const char* format)
{
    const std::optional<double> value = Find(point.metrics, metric);
    return value ? Formatted(format, *value * scale) : "-";
}

/// Likewise, and half the width of its confidence interval where there is one.
std::string
IntervalOf(const PointResult& point, const std::string& metric, double scale, const char* format)
{
    const std::optional<double> half = Find(point.halfWidths, metric);
    return CellOf(point, metric, scale, format) + (half ? " +- " + Formatted(format, *half * scale) : "");
}

} // namespace

std::string
TitleOf(const PointSet& set)
{
    std::string title;
    for (const auto& [key, value] : set)
    {
        title += (title.empty() ? "" : ", ") + key.substr(key.rfind('.') + 1) + " = " + SweptText(value);
    }
    return title;
}

ResultsFolder::ResultsFolder(std::filesystem::path folder)
    : m_folder(std::move(folder)),
      m_captures(m_folder / ("pcap.part-" + std::to_string(::getpid())))
{
    std::error_code error;
    std::filesystem::create_directories(m_folder, error);
    const std::filesystem::path probe = m_folder / ".write-test";
    const bool writable = !error && std::ofstream(probe).put('\n').good();
    std::filesystem::remove(probe, error);
    if (!writable)
    {
        throw InputError("--out=" + m_folder.string() + ": this folder cannot be created or written; give one that can");
    }
}

ResultsFolder::~ResultsFolder()
{
    std::error_code ignored;
    std::filesystem::remove_all(m_captures, ignored);
}

std::string
ResultsFolder::Captures(std::size_t point, std::size_t repetition) const
{
    std::error_code error;
    std::filesystem::create_directories(m_captures, error);
    if (error)
    {
        throw InputError("--out=" + m_folder.string() + ": a folder for captures cannot be made: " + error.message());
    }
    return m_captures /
           (std::string(kCaptures) + std::to_string(point) + "-repetition-" + std::to_string(repetition) + "-");
}

void
ResultsFolder::MoveCaptures() const
{
    const std::filesystem::path folder = m_folder / "pcap";
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored))
    {
        const std::string name = entry.path().filename();
        if (name.starts_with(kCaptures) && name.ends_with(".pcap"))
        {
            std::filesystem::remove(entry.path(), ignored); // of an earlier study
        }
    }
    for (const auto& entry : std::filesystem::directory_iterator(m_captures, ignored))
    {
        std::filesystem::create_directories(folder);
        std::filesystem::rename(entry.path(), folder / entry.path().filename());
    }
}

void
ResultsFolder::Write(const std::string& study, const std::vector<PointResult>& points, const Json& run) const
{
    using Writer = std::function<void(std::ostream&)>;
    std::vector<std::pair<std::string, Writer>> files{
        {"summary.json", [&](std::ostream& stream) { stream << SummaryOf(study, points).dump(2) << '\n'; }},
        {"tokens.csv", [&](std::ostream& stream) { WriteTokens(stream, points); }},
        {"decisions.csv", [&](std::ostream& stream) { WriteDecisions(stream, points); }},
        {"uploads.csv", [&](std::ostream& stream) { WriteUploads(stream, points); }},
        {"requests.csv", [&](std::ostream& stream) { WriteRequests(stream, points); }},
        {"timeline.json", [&](std::ostream& stream) { WriteTimelines(stream, points); }},
        {"run.json", [&](std::ostream& stream) { stream << run.dump(2) << '\n'; }},
    };
    // Tables of what not every study has; one that an earlier study left would speak of that one.
    std::vector<std::string> absent;
    const auto addWhere = [&](const std::string& name, bool (*has)(const RunRecords&), auto write) {
        bool any = false;
        ForEachRun(points, [&](std::size_t, std::size_t, const RunRecords& run) { any = any || has(run); });
        if (any)
        {
            files.emplace_back(name, [&points, write](std::ostream& stream) { write(stream, points); });
        }
        else
        {
            absent.push_back(name);
        }
    };
    addWhere("exits.csv", [](const RunRecords& run) { return !run.exits.empty(); }, WriteExits);
    addWhere("gates.csv", [](const RunRecords& run) { return !run.gates.empty(); }, WriteGates);
    addWhere("standalone.csv", [](const RunRecords& run) { return !run.standalone.empty(); }, WriteStandalone);
    addWhere("outages.csv", [](const RunRecords& run) { return !run.outages.empty(); }, WriteOutages);
    addWhere("confidence.csv", HasConfidence, WriteConfidence);
    const std::string suffix = ".part-" + std::to_string(::getpid());
    for (const auto& [name, write] : files)
    {
        std::ofstream stream(m_folder / (name + suffix), std::ios::binary);
        write(stream);
        stream.close();
        if (!stream)
        {
            for (const auto& file : files)
            {
                std::error_code ignored;
                std::filesystem::remove(m_folder / (file.first + suffix), ignored);
            }
            throw InputError("--out=" + m_folder.string() + ": writing " + name + " failed; is the disk full?");
        }
    }
    for (const auto& file : files)
    {
        std::filesystem::rename(m_folder / (file.first + suffix), m_folder / file.first);
    }
    for (const std::string& name : absent)
    {
        std::error_code ignored;
        std::filesystem::remove(m_folder / name, ignored);
    }
    MoveCaptures();
}

void
PrintTable(std::ostream& stream, const std::vector<PointResult>& points)
{
    if (points.empty())
    {
        return;
    }
    std::vector<std::vector<std::string>> rows;
    std::vector<std::string> header;
    for (const auto& swept : points.front().set)
    {
        header.push_back(swept.first.substr(swept.first.rfind('.') + 1));
    }
    const std::size_t labels = header.size();
    for (const char* column : {"first token ms", "token ms", "p95 ms"})
    {
        header.emplace_back(column);
    }
    // A component that no point spends time on would be a column of zeros.
    std::vector<std::string> components;
    for (std::size_t c = 0; c < kComponents; c++)
    {
        const std::string name = NameOf(static_cast<Component>(c));
        if (std::ranges::any_of(points, [&](const PointResult& point) {
                return Find(point.metrics, "component_ms." + name + ".mean").value_or(0.0) > 0.0;
            }))
        {
            components.push_back(name);
            header.push_back(name);
        }
    }
    for (const char* column : {"up B/token", "down B/token", "messages"})
    {
        header.emplace_back(column);
    }
    // What is compared with reference answers, and what became of early exits and deadlines, where there are some.
    struct OptionalColumn
    {
        const char* metric;
        const char* title;
        double scale;
        const char* format;
    };
    std::vector<OptionalColumn> optional;
    for (const OptionalColumn& column : {OptionalColumn{"quality.kl_nats", "KL nats", 1.0, "%.4f"},
                                         OptionalColumn{"quality.top1_agreement", "top-1 %", 100.0, "%.1f"},
                                         OptionalColumn{"quality.perplexity", "perplexity", 1.0, "%.3f"},
                                         OptionalColumn{"quality.exact_match", "EM %", 100.0, "%.1f"},
                                         OptionalColumn{"quality.f1", "F1 %", 100.0, "%.1f"},
                                         OptionalColumn{"quality.rouge_l", "ROUGE-L %", 100.0, "%.1f"},
                                         OptionalColumn{"early_exit_ratio", "exit %", 100.0, "%.1f"},
                                         OptionalColumn{"cloud_request_ratio", "cloud %", 100.0, "%.1f"},
                                         OptionalColumn{"fallback_ratio", "fallback %", 100.0, "%.1f"},
                                         OptionalColumn{"deadline_met_ratio", "in time %", 100.0, "%.1f"},
                                         OptionalColumn{"opsc.tokens_per_response", "tokens", 1.0, "%.1f"}})
    {
        if (std::ranges::any_of(points, [&](const PointResult& point) {
                return Find(point.metrics, column.metric).has_value();
            }))
        {
            optional.push_back(column);
            header.emplace_back(column.title);
        }
    }
    rows.push_back(header);
    for (const PointResult& point : points)
    {
        std::vector<std::string> row;
        for (const auto& swept : point.set)
        {
            row.push_back(SweptText(swept.second));
        }
        row.push_back(IntervalOf(point, "ttft_ms.mean", 1.0, "%.2f"));
        row.push_back(IntervalOf(point, "token_latency_ms.mean", 1.0, "%.3f"));
        row.push_back(IntervalOf(point, "token_latency_ms.p95", 1.0, "%.3f"));
        for (const std::string& component : components)
        {
            row.push_back(CellOf(point, "component_ms." + component + ".mean", 1.0, "%.3f"));
        }
        row.push_back(CellOf(point, "payload_bytes_per_token.up", 1.0, "%.0f"));
        row.push_back(CellOf(point, "payload_bytes_per_token.down", 1.0, "%.0f"));
        const double messages = Find(point.metrics, "messages_per_token.up").value_or(0.0) +
                                Find(point.metrics, "messages_per_token.down").value_or(0.0);
        row.push_back(Number(messages));
        for (const OptionalColumn& column : optional)
        {
            row.push_back(IntervalOf(point, column.metric, column.scale, column.format));
        }
        rows.push_back(std::move(row));
    }
    std::vector<std::size_t> widths(header.size(), 0);
    for (const auto& row : rows)
    {
        for (std::size_t i = 0; i < row.size(); i++)
        {
            widths[i] = std::max(widths[i], row[i].size());
        }
    }
    for (std::size_t r = 0; r < rows.size(); r++)
    {
        for (std::size_t i = 0; i < header.size(); i++)
        {
            const std::string padding(widths[i] - rows[r][i].size(), ' ');
            stream << (i == 0 ? "" : "  ") << (i < labels ? rows[r][i] + padding : padding + rows[r][i]);
        }
        stream << '\n';
        if (r > 0)
        {
            const PointResult& point = points[r - 1];
            for (const RunRecords& run : point.runs)
            {
                if (!run.outOfMemory.empty())
                {
                    stream << "  out of memory: " << run.outOfMemoryReason << '\n';
                }
                for (const std::string& reason : run.sessionsLost)
                {
                    stream << "  session lost: " << reason << '\n';
                }
            }
        }
    }
    stream << "token ms is the mean of tokens 2 to n, and the sum of the components beside it.\n";
    if (std::ranges::any_of(points, [](const PointResult& point) { return !point.halfWidths.empty(); }))
    {
        stream << "+- is half the 95 % confidence interval of the mean over repetitions.\n";
    }
}

std::size_t
CheckExpectations(std::ostream& stream,
                  const std::vector<Expectation>& expectations,
                  const std::vector<PointResult>& points)
{
    std::size_t failed = 0;
    for (const Expectation& expectation : expectations)
    {
        for (const PointResult& point : points)
        {
            if (!Selects(expectation, point.set))
            {
                continue;
            }
            const std::optional<double> found = Find(point.metrics, expectation.metric);
            const bool holds = found && std::abs(*found - expectation.value) <= expectation.tolerance;
            failed += holds ? 0 : 1;
            const std::string title = TitleOf(point.set);
            stream << (holds ? "ok      " : "FAILED  ") << expectation.metric << (title.empty() ? "" : " (" + title + ")")
                   << ": " << (found ? Number(*found) : "not measured") << ", expected "
                   << Number(expectation.value) << " +- " << Number(expectation.tolerance)
                   << (expectation.source.empty() ? "" : "  [" + expectation.source + "]") << '\n';
        }
    }
    return failed;
}

} // namespace splitllm
