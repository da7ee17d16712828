// SPDX-License-Identifier: GPL-2.0-only
#include "codec/tensor-codec.h"

#include "codec/dense-codec.h"

#include <algorithm>

namespace splitllm
{

namespace
{

const std::vector<std::string> kDenseNames{"fp32", "fp16", "bf16"};

class DenseCodec final : public TensorCodec
{
  public:
    explicit DenseCodec(DType dtype)
        : m_dtype(dtype)
    {
    }

    DType Exact() const override
    {
        return m_dtype;
    }

    Payload Encode(const Tensor& tensor, const CodecSite&) const override
    {
        return EncodeDense(tensor, m_dtype);
    }

    Tensor Decode(const Payload& payload, std::size_t cols, const CodecSite&) const override
    {
        if (payload.coded)
        {
            throw DecodeError("coded payload; expected plain elements");
        }
        return DecodeDense(payload, cols, m_dtype);
    }

  private:
    DType m_dtype;
};

} // namespace

CodecCost
TensorCodec::EncodeCost(std::size_t, std::size_t) const
{
    return {};
}

CodecCost
TensorCodec::DecodeCost(std::size_t, std::size_t) const
{
    return {};
}

std::shared_ptr<const TensorCodec>
MakeDenseCodec(DType dtype)
{
    return std::make_shared<const DenseCodec>(dtype);
}

std::vector<std::string>
TensorCodecNames()
{
    return kDenseNames;
}

std::shared_ptr<const TensorCodec>
ReadTensorCodec(StrictObject& object, const std::string& key, const CodecContext&)
{
    if (!object.Has(key) || object.Raw(key).is_string())
    {
        return MakeDenseCodec(*DTypeFromName(object.Choice(key, kDenseNames, "fp16")));
    }
    StrictObject parameters = object.Object(key);
    const std::string name = parameters.Choice("name", TensorCodecNames());
    parameters.Finish();
    return MakeDenseCodec(*DTypeFromName(name));
}

} // namespace splitllm
