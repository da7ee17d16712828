// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cuda/greedy-decoder.h"

#include <algorithm>
#include <array>

namespace splitllm
{

namespace
{

/// What a stream was given between two moments, to be given again.
class Graph
{
  public:
    /// Captures what \p run gives to \p stream; nothing of it runs. It must not allocate or wait.
    template <typename Run>
    Graph(const CudaStream& stream, Run&& run)
    {
        CheckCuda(cudaStreamBeginCapture(stream.Get(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
        run();
        cudaGraph_t graph = nullptr;
        CheckCuda(cudaStreamEndCapture(stream.Get(), &graph), "cudaStreamEndCapture");
        const cudaError_t status = cudaGraphInstantiate(&m_graph, graph, 0);
        cudaGraphDestroy(graph);
        CheckCuda(status, "cudaGraphInstantiate");
    }

    ~Graph()
    {
        cudaGraphExecDestroy(m_graph);
    }

    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;

    void Launch(const CudaStream& stream) const
    {
        CheckCuda(cudaGraphLaunch(m_graph, stream.Get()), "cudaGraphLaunch");
    }

  private:
    cudaGraphExec_t m_graph = nullptr;
};

std::vector<KvPlace>
PlacesOf(const CudaKvCache& cache)
{
    std::vector<KvPlace> places;
    for (std::size_t layer = cache.First(); layer < cache.Last(); ++layer)
    {
        places.push_back(cache.Place(layer, cache.Length(layer), cache.Position(layer)));
    }
    return places;
}

std::size_t
LongestOf(const CudaKvCache& cache)
{
    std::size_t longest = 0;
    for (std::size_t layer = cache.First(); layer < cache.Last(); ++layer)
    {
        longest = std::max(longest, cache.Length(layer));
    }
    return longest;
}

} // namespace

GreedyDecoder::GreedyDecoder(Layers& layers,
                             const CudaModel& model,
                             const CudaKvCache& cache,
                             const RotaryAngles& angles,
                             TokenId token,
                             std::size_t steps)
    : m_layers(layers),
      m_model(model),
      m_angles(angles),
      m_entries(LongestOf(cache) + steps),
      m_steps(steps),
      m_state(layers.Stream(),
              std::array{DecodingState{.token = token, .position = static_cast<std::uint32_t>(cache.Position(0))}}),
      m_places(layers.Stream(), PlacesOf(cache)),
      m_decoded(layers.Stream(), steps)
{
}

std::vector<TokenId>
GreedyDecoder::Decode()
{
    Step(); // by itself, so that all memory is there when the next one is captured
    if (m_steps > 1)
    {
        const Graph graph(*m_layers.Stream(), [this] { Step(); });
        for (std::size_t step = 1; step < m_steps; ++step)
        {
            graph.Launch(*m_layers.Stream());
        }
        m_layers.Stream()->Synchronise(); // before the graph goes
    }
    std::vector<TokenId> tokens(m_steps);
    m_decoded.Download(tokens);
    return tokens;
}

void
GreedyDecoder::Step()
{
    const ModelConfig& config = m_model.Config();
    const cudaStream_t stream = m_layers.Stream()->Get();
    ScratchPool& pool = m_layers.Pool();
    const Scratch hidden = pool.Take(config.hidden);
    const Scratch query = pool.Take(config.QueryWidth());
    const Scratch key = pool.Take(config.KvWidth());
    const Scratch value = pool.Take(config.KvWidth());
    const Scratch logits = pool.Take(config.vocab);
    DecodingState* state = m_state.Data();
    float* h = hidden.Data();
    EmbedTokens(m_model.embedding, &state->token, &state->position, 1, h, stream);
    for (std::size_t l = 0; l < config.layers; ++l)
    {
        const CudaLayer& layer = m_model.layers[l];
        const std::array products{Product{.matrix = layer.query.matrix, .x = h, .y = query.Data()},
                                  Product{.matrix = layer.key.matrix, .x = h, .y = key.Data()},
                                  Product{.matrix = layer.value.matrix, .x = h, .y = value.Data()}};
        m_layers.Multiply(products, 1, &layer.attentionNorm.norm);
        const FinishWith residual{.finish = Finish::Add, .addend = h};
        m_layers.Attention(m_model,
                           l,
                           m_angles,
                           {.query = query.Data(), .key = key.Data(), .value = value.Data()},
                           1,
                           {.places = m_places.Data() + l, .entries = m_entries},
                           h,
                           residual);
        m_layers.Mlp(config, layer, h, 1, h, residual);
    }
    m_layers.Multiply(m_model.head.matrix, h, 1, logits.Data(), &m_model.finalNorm.norm);
    EndStep(logits.Data(), config.vocab, state, m_decoded.Data(), m_places.Data(), config.layers, stream);
}

} // namespace splitllm
