# Every header compiles alone, without warnings. Run as cmake -DSOURCE=... -DCOMPILER=... [-DCUDA=folders] -P
# check_headers.cmake. Without CUDA's folders the headers of its backend are left out.
cmake_minimum_required(VERSION 3.22)

file(GLOB_RECURSE headers RELATIVE ${SOURCE}/src ${SOURCE}/src/*.h)
list(TRANSFORM CUDA PREPEND -isystem OUTPUT_VARIABLE toolkit)
if(NOT CUDA)
  list(FILTER headers EXCLUDE REGEX "^device/cuda(_.*)?\\.h$")
endif()
set(wrong "")
set(seen 0)
foreach(header ${headers})
  math(EXPR seen "${seen} + 1")
  execute_process(COMMAND ${COMPILER} -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unused-function -I${SOURCE}/src -I${SOURCE} ${toolkit}
      -fsyntax-only -x c -include ${header} /dev/null
    RESULT_VARIABLE failed ERROR_VARIABLE output)
  if(failed)
    string(APPEND wrong "${output}\n")
  endif()
endforeach()
if(wrong)
  message(FATAL_ERROR "These headers do not compile alone:\n${wrong}")
elseif(seen LESS 20)
  message(FATAL_ERROR "Only ${seen} headers were found below ${SOURCE}/src: this test does not look where the code is.")
endif()
