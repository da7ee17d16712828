// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_STRICT_JSON_H
#define SPLITLLM_STRICT_JSON_H

#include <nlohmann/json.hpp>

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace splitllm
{

using Json = nlohmann::ordered_json;

/// "a, b, c", as messages list what is accepted; "none" for nothing.
std::string Joined(const std::vector<std::string>& names);

/// The same of numbers.
template <std::unsigned_integral T>
std::string
Joined(const std::vector<T>& numbers)
{
    std::vector<std::string> names;
    for (const T number : numbers)
    {
        names.push_back(std::to_string(number));
    }
    return Joined(names);
}

/**
 * Parses JSON text. Unlike the library alone it rejects a repeated key, and nesting deeper than any file needs.
 * \throws InputError "ORIGIN:LINE:COLUMN: ..." for malformed text, "ORIGIN: PATH: ..." for a repeated key
 */
Json ParseStrictJson(std::string_view text, const std::string& origin);

/**
 * Parses CBOR (RFC 8949), which may hold byte strings as well, as strictly.
 * \throws InputError "ORIGIN: byte N: ..." for malformed bytes, "ORIGIN: ..." for no UTF-8 or a repeated key
 */
Json ParseStrictCbor(std::span<const std::byte> bytes, const std::string& origin);

/// ParseStrictJson of a file's content. \throws InputError also if it cannot be read
Json LoadStrictJson(const std::filesystem::path& file);

/**
 * Reads one JSON object key by key, and nothing but what is there to be read.
 *
 * Every method that takes a key fails with InputError "ORIGIN: PATH.KEY: what is wrong; what is accepted". Keys with a
 * default may be absent; the default is then written into the object, so that a read study lists every knob it has.
 * Integers must be integers (1.9, -1 and 4294967296 are not silently something else). Finish() rejects the keys that
 * nobody asked for.
 */
class StrictObject
{
  public:
    /**
     * \param value the object, which must stay where it is while it is read
     * \param origin file name for messages
     * \param path dotted path of \p value inside the file, empty at the top
     * \throws InputError if \p value is no object
     */
    StrictObject(Json& value, std::string origin, std::string path = "");

    bool Has(const std::string& key) const;

    std::string String(const std::string& key, std::optional<std::string> fallback = std::nullopt);

    /// A string that must be one of \p accepted.
    std::string Choice(const std::string& key,
                       const std::vector<std::string>& accepted,
                       std::optional<std::string> fallback = std::nullopt);

    std::uint64_t Integer(const std::string& key,
                          std::uint64_t least,
                          std::uint64_t most,
                          std::optional<std::uint64_t> fallback = std::nullopt);

    /// A finite number in [least, most].
    double Number(const std::string& key,
                  double least,
                  double most = std::numeric_limits<double>::infinity(),
                  std::optional<double> fallback = std::nullopt);

    bool Bool(const std::string& key, std::optional<bool> fallback = std::nullopt);

    /// The object under \p key.
    StrictObject Object(const std::string& key, std::optional<Json> fallback = std::nullopt);

    /// The value under \p key as it is, for the caller to check; marks it as read. Valid until a default is written.
    Json& Raw(const std::string& key);

    /// A list of objects.
    std::vector<StrictObject> Objects(const std::string& key);

    /// The keys present, in file order.
    std::vector<std::string> Keys() const;

    /// Rejects keys that were not read, naming the first and listing the accepted ones.
    void Finish() const;

    /// "PATH.KEY", or KEY at the top.
    std::string PathOf(const std::string& key) const;

    /// Throws InputError "ORIGIN: PATH.KEY: MESSAGE".
    [[noreturn]] void Fail(const std::string& key, const std::string& message) const;

    const std::string& Origin() const
    {
        return m_origin;
    }

  private:
    StrictObject(Json& root, Json::json_pointer place, std::string origin, std::string path);

    Json& Value() const;
    Json& Find(const std::string& key, const std::string& accepted);
    void Default(const std::string& key, Json fallback);
    [[noreturn]] void FailValue(const std::string& key, const Json& value, const std::string& accepted) const;

    Json* m_root;               //!< the object that the outermost reader was given
    Json::json_pointer m_place; //!< of this one in it: its address changes when a parent grows by a default
    std::string m_origin;
    std::string m_path;
    std::set<std::string> m_known;
};

} // namespace splitllm

#endif // SPLITLLM_STRICT_JSON_H
