// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_RECORDING_H
#define SPLITLLM_RECORDING_H

#include "base/strict-json.h"
#include "recorder.h"
#include "schemes/outcomes.h"
#include "study.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace splitllm
{

/**
 * A run of a point in numeric mode, as far as it takes to repeat it without numbers: the study, the shapes of what it
 * computed with, the requests, and what their numbers decided. Work follows from the shapes.
 */
struct RecordedRun
{
    Json study; //!< the point, with every key
    std::uint32_t repetition = 0;
    ModelConfig config;
    std::string activations;           //!< element type that Work counts
    std::uint32_t adapterRank = 0;     //!< 0 without a LoRA adapter
    std::uint32_t bottleneckWidth = 0; //!< 0 without bottleneck adapters
    std::string adapterDtype = "fp16"; //!< of either
    std::vector<RequestSpec> prompts;  //!< those of the requests
    std::vector<std::size_t> requests; //!< index of each request's prompt
    std::shared_ptr<const RunOutcomes> outcomes;
    std::vector<QualityRow> quality; //!< empty unless the study asked for it
};

using RecordedRuns = std::vector<std::shared_ptr<const RecordedRun>>;

/// Puts recorded runs together and writes them into a file.
class RecordingWriter
{
  public:
    /**
     * Adds a run of \p study.
     * \param json the point, with every key
     * \param model config.json of its model
     * \throws InputError where it is no run that a replay could repeat: it lost a session or ran out of memory, went on
     *         without its cloud, or decided otherwise than a run before it that differs in the network alone
     */
    void Add(const Study& study,
             const Json& json,
             std::uint32_t repetition,
             const RunRecords& records,
             const RunOutcomes& outcomes);

    /// Before a run that takes long. \throws InputError if Write could not write \p file
    static void CheckWritable(const std::filesystem::path& file);

    /// Writes the file, aside and then into its place. \throws InputError if it cannot be written
    void Write(const std::filesystem::path& file) const;

    /// What Write writes.
    std::vector<std::byte> Bytes() const;

  private:
    Json m_runs = Json::array();
};

/**
 * Parses a recording: "SLLMREC\n", version and CRC-32C (4 bytes each, little-endian), length (8 bytes) of what follows,
 * which the checksum is of: a CBOR object (doc/replay.md).
 * \param origin names it in messages
 * \throws InputError for another file, another version, a damaged one, or one that is not what Write writes
 */
RecordedRuns ParseRecording(std::span<const std::byte> bytes, const std::string& origin);

/// ParseRecording of a file's content. \throws InputError also if it cannot be read
RecordedRuns LoadRecording(const std::filesystem::path& file);

} // namespace splitllm

#endif // SPLITLLM_RECORDING_H
