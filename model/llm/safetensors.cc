// SPDX-License-Identifier: GPL-2.0-only
#include "llm/safetensors.h"

#include "base/input-error.h"
#include "base/strict-json.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace splitllm
{

namespace
{

constexpr std::size_t kLengthBytes = 8;

/// The limit of the format's reference implementation.
constexpr std::uint64_t kMaxHeader = 100'000'000;

/// Every dtype of the format whose elements are whole bytes.
constexpr std::array<std::pair<std::string_view, std::size_t>, 17> kElementSizes{{
    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
    {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},     {"I32", 4},
    {"F32", 4},  {"U64", 8}, {"I64", 8}, {"F64", 8},     {"C64", 8},
}};

/// The dtypes that layers compute with.
constexpr std::array<std::pair<std::string_view, DType>, 3> kWeightTypes{{
    {"F32", DType::F32},
    {"F16", DType::F16},
    {"BF16", DType::BF16},
}};

/// A name from a file, on one line.
std::string
Quoted(const std::string& name)
{
    return Json(name).dump(-1, ' ', true, Json::error_handler_t::replace);
}

template <typename Table>
std::string
NamesOf(const Table& table)
{
    std::string names;
    for (const auto& [name, value] : table)
    {
        names += (names.empty() ? "" : ", ") + std::string(name);
    }
    return names;
}

[[noreturn]] void
FailTensor(const std::string& origin, const std::string& name, const std::string& message)
{
    throw InputError(origin + ": tensor " + Quoted(name) + ": " + message);
}

/// One entry of the header, before it is known how it lies to the others.
struct Entry
{
    std::string name;
    StoredTensor tensor;
    std::size_t elementSize;
    std::uint64_t begin;
    std::uint64_t end;
};

/// The list of counts under \p key, nothing if it is not one.
std::optional<std::vector<std::uint64_t>>
CountsIn(const Json& value, const char* key)
{
    const auto member = value.find(key);
    if (member == value.end() || !member->is_array())
    {
        return std::nullopt;
    }
    std::vector<std::uint64_t> counts;
    for (const Json& element : *member)
    {
        if (!element.is_number_unsigned())
        {
            return std::nullopt;
        }
        counts.push_back(element.get<std::uint64_t>());
    }
    return counts;
}

Entry
ReadEntry(const std::string& origin, const std::string& name, const Json& value, std::span<const std::byte> data)
{
    const auto dtype = value.find("dtype"); // end() also where the value is no object
    const auto shape = CountsIn(value, "shape");
    const auto offsets = CountsIn(value, "data_offsets");
    if (dtype == value.end() || !dtype->is_string() || !shape || !offsets || offsets->size() != 2)
    {
        FailTensor(origin,
                   name,
                   "is malformed; accepted: an object with dtype (a string), shape (counts) and data_offsets ([begin, "
                   "end])");
    }
    Entry entry{name, {dtype->get<std::string>(), {shape->begin(), shape->end()}}, 0, offsets->at(0), offsets->at(1)};
    const auto known = std::find_if(kElementSizes.begin(), kElementSizes.end(), [&](const auto& candidate) {
        return candidate.first == entry.tensor.dtype;
    });
    if (known == kElementSizes.end())
    {
        FailTensor(origin,
                   name,
                   "dtype " + Quoted(entry.tensor.dtype) + " is unknown; accepted: " + NamesOf(kElementSizes));
    }
    entry.elementSize = known->second;
    if (entry.begin > entry.end || entry.end > data.size())
    {
        FailTensor(origin,
                   name,
                   "data_offsets " + Json(*offsets).dump() + " lie outside the data; accepted: begin <= end <= " +
                       std::to_string(data.size()));
    }
    std::uint64_t bytes = entry.elementSize;
    for (const std::uint64_t length : *shape)
    {
        if (length != 0 && bytes > std::numeric_limits<std::uint64_t>::max() / length)
        {
            FailTensor(origin, name, "shape " + Json(*shape).dump() + " overflows; accepted: a shape that fits memory");
        }
        bytes *= length;
    }
    if (bytes != entry.end - entry.begin)
    {
        FailTensor(origin,
                   name,
                   "has " + std::to_string(entry.end - entry.begin) + " bytes of data; accepted: " +
                       std::to_string(bytes) + " for shape " + Json(*shape).dump() + " of " + entry.tensor.dtype);
    }
    entry.tensor.data = data.data() + entry.begin;
    return entry;
}

void
CheckMetadata(const std::string& origin, const Json& metadata)
{
    if (!metadata.is_object() ||
        !std::all_of(metadata.begin(), metadata.end(), [](const Json& value) { return value.is_string(); }))
    {
        throw InputError(origin + ": __metadata__ is malformed; accepted: an object of strings");
    }
}

/// Checks that the entries cover the data exactly and that each is aligned in the file.
void
CheckLayout(const std::string& origin, std::vector<Entry>& entries, std::size_t dataStart, std::size_t dataLength)
{
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
        return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
    });
    std::uint64_t covered = 0;
    for (const Entry& entry : entries)
    {
        if (entry.begin != covered)
        {
            FailTensor(origin,
                       entry.name,
                       "begins at " + std::to_string(entry.begin) + "; accepted: " + std::to_string(covered) +
                           ", where the tensor before it ends");
        }
        if ((dataStart + entry.begin) % entry.elementSize != 0)
        {
            FailTensor(origin,
                       entry.name,
                       "begins at byte " + std::to_string(dataStart + entry.begin) +
                           " of the file; accepted: a multiple of its element size, " +
                           std::to_string(entry.elementSize));
        }
        covered = entry.end;
    }
    if (covered != dataLength)
    {
        throw InputError(origin + ": holds " + std::to_string(dataLength) + " bytes of data; accepted: " +
                         std::to_string(covered) + ", as its tensors take");
    }
}

} // namespace

TensorIndex
ParseSafetensors(std::span<const std::byte> bytes, const std::string& origin)
{
    std::uint64_t headerLength = 0;
    for (std::size_t i = 0; i < kLengthBytes && i < bytes.size(); ++i)
    {
        headerLength |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
    }
    const std::uint64_t most = std::min<std::uint64_t>(kMaxHeader, bytes.size() - std::min(bytes.size(), kLengthBytes));
    if (bytes.size() < kLengthBytes || headerLength > most)
    {
        throw InputError(origin + ": is no safetensors file: its header would take " + std::to_string(headerLength) +
                         " bytes; accepted: at most " + std::to_string(most));
    }
    const auto header = bytes.subspan(kLengthBytes, headerLength);
    const auto data = bytes.subspan(kLengthBytes + headerLength);
    const Json json = ParseStrictJson({reinterpret_cast<const char*>(header.data()), header.size()},
                                      origin + ": header");
    if (!json.is_object())
    {
        throw InputError(origin + ": header is no object; accepted: an object of tensors");
    }
    std::vector<Entry> entries;
    for (const auto& [name, value] : json.items())
    {
        if (name == "__metadata__")
        {
            CheckMetadata(origin, value);
        }
        else
        {
            entries.push_back(ReadEntry(origin, name, value, data));
        }
    }
    CheckLayout(origin, entries, kLengthBytes + headerLength, data.size());
    TensorIndex index;
    for (Entry& entry : entries)
    {
        index.emplace(std::move(entry.name), std::move(entry.tensor));
    }
    return index;
}

std::shared_ptr<const MappedTensors>
MappedTensors::OpenFile(const std::filesystem::path& file)
{
    const std::shared_ptr<MappedTensors> tensors(new MappedTensors);
    tensors->m_origin = file.string();
    tensors->Map(file);
    return tensors;
}

std::shared_ptr<const MappedTensors>
MappedTensors::OpenFolder(const std::filesystem::path& folder)
{
    const auto single = folder / "model.safetensors";
    const auto indexFile = folder / "model.safetensors.index.json";
    std::error_code ignored;
    if (std::filesystem::exists(single, ignored))
    {
        return OpenFile(single);
    }
    if (!std::filesystem::exists(indexFile, ignored))
    {
        throw InputError(folder.string() +
                         ": holds no weights; accepted: model.safetensors or model.safetensors.index.json");
    }
    const std::shared_ptr<MappedTensors> tensors(new MappedTensors);
    tensors->m_origin = indexFile.string();
    Json json = LoadStrictJson(indexFile);
    StrictObject weightMap = StrictObject(json, tensors->m_origin).Object("weight_map");
    const auto names = weightMap.Keys();
    std::set<std::string> shards;
    for (const std::string& name : names)
    {
        const std::string shard = weightMap.String(name);
        // A plain name cannot lead out of the folder.
        if (shard.empty() || shard.front() == '.' || shard.find('/') != std::string::npos ||
            shard.find('\0') != std::string::npos)
        {
            weightMap.Fail(name, "is " + Quoted(shard) + "; accepted: the name of a file in the same folder");
        }
        shards.insert(shard);
    }
    for (const std::string& shard : shards)
    {
        tensors->Map(folder / shard);
    }
    for (const std::string& name : names)
    {
        if (!tensors->m_index.contains(name))
        {
            weightMap.Fail(name, "is in no shard; accepted: tensors that a shard holds");
        }
    }
    return tensors;
}

MappedTensors::~MappedTensors()
{
    for (const Mapping& mapping : m_mappings)
    {
        munmap(mapping.address, mapping.length);
    }
}

void
MappedTensors::Map(const std::filesystem::path& file)
{
    const int descriptor = open(file.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status = {};
    void* address = MAP_FAILED;
    if (descriptor >= 0)
    {
        if (fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0)
        {
            address = mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, descriptor, 0);
        }
        close(descriptor); // the mapping stays
    }
    if (address == MAP_FAILED)
    {
        throw InputError(file.string() + ": cannot be read; accepted: a readable safetensors file");
    }
    const auto length = static_cast<std::size_t>(status.st_size);
    m_mappings.push_back({address, length});
    for (const auto& [name, tensor] : ParseSafetensors({static_cast<const std::byte*>(address), length}, file.string()))
    {
        if (!m_index.emplace(name, tensor).second)
        {
            FailTensor(file.string(), name, "is in another shard too; accepted: each tensor once");
        }
    }
}

ArrayView
MappedTensors::Require(const std::string& name, const std::vector<std::size_t>& shape) const
{
    const auto found = m_index.find(name);
    if (found == m_index.end())
    {
        FailTensor(m_origin, name, "missing; accepted: shape " + Json(shape).dump() + " of " + NamesOf(kWeightTypes));
    }
    const StoredTensor& tensor = found->second;
    if (tensor.shape != shape)
    {
        FailTensor(m_origin, name, "has shape " + Json(tensor.shape).dump() + "; accepted: " + Json(shape).dump());
    }
    for (const auto& [dtypeName, dtype] : kWeightTypes)
    {
        if (dtypeName == tensor.dtype)
        {
            return {dtype, tensor.shape, tensor.data};
        }
    }
    FailTensor(m_origin, name, "has dtype " + tensor.dtype + "; accepted: " + NamesOf(kWeightTypes));
}

} // namespace splitllm
