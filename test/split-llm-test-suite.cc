// SPDX-License-Identifier: GPL-2.0-only

/**
 * \file
 * The module's tests in an ns-3 tree: ./test.py -s split-llm. They are written with Catch2, so that they also run
 * without a tree; here each file of them is one test case of an ns-3 test suite.
 */

#if !__has_include(<catch2/catch_all.hpp>)
#define CATCH_CONFIG_RUNNER
#endif
#include "support/catch.h"

#include "ns3/test.h"

#include <iostream>
#include <sstream>
#include <string>

namespace
{

/// Catch2 allows one session a process.
Catch::Session&
TheSession()
{
    static Catch::Session session;
    return session;
}

/// The Catch2 tests of one file.
class FileOfTests : public ns3::TestCase
{
  public:
    /// \param file its name without folder and extension
    explicit FileOfTests(const std::string& file)
        : TestCase(file),
          m_file(file)
    {
    }

  private:
    void DoRun() override
    {
        Catch::ConfigData config;
        config.filenamesAsTags = true;
        config.testsOrTags = {"[#" + m_file + "]"};
#if CATCH_VERSION_MAJOR == 2
        config.warnings = Catch::WarnAbout::NoTests; // an error in later versions without being asked for
#endif
        TheSession().useConfigData(config);

        // The report becomes the failure's message, which test.py shows.
        std::ostringstream report;
        std::streambuf* const output = std::cout.rdbuf(report.rdbuf());
        const int status = TheSession().run();
        std::cout.rdbuf(output);
        NS_TEST_ASSERT_MSG_EQ(status, 0, report.str());
    }

    std::string m_file;
};

/// All of them. The build says which files there are: SPLITLLM_TEST_GROUPS, separated by commas.
class SplitLlmTestSuite : public ns3::TestSuite
{
  public:
    SplitLlmTestSuite()
        : TestSuite("split-llm", Type::UNIT)
    {
        std::istringstream files(SPLITLLM_TEST_GROUPS);
        for (std::string file; std::getline(files, file, ',');)
        {
            AddTestCase(new FileOfTests(file), Duration::QUICK);
        }
    }
};

SplitLlmTestSuite g_splitLlmTestSuite; //!< Registers the suite.

} // namespace
