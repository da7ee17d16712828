// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CE_COLLM_SPEC_H
#define SPLITLLM_CE_COLLM_SPEC_H

#include "base/strict-json.h"
#include "study.h"

#include <filesystem>

namespace splitllm
{

/**
 * Reads the keys that \p scheme has for CE-CoLLM into study.scheme. Model and links of the study have been read.
 * \param folder where exits are found by name
 * \throws InputError
 */
void ReadCeCollm(StrictObject& scheme, Study& study, const std::filesystem::path& folder);

} // namespace splitllm

#endif // SPLITLLM_CE_COLLM_SPEC_H
