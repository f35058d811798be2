# llama.cpp and ggml: from ./setup's copy, or from SINKSCOPE_LLAMA_DIR.

set(SINKSCOPE_GGML_TESTED 0.25.3)      # the ggml that the tests ran with
set(SINKSCOPE_GGML_BACKEND_API 2)      # GGML_BACKEND_API_VERSION: the structs that a device must fill

set(llama_dir ${SINKSCOPE_LLAMA_DIR})
if(NOT llama_dir)
  set(cache $ENV{XDG_CACHE_HOME})
  if(NOT cache)
    set(cache $ENV{HOME}/.cache)
  endif()
  set(llama_dir ${cache}/sinkscope/llama.cpp-0.3.36)
endif()
if(NOT EXISTS ${llama_dir}/ggml/src/ggml-backend-impl.h)
  message(FATAL_ERROR "no llama.cpp source in '${llama_dir}' (ggml/src/ggml-backend-impl.h is missing): "
                      "run ./setup, or give -DSINKSCOPE_LLAMA_DIR=DIR")
endif()

file(STRINGS ${llama_dir}/ggml/CMakeLists.txt ggml_version_lines REGEX "set\\(GGML_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE "[^0-9;]" "" ggml_version "${ggml_version_lines}")
string(REPLACE ";" "." ggml_version "${ggml_version}")
file(STRINGS ${llama_dir}/ggml/src/ggml-backend-impl.h backend_api REGEX "define GGML_BACKEND_API_VERSION")
string(REGEX REPLACE "[^0-9]" "" backend_api "${backend_api}")
if(NOT backend_api EQUAL SINKSCOPE_GGML_BACKEND_API)
  message(FATAL_ERROR "the ggml in '${llama_dir}' has backend API version '${backend_api}', sinkscope needs "
                      "${SINKSCOPE_GGML_BACKEND_API}: give a llama.cpp with ggml ${SINKSCOPE_GGML_TESTED}")
endif()
if(NOT ggml_version VERSION_EQUAL SINKSCOPE_GGML_TESTED)
  message(WARNING "the ggml in '${llama_dir}' is version ${ggml_version}, sinkscope was tested with "
                  "${SINKSCOPE_GGML_TESTED}: run ./test before you trust its numbers")
endif()

# Shared, so that the plugin and the programs of llama.cpp meet in one ggml.
set(BUILD_SHARED_LIBS ON)
set(GGML_CCACHE OFF CACHE INTERNAL "")
set(GGML_BLAS ON CACHE INTERNAL "")
set(GGML_BLAS_VENDOR OpenBLAS CACHE INTERNAL "")
foreach(for_tests LLAMA_BUILD_COMMON LLAMA_BUILD_TOOLS LLAMA_BUILD_SERVER)  # llama-cli needs the server
  set(${for_tests} ${SINKSCOPE_TESTS} CACHE INTERNAL "")
endforeach()
foreach(off LLAMA_BUILD_TESTS LLAMA_BUILD_EXAMPLES LLAMA_BUILD_APP LLAMA_BUILD_UI LLAMA_USE_PREBUILT_UI LLAMA_OPENSSL)
  set(${off} OFF CACHE INTERNAL "")
endforeach()
set(GGML_OPENMP ON CACHE INTERNAL "")

# ggml is compiled for this very processor; its flags belong into what a compiler cache compares.
if(EXISTS /proc/cpuinfo)
  file(STRINGS /proc/cpuinfo cpu_flags REGEX "^(flags|Features)" LIMIT_COUNT 1)
  string(MD5 cpu_flags "${cpu_flags}")
  add_compile_definitions(SINKSCOPE_PROCESSOR_${cpu_flags})
endif()

add_subdirectory(${llama_dir} llama.cpp EXCLUDE_FROM_ALL SYSTEM)
set_target_properties(llama PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 16)

# What a device of our own must know of ggml, beyond its public headers.
add_library(sinkscope_ggml INTERFACE)
target_link_libraries(sinkscope_ggml INTERFACE ggml-base)
target_include_directories(sinkscope_ggml SYSTEM INTERFACE ${llama_dir}/ggml/include ${llama_dir}/ggml/src)
