// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_RUNNER_H
#define SPLITLLM_RUNNER_H

namespace splitllm
{

/**
 * What split-llm-run does with its command line: reads a study, runs its points, prints the table, writes the results.
 * A program of your own calls it after it has registered what it adds (RegisterOffloadPolicy).
 *
 * Every key of the study is an option of ns-3's CommandLine, so that ns-3 campaign tools can drive it. Results go to
 * files, the table to standard output, progress and errors to standard error.
 * \return exit status: 0; 1 an expectation failed; 2 bad input; 3 internal error
 */
int RunStudies(int argc, char* argv[]);

} // namespace splitllm

#endif // SPLITLLM_RUNNER_H
