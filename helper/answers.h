// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_ANSWERS_H
#define SPLITLLM_ANSWERS_H

#include "recorder.h"
#include "study.h"

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace splitllm
{

/**
 * \file
 * How good answers are. Texts are compared as token ids, both up to the first token that ends an answer.
 */

/// Whether \p generated is \p answer. \param stop tokens that end an answer
bool ExactMatch(std::span<const TokenId> generated, std::span<const TokenId> answer, std::span<const TokenId> stop);

/// Harmonic mean of precision and recall over the bags of tokens (as SQuAD's F1 is over words); 1 if both are empty.
double TokenF1(std::span<const TokenId> generated, std::span<const TokenId> answer, std::span<const TokenId> stop);

/// ROUGE-L (Lin and Och) at beta = 1: harmonic mean of the shares that their longest common subsequence is of
/// \p generated and of \p answer; 1 if both are empty.
double RougeL(std::span<const TokenId> generated, std::span<const TokenId> answer, std::span<const TokenId> stop);

/**
 * Expected calibration error (Guo et al. 2017, Eq 3): mean distance of confidence from agreement with the full model
 * over ten bins of equal width, the right end in each, weighted by their rows. Nothing where no row has a confidence.
 */
std::optional<double> ExpectedCalibrationError(const std::vector<QualityRow>& rows);

/// Means over the tokens of one reference answer.
struct AnswerQuality
{
    double klNats = 0.0;
    double agreement = 0.0;
    double nll = 0.0;
    std::size_t tokens = 0;
};

/// That of every request that was judged.
std::map<std::uint32_t, AnswerQuality> QualityByRequest(const std::vector<QualityRow>& rows);

/// A distribution against the reference: \p logits of a scheme, \p reference of the full model, \p token of the answer.
/// Which token it is and which exit it came from is left open.
QualityRow Compare(std::span<const float> logits, std::span<const float> reference, TokenId token);

/**
 * The model with its whole adapter, or a side network that is always asked, in one piece, outside of simulated time, as
 * what a scheme is measured against on the same prefixes.
 */
class ReferenceModel
{
  public:
    /// \param side null without a side network
    ReferenceModel(const ModelSpec& model, std::shared_ptr<const SideNetwork> side, const BackendChoice& backend);
    ~ReferenceModel();

    /// Logits of every token of \p answer after \p prompt: row k is what answer[k] is chosen from.
    Tensor Logits(std::span<const TokenId> prompt, std::span<const TokenId> answer);

  private:
    struct Parts;
    std::unique_ptr<Parts> m_parts;
};

/**
 * The distribution that each token of a run along reference answers was chosen from. Nodes may report more than were
 * used: what an exit thought before the cloud was asked, what a cloud answered too late.
 */
class ChosenLogits
{
  public:
    /// Keeps what a node reports until its token comes.
    void OnLogits(const LogitsRecord& record);

    /// Which node's the next token of the request is chosen from; without it, whichever reported last.
    void OnExit(const ExitRecord& record);

    /// What the token that came was chosen from.
    struct Choice
    {
        std::vector<float> logits;
        std::uint16_t layer = 0; //!< as in QualityRow
        double confidence;       //!< likewise
    };

    /**
     * The token of \p request that was chosen from \p position came; this row and those before it are done with.
     * \throws std::logic_error if nothing was reported for it
     */
    Choice OnToken(std::uint32_t request, std::uint32_t position);

  private:
    /// What was reported for one row.
    struct Reports
    {
        std::array<std::optional<std::vector<float>>, kPlaces> logits; //!< the latest, by place
        Place latest = Place::User;
    };

    struct Pending
    {
        std::map<std::uint32_t, Reports> rows; //!< by position
        std::optional<ExitRecord> exit;
    };

    std::map<std::uint32_t, Pending> m_pending; //!< by request
};

/**
 * Runs \p study along its reference answers and compares the distribution that each token was chosen from with the full
 * model's.
 * \param requests of the run: whose answers are asked for
 */
std::vector<QualityRow> JudgeQuality(const Study& study,
                                     std::uint32_t repetition,
                                     std::uint32_t threads,
                                     const std::vector<RequestRow>& requests,
                                     const std::function<void()>& onToken);

} // namespace splitllm

#endif // SPLITLLM_ANSWERS_H
