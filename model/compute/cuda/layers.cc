// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cuda/layers.h"

#include <algorithm>
#include <array>

namespace splitllm
{

Layers::Layers(std::shared_ptr<CudaStream> stream)
    : m_stream(std::move(stream)),
      m_pool(m_stream)
{
}

void
Layers::Multiply(std::span<const Product> products,
                 std::size_t w,
                 const DeviceNorm* norm,
                 float* normed,
                 const FinishWith& with)
{
    const std::size_t in = products.front().matrix.in;
    const cudaStream_t stream = m_stream->Get();
    const bool few = w <= kFewRows;
    if (norm != nullptr && (!few || norm->shift != nullptr))
    {
        const Scratch own = m_pool.Take(w * in);
        float* to = normed == nullptr ? own.Data() : normed;
        Normalise(*norm, products.front().x, w, in, to, stream);
        std::array<Product, kMostProducts> its{};
        std::ranges::copy(products, its.begin());
        for (Product& product : its)
        {
            product.x = to;
        }
        Multiply(std::span(its).first(products.size()), w, nullptr, nullptr, with);
        return;
    }
    if (few)
    {
        const auto alike = [&](const Product& product) { return product.matrix.form == products.front().matrix.form; };
        if (std::ranges::all_of(products, alike))
        {
            MultiplyFew(products, w, norm, normed, with, stream);
            return;
        }
        for (const Product& product : products)
        {
            MultiplyFew({&product, 1}, w, norm, normed, with, stream);
        }
        return;
    }
    if (!m_gemm)
    {
        m_gemm.emplace(m_stream, m_pool);
    }
    const Scratch rounded = m_pool.Take(w * in); // once for all products
    RoundTf32(products.front().x, w * in, rounded.Data(), stream);
    for (const Product& product : products)
    {
        const std::size_t out = product.matrix.out;
        const bool aside = with.addend == product.y; // which the product must not overwrite
        const Scratch own = m_pool.Take(aside ? w * out : 0);
        float* y = aside ? own.Data() : product.y;
        m_gemm->Multiply(product.matrix, rounded.Data(), w, y);
        FinishRows(y, w, out, product.matrix.bias, with, product.y, stream);
    }
}

void
Layers::Multiply(const DeviceMatrix& matrix,
                 const float* x,
                 std::size_t w,
                 float* y,
                 const DeviceNorm* norm,
                 const FinishWith& with)
{
    const Product product{.matrix = matrix, .x = x, .y = y};
    Multiply({&product, 1}, w, norm, nullptr, with);
}

void
Layers::Attention(const CudaModel& model,
                  std::size_t layer,
                  const RotaryAngles& angles,
                  const DeviceProjections& projections,
                  std::size_t w,
                  const RowPlaces& places,
                  float* y,
                  const FinishWith& with)
{
    const AttentionShape shape = model.Shape();
    const cudaStream_t stream = m_stream->Get();
    const Scratch turned = m_pool.Take(w * model.Config().QueryWidth());
    const Scratch chunks = m_pool.Take(AttendScratch(shape, w, places.entries));
    const Scratch attended = m_pool.Take(w * model.Config().QueryWidth());
    AppendRows(shape,
               angles,
               places.places,
               w,
               projections.query,
               projections.key,
               projections.value,
               turned.Data(),
               stream);
    Attend(shape, places.places, w, places.entries, turned.Data(), chunks.Data(), attended.Data(), stream);
    if (places.tracks)
    {
        TrackAttention(shape, places.places, w, places.entries, places.oneCache, turned.Data(), chunks.Data(), stream);
    }
    Multiply(model.layers[layer].output.matrix, attended.Data(), w, y, nullptr, with);
}

void
Layers::Mlp(const ModelConfig& config,
            const CudaLayer& layer,
            const float* hidden,
            std::size_t w,
            float* y,
            const FinishWith& with)
{
    const cudaStream_t stream = m_stream->Get();
    const DeviceNorm& norm = layer.mlpNorm.norm;
    const Scratch inner = m_pool.Take(w * config.ffn);
    if (config.family == Family::Opt)
    {
        Multiply(layer.up.matrix, hidden, w, inner.Data(), &norm, {.finish = Finish::Relu});
    }
    else if (w <= kFewRows && layer.gate.matrix.form == layer.up.matrix.form)
    {
        GatedFew(layer.gate.matrix, layer.up.matrix, hidden, w, &norm, inner.Data(), stream);
    }
    else
    {
        const Scratch up = m_pool.Take(w * config.ffn);
        const std::array products{Product{.matrix = layer.gate.matrix, .x = hidden, .y = inner.Data()},
                                  Product{.matrix = layer.up.matrix, .x = hidden, .y = up.Data()}};
        Multiply(products, w, &norm);
        SiluTimes(inner.Data(), up.Data(), w * config.ffn, stream);
    }
    Multiply(layer.down.matrix, inner.Data(), w, y, nullptr, with);
}

} // namespace splitllm
