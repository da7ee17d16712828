// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_ERROR_OF_H
#define SPLITLLM_TEST_ERROR_OF_H

#include "base/input-error.h"

#include <string>

namespace splitllm::test
{

/// The message of the InputError that \p call throws; empty if it throws none.
template <typename Call>
std::string
ErrorOf(Call call)
{
    try
    {
        call();
    }
    catch (const InputError& error)
    {
        return error.what();
    }
    return "";
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_ERROR_OF_H
