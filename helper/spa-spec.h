// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SPA_SPEC_H
#define SPLITLLM_SPA_SPEC_H

#include "base/strict-json.h"
#include "study.h"

#include <filesystem>

namespace splitllm
{

/**
 * Reads the keys that \p scheme has for SPA or LST into study.scheme. Model and links of the study have been read.
 * \param folder where side networks are found by name
 * \throws InputError
 */
void ReadSpa(StrictObject& scheme, Study& study, const std::filesystem::path& folder);

} // namespace splitllm

#endif // SPLITLLM_SPA_SPEC_H
