// SPDX-License-Identifier: GPL-2.0-only
#include "policy/decision-list.h"

#include "base/input-error.h"

#include <charconv>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace splitllm
{

namespace
{

std::vector<std::string_view>
Fields(std::string_view line)
{
    if (line.ends_with('\r'))
    {
        line.remove_suffix(1);
    }
    std::vector<std::string_view> fields;
    while (true)
    {
        const std::size_t comma = line.find(',');
        fields.push_back(line.substr(0, comma));
        if (comma == std::string_view::npos)
        {
            return fields;
        }
        line.remove_prefix(comma + 1);
    }
}

template <typename T>
std::optional<T>
Parse(std::string_view text)
{
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size() && !text.empty() ? std::optional(value)
                                                                                      : std::nullopt;
}

/// One line of the file, its fields found by the names of the columns.
class Line
{
  public:
    Line(const std::map<std::string, std::size_t>& columns, std::string_view text, std::string origin)
        : m_columns(columns),
          m_fields(Fields(text)),
          m_origin(std::move(origin))
    {
    }

    std::uint64_t Number(const std::string& column, std::uint64_t most) const
    {
        const std::optional<std::uint64_t> value = Parse<std::uint64_t>(Field(column));
        if (!value || *value > most)
        {
            throw InputError(m_origin + ": " + column + ": \"" + std::string(Field(column)) +
                             "\"; a whole number from 0 to " + std::to_string(most) + " is expected");
        }
        return *value;
    }

    std::optional<double> Score(const std::string& column) const
    {
        if (!m_columns.contains(column) || Field(column).empty())
        {
            return std::nullopt;
        }
        const std::optional<double> value = Parse<double>(Field(column));
        if (!value || !(*value >= 0.0 && *value <= 1.0))
        {
            throw InputError(m_origin + ": " + column + ": \"" + std::string(Field(column)) +
                             "\"; a number from 0 to 1, or nothing, is expected");
        }
        return value;
    }

    bool Has(const std::string& column) const
    {
        return m_columns.contains(column);
    }

  private:
    std::string_view Field(const std::string& column) const
    {
        const auto found = m_columns.find(column);
        if (found == m_columns.end() || found->second >= m_fields.size())
        {
            throw InputError(m_origin + ": no " + column);
        }
        return m_fields[found->second];
    }

    const std::map<std::string, std::size_t>& m_columns;
    std::vector<std::string_view> m_fields;
    std::string m_origin;
};

} // namespace

DecisionList::DecisionList(const std::filesystem::path& file, std::uint64_t point)
{
    std::ifstream stream(file);
    *this = DecisionList(stream, file.string(), point);
}

DecisionList::DecisionList(std::istream& stream, const std::string& origin, std::uint64_t point)
    : m_origin(origin)
{
    std::string text;
    if (!stream || !std::getline(stream, text))
    {
        throw InputError(origin + ": cannot be read; decisions as comma-separated values are expected");
    }
    std::map<std::string, std::size_t> columns;
    for (const std::string_view name : Fields(text))
    {
        const std::size_t index = columns.size();
        columns.emplace(name, index);
    }
    for (std::size_t number = 2; std::getline(stream, text); number++)
    {
        const Line line(columns, text, origin + ":" + std::to_string(number));
        constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();
        if ((line.Has("point") && line.Number("point", kMost) != point) ||
            (line.Has("repetition") && line.Number("repetition", kMost) != 0))
        {
            continue;
        }
        const auto request = static_cast<std::uint32_t>(line.Number("request", kMost));
        const std::uint64_t position = line.Number("position", kMost);
        const std::uint64_t layer = line.Number("layer", kMost);
        if (layer == 0)
        {
            throw InputError(origin + ":" + std::to_string(number) + ": layer: layers count from 1");
        }
        m_entries[{request, position, layer}] = {.offloaded = line.Has("offloaded") && line.Number("offloaded", 1) == 1,
                                                 .returned = line.Has("returned") && line.Number("returned", 1) == 1,
                                                 .score1 = line.Score("score_1"),
                                                 .score2 = line.Score("score_2")};
    }
}

void
DecisionList::ExpectAll(const PolicyContext& context, bool needsScores) const
{
    for (std::uint32_t request = 0; request < context.positions.size(); request++)
    {
        for (std::size_t position = 0; position < context.positions[request]; position++)
        {
            for (std::size_t layer = 1; layer <= context.config.layers; layer++)
            {
                const Entry& entry = Of({request, position, layer});
                if (needsScores && layer > 1 && !entry.score1)
                {
                    throw InputError(m_origin + ": no score_1 for request " + std::to_string(request) +
                                     ", position " + std::to_string(position) + ", layer " + std::to_string(layer));
                }
            }
        }
    }
}

const DecisionList::Entry&
DecisionList::Of(const Cell& cell) const
{
    const auto found = m_entries.find({cell.request, cell.position, cell.layer});
    if (found == m_entries.end())
    {
        throw InputError(m_origin + ": the list is too short: nothing for request " + std::to_string(cell.request) +
                         ", position " + std::to_string(cell.position) + ", layer " + std::to_string(cell.layer));
    }
    return found->second;
}

} // namespace splitllm
