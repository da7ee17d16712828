// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_OUT_OF_MEMORY_H
#define SPLITLLM_OUT_OF_MEMORY_H

#include <stdexcept>

namespace splitllm
{

/// A device has not the memory that is asked for: a result of that point of a study, not a failure.
class OutOfMemory : public std::runtime_error
{
  public:
    using std::runtime_error::runtime_error;
};

} // namespace splitllm

#endif // SPLITLLM_OUT_OF_MEMORY_H
