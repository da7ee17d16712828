// SPDX-License-Identifier: GPL-2.0-only
#include "base/strict-json.h"

#include "base/input-error.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>
#include <system_error>
#include <unordered_set>
#include <utility>

namespace splitllm
{

namespace
{

/// Copying and printing a value recurse once a level; no file that is read here has ten.
constexpr std::size_t kMaxDepth = 100;

/// Values and reasons longer than this say no more, only less readably.
constexpr std::size_t kMaxShown = 160;

/// Names come from the file, so they may hold anything; a message is one line.
std::string
OneLine(std::string text)
{
    for (char& c : text)
    {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
        {
            c = '?';
        }
    }
    return text;
}

std::string
Shortened(std::string text)
{
    if (text.size() > kMaxShown)
    {
        text.resize(kMaxShown);
        text += "...";
    }
    return text;
}

std::string
Member(const std::string& path, const std::string& key)
{
    return path.empty() ? key : path + "." + key;
}

std::string
Element(const std::string& path, std::size_t index)
{
    return path + "[" + std::to_string(index) + "]";
}

/// The prefix of every message about a place in a parsed file.
std::string
Place(const std::string& origin, const std::string& path)
{
    return path.empty() ? origin : origin + ": " + OneLine(path);
}

/// A scalar as the file writes it, a container by its kind.
std::string
Shown(const Json& value)
{
    if (value.is_object())
    {
        return "an object";
    }
    if (value.is_array())
    {
        return "a list";
    }
    return Shortened(value.dump(-1, ' ', false, Json::error_handler_t::replace));
}

std::string
NumberText(double value)
{
    char text[32];
    const auto end = std::to_chars(std::begin(text), std::end(text), value).ptr;
    return {text, end};
}

/// Builds the value while the library's parser walks the text, because only here a repeated key can still be seen.
class Builder : public nlohmann::json_sax<Json>
{
  public:
    Builder(std::string_view text, const std::string& origin)
        : m_origin(origin),
          m_text(text)
    {
    }

    Json Result()
    {
        return std::move(m_root);
    }

    bool null() override
    {
        return Add(nullptr);
    }

    bool boolean(bool value) override
    {
        return Add(value);
    }

    bool number_integer(number_integer_t value) override
    {
        return Add(value);
    }

    bool number_unsigned(number_unsigned_t value) override
    {
        return Add(value);
    }

    bool number_float(number_float_t value, const string_t& /*text*/) override
    {
        return Add(value);
    }

    bool string(string_t& value) override
    {
        return Add(std::move(value));
    }

    bool binary(binary_t& /*value*/) override
    {
        return false; // no JSON text holds one
    }

    bool start_object(std::size_t /*elements*/) override
    {
        return Open(Json::object());
    }

    bool key(string_t& value) override
    {
        Frame& frame = m_open.back();
        if (!frame.keys.insert(value).second)
        {
            throw InputError(Place(m_origin, Member(PathOf(m_open.size() - 1), value)) +
                             ": repeated key; accepted: each key once");
        }
        frame.container->get_ref<Json::object_t&>().push_back({std::move(value), nullptr});
        return true;
    }

    bool end_object() override
    {
        m_open.pop_back();
        return true;
    }

    bool start_array(std::size_t /*elements*/) override
    {
        return Open(Json::array());
    }

    bool end_array() override
    {
        m_open.pop_back();
        return true;
    }

    bool parse_error(std::size_t position,
                     const std::string& /*token*/,
                     const Json::exception& error) override
    {
        FailAt(position, Shortened(Reason(error)));
    }

  protected:
    bool Add(Json value)
    {
        Insert(std::move(value));
        return true;
    }

    /// What the library says, without its numbers: "[json.exception.parse_error.101] parse error at line 1, column 2:
    /// syntax error ..."
    static std::string Reason(const Json::exception& error)
    {
        std::string_view reason = error.what();
        const auto id = reason.find("] ");
        if (id != std::string_view::npos)
        {
            reason.remove_prefix(id + 2);
        }
        if (reason.starts_with("parse error at"))
        {
            const auto start = reason.find(": ");
            reason.remove_prefix(start == std::string_view::npos ? 0 : start + 2);
        }
        return std::string(reason);
    }

    const std::string& m_origin;

  private:
    struct Frame
    {
        Json* container;
        std::unordered_set<std::string> keys;
    };

    Json* Insert(Json value)
    {
        if (m_open.empty())
        {
            m_root = std::move(value);
            return &m_root;
        }
        Json& container = *m_open.back().container;
        if (container.is_array())
        {
            auto& elements = container.get_ref<Json::array_t&>();
            return &elements.emplace_back(std::move(value));
        }
        Json& member = container.get_ref<Json::object_t&>().back().second;
        member = std::move(value);
        return &member;
    }

    bool Open(Json container)
    {
        if (m_open.size() == kMaxDepth)
        {
            throw InputError(m_origin + ": nested too deeply; accepted: at most " + std::to_string(kMaxDepth) +
                             " levels");
        }
        m_open.push_back({Insert(std::move(container)), {}});
        return true;
    }

    /// The path of the container that is \p depth levels below the root.
    std::string PathOf(std::size_t depth) const
    {
        std::string path;
        for (std::size_t i = 0; i < depth; ++i)
        {
            const Json& container = *m_open[i].container;
            path = container.is_array() ? Element(path, container.size() - 1)
                                        : Member(path, container.get_ref<const Json::object_t&>().back().first);
        }
        return path;
    }

    [[noreturn]] void FailAt(std::size_t position, const std::string& reason) const
    {
        // The library counts the character at fault as read, and one more at the end of the text.
        const std::string_view before = m_text.substr(0, position == 0 ? 0 : position - 1);
        const auto line = 1 + std::count(before.begin(), before.end(), '\n');
        const auto lineStart = before.rfind('\n');
        const auto column = before.size() - (lineStart == std::string_view::npos ? 0 : lineStart + 1) + 1;
        throw InputError(m_origin + ":" + std::to_string(line) + ":" + std::to_string(column) + ": " +
                         OneLine(reason));
    }

    std::string_view m_text;
    Json m_root;
    std::vector<Frame> m_open;
};

/// The same for CBOR.
class CborBuilder final : public Builder
{
  public:
    explicit CborBuilder(const std::string& origin)
        : Builder({}, origin)
    {
    }

    bool string(string_t& value) override
    {
        ExpectText(value);
        return Builder::string(value);
    }

    bool key(string_t& value) override
    {
        ExpectText(value);
        return Builder::key(value);
    }

    bool binary(binary_t& value) override
    {
        return Add(Json::binary(std::move(value)));
    }

    bool parse_error(std::size_t position, const std::string& /*token*/, const Json::exception& error) override
    {
        throw InputError(m_origin + ": byte " + std::to_string(position) + ": " + Shortened(OneLine(Reason(error))));
    }

  private:
    /// The library's reader of JSON text sees to it that strings are UTF-8, that of CBOR does not.
    void ExpectText(const string_t& value) const
    {
        try
        {
            static_cast<void>(Json(value).dump());
        }
        catch (const Json::type_error&)
        {
            throw InputError(m_origin + ": a text that is no UTF-8");
        }
    }
};

} // namespace

std::string
Joined(const std::vector<std::string>& names)
{
    std::string text;
    for (const std::string& name : names)
    {
        text += (text.empty() ? "" : ", ") + name;
    }
    return text.empty() ? "none" : text;
}

Json
ParseStrictJson(std::string_view text, const std::string& origin)
{
    Builder builder(text, origin);
    Json::sax_parse(text, &builder);
    return builder.Result();
}

Json
ParseStrictCbor(std::span<const std::byte> bytes, const std::string& origin)
{
    CborBuilder builder(origin);
    const auto* begin = reinterpret_cast<const std::uint8_t*>(bytes.data());
    Json::sax_parse(begin, begin + bytes.size(), &builder, Json::input_format_t::cbor);
    return builder.Result();
}

Json
LoadStrictJson(const std::filesystem::path& file)
{
    std::error_code ignored;
    std::ifstream stream(file, std::ios::binary);
    if (!std::filesystem::is_regular_file(file, ignored) || !stream.is_open())
    {
        throw InputError(file.string() + ": cannot be read; accepted: a readable JSON file");
    }
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    return ParseStrictJson(text, file.string());
}

StrictObject::StrictObject(Json& value, std::string origin, std::string path)
    : StrictObject(value, Json::json_pointer(), std::move(origin), std::move(path))
{
}

StrictObject::StrictObject(Json& root, Json::json_pointer place, std::string origin, std::string path)
    : m_root(&root),
      m_place(std::move(place)),
      m_origin(std::move(origin)),
      m_path(std::move(path))
{
    if (!Value().is_object())
    {
        throw InputError(Place(m_origin, m_path) + ": is " + Shown(Value()) + "; accepted: an object");
    }
}

Json&
StrictObject::Value() const
{
    return m_root->at(m_place);
}

bool
StrictObject::Has(const std::string& key) const
{
    return Value().contains(key);
}

Json&
StrictObject::Find(const std::string& key, const std::string& accepted)
{
    m_known.insert(key);
    const auto member = Value().find(key);
    if (member == Value().end())
    {
        Fail(key, "missing; accepted: " + accepted);
    }
    return *member;
}

void
StrictObject::Default(const std::string& key, Json fallback)
{
    Value().emplace(key, std::move(fallback)); // leaves a value that is there
}

std::string
StrictObject::String(const std::string& key, std::optional<std::string> fallback)
{
    if (fallback)
    {
        Default(key, *fallback);
    }
    const Json& value = Find(key, "a string");
    if (!value.is_string())
    {
        FailValue(key, value, "a string");
    }
    return value.get<std::string>();
}

std::string
StrictObject::Choice(const std::string& key,
                     const std::vector<std::string>& accepted,
                     std::optional<std::string> fallback)
{
    if (fallback)
    {
        Default(key, *fallback);
    }
    const std::string list = Joined(accepted);
    const Json& value = Find(key, list);
    if (!value.is_string() || std::find(accepted.begin(), accepted.end(), value) == accepted.end())
    {
        FailValue(key, value, list);
    }
    return value.get<std::string>();
}

std::uint64_t
StrictObject::Integer(const std::string& key,
                      std::uint64_t least,
                      std::uint64_t most,
                      std::optional<std::uint64_t> fallback)
{
    if (fallback)
    {
        Default(key, *fallback);
    }
    const std::string accepted = most == std::numeric_limits<std::uint64_t>::max()
                                     ? "an integer, at least " + std::to_string(least)
                                     : "an integer from " + std::to_string(least) + " to " + std::to_string(most);
    const Json& value = Find(key, accepted);
    // A positive value that a program put there may be of the signed kind.
    const bool whole = value.is_number_unsigned() || (value.is_number_integer() && value.get<std::int64_t>() >= 0);
    if (!whole || value.get<std::uint64_t>() < least || value.get<std::uint64_t>() > most)
    {
        FailValue(key, value, accepted);
    }
    return value.get<std::uint64_t>();
}

double
StrictObject::Number(const std::string& key, double least, double most, std::optional<double> fallback)
{
    if (fallback)
    {
        Default(key, *fallback);
    }
    std::string accepted = "a number";
    if (std::isfinite(least) && std::isfinite(most))
    {
        accepted += " from " + NumberText(least) + " to " + NumberText(most);
    }
    else if (std::isfinite(least))
    {
        accepted += ", at least " + NumberText(least);
    }
    else if (std::isfinite(most))
    {
        accepted += ", at most " + NumberText(most);
    }
    const Json& value = Find(key, accepted);
    if (!value.is_number())
    {
        FailValue(key, value, accepted);
    }
    const double number = value.get<double>();
    if (!std::isfinite(number) || number < least || number > most)
    {
        FailValue(key, value, accepted);
    }
    return number;
}

bool
StrictObject::Bool(const std::string& key, std::optional<bool> fallback)
{
    if (fallback)
    {
        Default(key, *fallback);
    }
    const Json& value = Find(key, "true or false");
    if (!value.is_boolean())
    {
        FailValue(key, value, "true or false");
    }
    return value.get<bool>();
}

StrictObject
StrictObject::Object(const std::string& key, std::optional<Json> fallback)
{
    if (fallback)
    {
        Default(key, std::move(*fallback));
    }
    Find(key, "an object");
    return {*m_root, m_place / key, m_origin, PathOf(key)};
}

Json&
StrictObject::Raw(const std::string& key)
{
    return Find(key, "a value");
}

std::vector<StrictObject>
StrictObject::Objects(const std::string& key)
{
    const Json& value = Find(key, "a list of objects");
    if (!value.is_array())
    {
        FailValue(key, value, "a list of objects");
    }
    std::vector<StrictObject> objects;
    for (std::size_t i = 0; i < value.size(); ++i)
    {
        objects.push_back({*m_root, m_place / key / i, m_origin, Element(PathOf(key), i)});
    }
    return objects;
}

std::vector<std::string>
StrictObject::Keys() const
{
    std::vector<std::string> keys;
    for (const auto& [key, value] : Value().items())
    {
        keys.push_back(key);
    }
    return keys;
}

void
StrictObject::Finish() const
{
    for (const auto& [key, value] : Value().items())
    {
        if (!m_known.contains(key))
        {
            Fail(key, "unknown key; accepted: " + Joined({m_known.begin(), m_known.end()}));
        }
    }
}

std::string
StrictObject::PathOf(const std::string& key) const
{
    return Member(m_path, key);
}

void
StrictObject::Fail(const std::string& key, const std::string& message) const
{
    throw InputError(Place(m_origin, PathOf(key)) + ": " + message);
}

void
StrictObject::FailValue(const std::string& key, const Json& value, const std::string& accepted) const
{
    Fail(key, "is " + Shown(value) + "; accepted: " + accepted);
}

} // namespace splitllm
