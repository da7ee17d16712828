// SPDX-License-Identifier: GPL-2.0-only
#include "codec/baseline-codecs.h"

#include "base/deterministic-math.h"
#include "base/input-error.h"
#include "codec/bit-packing.h"
#include "codec/dense-codec.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace splitllm
{

namespace
{

// ---- bf16 that is rounded to one side

constexpr std::size_t kBf16Bytes = 2;

/// The least bf16 that is not below \p value; the greatest finite one for what is beyond.
float
Bf16AtLeast(float value)
{
    std::uint16_t bits = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
    if (FromBf16(bits) < value) // cutting bits off went towards zero, so value is positive
    {
        bits++;
    }
    return std::min(FromBf16(bits), FromBf16(0x7f7f));
}

float
Bf16AtMost(float value)
{
    return -Bf16AtLeast(-value);
}

/// Bytes of a row, written or read from the front on.
template <typename Byte>
class Cursor
{
  public:
    explicit Cursor(std::span<Byte> bytes)
        : m_bytes(bytes)
    {
    }

    std::span<Byte> Take(std::size_t count)
    {
        const std::span<Byte> taken = m_bytes.first(count);
        m_bytes = m_bytes.subspan(count);
        return taken;
    }

  private:
    std::span<Byte> m_bytes;
};

using Writer = Cursor<std::byte>;
using Reader = Cursor<const std::byte>;

void
WriteBf16(Writer& writer, float value)
{
    const std::uint16_t bits = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
    std::memcpy(writer.Take(kBf16Bytes).data(), &bits, kBf16Bytes);
}

float
ReadBf16(Reader& reader)
{
    std::uint16_t bits = 0;
    std::memcpy(&bits, reader.Take(kBf16Bytes).data(), kBf16Bytes);
    const float value = FromBf16(bits);
    if (!std::isfinite(value))
    {
        throw DecodeError("a step or an end of a range is not finite");
    }
    return value;
}

float
ReadStep(Reader& reader)
{
    const float step = ReadBf16(reader);
    if (std::signbit(step))
    {
        throw DecodeError("a step is negative");
    }
    return step;
}

void
WriteCodes(Writer& writer, std::span<const std::uint8_t> codes, unsigned bits)
{
    PackBits(codes, bits, writer.Take(PackedBytes(codes.size(), bits)));
}

std::vector<std::uint8_t>
ReadCodes(Reader& reader, std::size_t count, unsigned bits)
{
    std::vector<std::uint8_t> codes(count);
    if (!UnpackBits(reader.Take(PackedBytes(count, bits)), bits, codes))
    {
        throw DecodeError("bits after the last code of a row are not zero");
    }
    return codes;
}

// ---- symmetric quantisation

int
LargestCode(unsigned bits)
{
    return (1 << (bits - 1)) - 1;
}

float
SymmetricStep(std::span<const float> values, unsigned bits)
{
    float largest = 0.0F;
    for (const float value : values)
    {
        largest = std::max(largest, std::abs(value));
    }
    return Bf16AtLeast(largest / static_cast<float>(LargestCode(bits)));
}

/// Codes of \p values, raised by the largest so that none is negative.
void
Quantise(std::span<const float> values, float step, unsigned bits, std::uint8_t* codes)
{
    const auto most = static_cast<float>(LargestCode(bits));
    for (std::size_t i = 0; i < values.size(); i++)
    {
        const float code = step == 0.0F ? 0.0F : std::nearbyint(values[i] / step);
        codes[i] = static_cast<std::uint8_t>(std::clamp(code, -most, most) + most);
    }
}

void
Dequantise(std::span<const std::uint8_t> codes, float step, unsigned bits, float* values)
{
    const int most = LargestCode(bits);
    for (std::size_t i = 0; i < codes.size(); i++)
    {
        if (codes[i] > 2 * most)
        {
            throw DecodeError("a code is " + std::to_string(codes[i]) + "; the greatest is " +
                              std::to_string(2 * most));
        }
        values[i] = static_cast<float>(codes[i] - most) * step;
    }
}

void
WriteSymmetric(Writer& writer, std::span<const float> values, unsigned bits)
{
    const float step = SymmetricStep(values, bits);
    std::vector<std::uint8_t> codes(values.size());
    Quantise(values, step, bits, codes.data());
    WriteBf16(writer, step);
    WriteCodes(writer, codes, bits);
}

void
ReadSymmetric(Reader& reader, unsigned bits, std::span<float> values)
{
    const float step = ReadStep(reader);
    Dequantise(ReadCodes(reader, values.size(), bits), step, bits, values.data());
}

// ---- rows of a fixed size

/// Codes a tensor row by row; every row of a width takes the same bytes.
class RowCodec : public TensorCodec
{
  public:
    explicit RowCodec(unsigned bits)
        : m_bits(bits)
    {
    }

    DType Exact() const override
    {
        return DType::F32;
    }

    Payload Encode(const Tensor& tensor, const CodecSite& site) const override
    {
        const std::size_t rowBytes = RowBytes(tensor.Cols());
        const std::size_t size = tensor.Rows() * rowBytes;
        Payload payload;
        if (tensor.IsPhantom())
        {
            payload = Payload::Phantom(size);
        }
        else
        {
            std::vector<std::byte> bytes(size);
            for (std::size_t i = 0; i < tensor.Rows(); i++)
            {
                EncodeRow(Checked(tensor.Row(i), i), site, Writer({bytes.data() + i * rowBytes, rowBytes}));
            }
            payload = Payload::Of(std::move(bytes));
        }
        payload.coded = true;
        return payload;
    }

    Tensor Decode(const Payload& payload, std::size_t cols, const CodecSite& site) const override
    {
        const std::size_t rowBytes = RowBytes(cols);
        const std::size_t rows = RowsIn(payload, rowBytes);
        if (payload.phantom)
        {
            return Tensor::Phantom(rows, cols);
        }
        Tensor tensor = Tensor::Zeros(rows, cols);
        for (std::size_t i = 0; i < rows; i++)
        {
            const std::span<float> row = tensor.Row(i);
            DecodeRow(Reader({payload.bytes.data() + i * rowBytes, rowBytes}), site, row);
            if (!std::ranges::all_of(row, [](float x) { return std::isfinite(x); }))
            {
                throw DecodeError("row " + std::to_string(i) + " holds a value beyond fp32");
            }
        }
        return tensor;
    }

    /// Reading, finding the range, dividing and rounding each element; one kernel.
    CodecCost EncodeCost(std::size_t rows, std::size_t cols) const override
    {
        return {.flops = 4 * rows * cols,
                .bytesRead = 4 * rows * cols,
                .bytesWritten = rows * RowBytes(cols),
                .launches = 1};
    }

    CodecCost DecodeCost(std::size_t rows, std::size_t cols) const override
    {
        return {.flops = 2 * rows * cols,
                .bytesRead = rows * RowBytes(cols),
                .bytesWritten = 4 * rows * cols,
                .launches = 1};
    }

  protected:
    virtual std::size_t RowBytes(std::size_t cols) const = 0;
    virtual void EncodeRow(std::span<const float> row, const CodecSite& site, Writer writer) const = 0;
    virtual void DecodeRow(Reader reader, const CodecSite& site, std::span<float> row) const = 0;

    unsigned Bits() const
    {
        return m_bits;
    }

  private:
    static std::span<const float> Checked(std::span<const float> row, std::size_t number)
    {
        constexpr float kMost = 1e37F; // steps are rounded up, and what they give must be fp32
        for (std::size_t j = 0; j < row.size(); j++)
        {
            if (!(std::abs(row[j]) <= kMost))
            {
                throw EncodeError("row " + std::to_string(number) + ", column " + std::to_string(j) + " is " +
                                  std::to_string(row[j]) + "; a quantiser takes finite values up to 1e37");
            }
        }
        return row;
    }

    unsigned m_bits;
};

/// What a codec derives from the channels of every site that has been measured.
template <typename T>
class PerSite
{
  public:
    PerSite(const ActivationStatistics& statistics, const std::function<T(const ChannelStatistics&)>& derive)
    {
        for (const auto& [kind, entries] : statistics.Sites())
        {
            for (const SiteStatistics& entry : entries)
            {
                const std::size_t cols = entry.channels.largest.size(); // 0 where they were not measured
                m_derived[kind].push_back({cols, cols == 0 ? T() : derive(entry.channels)});
            }
        }
    }

    /// \throws InputError where \p site was not measured for rows of \p cols elements
    const T& At(const CodecSite& site, std::size_t cols) const
    {
        const auto kind = m_derived.find(site.kind);
        const std::size_t index = IndexOf(site);
        if (kind == m_derived.end() || index >= kind->second.size() || kind->second[index].first != cols)
        {
            std::vector<std::string> measured;
            for (const auto& [name, entries] : m_derived)
            {
                if (std::ranges::any_of(entries, [](const auto& entry) { return entry.first != 0; }))
                {
                    measured.push_back(name);
                }
            }
            throw InputError("codec: the activation statistics have no channels of " + std::string(site.kind) +
                             ", layer " + std::to_string(site.layer) + ", of " + std::to_string(cols) +
                             " elements; measured: " + Joined(measured));
        }
        return kind->second[index].second;
    }

  private:
    std::map<std::string, std::vector<std::pair<std::size_t, T>>, std::less<>> m_derived;
};

// ---- the codecs

class RoundToNearest final : public RowCodec
{
  public:
    using RowCodec::RowCodec;

  protected:
    std::size_t RowBytes(std::size_t cols) const override
    {
        return kBf16Bytes + PackedBytes(cols, Bits());
    }

    void EncodeRow(std::span<const float> row, const CodecSite&, Writer writer) const override
    {
        WriteSymmetric(writer, row, Bits());
    }

    void DecodeRow(Reader reader, const CodecSite&, std::span<float> row) const override
    {
        ReadSymmetric(reader, Bits(), row);
    }
};

class SmoothQuant final : public RowCodec
{
  public:
    SmoothQuant(unsigned bits, const ActivationStatistics& statistics, double alpha)
        : RowCodec(bits),
          m_scales(statistics, [alpha](const ChannelStatistics& channels) {
              constexpr float kLeast = 1e-5F; // a channel that was silent in calibration may speak later
              std::vector<float> scales;
              for (const float largest : channels.largest)
              {
                  scales.push_back(
                      static_cast<float>(deterministic::Exp(alpha * deterministic::Log(std::max(largest, kLeast)))));
              }
              return scales;
          })
    {
    }

  protected:
    std::size_t RowBytes(std::size_t cols) const override
    {
        return kBf16Bytes + PackedBytes(cols, Bits());
    }

    void EncodeRow(std::span<const float> row, const CodecSite& site, Writer writer) const override
    {
        const std::vector<float>& scales = m_scales.At(site, row.size());
        std::vector<float> smooth(row.size());
        for (std::size_t j = 0; j < row.size(); j++)
        {
            smooth[j] = row[j] / scales[j];
            if (!std::isfinite(smooth[j]))
            {
                throw EncodeError("column " + std::to_string(j) + " is too large for its calibrated scale");
            }
        }
        WriteSymmetric(writer, smooth, Bits());
    }

    void DecodeRow(Reader reader, const CodecSite& site, std::span<float> row) const override
    {
        const std::vector<float>& scales = m_scales.At(site, row.size());
        ReadSymmetric(reader, Bits(), row);
        for (std::size_t j = 0; j < row.size(); j++)
        {
            row[j] *= scales[j];
        }
    }

  private:
    PerSite<std::vector<float>> m_scales;
};

class OmniQuant final : public RowCodec
{
  public:
    OmniQuant(unsigned bits, const ActivationStatistics& statistics)
        : RowCodec(bits),
          m_learned(statistics, [bits](const ChannelStatistics& channels) {
              const auto clip = channels.clip.find(bits);
              if (clip == channels.clip.end())
              {
                  throw InputError("codec: the activation statistics have no clip factors for " + std::to_string(bits) +
                                   " bits");
              }
              return Learned{channels.shift, channels.scale, clip->second};
          })
    {
    }

  protected:
    std::size_t RowBytes(std::size_t cols) const override
    {
        return 2 * kBf16Bytes + PackedBytes(cols, Bits());
    }

    void EncodeRow(std::span<const float> row, const CodecSite& site, Writer writer) const override
    {
        const Learned& learned = m_learned.At(site, row.size());
        std::vector<float> even(row.size());
        for (std::size_t j = 0; j < row.size(); j++)
        {
            even[j] = (row[j] - learned.shift[j]) / learned.scale[j];
            if (!std::isfinite(even[j]))
            {
                throw EncodeError("column " + std::to_string(j) + " is too large for its calibrated scale");
            }
        }
        const auto [least, greatest] = std::ranges::minmax(even);
        const bool constant = least == greatest;
        const float low = Bf16AtMost(constant ? least : least * learned.clip.low);
        const float high = std::max(low, constant ? greatest : greatest * learned.clip.high);
        const float most = static_cast<float>((1U << Bits()) - 1);
        const float step = Bf16AtLeast(high / most - low / most);
        std::vector<std::uint8_t> codes(row.size());
        for (std::size_t j = 0; j < row.size(); j++)
        {
            const float code = step == 0.0F ? 0.0F : std::nearbyint((even[j] - low) / step);
            codes[j] = static_cast<std::uint8_t>(std::clamp(code, 0.0F, most));
        }
        WriteBf16(writer, low);
        WriteBf16(writer, step);
        WriteCodes(writer, codes, Bits());
    }

    void DecodeRow(Reader reader, const CodecSite& site, std::span<float> row) const override
    {
        const Learned& learned = m_learned.At(site, row.size());
        const float low = ReadBf16(reader);
        const float step = ReadStep(reader);
        const std::vector<std::uint8_t> codes = ReadCodes(reader, row.size(), Bits());
        for (std::size_t j = 0; j < row.size(); j++)
        {
            row[j] = (low + static_cast<float>(codes[j]) * step) * learned.scale[j] + learned.shift[j];
        }
    }

  private:
    struct Learned
    {
        std::vector<float> shift;
        std::vector<float> scale;
        ChannelStatistics::Clip clip;
    };

    PerSite<Learned> m_learned;
};

class Atom final : public RowCodec
{
  public:
    Atom(unsigned bits, const ActivationStatistics& statistics, std::size_t outliers, std::size_t group)
        : RowCodec(bits),
          m_outliers(outliers),
          m_group(group),
          m_order(statistics, [outliers](const ChannelStatistics& channels) {
              std::vector<std::uint32_t> order(channels.rms.size());
              std::iota(order.begin(), order.end(), 0U);
              std::ranges::stable_sort(order, std::greater<>(), [&](std::uint32_t j) { return channels.rms[j]; });
              const auto rest = order.begin() + static_cast<std::ptrdiff_t>(std::min(outliers, order.size()));
              std::sort(order.begin(), rest);
              std::sort(rest, order.end());
              return order;
          })
    {
    }

  protected:
    std::size_t RowBytes(std::size_t cols) const override
    {
        const std::size_t outliers = std::min(m_outliers, cols);
        std::size_t bytes = outliers == 0 ? 0 : kBf16Bytes + outliers;
        for (std::size_t at = outliers; at < cols; at += m_group)
        {
            bytes += kBf16Bytes + PackedBytes(std::min(m_group, cols - at), Bits());
        }
        return bytes;
    }

    void EncodeRow(std::span<const float> row, const CodecSite& site, Writer writer) const override
    {
        const std::vector<std::uint32_t>& order = m_order.At(site, row.size());
        std::vector<float> ordered(row.size());
        std::ranges::transform(order, ordered.begin(), [&](std::uint32_t j) { return row[j]; });
        ForEachGroup(ordered, [&](std::span<float> part, unsigned bits) { WriteSymmetric(writer, part, bits); });
    }

    void DecodeRow(Reader reader, const CodecSite& site, std::span<float> row) const override
    {
        const std::vector<std::uint32_t>& order = m_order.At(site, row.size());
        std::vector<float> ordered(row.size());
        ForEachGroup(ordered, [&](std::span<float> part, unsigned bits) { ReadSymmetric(reader, bits, part); });
        for (std::size_t i = 0; i < row.size(); i++)
        {
            row[order[i]] = ordered[i];
        }
    }

  private:
    static constexpr unsigned kOutlierBits = 8;

    /// Calls \p code with the outliers and with every group of the others, and the bits that they take.
    template <typename Code>
    void ForEachGroup(std::span<float> ordered, Code code) const
    {
        const std::size_t outliers = std::min(m_outliers, ordered.size());
        if (outliers > 0)
        {
            code(ordered.first(outliers), kOutlierBits);
        }
        for (std::size_t at = outliers; at < ordered.size(); at += m_group)
        {
            code(ordered.subspan(at, std::min(m_group, ordered.size() - at)), Bits());
        }
    }

    std::size_t m_outliers;
    std::size_t m_group;
    PerSite<std::vector<std::uint32_t>> m_order; //!< outliers first, each part by channel
};

class Clamp final : public TensorCodec
{
  public:
    Clamp(float limit, std::shared_ptr<const TensorCodec> inner)
        : m_limit(limit),
          m_inner(std::move(inner))
    {
    }

    DType Exact() const override
    {
        return m_inner->Exact();
    }

    Payload Encode(const Tensor& tensor, const CodecSite& site) const override
    {
        Tensor limited = tensor;
        for (float& value : limited.Values())
        {
            value = std::clamp(value, -m_limit, m_limit); // NaN stays NaN
        }
        return m_inner->Encode(limited, site);
    }

    Tensor Decode(const Payload& payload, std::size_t cols, const CodecSite& site) const override
    {
        return m_inner->Decode(payload, cols, site);
    }

    CodecCost EncodeCost(std::size_t rows, std::size_t cols) const override
    {
        return m_inner->EncodeCost(rows, cols);
    }

    CodecCost DecodeCost(std::size_t rows, std::size_t cols) const override
    {
        return m_inner->DecodeCost(rows, cols);
    }

  private:
    float m_limit;
    std::shared_ptr<const TensorCodec> m_inner;
};

} // namespace

std::shared_ptr<const TensorCodec>
MakeRoundToNearest(unsigned bits)
{
    return std::make_shared<const RoundToNearest>(bits);
}

std::shared_ptr<const TensorCodec>
MakeSmoothQuant(unsigned bits, const ActivationStatistics& statistics, double alpha)
{
    return std::make_shared<const SmoothQuant>(bits, statistics, alpha);
}

std::shared_ptr<const TensorCodec>
MakeOmniQuant(unsigned bits, const ActivationStatistics& statistics)
{
    return std::make_shared<const OmniQuant>(bits, statistics);
}

std::shared_ptr<const TensorCodec>
MakeAtom(unsigned bits, const ActivationStatistics& statistics, std::size_t outliers, std::size_t group)
{
    return std::make_shared<const Atom>(bits, statistics, outliers, group);
}

std::shared_ptr<const TensorCodec>
MakeClamp(float limit, std::shared_ptr<const TensorCodec> inner)
{
    return std::make_shared<const Clamp>(limit, std::move(inner));
}

} // namespace splitllm
