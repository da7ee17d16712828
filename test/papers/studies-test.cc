// SPDX-License-Identifier: GPL-2.0-only

// The studies in scenarios/: those of published numbers meet what they expect, and all can be read.

#include "support/catch.h"
#include "support/error-of.h"
#include "support/temporary-folder.h"

#include "study.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <sys/wait.h>

using namespace splitllm;

namespace
{

const std::filesystem::path kScenarios = std::filesystem::path(SPLITLLM_SOURCE_DIR) / "scenarios";

std::vector<std::filesystem::path>
StudiesIn(const std::filesystem::path& folder)
{
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder))
    {
        if (entry.path().extension() == ".json")
        {
            files.push_back(entry.path());
        }
    }
    std::ranges::sort(files);
    return files;
}

} // namespace

TEST_CASE("every study of published numbers finds what it expects", "[papers]")
{
    const test::TemporaryFolder folder;
    const std::vector<std::filesystem::path> files = StudiesIn(kScenarios / "papers");
    CHECK(files.size() >= 9);
    for (const std::filesystem::path& file : files)
    {
        const std::filesystem::path log = folder.Path() / "log";
        const int result = std::system(
            ("'" SPLITLLM_TEST_RUNNER "' --study='" + file.string() + "' >'" + log.string() + "' 2>&1").c_str());
        std::ifstream stream(log);
        const std::string output{std::istreambuf_iterator<char>(stream), {}};
        INFO(file.string() << "\n" << output);
        CHECK(WIFEXITED(result));
        CHECK(WEXITSTATUS(result) == 0);
        CHECK(output.find("ok      ") != std::string::npos);
    }
}

TEST_CASE("every study that comes with the module can be read", "[scenarios][smollm2]")
{
    const char* models = std::getenv("SPLITLLM_MODELS");
    if (models == nullptr || !std::filesystem::exists(std::filesystem::path(models) / "private-qa-robust-rank-4"))
    {
        WARN("skipped: no SPLITLLM_MODELS with the models of scripts/setup.sh");
        return;
    }
    const StudyFolders folders{.models = models,
                               .adapters = std::filesystem::path(SPLITLLM_SOURCE_DIR) / "adapters",
                               .profiles = kScenarios / "hardware",
                               .prompts = kScenarios / "prompts",
                               .calibrators = kScenarios / "calibrators",
                               .calibrations = kScenarios / "calibrations",
                               .exits = kScenarios / "exits",
                               .sideNetworks = kScenarios / "side-networks"};
    for (const char* name : {".", "ce-collm", "examples", "links", "opsc", "spa", "tlc", "compare", "papers"})
    {
        for (const std::filesystem::path& path : StudiesIn(kScenarios / name))
        {
            CAPTURE(path.string());
            CHECK(test::ErrorOf([&] {
                      const StudyFile file = LoadStudyFile(path, {});
                      for (const PointSet& point : file.points)
                      {
                          Json json = PointOf(file, point);
                          ReadStudy(json, file.origin, folders);
                      }
                  }).empty());
        }
    }
}
