# SPDX-License-Identifier: GPL-2.0-only
# The build as the module contrib/split-llm of an ns-3 tree.

if(split_llm_missing)
  list(JOIN split_llm_missing ", " missing)
  message(${HIGHLIGHTED_STATUS} "Skipping contrib/split-llm: not found: ${missing}")
  return()
endif()

list(APPEND split_llm_definitions SPLITLLM_NS3_VERSION="${NS3_VER}")
set(private_libraries Eigen3::Eigen nlohmann_json::nlohmann_json Threads::Threads)

# The module's own sources, its tests and its program see the rooms; what includes ns3/*.h does not.
function(split_llm_configure target)
  target_include_directories(${target} PRIVATE model helper)
  target_compile_definitions(${target} PRIVATE ${split_llm_definitions})
  # The same code in every profile of ns-3, whether it optimises for size, for speed or for this machine; only debug
  # stays debug. ns-3's own headers are not clean under -Wextra.
  get_target_property(options ${target} COMPILE_OPTIONS)
  list(REMOVE_ITEM options -march=native -mtune=native)
  list(APPEND options ${split_llm_compile_options} "$<$<NOT:$<CONFIG:DEBUG>>:-O2>")
  list(REMOVE_ITEM options -Wextra)
  set_target_properties(${target} PROPERTIES COMPILE_OPTIONS "${options}")
endfunction()

set(test_sources)
if(ENABLE_TESTS)
  find_package(Catch2 QUIET)
  if(Catch2_FOUND)
    set(test_sources test/split-llm-test-suite.cc ${split_llm_test_sources})
  else()
    message(${HIGHLIGHTED_STATUS} "contrib/split-llm has no tests: Catch2 (Debian: catch2) was not found")
  endif()
endif()

build_lib(
  LIBNAME split-llm
  SOURCE_FILES ${split_llm_core_sources} ${split_llm_ns3_sources} ${split_llm_study_sources}
  HEADER_FILES ${split_llm_public_headers}
  LIBRARIES_TO_LINK ${split_llm_ns3_libraries}
  TEST_SOURCES ${test_sources}
  IGNORE_PCH
)
split_llm_add_cuda_backend(split-llm-cuda)
split_llm_configure(split-llm-cuda)
target_link_libraries(split-llm-cuda PRIVATE Eigen3::Eigen nlohmann_json::nlohmann_json Threads::Threads)
foreach(target ${libsplit-llm} ${libsplit-llm-obj}) # objects and library are two targets in ns-3 3.42
  if(TARGET ${target})
    split_llm_configure(${target})
    # Not through build_lib, which hands what it links to targets that do not know imported ones of this folder.
    target_link_libraries(${target} PRIVATE split-llm-cuda ${private_libraries})
  endif()
endforeach()

build_exec(
  EXECNAME split-llm-run
  SOURCE_FILES helper/split-llm-run.cc
  LIBRARIES_TO_LINK ${libsplit-llm} ${split_llm_ns3_libraries} ${private_libraries}
  EXECUTABLE_DIRECTORY_PATH ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/contrib/split-llm/
  IGNORE_PCH
)
split_llm_configure(split-llm-run)

foreach(program split-llm-accuracy split-llm-profile)
  build_exec(
    EXECNAME ${program}
    SOURCE_FILES helper/${program}.cc
    LIBRARIES_TO_LINK ${libsplit-llm} ${split_llm_ns3_libraries} ${private_libraries}
    EXECUTABLE_DIRECTORY_PATH ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/contrib/split-llm/
    IGNORE_PCH
  )
  split_llm_configure(${program})
endforeach()

if(ENABLE_EXAMPLES) # not among the others: these see the rooms
  foreach(example split-llm-collaboration split-llm-own-policy)
    build_exec(
      EXECNAME ${example}
      SOURCE_FILES examples/${example}.cc
      LIBRARIES_TO_LINK ${libsplit-llm} ${split_llm_ns3_libraries} ${private_libraries}
      EXECUTABLE_DIRECTORY_PATH ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/contrib/split-llm/examples/
      IGNORE_PCH
    )
    split_llm_configure(${example})
  endforeach()
endif()

set(test_target "${testsplit-llm}")
if(test_sources AND TARGET "${test_target}")
  include(cmake/test-support.cmake)
  split_llm_configure(${test_target})
  target_include_directories(${test_target} PRIVATE test)
  target_link_libraries(${test_target} ${private_libraries} Catch2::Catch2)
  target_compile_definitions(${test_target} PRIVATE ${split_llm_test_definitions})
  add_dependencies(${test_target} split-llm-run split-llm-test-models)

  # Each file of tests is a test case of the suite.
  list(TRANSFORM split_llm_test_sources REPLACE "^.*/(.*)\\.cc$" "\\1" OUTPUT_VARIABLE groups)
  list(JOIN groups "," groups)
  set_source_files_properties(
    test/split-llm-test-suite.cc PROPERTIES COMPILE_DEFINITIONS "SPLITLLM_TEST_GROUPS=\"${groups}\"")
endif()
