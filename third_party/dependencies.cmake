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
