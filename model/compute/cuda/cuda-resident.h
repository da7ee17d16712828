// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CUDA_RESIDENT_H
#define SPLITLLM_CUDA_RESIDENT_H

#include "base/cuda/device-array.h"
#include "compute/backend.h"
#include "compute/cuda/attention-kernels.h"
#include "compute/cuda/layer-kernels.h"
#include "compute/heavy-hitters.h"
#include "compute/rotary-table.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

// What the CUDA backend's handles hold: everything lies in the GPU's memory.

namespace splitllm
{

/// Weights of a handle, or of several.
class WeightMemory
{
  public:
    WeightMemory(const std::shared_ptr<CudaStream>& stream, std::span<const std::byte> bytes);

    /// Waits for all streams: any of them may be reading.
    ~WeightMemory();
    WeightMemory(const WeightMemory&) = delete;
    WeightMemory& operator=(const WeightMemory&) = delete;

    const std::byte* Data() const
    {
        return m_bytes.Data();
    }

  private:
    DeviceArray<std::byte> m_bytes;
};

/// Brings weights to the GPU. What several handles take from the same place of the host's memory is there once.
class WeightStore
{
  public:
    explicit WeightStore(std::shared_ptr<CudaStream> stream);

    /// The elements of \p view as they are stored.
    std::shared_ptr<const WeightMemory> Stored(const ArrayView& view);

    /// A copy of \p values that nobody shares.
    template <typename T>
    std::shared_ptr<const WeightMemory> Copied(const std::vector<T>& values)
    {
        return std::make_shared<WeightMemory>(m_stream, std::as_bytes(std::span(values)));
    }

    /// Waits until all is there, so that every stream may read it.
    void Finish() const
    {
        m_stream->Synchronise();
    }

  private:
    std::shared_ptr<CudaStream> m_stream;
    std::map<const std::byte*, std::weak_ptr<const WeightMemory>> m_stored; //!< by where it came from
};

/// y = W x + b on the GPU.
struct CudaLinear
{
    DeviceMatrix matrix;
    std::vector<std::shared_ptr<const WeightMemory>> memory; //!< that the matrix points to
};

struct CudaNorm
{
    DeviceNorm norm;
    std::vector<std::shared_ptr<const WeightMemory>> memory;
};

/// One layer, as LayerWeights has it.
struct CudaLayer
{
    CudaNorm attentionNorm;
    CudaLinear query;
    CudaLinear key;
    CudaLinear value;
    CudaLinear output;
    CudaNorm mlpNorm;
    CudaLinear gate; //!< LLaMA only
    CudaLinear up;
    CudaLinear down;
};

/// A model on the GPU.
class CudaModel final : public ResidentModel
{
  public:
    /// \throws std::logic_error if \p from has no weights; InputError if it cannot be computed here, or a weight that is to
    /// be quantised is not finite or too large; OutOfMemory
    CudaModel(std::shared_ptr<const Model> from, DType activations, const WeightPrecision& precision, WeightStore& store);

    AttentionShape Shape() const;

    /// Angles of positions [0, \p positions), of all that there are from the first time on.
    RotaryAngles Angles(std::size_t positions, WeightStore& store) const;

    std::shared_ptr<const Model> model; //!< whose memory the store knows weights by
    EmbeddingTables embedding;
    std::vector<CudaLayer> layers;
    CudaNorm finalNorm;
    CudaLinear head;

  private:
    std::vector<std::shared_ptr<const WeightMemory>> m_embeddingMemory;
    mutable std::optional<RotaryTable> m_rotary; //!< none without rotary positions
    mutable std::size_t m_positions = 0;         //!< whose angles are on the GPU
    mutable std::shared_ptr<const WeightMemory> m_cosines;
    mutable std::shared_ptr<const WeightMemory> m_sines;
};

/// What an adapter adds to one projection; no weights where it does not target it.
struct CudaLora
{
    CudaLinear a;
    CudaLinear b;
};

struct CudaLoraLayer
{
    CudaLora query;
    CudaLora key;
    CudaLora value;
};

struct CudaAdapter final : ResidentAdapter
{
    CudaAdapter(std::shared_ptr<const Adapter> from, const ModelConfig& config, WeightStore& store);

    std::shared_ptr<const Adapter> adapter;
    std::vector<CudaLoraLayer> layers;
};

struct CudaBottleneck
{
    CudaLinear down;
    CudaLinear up;
};

struct CudaBottleneckLayer
{
    CudaBottleneck attention;
    CudaBottleneck mlp;
};

struct CudaBottleneckAdapter final : ResidentBottleneck
{
    CudaBottleneckAdapter(std::shared_ptr<const BottleneckAdapter> from, const ModelConfig& config, WeightStore& store);

    std::shared_ptr<const BottleneckAdapter> adapter;
    std::vector<CudaBottleneckLayer> layers;
};

struct CudaExit
{
    CudaNorm inputNorm;
    CudaLinear down;
    CudaLinear up;
    CudaNorm norm;
};

struct CudaExits final : ResidentExits
{
    CudaExits(std::shared_ptr<const Exits> from, const ModelConfig& config, WeightStore& store);

    std::shared_ptr<const Exits> exits;
    std::vector<CudaExit> weights; //!< none where untrained
};

struct CudaSideLayer
{
    CudaLinear down;
    CudaLinear inner;
    CudaLinear outer;
};

struct CudaSide final : ResidentSide
{
    CudaSide(std::shared_ptr<const SideNetwork> from, const ModelConfig& config, WeightStore& store);

    std::shared_ptr<const SideNetwork> network;
    std::vector<CudaSideLayer> layers;
    CudaLinear up;
    CudaLinear gate;
    DeviceNorm norm; //!< without scale: of states and of the side network's own alike
};

/// Keys (turned to their positions) and values in fp32 for each layer and key/value head, and the stream they belong to.
class CudaKvCache final : public KvCache
{
  public:
    /// Memory for all \p capacity entries is taken here. \throws OutOfMemory
    CudaKvCache(const ModelConfig& config,
                std::size_t first,
                std::size_t last,
                std::size_t capacity,
                std::shared_ptr<CudaStream> stream);

    /// A copy of \p other, made when its stream has come so far.
    CudaKvCache(const CudaKvCache& other, std::shared_ptr<CudaStream> stream);

    const std::shared_ptr<CudaStream>& Stream() const
    {
        return m_stream;
    }

    AttentionShape Shape() const;

    /// Entry \p entry of \p layer, at position \p position.
    KvPlace Place(std::size_t layer, std::size_t entry, std::size_t position) const;

    /// The attention that the entries of \p layer got so far. Waits for it.
    std::vector<Attention> AttentionOf(std::size_t layer) const;

  private:
    std::size_t LayerElements() const; //!< of keys, and of values

    std::shared_ptr<CudaStream> m_stream;
    AttentionShape m_shape;
    DeviceArray<float> m_entries;         //!< layers x (keys, values) x kvHeads x capacity x headDim
    mutable DeviceArray<std::uint64_t> m_attention; //!< layers x capacity; empty until somebody asks where it is
};

} // namespace splitllm

#endif // SPLITLLM_CUDA_RESIDENT_H
