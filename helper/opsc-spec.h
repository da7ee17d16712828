// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_OPSC_SPEC_H
#define SPLITLLM_OPSC_SPEC_H

#include "base/strict-json.h"
#include "codec/tensor-codec.h"
#include "study.h"

#include <filesystem>

namespace splitllm
{

/**
 * Reads the keys that \p scheme has for OPSC into study.scheme. Model, links and workload of the study have been read.
 * \param folder of the study, where relative paths of accuracies begin
 * \param codecs what the codecs named here are made for
 */
void ReadOpsc(StrictObject& scheme, Study& study, const std::filesystem::path& folder, const CodecContext& codecs);

/**
 * Refuses a deadline that no upload of \p study can keep: where the front layers of the shortest prompt, on an idle
 * device, and the least that its states can take on the link are longer.
 */
void CheckDeadline(const StrictObject& object, const Study& study);

} // namespace splitllm

#endif // SPLITLLM_OPSC_SPEC_H
