// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cpu/cpu-backend.h"
#include "policy/calibrator.h"
#include "read-bandwidth.h"
#include "support/random-model.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <memory>
#include <vector>

// What TLC-Calibrator's decisions cost beside the layer that they are about: SmolLM2-135M's shape, one token after 32
// others, one thread, the committed calibrators.

using namespace splitllm;

namespace
{

constexpr std::size_t kContext = 32;
constexpr std::size_t kLayer = 10;

/// Best of some runs of \p times calls of \p call, in seconds a call.
template <typename F>
double
Best(std::size_t times, F&& call)
{
    double best = std::numeric_limits<double>::infinity();
    for (int run = 0; run < 7; run++)
    {
        best = std::min(best, bench::Seconds([&] {
                            for (std::size_t i = 0; i < times; i++)
                            {
                                call();
                            }
                        }) / static_cast<double>(times));
    }
    return best;
}

void
Decide(benchmark::State& state, const std::filesystem::path& folder)
{
    const ModelConfig config = NamedShape("smollm2-135m", DType::BF16);
    const auto calibrator = Calibrator::Load(folder, config);
    CpuBackend backend(1);
    const auto model = backend.Resident(test::RandomModel(config, 1));
    const Tensor hidden = backend.Embed(*model, std::vector<TokenId>{100}, 0).value;
    const Projections base = backend.Project(*model, kLayer, hidden).value;
    std::vector<float> update;
    for (const Tensor* part : {&base.query, &base.key, &base.value})
    {
        update.insert(update.end(), part->Values().begin(), part->Values().end());
    }
    double tier1 = 0.0;
    double tier2 = 0.0;
    double layer = 0.0;
    for (auto _ : state)
    {
        tier1 = Best(1000, [&] {
            benchmark::DoNotOptimize(calibrator->Tier1Score(kLayer, kContext, hidden.Row(0)));
        });
        tier2 = Best(1000, [&] {
            benchmark::DoNotOptimize(calibrator->Tier2Score(kLayer, update, update, {1.0F, 1.0F, 1.0F}));
        });
        const auto cache = backend.NewCache(*model, kLayer, kLayer + 1, 4096);
        for (std::size_t i = 0; i < kContext; i++)
        {
            backend.FinishLayer(*model, kLayer, hidden, base, *cache);
        }
        layer = Best(100, [&] {
            const Projections projections = backend.Project(*model, kLayer, hidden).value;
            benchmark::DoNotOptimize(backend.FinishLayer(*model, kLayer, hidden, projections, *cache).value);
        });
    }
    state.counters["tier1_us"] = tier1 * 1e6;
    state.counters["tier2_us"] = tier2 * 1e6;
    state.counters["layer_us"] = layer * 1e6;
    state.counters["tier1_percent"] = 100.0 * tier1 / layer;
    state.counters["tier2_percent"] = 100.0 * tier2 / layer;
}

const int kRegistered = [] {
    std::vector<std::filesystem::path> folders;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(SPLITLLM_CALIBRATOR_DIR))
    {
        if (entry.path().filename() == "calibrator.json")
        {
            folders.push_back(entry.path().parent_path());
        }
    }
    std::ranges::sort(folders);
    for (const std::filesystem::path& folder : folders)
    {
        const std::string name = folder.parent_path().filename().string() + "/" + folder.filename().string();
        benchmark::RegisterBenchmark(("calibrator/" + name).c_str(), Decide, folder)
            ->Iterations(3)
            ->Unit(benchmark::kMillisecond);
    }
    return 0;
}();

} // namespace
