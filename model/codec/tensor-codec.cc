// SPDX-License-Identifier: GPL-2.0-only
#include "codec/tensor-codec.h"

#include "codec/activation-statistics.h"
#include "codec/baseline-codecs.h"
#include "codec/dense-codec.h"
#include "codec/tab-q-codec.h"

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

const std::vector<std::string> kBaselineNames{"round-to-nearest", "smoothquant", "omniquant", "atom"};

/// One of kBaselineNames.
std::shared_ptr<const TensorCodec>
ReadBaselineCodec(const std::string& name, StrictObject& parameters, const CodecContext& context)
{
    const auto bits = static_cast<unsigned>(parameters.Integer("bits", 2, 8));
    if (name == "round-to-nearest")
    {
        return MakeRoundToNearest(bits);
    }
    const ActivationStatistics statistics = ReadStatistics(parameters, context);
    if (name == "smoothquant")
    {
        return MakeSmoothQuant(bits, statistics, parameters.Number("alpha", 0.0, 1.0, 0.5));
    }
    if (name == "omniquant")
    {
        return MakeOmniQuant(bits, statistics);
    }
    // Atom keeps 128 of 4096 channels at 8 bits
    const std::uint64_t outliers = parameters.Integer("outliers", 0, context.config.hidden, context.config.hidden / 32);
    return MakeAtom(bits, statistics, outliers, parameters.Integer("group", 1, 65536, 128));
}

} // namespace

bool
TensorCodec::SizeDependsOnNumbers() const
{
    return false;
}

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
    std::vector<std::string> names = kDenseNames;
    names.insert(names.end(), kBaselineNames.begin(), kBaselineNames.end());
    names.emplace_back("clamp");
    names.emplace_back("tab-q");
    return names;
}

std::shared_ptr<const TensorCodec>
ReadTensorCodec(StrictObject& object,
                const std::string& key,
                const CodecContext& context,
                const std::string& fallback)
{
    if (!object.Has(key) || object.Raw(key).is_string())
    {
        return MakeDenseCodec(*DTypeFromName(object.Choice(key, kDenseNames, fallback)));
    }
    StrictObject parameters = object.Object(key);
    const std::string name = parameters.Choice("name", TensorCodecNames());
    if (parameters.Has("label"))
    {
        parameters.String("label"); // for tables and plots
    }
    std::shared_ptr<const TensorCodec> codec;
    if (std::ranges::find(kBaselineNames, name) != kBaselineNames.end())
    {
        codec = ReadBaselineCodec(name, parameters, context);
    }
    else if (name == "tab-q")
    {
        codec = ReadTabQCodec(parameters, context);
    }
    else if (name == "clamp")
    {
        const double limit = parameters.Number("limit", 0.0, 65504.0);
        codec = MakeClamp(static_cast<float>(limit),
                          MakeDenseCodec(*DTypeFromName(parameters.Choice("dtype", kDenseNames, "fp16"))));
    }
    else
    {
        codec = MakeDenseCodec(*DTypeFromName(name));
    }
    parameters.Finish();
    return codec;
}

} // namespace splitllm
