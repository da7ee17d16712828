# SPDX-License-Identifier: GPL-2.0-only
# What both builds share: dependencies, compile options and definitions, as functions on a target.

set(SPLIT_LLM_CUDA "AUTO" CACHE STRING "Build the CUDA backend: AUTO (if the toolkit is found), ON or OFF")
set_property(CACHE SPLIT_LLM_CUDA PROPERTY STRINGS AUTO ON OFF)
option(SPLIT_LLM_WERROR "Treat warnings as errors" OFF)

# An ns-3 tree goes on without the module where something is missing, so that is for the two builds to judge.
set(split_llm_missing)
find_package(Eigen3 3.4 QUIET NO_MODULE)
if(NOT Eigen3_FOUND)
  list(APPEND split_llm_missing "Eigen 3.4 (Debian: libeigen3-dev)")
endif()
find_package(nlohmann_json 3.11 QUIET)
if(NOT nlohmann_json_FOUND)
  list(APPEND split_llm_missing "nlohmann-json 3.11 (Debian: nlohmann-json3-dev)")
endif()
find_package(Threads REQUIRED)

include(cmake/cuda.cmake)

# Results are bits: no contraction of a*b+c, whatever the compiler's default, and fused operations only where written.
set(split_llm_compile_options -Wall -Wextra -ffp-contract=off)
if(SPLIT_LLM_WERROR)
  list(APPEND split_llm_compile_options -Werror)
endif()
list(TRANSFORM split_llm_compile_options REPLACE "(.+)" "$<$<COMPILE_LANGUAGE:CXX>:\\1>")

set(split_llm_definitions
    SPLITLLM_VERSION="${SPLIT_LLM_VERSION}"
    SPLITLLM_MODEL_DIR="${CMAKE_CURRENT_SOURCE_DIR}/models"
    SPLITLLM_ADAPTER_DIR="${CMAKE_CURRENT_SOURCE_DIR}/adapters"
    SPLITLLM_PROFILE_DIR="${CMAKE_CURRENT_SOURCE_DIR}/scenarios/hardware"
    SPLITLLM_PROMPT_DIR="${CMAKE_CURRENT_SOURCE_DIR}/scenarios/prompts"
    SPLITLLM_CALIBRATOR_DIR="${CMAKE_CURRENT_SOURCE_DIR}/scenarios/calibrators"
    SPLITLLM_CALIBRATION_DIR="${CMAKE_CURRENT_SOURCE_DIR}/scenarios/calibrations"
    SPLITLLM_EXIT_DIR="${CMAKE_CURRENT_SOURCE_DIR}/scenarios/exits"
    SPLITLLM_SIDE_NETWORK_DIR="${CMAKE_CURRENT_SOURCE_DIR}/scenarios/side-networks"
    SPLITLLM_SOURCE_DIR="${CMAKE_CURRENT_SOURCE_DIR}"
)

# One kernel file an instruction set, each with its own flags; everything else runs on any CPU of the architecture.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set_source_files_properties(model/codec/codec-kernels-avx2.cc model/compute/cpu/kernels-avx2.cc
                              PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
  set_source_files_properties(
    model/codec/codec-kernels-avx512.cc model/compute/cpu/kernels-avx512.cc
    PROPERTIES COMPILE_OPTIONS "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mfma;-mf16c")
endif()
