// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_EMULATION_ADDRESS_SANITIZER_H
#define SPLITLLM_EMULATION_ADDRESS_SANITIZER_H

/// Defined where the address sanitizer watches.
#if defined(__SANITIZE_ADDRESS__)
#define SPLITLLM_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SPLITLLM_ADDRESS_SANITIZER 1
#endif
#endif

#ifdef SPLITLLM_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#endif // SPLITLLM_EMULATION_ADDRESS_SANITIZER_H
