// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_SAFETENSORS_FILE_H
#define SPLITLLM_TEST_SAFETENSORS_FILE_H

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace splitllm::test
{

/// The bytes of a safetensors file with this header, padded to a multiple of 8 as writers do, and data.
inline std::string
SafetensorsFile(std::string header, const std::string& data)
{
    header.append((8 - header.size() % 8) % 8, ' ');
    std::string file;
    for (int i = 0; i < 8; ++i)
    {
        file += static_cast<char>((std::uint64_t{header.size()} >> (8 * i)) & 0xffU);
    }
    return file + header + data;
}

/// A copy of the safetensors file \p path in which \p to stands for every \p from of the header.
inline std::string
RenamedTensors(const std::filesystem::path& path, const std::string& from, const std::string& to)
{
    std::ifstream stream(path, std::ios::binary);
    const std::string file{std::istreambuf_iterator<char>(stream), {}};
    std::uint64_t length = 0;
    std::memcpy(&length, file.data(), sizeof length);
    std::string header = file.substr(sizeof length, length);
    for (std::size_t at = header.find(from); at != std::string::npos; at = header.find(from, at + to.size()))
    {
        header.replace(at, from.size(), to);
    }
    return SafetensorsFile(header, file.substr(sizeof length + length));
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_SAFETENSORS_FILE_H
