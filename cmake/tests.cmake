# SPDX-License-Identifier: GPL-2.0-only
# The tests of the standalone build. Catch2 v2 (Debian 12) or v3.

find_package(Catch2 REQUIRED)
enable_testing()
include(cmake/test-support.cmake)

add_executable(split-llm-tests test/main.cc ${split_llm_test_sources})
add_dependencies(split-llm-tests split-llm-test-models)
target_include_directories(split-llm-tests PRIVATE test)
target_compile_definitions(split-llm-tests PRIVATE ${split_llm_test_definitions})
add_dependencies(split-llm-tests split-llm-run)
target_link_libraries(split-llm-tests PRIVATE split-llm-study Catch2::Catch2)
# Another implementation of the rANS streams; without it that comparison says that it is skipped.
find_library(SPLIT_LLM_HTSCODECS htscodecs)
if(SPLIT_LLM_HTSCODECS)
  target_link_libraries(split-llm-tests PRIVATE ${SPLIT_LLM_HTSCODECS})
  target_compile_definitions(split-llm-tests PRIVATE SPLITLLM_TEST_HTSCODECS)
endif()
if(SPLIT_LLM_SANITIZE)
  # gcc 12 with sanitizers sees uninitialised values in libstdc++'s <regex>, which Catch2's main includes.
  set_source_files_properties(test/main.cc PROPERTIES COMPILE_OPTIONS -Wno-maybe-uninitialized)
endif()
add_test(NAME split-llm-tests COMMAND split-llm-tests)

# Fuzz targets: with clang real ones, otherwise programs that replay their corpus.
file(GLOB fuzzers CONFIGURE_DEPENDS test/fuzz/*-fuzz.cc)
foreach(fuzzer IN LISTS fuzzers)
  get_filename_component(name ${fuzzer} NAME_WE)
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    add_executable(${name} ${fuzzer})
    target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(${name} ${fuzzer} test/fuzz/replay-main.cc)
  endif()
  target_link_libraries(${name} PRIVATE split-llm-core)
  string(REPLACE "-fuzz" "" corpus ${name})
  add_test(NAME ${name} COMMAND ${name} ${CMAKE_CURRENT_SOURCE_DIR}/test/fuzz/corpus/${corpus})
endforeach()
