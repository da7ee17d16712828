// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_INPUT_ERROR_H
#define SPLITLLM_INPUT_ERROR_H

#include <stdexcept>

namespace splitllm
{

/**
 * Something that the user gave (a file, a study, an option) cannot be used.
 *
 * The message is one line: where (path of the file or key), what is wrong, and what would be accepted. Programs
 * print it and exit with status 2.
 */
class InputError : public std::runtime_error
{
  public:
    using std::runtime_error::runtime_error;
};

} // namespace splitllm

#endif // SPLITLLM_INPUT_ERROR_H
