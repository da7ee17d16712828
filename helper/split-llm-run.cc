// SPDX-License-Identifier: GPL-2.0-only

// split-llm-run: runs a study.
//
//     split-llm-run --study=scenarios/default.json --out=results/default [--links.device-edge.rate=100Mbps ...]

#include "runner.h"

int
main(int argc, char* argv[])
{
    return splitllm::RunStudies(argc, argv);
}
