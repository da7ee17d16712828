// SPDX-License-Identifier: GPL-2.0-only

// The studies in scenarios/ can be read. (Those of published numbers run in scripts/test, by scripts/regress.)

#include "support/catch.h"
#include "support/error-of.h"

#include "study.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

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
