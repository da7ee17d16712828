// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_RUN_OPTIONS_H
#define SPLITLLM_RUN_OPTIONS_H

#include "study.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace splitllm
{

/// What the command line says, before the study is known.
struct RunOptions
{
    std::string study;
    std::string out;
    std::string record;
    bool listPoints = false;
    std::string point = "all"; //!< or the number of the only one that runs
    std::uint32_t threads = 0;
    StudyFolders folders;
    std::vector<std::string> command; //!< the whole command line, the program first
    std::vector<std::pair<std::string, std::string>> overrides; //!< study keys, in the order given
};

/// Reads the runner's command line, or ends the program where it asks for help. \throws InputError
RunOptions ParseRunOptions(int argc, char* argv[]);

} // namespace splitllm

#endif // SPLITLLM_RUN_OPTIONS_H
