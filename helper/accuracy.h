// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_ACCURACY_H
#define SPLITLLM_ACCURACY_H

#include "base/strict-json.h"
#include "codec/tensor-codec.h"
#include "llm/sampling.h"

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace splitllm
{

/**
 * \file
 * OPSC's accuracy oracle A(l, Qw, Qa) of Eq 8: how well a split model with quantised weights and a coded hidden state
 * predicts text that nothing was calibrated on. Without simulated time and without ns-3.
 */

/// Where the names of an accuracy study are looked up.
struct AccuracyFolders
{
    std::filesystem::path models;
    std::filesystem::path texts;        //!< NAME.jsonl, made by scripts/make-text
    std::filesystem::path calibrations; //!< activation statistics
};

/// One way to split a model.
struct AccuracyConfiguration
{
    std::size_t split = 0;  //!< l: the state crosses after layer l, layers 1 to l are the front
    unsigned frontBits = 0; //!< Qw1: of the weights of layers 1 to l
    unsigned backBits = 0;  //!< Qw2: of the others
    Json codecJson;         //!< as the study says, with defaults
    std::shared_ptr<const TensorCodec> codec;
};

/// A text, and the ways to split a model whose predictions of it are compared.
struct AccuracyStudy
{
    std::string modelName;
    std::filesystem::path model;
    std::string text;
    std::vector<std::vector<TokenId>> windows; //!< each predicted from its own start on
    std::size_t rowsPerMessage = 1;            //!< states that are coded together
    unsigned storedBits = 0;                   //!< of a weight as the model is stored
    std::size_t weightGroup = 0;               //!< columns that share a scale where weights are quantised
    std::vector<AccuracyConfiguration> configurations;
};

/// What a configuration is worth: means over the tokens predicted.
struct Accuracy
{
    double perplexity = 0.0;
    double klNats = 0.0;           //!< of the full-precision model's distribution to this one
    double top1Agreement = 0.0;    //!< share of tokens where both have the same most likely one
    double bytesPerToken = 0.0;    //!< payload of a state
    double meanSquaredError = 0.0; //!< of a state's element after the codec
    double aboveShare = 0.0;       //!< TAB-Q: elements that travel exactly
    double aboveBytesShare = 0.0;  //!< TAB-Q: of the payload, what they take
    double meanBits = 0.0;         //!< TAB-Q: Q*, of a magnitude
};

/// The full-precision model, and every configuration in the order of the study.
struct AccuracyResult
{
    std::size_t tokens = 0; //!< that were predicted
    Accuracy base;
    std::vector<Accuracy> configurations;
};

/**
 * Reads an accuracy study. In its configurations "split", "front_bits", "back_bits" and "codec" may be lists: all
 * combinations then count.
 * \throws InputError "ORIGIN: PATH: what is wrong; what is accepted"
 */
AccuracyStudy ReadAccuracyStudy(Json& json, const std::string& origin, const AccuracyFolders& folders);

/**
 * Predicts the text in every configuration. The same study gives the same bits, whatever the number of threads.
 * \param threads 0: one for each core
 * \param onWindow called after each window
 * \throws InputError if a codec cannot carry a state
 */
AccuracyResult MeasureAccuracy(const AccuracyStudy& study,
                               std::size_t threads,
                               const std::function<void(std::size_t done)>& onWindow);

/// The result as what is committed: {"command", "model", "text", "window", "tokens", "weight_group", "rows": [{"split",
/// ...}]}.
Json AccuracyReport(const AccuracyStudy& study, const AccuracyResult& result, const std::string& command);

/**
 * The report of the study \p json, or of those that it lists under "models": {"command", "models": reports of those
 * whose model is there, "not_run": [{"model", "why"}]}.
 * \param origin the study's file
 * \param say called with a line of progress
 * \throws InputError
 */
Json MeasureStudies(Json& json,
                    const std::string& origin,
                    const AccuracyFolders& folders,
                    std::size_t threads,
                    const std::function<void(const std::string& line)>& say);

} // namespace splitllm

#endif // SPLITLLM_ACCURACY_H
