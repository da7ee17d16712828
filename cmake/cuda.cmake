# SPDX-License-Identifier: GPL-2.0-only
# The CUDA backend, from one list of sources in three forms:
#   split-llm-cuda           with the toolkit; without it the same library says that there is no CUDA
#   split-llm-cuda-emulated  without a GPU: the kernels' sources compiled for the host, which executes them (tests)

set(split_llm_cuda_kernels
    model/codec/cuda/container-decode.cu
    model/codec/cuda/container-encode.cu
    model/compute/cuda/attention-kernels.cu
    model/compute/cuda/layer-kernels.cu
    model/compute/cuda/step-kernels.cu
)
set(split_llm_cuda_sources
    model/base/cuda/cuda-error.cc
    model/base/cuda/gpu.cc
    model/base/cuda/scratch-pool.cc
    model/base/cuda/stream.cc
    model/codec/cuda/container-memory.cc
    model/codec/cuda/cuda-container-coder.cc
    model/compute/cuda/cuda-backend.cc
    model/compute/cuda/cuda-resident.cc
    model/compute/cuda/gemm.cc
    model/compute/cuda/gpu-backend.cc
    model/compute/cuda/greedy-decoder.cc
    model/compute/cuda/layers.cc
    model/compute/make-backend.cc
    model/tensor/cuda/device-tensor.cc
)

set(split_llm_has_cuda FALSE)
if(NOT SPLIT_LLM_CUDA STREQUAL "OFF")
  find_package(CUDAToolkit 12.8 QUIET)
  include(CheckLanguage)
  if(CUDAToolkit_FOUND)
    if(NOT CMAKE_CUDA_COMPILER AND CUDAToolkit_NVCC_EXECUTABLE)
      set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
    endif()
    check_language(CUDA)
  endif()
  if(CUDAToolkit_FOUND AND CMAKE_CUDA_COMPILER)
    set(split_llm_has_cuda TRUE)
  elseif(SPLIT_LLM_CUDA STREQUAL "ON")
    message(FATAL_ERROR "split-llm: SPLIT_LLM_CUDA is ON, but no CUDA Toolkit 12.8 or newer was found. "
                        "Set CUDAToolkit_ROOT, or SPLIT_LLM_CUDA=OFF.")
  else()
    message(STATUS "split-llm: no CUDA Toolkit, the CPU backend computes")
  endif()
endif()

if(split_llm_has_cuda)
  # Machine code for Turing, Ampere (and Ada) and Hopper; what is newer compiles the last one's PTX when it starts.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 90)
  endif()
  find_program(CCACHE ccache)
  if(CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
  endif()
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION) # CMake before 3.26 does not know that nvcc has C++20
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  message(STATUS "split-llm: CUDA ${CUDAToolkit_VERSION}, for compute capabilities ${CMAKE_CUDA_ARCHITECTURES}")
endif()

# The library \p target, which uses the core: the CUDA backend, or what says that there is none.
function(split_llm_add_cuda_backend target)
  if(NOT split_llm_has_cuda)
    add_library(${target} STATIC model/base/no-gpu.cc model/codec/no-cuda-codec.cc model/compute/make-backend.cc
                                 model/compute/no-cuda.cc)
    return()
  endif()
  add_library(${target} STATIC ${split_llm_cuda_sources} ${split_llm_cuda_kernels})
  # Results are bits: nothing is fused but where it is written, and divisions, roots and denormals are exact.
  set(strict -fmad=false -prec-div=true -prec-sqrt=true -ftz=false)
  set(warnings -Xcompiler=-Wall)
  if(SPLIT_LLM_WERROR)
    list(APPEND warnings -Xcompiler=-Werror -Werror=all-warnings)
  endif()
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:${strict};${warnings};--expt-relaxed-constexpr>")
  set_target_properties(${target} PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON
                                             POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(${target} PUBLIC CUDA::cudart_static CUDA::cublas)
endfunction()

# The same with kernels that the host executes.
function(split_llm_add_emulated_cuda target)
  set(wrappers)
  foreach(kernel IN LISTS split_llm_cuda_kernels)
    get_filename_component(name ${kernel} NAME_WE)
    set(wrapper ${CMAKE_CURRENT_BINARY_DIR}/emulated/${name}.cc)
    file(CONFIGURE OUTPUT ${wrapper} CONTENT "#include \"${CMAKE_CURRENT_SOURCE_DIR}/${kernel}\"\n")
    list(APPEND wrappers ${wrapper})
  endforeach()
  file(GLOB emulation CONFIGURE_DEPENDS test/emulation/*.cc)
  # Objects, so that a program which has them takes nothing from split-llm-cuda.
  add_library(${target} OBJECT ${split_llm_cuda_sources} ${wrappers} ${emulation})
  target_include_directories(${target} BEFORE PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/test/emulation)
  target_compile_options(${target} PRIVATE -Wno-unknown-pragmas) # nvcc's "unroll"
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    target_compile_options(${target} PRIVATE -mfma) # kernels are full of fused multiply-adds
  endif()
endfunction()
