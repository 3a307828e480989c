# How each dependency is found. All are Debian packages; ./bootstrap installs them. Nothing is copied into this tree.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson) # libjansson-dev: JSON
pkg_check_modules(HWLOC REQUIRED IMPORTED_TARGET hwloc)     # libhwloc-dev: which CPUs there are
pkg_check_modules(EXIF REQUIRED IMPORTED_TARGET libexif)    # libexif-dev: orientation of photos
pkg_check_modules(STB REQUIRED IMPORTED_TARGET stb)         # libstb-dev: PNG and JPEG in, PNG out
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)       # zlib1g-dev: CRC of PNG chunks

# libdnnl-dev: convolutions and matrix products of the CPU backend. OpenMP only to keep it to one thread per stage.
# (Its own CMake package asks for OpenCL's headers, which nothing here needs.)
find_library(DNNL_LIBRARY NAMES dnnl REQUIRED)
find_path(DNNL_INCLUDE_DIR oneapi/dnnl/dnnl.h REQUIRED)
add_library(DNNL::dnnl UNKNOWN IMPORTED)
set_target_properties(DNNL::dnnl PROPERTIES IMPORTED_LOCATION ${DNNL_LIBRARY}
  INTERFACE_INCLUDE_DIRECTORIES ${DNNL_INCLUDE_DIR})
find_package(OpenMP REQUIRED COMPONENTS C)

# FFmpeg's libraries are optional: without them there is no mp4 and no gif.
pkg_check_modules(FFMPEG QUIET IMPORTED_TARGET libavformat libavcodec libavutil libswscale libavfilter)
if(NOT FFMPEG_FOUND)
  message(STATUS "FFmpeg's libraries were not found: building without mp4 and gif")
endif()

pkg_check_modules(CMOCKA QUIET IMPORTED_TARGET cmocka) # libcmocka-dev: tests

# NVIDIA's toolkit (13.0 or later) and cuDNN (9.13 or later) are optional: without them there is no CUDA backend. The
# compiler is not needed where sanitizers run: they see the kernels through the tests' host shim.
set(VDPP_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO (where the toolkit and cuDNN are found), ON or OFF")
set_property(CACHE VDPP_CUDA PROPERTY STRINGS AUTO ON OFF)
set(VDPP_CUDA_FOUND OFF)
set(VDPP_CUDA_MISSING "CUDA toolkit 13")
if(NOT VDPP_CUDA STREQUAL OFF)
  find_package(CUDAToolkit 13.0 QUIET)
endif()
if(CUDAToolkit_FOUND)
  set(cudnn_hints ${CUDAToolkit_LIBRARY_ROOT} ${CUDAToolkit_ROOT} ${CUDAToolkit_BIN_DIR}/..)
  find_path(CUDNN_INCLUDE_DIR cudnn_graph.h HINTS ${cudnn_hints} PATH_SUFFIXES include)
  # What cudnn_graph.h declares, without loading all that libcudnn.so stands for.
  find_library(CUDNN_LIBRARY NAMES cudnn_graph cudnn HINTS ${cudnn_hints} PATH_SUFFIXES lib64 lib)
  set(VDPP_CUDA_MISSING "cuDNN 9")
  if(CUDNN_INCLUDE_DIR AND CUDNN_LIBRARY)
    include(CheckLanguage)
    check_language(CXX)
    set(VDPP_CUDA_MISSING "a C++ compiler for nvcc")
  endif()
  if(CMAKE_CXX_COMPILER)
    set(VDPP_CUDA_FOUND ON)
    add_library(CUDNN::graph UNKNOWN IMPORTED)
    set_target_properties(CUDNN::graph PROPERTIES IMPORTED_LOCATION ${CUDNN_LIBRARY}
      INTERFACE_INCLUDE_DIRECTORIES ${CUDNN_INCLUDE_DIR})
    target_link_libraries(CUDNN::graph INTERFACE CUDA::toolkit)
  endif()
endif()
if(VDPP_CUDA_FOUND)
  enable_language(CXX) # the kernels' source, for the tests
  # Every GPU that the kernels can use; PTX for those to come.
  set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90-real 100-real 120-real 120-virtual CACHE STRING
    "GPUs to compile kernels for")
  if(NOT VDPP_SANITIZE)
    set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE} CACHE FILEPATH "nvcc")
    enable_language(CUDA)
  endif()
elseif(VDPP_CUDA STREQUAL ON)
  message(FATAL_ERROR "VDPP_CUDA is ON, but ${VDPP_CUDA_MISSING} was not found")
elseif(NOT VDPP_CUDA STREQUAL OFF)
  message(STATUS "${VDPP_CUDA_MISSING} was not found: building without CUDA")
endif()
