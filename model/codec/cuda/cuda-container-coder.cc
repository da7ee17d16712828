// SPDX-License-Identifier: GPL-2.0-only
#include "base/gpu.h"
#include "base/input-error.h"
#include "codec/container-coder.h"
#include "codec/cuda/container-memory.h"
#include "tensor/cuda/device-tensor.h"

#include <limits>
#include <mutex>
#include <optional>
#include <string>

namespace splitllm
{

namespace
{

class CudaCoder final : public ContainerCoder
{
  public:
    CudaCoder()
        : m_stream(std::make_shared<CudaStream>())
    {
    }

    std::vector<std::byte> Encode(const Tensor& tensor,
                                  std::optional<float> tau,
                                  const ContainerParameters& parameters) const override
    {
        constexpr std::size_t kMost = std::numeric_limits<std::uint32_t>::max();
        if (tensor.Elements() == 0 || tensor.Rows() > kMost || tensor.Cols() > kMost)
        {
            return EncodeContainer(tensor, tau, parameters); // which says what is wrong
        }
        const DeviceInput input(tensor, m_stream);
        const EncodeMemory memory(
            m_stream, input.Data(), tensor.Rows(), tensor.Cols(), tau, parameters, Statics());
        const EncodeJob& job = memory.Job();
        DeviceArray<std::byte> container;
        MessagePlan message;
        if (job.rows == 1)
        {
            container = DeviceArray<std::byte>(m_stream, MostBytesOfRow(job));
            LaunchEncodeRow(job, container.Data(), m_stream->Get());
            message = memory.Message();
        }
        else
        {
            LaunchQuantise(job, m_stream->Get());
            if (parameters.entropy)
            {
                LaunchMessageTable(job, m_stream->Get());
            }
            LaunchStreams(job, m_stream->Get());
            LaunchLayout(job, m_stream->Get());
            message = memory.Message();
            if (message.refused == 0)
            {
                container = DeviceArray<std::byte>(m_stream, message.size);
                LaunchAssemble(job, container.Data(), m_stream->Get());
            }
        }
        if (message.refused != 0)
        {
            return EncodeContainer(tensor, tau, parameters); // which names row, column and value
        }
        std::vector<std::byte> bytes(message.size);
        container.Download(bytes);
        return bytes;
    }

    Tensor Decode(std::span<const std::byte> bytes, std::size_t cols) const override
    {
        const ContainerSections sections = ReadContainerSections(bytes, cols);
        DecodeMemory memory(m_stream, bytes, sections, Statics());
        const DecodeJob& job = memory.Job();
        LaunchDecodeStreams(job, m_stream->Get());
        LaunchUnpack(job, m_stream->Get());
        if (!sections.counts.empty())
        {
            LaunchPlaceAbove(job, m_stream->Get());
        }
        if (!memory.Succeeded())
        {
            return DecodeContainer(bytes, cols); // which says what is wrong
        }
        return OnDevice(job.rows, job.cols, memory.TakeValues());
    }

  private:
    /// The static tables, brought to the GPU for the first container: a study may have none. \throws OutOfMemory
    DeviceStaticTables Statics() const
    {
        if (!m_statics)
        {
            m_statics.emplace(m_stream);
        }
        return m_statics->Tables();
    }

    std::shared_ptr<CudaStream> m_stream;
    mutable std::optional<StaticTablesMemory> m_statics;
};

} // namespace

std::shared_ptr<const ContainerCoder>
MakeCudaContainerCoder()
{
    static std::mutex mutex;
    static std::weak_ptr<const CudaCoder> shared;
    const std::scoped_lock lock(mutex);
    auto coder = shared.lock();
    if (coder == nullptr)
    {
        const std::string why = WhyNoCuda();
        if (!why.empty())
        {
            throw InputError(why);
        }
        coder = std::make_shared<const CudaCoder>();
        shared = coder;
    }
    return coder;
}

} // namespace splitllm
