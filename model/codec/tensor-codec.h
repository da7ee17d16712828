// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TENSOR_CODEC_H
#define SPLITLLM_TENSOR_CODEC_H

#include "base/strict-json.h"
#include "codec/payload.h"
#include "llm/config.h"
#include "tensor/tensor.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace splitllm
{

class ContainerCoder;

/// Where a tensor crosses: what is calibrated differs from place to place.
struct CodecSite
{
    std::string_view kind; //!< name of the message kind, such as "hidden-state"
    std::size_t layer = 0; //!< from 1; 0 outside the layers
};

/// What coding a tensor costs the node that does it.
struct CodecCost
{
    std::uint64_t flops = 0;
    std::uint64_t bytesRead = 0;
    std::uint64_t bytesWritten = 0;
    std::uint64_t launches = 0;

    bool IsFree() const
    {
        return flops == 0 && bytesRead == 0 && bytesWritten == 0 && launches == 0;
    }
};

/// How tensors become bytes between nodes. One object serves all sessions of both nodes, and remembers nothing.
class TensorCodec
{
  public:
    virtual ~TensorCodec() = default;

    /// Element type of what travels as it is: of everything in a dense codec, of what a compressing one keeps exactly.
    virtual DType Exact() const = 0;

    /**
     * A phantom gives a phantom payload, of the size that the codec was told to expect.
     * \throws EncodeError where the codec cannot carry a value
     */
    virtual Payload Encode(const Tensor& tensor, const CodecSite& site) const = 0;

    /**
     * The inverse of Encode, from the bytes of \p payload. The number of rows follows from them.
     * \param cols elements of a row, at least 1
     * \throws DecodeError
     */
    virtual Tensor Decode(const Payload& payload, std::size_t cols, const CodecSite& site) const = 0;

    /// Whether the size of what Encode makes depends on more than rows and columns. Default: no.
    virtual bool SizeDependsOnNumbers() const;

    /// What coding \p rows rows of \p cols elements costs. Default: nothing.
    virtual CodecCost EncodeCost(std::size_t rows, std::size_t cols) const;
    virtual CodecCost DecodeCost(std::size_t rows, std::size_t cols) const;
};

/// Every element in turn in \p dtype: fp32, fp16 or bf16.
std::shared_ptr<const TensorCodec> MakeDenseCodec(DType dtype);

/// What a codec is made for.
struct CodecContext
{
    ModelConfig config;
    bool shapeMode = false;             //!< there are no numbers to code
    std::filesystem::path calibrations; //!< where relative paths of activation statistics begin
    std::shared_ptr<const ContainerCoder> coder = nullptr; //!< who codes containers; null: this host
};

/// The names that a study may use for a codec.
std::vector<std::string> TensorCodecNames();

/**
 * The codec under \p key: the name of an element type ("fp16"), or an object {"name": ..., parameters}.
 * \param fallback the name of the one that is meant where the key is not there
 * \throws InputError
 */
std::shared_ptr<const TensorCodec> ReadTensorCodec(StrictObject& object,
                                                   const std::string& key,
                                                   const CodecContext& context,
                                                   const std::string& fallback = "fp16");

} // namespace splitllm

#endif // SPLITLLM_TENSOR_CODEC_H
