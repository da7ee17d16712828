# SPDX-License-Identifier: GPL-2.0-only
# The build against an installed ns-3.

option(SPLIT_LLM_TESTS "Build the tests" OFF)
option(SPLIT_LLM_BENCHMARKS "Build the benchmarks (Google Benchmark)" OFF)
option(SPLIT_LLM_EXAMPLES "Build the examples" OFF)
option(SPLIT_LLM_SANITIZE "Build with address and undefined-behaviour sanitizers" OFF)

if(split_llm_missing)
  list(JOIN split_llm_missing ", " missing)
  message(FATAL_ERROR "split-llm: not found: ${missing}. scripts/run installs what is missing on Debian and Ubuntu.")
endif()

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
if(NOT CMAKE_CXX_STANDARD)
  set(CMAKE_CXX_STANDARD 20)
endif()
string(REPLACE "-O3" "-O2" CMAKE_CXX_FLAGS_RELEASE "${CMAKE_CXX_FLAGS_RELEASE}")
find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()
if(SPLIT_LLM_SANITIZE)
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
endif()

find_package(ns3 REQUIRED COMPONENTS ${split_llm_ns3_modules}) # its package accepts no version but its own
if(ns3_VERSION MATCHES "^[0-9.]+$" AND ns3_VERSION VERSION_LESS 3.42) # a development version is "3.dev"
  message(FATAL_ERROR "split-llm needs ns-3 3.42 or newer, found ${ns3_VERSION} in ${ns3_DIR}")
endif()
list(APPEND split_llm_definitions SPLITLLM_NS3_VERSION="${ns3_VERSION}")
message(STATUS "split-llm: ns-3 ${ns3_VERSION} in ${ns3_DIR}")

# The targets that an ns-3 wheel exports name folders and libraries of the machine it was built on.
function(split_llm_clean_target target)
  foreach(property INTERFACE_INCLUDE_DIRECTORIES INTERFACE_LINK_LIBRARIES)
    get_target_property(entries ${target} ${property})
    set(kept)
    foreach(entry IN LISTS entries)
      if(entry MATCHES "^/" AND NOT EXISTS "${entry}")
        continue()
      endif()
      if(property STREQUAL "INTERFACE_INCLUDE_DIRECTORIES" AND entry MATCHES "^/usr(/local)?(/include)?$")
        continue() # the compiler's own; as -isystem it would hide others
      endif()
      list(APPEND kept "${entry}")
    endforeach()
    set_property(TARGET ${target} PROPERTY ${property} "${kept}")
  endforeach()
endfunction()

function(split_llm_clean_closure)
  set(pending ${ARGN})
  set(done)
  while(pending)
    list(POP_FRONT pending target)
    if(target IN_LIST done)
      continue()
    endif()
    list(APPEND done ${target})
    split_llm_clean_target(${target})
    get_target_property(links ${target} INTERFACE_LINK_LIBRARIES)
    foreach(link IN LISTS links)
      if(TARGET ${link})
        list(APPEND pending ${link})
      endif()
    endforeach()
  endwhile()
endfunction()

set(ns3_targets)
foreach(module IN LISTS split_llm_ns3_modules)
  if(TARGET ns3::${module})
    list(APPEND ns3_targets ns3::${module})
  else()
    list(APPEND ns3_targets ns3::lib${module}) # its name up to ns-3 3.43
  endif()
endforeach()
split_llm_clean_closure(${ns3_targets})

# Public headers under the names that module users write and that they have in an ns-3 tree.
set(public_include ${CMAKE_CURRENT_BINARY_DIR}/include)
set(module_header "// Generated: every public header of the module.\n")
foreach(header IN LISTS split_llm_public_headers)
  get_filename_component(name ${header} NAME)
  file(CONFIGURE OUTPUT ${public_include}/ns3/${name} CONTENT "#include \"${CMAKE_CURRENT_SOURCE_DIR}/${header}\"\n")
  string(APPEND module_header "#include \"ns3/${name}\"\n")
endforeach()
file(CONFIGURE OUTPUT ${public_include}/ns3/split-llm-module.h CONTENT "${module_header}")

add_library(split-llm-core STATIC ${split_llm_core_sources})
target_include_directories(split-llm-core PUBLIC model)
target_compile_options(split-llm-core PUBLIC ${split_llm_compile_options})
target_compile_definitions(split-llm-core PUBLIC ${split_llm_definitions})
target_link_libraries(split-llm-core PUBLIC nlohmann_json::nlohmann_json Eigen3::Eigen Threads::Threads)

split_llm_add_cuda_backend(split-llm-cuda)
target_link_libraries(split-llm-cuda PUBLIC split-llm-core)

add_library(split-llm STATIC ${split_llm_ns3_sources})
target_include_directories(split-llm PUBLIC helper ${public_include})
target_link_libraries(split-llm PUBLIC split-llm-cuda ${ns3_targets})

add_library(split-llm-study STATIC ${split_llm_study_sources})
target_link_libraries(split-llm-study PUBLIC split-llm)

add_executable(split-llm-run helper/split-llm-run.cc)
target_link_libraries(split-llm-run PRIVATE split-llm-study)

add_executable(split-llm-accuracy helper/split-llm-accuracy.cc) # without ns-3
target_link_libraries(split-llm-accuracy PRIVATE split-llm-cuda)

add_executable(split-llm-profile helper/split-llm-profile.cc) # without ns-3
target_link_libraries(split-llm-profile PRIVATE split-llm-cuda)

if(SPLIT_LLM_EXAMPLES)
  file(GLOB examples CONFIGURE_DEPENDS examples/*.cc)
  foreach(example IN LISTS examples)
    get_filename_component(name ${example} NAME_WE)
    add_executable(${name} ${example})
    target_link_libraries(${name} PRIVATE split-llm-study)
  endforeach()
endif()

if(SPLIT_LLM_TESTS)
  include(cmake/tests.cmake)
endif()

if(SPLIT_LLM_BENCHMARKS)
  find_package(benchmark REQUIRED)
  file(GLOB benchmarks CONFIGURE_DEPENDS test/bench/*-bench.cc)
  add_executable(split-llm-benchmarks ${benchmarks})
  target_include_directories(split-llm-benchmarks PRIVATE test)
  target_link_libraries(split-llm-benchmarks PRIVATE split-llm-study benchmark::benchmark benchmark::benchmark_main)
  find_library(SPLIT_LLM_HTSCODECS htscodecs) # what the codec is compared with
  if(SPLIT_LLM_HTSCODECS)
    target_link_libraries(split-llm-benchmarks PRIVATE ${SPLIT_LLM_HTSCODECS})
    target_compile_definitions(split-llm-benchmarks PRIVATE SPLITLLM_BENCH_HTSCODECS)
  endif()
endif()
