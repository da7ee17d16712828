// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_ANSWERS_H
#define SPLITLLM_ANSWERS_H

#include "recorder.h"
#include "study.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
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
QualityRow Compare(std::span<const float> logits, std::span<const float> reference, TokenId token);

/**
 * The model with its whole adapter in one piece, outside of simulated time, as what a scheme is measured against on the
 * same prefixes.
 */
class ReferenceModel
{
  public:
    ReferenceModel(const ModelSpec& model, std::uint32_t threads);
    ~ReferenceModel();

    /// Logits of every token of \p answer after \p prompt: row k is what answer[k] is chosen from.
    Tensor Logits(std::span<const TokenId> prompt, std::span<const TokenId> answer);

  private:
    struct Parts;
    std::unique_ptr<Parts> m_parts;
};

/**
 * Runs \p study along its reference answers and compares every distribution with the full model's.
 * \param requests of the run: whose answers are asked for
 */
std::vector<QualityRow> JudgeQuality(const Study& study,
                                     std::uint32_t repetition,
                                     std::uint32_t threads,
                                     const std::vector<RequestRow>& requests,
                                     const std::function<void()>& onToken);

} // namespace splitllm

#endif // SPLITLLM_ANSWERS_H
