// SPDX-License-Identifier: GPL-2.0-only

// A policy of one's own for which (layer, token) cells of LoRA are worth an exchange, and a program that runs studies
// with it.
//
// This one asks the device at every n-th layer. It has a name and a parameter in the study:
//
//     "scheme": { "name": "tlc", "policy": { "name": "every-nth", "n": 3 } }
//
//     split-llm-own-policy --study=scenarios/default.json --set=scheme.name=tlc --set=scheme.policy.name=every-nth --set=scheme.policy.n=3
//
// Everything else is as with split-llm-run: sweeps, quality, results. Tier 2 would be OffloadPolicy::Return.

#include "policy/offload-policy.h"
#include "runner.h"

#include <cstddef>
#include <memory>

using namespace splitllm;

namespace
{

class EveryNth final : public OffloadPolicy
{
  public:
    explicit EveryNth(std::size_t n)
        : m_n(n)
    {
    }

    Verdict Offload(const EdgeView& view) const override
    {
        return {.yes = view.cell.layer % m_n == 0, .score = {}};
    }

  private:
    std::size_t m_n;
};

} // namespace

int
main(int argc, char* argv[])
{
    RegisterOffloadPolicy("every-nth", [](StrictObject& parameters, const PolicyContext& context) {
        return std::make_shared<const EveryNth>(parameters.Integer("n", 1, context.config.layers));
    });
    return RunStudies(argc, argv);
}
