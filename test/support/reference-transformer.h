// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_REFERENCE_TRANSFORMER_H
#define SPLITLLM_TEST_REFERENCE_TRANSFORMER_H

#include "llm/adapter.h"
#include "llm/exits.h"
#include "llm/model.h"

#include <Eigen/Dense>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numbers>
#include <span>
#include <utility>
#include <vector>

namespace splitllm::test
{

/**
 * LLaMA and OPT as their papers write them, for whole sequences, in double precision and with no code of the library
 * but its element conversions: the oracle for the backends.
 */
class ReferenceTransformer
{
  public:
    using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

    /// After each call, of so many tokens, a layer keeps numerator / denominator of its positions (heavy hitters).
    struct Pruning
    {
        std::size_t numerator;
        std::size_t denominator;
        std::vector<std::size_t> calls; //!< empty: all tokens in one
    };

    /// What a layer's cache holds at the end.
    struct Held
    {
        std::vector<Eigen::Index> positions;
        Matrix keys; //!< rotated: positions x kv
        Matrix values;
    };

    /// \param adapter nullptr for none
    explicit ReferenceTransformer(const Model& model, const Adapter* adapter = nullptr, Pruning pruning = {1, 1, {}})
        : m_model(model),
          m_config(model.config),
          m_adapter(adapter),
          m_pruning(std::move(pruning))
    {
    }

    /**
     * Logits of every position of \p tokens, which start at position 0: tokens x vocab.
     * \param held where to append what each layer holds, or nullptr
     */
    Matrix Logits(const std::vector<std::uint32_t>& tokens, std::vector<Held>* held = nullptr) const
    {
        Matrix hidden(tokens.size(), m_config.hidden);
        const Matrix embedding = Read(m_model.embedding);
        for (std::size_t i = 0; i < tokens.size(); ++i)
        {
            hidden.row(i) = embedding.row(tokens[i]);
        }
        if (m_config.family == Family::Opt)
        {
            hidden += Read(m_model.positions).middleRows(2, tokens.size());
        }
        for (std::size_t i = 0; i < m_config.layers; ++i)
        {
            Held layer = Layer(i, hidden);
            if (held != nullptr)
            {
                held->push_back(std::move(layer));
            }
        }
        return Norm(m_model.finalNorm, hidden) * Read(m_model.head).transpose();
    }

    /// Logits of a trained exit for hidden states: rows x vocab.
    Matrix ExitLogits(const ExitWeights& exit, const Matrix& hidden) const
    {
        Matrix inner = Norm(exit.inputNorm, hidden) * Read(exit.down).transpose();
        inner.array() /= 1.0 + (-inner.array()).exp();
        const Matrix adapted = hidden + inner * Read(exit.up).transpose();
        return Norm(exit.norm, adapted) * Read(m_model.head).transpose();
    }

  private:
    static Matrix Read(const ArrayView& view)
    {
        const std::size_t cols = view.shape.back();
        Matrix matrix(view.Elements() / cols, cols);
        for (std::size_t i = 0; i < view.Elements(); ++i)
        {
            float value = 0.0F;
            std::uint16_t bits = 0;
            switch (view.dtype)
            {
            case DType::F32:
                std::memcpy(&value, view.data + 4 * i, 4);
                break;
            case DType::F16:
                std::memcpy(&bits, view.data + 2 * i, 2);
                value = FromF16(bits);
                break;
            default:
                std::memcpy(&bits, view.data + 2 * i, 2);
                value = FromBf16(bits);
            }
            matrix.data()[i] = value;
        }
        return matrix;
    }

    static Matrix Apply(const LinearWeights& linear, const Matrix& x)
    {
        Matrix y = x * Read(linear.weight).transpose();
        if (linear.bias.data != nullptr)
        {
            y.rowwise() += Read(linear.bias).row(0);
        }
        return y;
    }

    Matrix Norm(const NormWeights& norm, const Matrix& x) const
    {
        Matrix y = x;
        if (m_config.family == Family::Opt)
        {
            y.colwise() -= x.rowwise().mean();
        }
        const Eigen::VectorXd variance = y.array().square().rowwise().mean();
        y = (variance.array() + m_config.normEps).rsqrt().matrix().asDiagonal() * y;
        y = y * Read(norm.scale).row(0).asDiagonal();
        if (m_config.family == Family::Opt)
        {
            y.rowwise() += Read(norm.shift).row(0);
        }
        return y;
    }

    /// y += scaling B (A x), where the adapter targets the projection
    void AddUpdate(const LoraWeights& lora, const Matrix& x, Matrix& y) const
    {
        if (lora.a.data != nullptr)
        {
            y += m_adapter->scaling * (x * Read(lora.a).transpose()) * Read(lora.b).transpose();
        }
    }

    double Frequency(std::size_t pair) const
    {
        const double frequency =
            std::pow(m_config.ropeTheta, -2.0 * static_cast<double>(pair) / static_cast<double>(m_config.headDim));
        if (!m_config.ropeScaling)
        {
            return frequency;
        }
        // Turns over the original context decide: many are kept, few are stretched.
        const RopeScaling& scaling = *m_config.ropeScaling;
        const double turns = scaling.originalMaxPositions * frequency / (2.0 * std::numbers::pi);
        const double keep = (turns - scaling.lowFreqFactor) / (scaling.highFreqFactor - scaling.lowFreqFactor);
        const double kept = std::fmin(1.0, std::fmax(0.0, keep));
        return frequency * (kept + (1.0 - kept) / scaling.factor);
    }

    /// Turns each head's element pairs (j, j + headDim / 2), row i by i times the pair's frequency.
    void Rotate(Matrix& x) const
    {
        const std::size_t half = m_config.headDim / 2;
        for (Eigen::Index i = 0; i < x.rows(); ++i)
        {
            for (Eigen::Index head = 0; head < x.cols(); head += static_cast<Eigen::Index>(m_config.headDim))
            {
                for (std::size_t j = 0; j < half; ++j)
                {
                    const Eigen::Rotation2Dd turn(static_cast<double>(i) * Frequency(j));
                    const Eigen::Vector2d pair(x(i, head + j), x(i, head + j + half));
                    const Eigen::Vector2d turned = turn * pair;
                    x(i, head + j) = turned(0);
                    x(i, head + j + half) = turned(1);
                }
            }
        }
    }

    /// Drops the positions of least \p attention from \p held, the older of two first and never the newest.
    void Prune(std::vector<Eigen::Index>& held, const Eigen::VectorXd& attention, std::size_t consumed) const
    {
        const std::size_t share =
            (m_pruning.numerator * consumed + m_pruning.denominator - 1) / m_pruning.denominator;
        while (held.size() > std::max<std::size_t>(1, share))
        {
            held.erase(std::min_element(held.begin(), held.end() - 1, [&](Eigen::Index a, Eigen::Index b) {
                return attention(a) < attention(b);
            }));
        }
    }

    Held Layer(std::size_t index, Matrix& hidden) const
    {
        const LayerWeights& weights = m_model.layers[index];
        const Matrix input = Norm(weights.attentionNorm, hidden);
        Matrix query = Apply(weights.query, input);
        Matrix key = Apply(weights.key, input);
        Matrix value = Apply(weights.value, input);
        if (m_adapter != nullptr)
        {
            const LoraLayer& lora = m_adapter->layers[index];
            AddUpdate(lora.query, input, query);
            AddUpdate(lora.key, input, key);
            AddUpdate(lora.value, input, value);
        }
        if (m_config.family == Family::Llama)
        {
            Rotate(query);
            Rotate(key);
        }

        Matrix attended(query.rows(), query.cols());
        Eigen::VectorXd attention = Eigen::VectorXd::Zero(query.rows());
        std::vector<Eigen::Index> held;
        const auto dim = static_cast<Eigen::Index>(m_config.headDim);
        const std::vector<std::size_t> whole{static_cast<std::size_t>(query.rows())};
        Eigen::Index row = 0;
        for (const std::size_t call : m_pruning.calls.empty() ? whole : m_pruning.calls)
        {
            for (std::size_t i = 0; i < call; ++i, ++row)
            {
                held.push_back(row);
                for (std::size_t head = 0; head < m_config.heads; ++head)
                {
                    const auto kvHead = static_cast<Eigen::Index>(head / (m_config.heads / m_config.kvHeads));
                    const auto mine = Eigen::seqN(static_cast<Eigen::Index>(head) * dim, dim);
                    const auto shared = Eigen::seqN(kvHead * dim, dim);
                    Eigen::VectorXd scores = key(held, shared) * query(row, mine).transpose();
                    scores /= std::sqrt(static_cast<double>(dim));
                    scores = (scores.array() - scores.maxCoeff()).exp();
                    scores /= scores.sum();
                    attended(row, mine) = scores.transpose() * value(held, shared);
                    attention(held) += scores;
                }
            }
            Prune(held, attention, static_cast<std::size_t>(row));
        }
        hidden += Apply(weights.output, attended);

        const Matrix normed = Norm(weights.mlpNorm, hidden);
        Matrix inner = Apply(weights.up, normed);
        if (m_config.family == Family::Llama)
        {
            const Matrix gate = Apply(weights.gate, normed);
            inner.array() *= gate.array() / (1.0 + (-gate.array()).exp());
        }
        else
        {
            inner = inner.cwiseMax(0.0);
        }
        hidden += Apply(weights.down, inner);
        return {held, key(held, Eigen::all), value(held, Eigen::all)};
    }

    const Model& m_model;
    const ModelConfig& m_config;
    const Adapter* m_adapter;
    Pruning m_pruning;
};

/// Normalised mean squared error of \p actual (row-major) against \p expected.
inline double
Nmse(std::span<const float> actual, const ReferenceTransformer::Matrix& expected)
{
    double error = 0.0;
    for (std::size_t i = 0; i < actual.size(); ++i)
    {
        const double difference = actual[i] - expected.data()[i];
        error += difference * difference;
    }
    return error / expected.squaredNorm();
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_REFERENCE_TRANSFORMER_H
