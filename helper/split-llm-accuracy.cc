// SPDX-License-Identifier: GPL-2.0-only

// split-llm-accuracy: how well split models predict text, by split layer, bits and codec.
//
//     split-llm-accuracy scenarios/opsc/accuracy/codecs.json results/codecs.json

#include "accuracy.h"
#include "base/input-error.h"

#include <charconv>
#include <cstdio>
#include <exception>
#include <fstream>
#include <string>
#include <vector>

using namespace splitllm;

namespace
{

constexpr int kBadInput = 2;
constexpr int kInternalError = 3;

constexpr const char* kUsage = "usage: split-llm-accuracy [OPTION]... STUDY.json OUT.json\n"
                               "  --models=DIR        folder of model folders\n"
                               "  --texts=DIR         folder of texts (NAME.jsonl)\n"
                               "  --calibrations=DIR  folder of activation statistics\n"
                               "  --threads=N         default: one for each core; results do not depend on it\n";

struct Options
{
    AccuracyFolders folders{.models = SPLITLLM_MODEL_DIR,
                            .texts = SPLITLLM_SOURCE_DIR "/scenarios/texts",
                            .calibrations = SPLITLLM_SOURCE_DIR "/scenarios/calibrations"};
    std::size_t threads = 0;
    std::vector<std::string> files; //!< study, output
};

Options
ReadOptions(int argc, char* argv[])
{
    Options options;
    for (int i = 1; i < argc; i++)
    {
        const std::string argument = argv[i];
        const std::size_t equals = argument.find('=');
        const std::string name = argument.substr(0, equals);
        const std::string value = equals == std::string::npos ? "" : argument.substr(equals + 1);
        if (name == "--models")
        {
            options.folders.models = value;
        }
        else if (name == "--texts")
        {
            options.folders.texts = value;
        }
        else if (name == "--calibrations")
        {
            options.folders.calibrations = value;
        }
        else if (name == "--threads")
        {
            const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), options.threads);
            if (error != std::errc() || end != value.data() + value.size() || options.threads > 1024)
            {
                throw InputError("--threads: \"" + value + "\" is no number from 0 to 1024");
            }
        }
        else if (argument.starts_with("-"))
        {
            throw InputError(name + ": no such option; --models, --texts, --calibrations and --threads are accepted");
        }
        else
        {
            options.files.push_back(argument);
        }
    }
    if (options.files.size() != 2)
    {
        throw InputError("two files are expected, a study and where its result goes; --help says more");
    }
    return options;
}

void
Run(const Options& options)
{
    const std::string& file = options.files[0];
    Json json = LoadStrictJson(file);
    const Json report = MeasureStudies(json, file, options.folders, options.threads, [](const std::string& line) {
        std::fprintf(stderr, "%s\n", line.c_str());
    });
    std::ofstream stream(options.files[1]);
    stream << report.dump(1) << '\n';
    if (!stream.flush())
    {
        throw InputError(options.files[1] + ": cannot be written");
    }
}

} // namespace

int
main(int argc, char* argv[])
{
    try
    {
        if (argc == 2 && std::string(argv[1]) == "--help")
        {
            std::fputs(kUsage, stdout);
            return 0;
        }
        Run(ReadOptions(argc, argv));
        return 0;
    }
    catch (const InputError& error)
    {
        std::fprintf(stderr, "split-llm-accuracy: %s\n", error.what());
        return kBadInput;
    }
    catch (const std::exception& error)
    {
        std::fprintf(stderr, "split-llm-accuracy: internal error: %s\n", error.what());
        return kInternalError;
    }
}
