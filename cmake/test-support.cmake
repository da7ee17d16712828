# SPDX-License-Identifier: GPL-2.0-only
# What the tests of both builds need besides their sources.

# The tiny models that tests compute with are generated, never downloaded.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(test_models ${CMAKE_CURRENT_BINARY_DIR}/test-models)
add_custom_command(
  OUTPUT ${test_models}/.done
  COMMAND Python3::Interpreter ${CMAKE_CURRENT_SOURCE_DIR}/scripts/make-tiny-models ${test_models}
  COMMAND ${CMAKE_COMMAND} -E touch ${test_models}/.done
  DEPENDS scripts/make-tiny-models
  COMMENT "Generating the tiny models")
add_custom_target(split-llm-test-models DEPENDS ${test_models}/.done)

set(split_llm_test_definitions SPLITLLM_TEST_MODELS_DIR="${test_models}"
                               SPLITLLM_TEST_RUNNER="$<TARGET_FILE:split-llm-run>")
