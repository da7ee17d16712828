// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_TEMPORARY_FOLDER_H
#define SPLITLLM_TEST_TEMPORARY_FOLDER_H

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace splitllm::test
{

/// A folder that is gone at the end of the test.
class TemporaryFolder
{
  public:
    TemporaryFolder()
    {
        std::string path = (std::filesystem::temp_directory_path() / "splitllm-XXXXXX").string();
        if (mkdtemp(path.data()) == nullptr)
        {
            throw std::runtime_error("no temporary folder");
        }
        m_path = path;
    }

    ~TemporaryFolder()
    {
        std::filesystem::remove_all(m_path);
    }

    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;

    /// The path of \p file, which then holds \p content.
    std::filesystem::path Write(const std::string& file, const std::string& content) const
    {
        std::ofstream(m_path / file, std::ios::binary) << content;
        return m_path / file;
    }

    const std::filesystem::path& Path() const
    {
        return m_path;
    }

  private:
    std::filesystem::path m_path;
};

} // namespace splitllm::test

#endif // SPLITLLM_TEST_TEMPORARY_FOLDER_H
