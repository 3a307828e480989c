# Every header compiles alone, without warnings. Run as cmake -DSOURCE=... -DCOMPILER=... -P check_headers.cmake.
cmake_minimum_required(VERSION 3.22)

file(GLOB_RECURSE headers RELATIVE ${SOURCE}/src ${SOURCE}/src/*.h)
set(wrong "")
set(seen 0)
foreach(header ${headers})
  math(EXPR seen "${seen} + 1")
  execute_process(COMMAND ${COMPILER} -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -Wno-unused-function -I${SOURCE}/src
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
