// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_CATCH_H
#define SPLITLLM_TEST_CATCH_H

// Catch2 v2 (Debian 12) has one header, v3 many.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif

#endif // SPLITLLM_TEST_CATCH_H
