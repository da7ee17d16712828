// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_DECISION_LIST_H
#define SPLITLLM_DECISION_LIST_H

#include "policy/offload-policy.h"

#include <filesystem>
#include <istream>
#include <map>
#include <optional>
#include <string>
#include <tuple>

namespace splitllm
{

/// Decisions and scores of a file: one that a run wrote (decisions.csv), or one in its form.
class DecisionList
{
  public:
    struct Entry
    {
        bool offloaded = false;
        bool returned = false;
        std::optional<double> score1;
        std::optional<double> score2;
    };

    /**
     * Reads comma-separated values whose first line names the columns: request, position, layer, and
     * offloaded, returned (0 or 1) or score_1, score_2 (numbers or nothing). Of a file with columns point and
     * repetition only point \p point and repetition 0 are read. Other columns are passed over.
     * \throws InputError naming file and line
     */
    DecisionList(const std::filesystem::path& file, std::uint64_t point);

    /// The same from a stream. \param origin its name for messages
    DecisionList(std::istream& stream, const std::string& origin, std::uint64_t point);

    /**
     * Every cell of the workload must be listed.
     * \param needsScores with a score for Tier 1
     * \throws InputError naming the first cell that is not
     */
    void ExpectAll(const PolicyContext& context, bool needsScores) const;

    /// \throws InputError if the cell is not listed
    const Entry& Of(const Cell& cell) const;

  private:
    std::string m_origin;
    std::map<std::tuple<std::uint32_t, std::size_t, std::size_t>, Entry> m_entries; //!< by request, position and layer
};

} // namespace splitllm

#endif // SPLITLLM_DECISION_LIST_H
