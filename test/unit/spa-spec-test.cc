// SPDX-License-Identifier: GPL-2.0-only

// What a study says of SPA and LST, and the cases of a sweep, which SPA's studies have.

#include "support/catch.h"
#include "support/error-of.h"
#include "support/side-folder.h"
#include "support/study-fixture.h"
#include "support/temporary-folder.h"

#include "spa-spec.h"
#include "study.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

/// A numeric study of SPA with a side network, and the same in shape mode.
class SpaFile
{
  public:
    explicit SpaFile(const std::string& model = "tiny-llama")
    {
        m_side = WriteSideNetwork(m_folder, LoadConfig(TestModel(model)), 5, 7).string();
    }

    Json Numeric() const
    {
        Json json = TinyStudy();
        json["model"].erase("adapter");
        json["scheme"] = {{"name", "spa"}, {"side", {{"path", m_side}}}};
        return json;
    }

    static Json Shape()
    {
        Json json = TinyStudy();
        json["mode"] = "shape";
        json["model"] = {{"path", "tiny-llama"}, {"dtype", "fp16"}};
        json["scheme"] = {{"name", "spa"}, {"side", {{"width", 5}}}, {"policy", {{"name", "always"}}}};
        json["workload"] = Json::parse(R"({"prompt_tokens": [{"tokens": 7, "requests": 1}], "new_tokens": 4})");
        return json;
    }

    /// The one line that \p change of a study is told.
    static std::string Error(Json json, const std::function<void(Json&)>& change)
    {
        change(json);
        const std::string error = ErrorOf([&] { ReadStudy(json, "test", Folders()); });
        CHECK(error.find('\n') == std::string::npos);
        return error;
    }

    const std::string& Side() const
    {
        return m_side;
    }

  private:
    TemporaryFolder m_folder;
    std::string m_side;
};

/// A study file with \p sweep, and with \p overrides applied.
StudyFile
LoadSweep(const Json& sweep, const std::vector<std::pair<std::string, std::string>>& overrides = {})
{
    const TemporaryFolder folder;
    Json json = SpaFile::Shape();
    json["sweep"] = sweep;
    return LoadStudyFile(folder.Write("study.json", json.dump()), overrides);
}

std::string
SweepError(const Json& sweep, const std::vector<std::pair<std::string, std::string>>& overrides = {})
{
    const std::string error = ErrorOf([&] { LoadSweep(sweep, overrides); });
    CHECK(error.find('\n') == std::string::npos);
    return error;
}

bool
Has(const std::string& text, const std::string& part)
{
    return text.find(part) != std::string::npos;
}

} // namespace

TEST_CASE("What a study says of SPA reaches its options", "[spa][study]")
{
    const SpaFile file;
    Json json = file.Numeric();
    Study study = ReadStudy(json, "test", Folders());
    CHECK(study.scheme.side->width == 5);
    CHECK(study.scheme.side->inner == 7);
    CHECK(study.scheme.spa.downProjection == SpaNode::Cloud);
    CHECK(study.scheme.spa.head == SpaNode::Device);
    CHECK(study.scheme.spa.stream);
    CHECK(study.scheme.spa.policy->UsesGate());
    CHECK(study.links.front().kinds.empty());
    // Defaults are written into the study.
    CHECK(json["scheme"]["down_projection"] == "cloud");
    CHECK(json["scheme"]["head"] == "device");
    CHECK(json["scheme"]["notice"] == "message");
    CHECK(json["scheme"]["policy"] == Json{{"name", "gate"}, {"threshold", 0.5}});

    json = SpaFile::Shape();
    json["scheme"]["side"] = {{"width", 9}, {"combination", "alone"}, {"label", "nine"}};
    json["scheme"].update({{"down_projection", "device"}, {"head", "cloud"}, {"stream", false}});
    json["links"]["device-edge"] = {{"type", "service"}, {"rate", "1Gbps"}};
    json["scheme"].update({{"notice", "free"}});
    study = ReadStudy(json, "test", Folders());
    CHECK(study.scheme.side->width == 9);
    CHECK(study.scheme.side->inner == 9);
    CHECK(study.scheme.side->alone);
    CHECK(study.scheme.spa.downProjection == SpaNode::Device);
    CHECK(study.scheme.spa.head == SpaNode::Cloud);
    CHECK_FALSE(study.scheme.spa.stream);
    CHECK_FALSE(study.scheme.spa.policy->UsesGate());
    using enum MessageKind;
    const auto isFree = [&study](MessageKind kind) {
        const auto found = study.links.front().kinds.find(kind);
        return found != study.links.front().kinds.end() && found->second.payloadBytes == 0;
    };
    CHECK(isFree(NextToken));
    for (const MessageKind kind : {Tokens, SideOutput, Candidates, SideStates, Generate, Answer})
    {
        CHECK_FALSE(isFree(kind));
    }
    json["scheme"].update({{"notice", "message"}, {"reply", "free"}});
    study = ReadStudy(json, "test", Folders());
    for (const MessageKind kind : {Tokens, SideOutput, Candidates})
    {
        CHECK(isFree(kind));
    }
    for (const MessageKind kind : {NextToken, SideStates, Generate, Answer})
    {
        CHECK_FALSE(isFree(kind));
    }
}

TEST_CASE("LST has SPA's keys but no policy", "[spa][study]")
{
    const SpaFile file;
    Json json = file.Numeric();
    json["scheme"]["name"] = "lst";
    const Study study = ReadStudy(json, "test", Folders());
    CHECK(study.scheme.spa.policy->Decide({0, 1, {}, 0.0}).open);
    CHECK_FALSE(study.scheme.spa.policy->UsesGate());
    CHECK(SpaFile::Error(json, [](Json& its) {
              its["scheme"]["policy"] = {{"name", "always"}};
          }).starts_with("test: scheme.policy: unknown key"));
}

TEST_CASE("A study of SPA that cannot be is told so in one line, with what is accepted", "[spa][study][bad-input]")
{
    const SpaFile file;
    const Json numeric = file.Numeric();
    const Json shape = SpaFile::Shape();
    const std::string side = file.Side();
    const auto scheme = [](const Json& keys) { return [keys](Json& json) { json["scheme"].update(keys); }; };

    struct Case
    {
        Json study;
        std::function<void(Json&)> change;
        std::string error; //!< its beginning
        std::string accepted; //!< a part of it
    };

    const std::vector<Case> cases{
        {numeric, [](Json& json) { json["scheme"].erase("side"); }, "test: scheme.side: ", "missing"},
        {numeric, scheme({{"side", "private-qa"}}), "test: scheme.side: ", "object"},
        {numeric, scheme({{"side", Json::object()}}), "test: scheme.side.path: ", "missing"},
        {numeric, scheme({{"side", {{"path", "./nowhere"}}}}), "./nowhere/side.json: ", ""},
        {numeric, scheme({{"side", {{"path", "nowhere"}}}}), (Folders().sideNetworks / "nowhere/side.json").string(),
         ""},
        {numeric, scheme({{"side", {{"path", side}, {"width", 5}}}}), "test: scheme.side.width: unknown key", "path"},
        {numeric, scheme({{"side", {{"path", side}, {"combination", "sum"}}}}),
         "test: scheme.side.combination: unknown key", "path"},
        {numeric, scheme({{"side", {{"path", side}, {"label", 3}}}}), "test: scheme.side.label: ", "string"},
        {shape, scheme({{"side", {{"path", side}}}}), "test: scheme.side.width: ", "missing"},
        {shape, scheme({{"side", {{"width", 5}, {"path", side}}}}), "test: scheme.side.path: unknown key", "width"},
        {shape, scheme({{"side", {{"width", 0}}}}), "test: scheme.side.width: ", "1"},
        {shape, scheme({{"side", {{"width", 65537}}}}), "test: scheme.side.width: ", "65536"},
        {shape, scheme({{"side", {{"width", 5}, {"inner", 0}}}}), "test: scheme.side.inner: ", "1"},
        {shape, scheme({{"side", {{"width", 5}, {"combination", "product"}}}}), "test: scheme.side.combination: ",
         "alone"},
        {numeric, scheme({{"sides", 1}}), "test: scheme.sides: unknown key", "down_projection"},
        {numeric, scheme({{"down_projection", "edge"}}), "test: scheme.down_projection: ", "cloud, device"},
        {numeric, scheme({{"head", "both"}}), "test: scheme.head: ", "cloud, device"},
        {numeric, scheme({{"stream", "yes"}}), "test: scheme.stream: ", "true or false"},
        {numeric, scheme({{"notice", "free"}}), "test: scheme.notice: ", "service"},
        {numeric, scheme({{"reply", "free"}}), "test: scheme.reply: ", "service"},
        {numeric, scheme({{"reply", "cheap"}}), "test: scheme.reply: ", "message, free"},
        {numeric, scheme({{"policy", {{"name", "gate"}, {"threshold", 1.5}}}}), "test: scheme.policy.threshold: ", "1"},
        {numeric, scheme({{"policy", {{"name", "gate"}, {"threshold", -0.1}}}}), "test: scheme.policy.threshold: ",
         "0"},
        {numeric, scheme({{"policy", {{"name", "never"}, {"threshold", 0.5}}}}),
         "test: scheme.policy.threshold: unknown key", "name"},
        {numeric, scheme({{"policy", {{"name", "sometimes"}}}}), "test: scheme.policy.name: ",
         "gate, always, never, random, listed"},
        {numeric, scheme({{"policy", {{"name", "random"}}}}), "test: scheme.policy.open: ", "missing"},
        {numeric, scheme({{"policy", {{"name", "random"}, {"open", 2}}}}), "test: scheme.policy.open: ", "1"},
        {numeric, scheme({{"policy", {{"name", "listed"}, {"tokens", {0, 2}}}}}), "test: scheme.policy.tokens: ",
         "0 and 1"},
        {numeric, scheme({{"policy", {{"name", "listed"}, {"tokens", Json::array()}}}}),
         "test: scheme.policy.tokens: ", "not empty"},
        {shape, scheme({{"policy", {{"name", "gate"}}}}), "test: scheme.policy.name: ",
         "always, never, random, listed"},
        {shape, [](Json& json) { json["scheme"].erase("policy"); }, "test: scheme.policy.name: ",
         "always, never, random, listed"},
        {numeric, [](Json& json) { json["model"]["adapter"] = {{"path", "tiny-llama-lora"}}; },
         "test: model.adapter: scheme \"spa\" has no place for an adapter", ""},
        {shape, [](Json& json) { json["model"]["adapter"] = {{"rank", 4}}; },
         "test: model.adapter: scheme \"spa\" has no place for an adapter", ""},
    };
    for (const Case& its : cases)
    {
        CAPTURE(its.error, its.accepted);
        REQUIRE(SpaFile::Error(its.study, [](Json&) {}).empty());
        const std::string error = SpaFile::Error(its.study, its.change);
        CHECK(error.substr(0, its.error.size()) == its.error);
        CAPTURE(error);
        CHECK(Has(error, its.accepted));
    }
}

TEST_CASE("A side network of another model is told apart", "[spa][study][bad-input]")
{
    ModelConfig config = LoadConfig(TestModel("tiny-llama"));
    const auto error = [](const ModelConfig& other) {
        const TemporaryFolder folder;
        const std::filesystem::path path = WriteSideNetwork(folder, other, 5, 7);
        Json study = SpaFile().Numeric();
        study["scheme"]["side"]["path"] = path.string();
        const std::string whole = SpaFile::Error(study, [](Json&) {});
        return whole.starts_with(path.string()) ? whole.substr(path.string().size()) : whole;
    };
    CHECK(error(config).empty());
    config.hidden += 1;
    CHECK(Has(error(config), "side.1.down"));
    config.hidden -= 1;
    config.layers = 3;
    CHECK(Has(error(config), "side.4.down"));
    config.layers = 5;
    CHECK(Has(error(config), "\"side.5.down\": belongs to no side network"));
}

TEST_CASE("The cases of a sweep set all of their keys, in every point", "[study]")
{
    const Json cases = Json::parse(R"([
        {"label": "one", "scheme.head": "cloud", "scheme.side": {"width": 11}},
        {"label": "two", "scheme.head": "device", "scheme.side": {"width": 12}, "scheme.policy": {"name": "never"}}])");
    const StudyFile file = LoadSweep({{"case", cases}, {"workload.new_tokens", {3, 5}}});
    REQUIRE(file.points.size() == 4);
    std::vector<std::string> read;
    for (const PointSet& point : file.points)
    {
        Json json = PointOf(file, point);
        CHECK_FALSE(json.contains("case"));
        CHECK_FALSE(json.contains("label"));
        const Study study = ReadStudy(json, "test", Folders());
        read.push_back(std::string(study.scheme.spa.head == SpaNode::Cloud ? "cloud " : "device ") +
                       std::to_string(study.scheme.side->width) + " " + std::to_string(study.newTokens) +
                       (study.scheme.spa.policy->Decide({0, 1, {}, 0.0}).open ? " open" : " closed"));
    }
    std::ranges::sort(read);
    CHECK(read == std::vector<std::string>{"cloud 11 3 open", "cloud 11 5 open", "device 12 3 closed",
        "device 12 5 closed"});
    CHECK(SweptText(cases[1]) == "two");
}

TEST_CASE("Cases of a sweep that cannot be are told so in one line", "[study][bad-input]")
{
    const auto error = [](const char* cases) { return SweepError({{"case", Json::parse(cases)}}); };
    CHECK(error(R"([{"label": "one", "scheme.head": "cloud"}])").empty());
    CHECK(Has(error(R"([{"scheme.head": "cloud"}])"), "sweep.case[0].label: "));
    CHECK(Has(error(R"([{"label": "one", "scheme.head": "cloud"}, {"scheme.head": "device"}])"),
        "sweep.case[1].label: "));
    CHECK(Has(error(R"([{"label": "one"}])"), "sweep.case[0].label: is alone; accepted: beside it, the keys"));
    CHECK(Has(error(R"([{"label": 1, "scheme.head": "cloud"}])"), "sweep.case[0].label: "));
    CHECK(Has(error(R"(["one"])"), "sweep.case"));
    CHECK(Has(error(R"([])"), "sweep.case: must be a list of at least one value"));
    CHECK(Has(error(R"({"label": "one"})"), "sweep.case: must be a list of at least one value"));

    // A path that leads through something that is no object is seen when the point is made.
    const StudyFile through = LoadSweep({{"case",
        Json::parse(R"([{"label": "a", "scheme.head": "cloud", "scheme.head.x": 1}])")}});
    CHECK(Has(ErrorOf([&] { PointOf(through, through.points.front()); }),
              "sweep.case: scheme.head.x: the path leads to no key of the study"));
}

TEST_CASE("An override of what a case sets is refused, and of anything else is not", "[study][bad-input]")
{
    const Json sweep{{"case",
        Json::parse(R"([{"label": "one", "scheme.side": {"width": 11}, "scheme.head": "cloud"}])")}};
    const auto error = [&](const char* path, const char* value) { return SweepError(sweep, {{path, value}}); };
    CHECK(error("scheme.head",
        "device").starts_with("--set: scheme.head: the cases of the sweep set scheme.head; accepted: "));
    CHECK(error("scheme.side.width",
        "4").starts_with("--set: scheme.side.width: the cases of the sweep set scheme.side; "));
    CHECK(error("scheme", "{}").starts_with("--set: scheme: the cases of the sweep set scheme."));
    CHECK(error("scheme.side_", "1").empty());
    CHECK(error("scheme.policy.name", "never").empty());
    CHECK(error("workload.new_tokens", "2").empty());
    const StudyFile other = LoadSweep(sweep, {{"sweep.case", R"([{"label": "b", "scheme.head": "device"}])"},
                                              {"scheme.side.width", "4"}});
    REQUIRE(other.points.size() == 1);
    Json json = PointOf(other, other.points.front());
    CHECK(ReadStudy(json, "test", Folders()).scheme.side->width == 4);
}
