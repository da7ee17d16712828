// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SAFETENSORS_H
#define SPLITLLM_SAFETENSORS_H

#include "tensor/tensor.h"

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace splitllm
{

/// A tensor as its file describes it, of any dtype that the format knows.
struct StoredTensor
{
    std::string dtype;               //!< as the file names it, "BF16"
    std::vector<std::size_t> shape;  //!< one entry a dimension
    const std::byte* data = nullptr; //!< row-major, aligned to the element size
};

/// The tensors that a safetensors header describes, by name.
using TensorIndex = std::map<std::string, StoredTensor>;

/**
 * Parses the bytes of a safetensors file:
 *
 *     u64 n (little-endian) | n bytes of JSON {"name": {"dtype", "shape", "data_offsets": [begin, end]}} | data
 *
 * Every length, offset, shape product and dtype is checked before a pointer is made; the tensors must cover the data
 * without gaps or overlap, each aligned to its element size. Pointers go into \p bytes, which begin at a multiple of 8.
 * \throws InputError naming \p origin and the tensor.
 */
TensorIndex ParseSafetensors(std::span<const std::byte> bytes, const std::string& origin);

/**
 * Weights of a folder, mapped read-only: "model.safetensors", the shards of "model.safetensors.index.json", or the
 * single file named. Pages are shared by all users of the file and loaded on first touch.
 */
class MappedTensors
{
  public:
    /// Maps one file. \throws InputError if it cannot be read or does not parse.
    static std::shared_ptr<const MappedTensors> OpenFile(const std::filesystem::path& file);

    /**
     * Maps a model folder.
     * \throws InputError as OpenFile, if neither file is there, or if the index names a shard outside the folder or a
     * tensor that no shard holds
     */
    static std::shared_ptr<const MappedTensors> OpenFolder(const std::filesystem::path& folder);

    ~MappedTensors();
    MappedTensors(const MappedTensors&) = delete;
    MappedTensors& operator=(const MappedTensors&) = delete;

    const TensorIndex& Index() const
    {
        return m_index;
    }

    /**
     * The tensor \p name, which must have exactly \p shape and one of fp32, fp16, bf16.
     * \throws InputError naming file and tensor, with expected and actual shape.
     */
    ArrayView Require(const std::string& name, const std::vector<std::size_t>& shape) const;

  private:
    MappedTensors() = default;

    /// Adds the tensors of \p file, whose names must be new.
    void Map(const std::filesystem::path& file);

    struct Mapping
    {
        void* address;
        std::size_t length;
    };

    std::vector<Mapping> m_mappings;
    std::string m_origin;
    TensorIndex m_index;
};

} // namespace splitllm

#endif // SPLITLLM_SAFETENSORS_H
