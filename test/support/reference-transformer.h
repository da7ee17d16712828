// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_REFERENCE_TRANSFORMER_H
#define SPLITLLM_TEST_REFERENCE_TRANSFORMER_H

#include "llm/adapter.h"
#include "llm/model.h"

#include <Eigen/Dense>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numbers>
#include <span>
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

    /// \param adapter nullptr for none
    explicit ReferenceTransformer(const Model& model, const Adapter* adapter = nullptr)
        : m_model(model),
          m_config(model.config),
          m_adapter(adapter)
    {
    }

    /// Logits of every position of \p tokens, which start at position 0: tokens x vocab.
    Matrix Logits(const std::vector<std::uint32_t>& tokens) const
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
            Layer(i, hidden);
        }
        return Norm(m_model.finalNorm, hidden) * Read(m_model.head).transpose();
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

    void Layer(std::size_t index, Matrix& hidden) const
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
        const auto dim = static_cast<Eigen::Index>(m_config.headDim);
        for (std::size_t head = 0; head < m_config.heads; ++head)
        {
            const auto kvHead = static_cast<Eigen::Index>(head / (m_config.heads / m_config.kvHeads));
            const auto first = static_cast<Eigen::Index>(head) * dim;
            const auto q = query.middleCols(first, dim);
            Matrix scores = q * key.middleCols(kvHead * dim, dim).transpose() / std::sqrt(static_cast<double>(dim));
            for (Eigen::Index i = 0; i < scores.rows(); ++i)
            {
                scores.row(i).tail(scores.cols() - i - 1).setConstant(-std::numeric_limits<double>::infinity());
                scores.row(i) = (scores.row(i).array() - scores.row(i).maxCoeff()).exp();
                scores.row(i) /= scores.row(i).sum();
            }
            attended.middleCols(first, dim) = scores * value.middleCols(kvHead * dim, dim);
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
    }

    const Model& m_model;
    const ModelConfig& m_config;
    const Adapter* m_adapter;
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
