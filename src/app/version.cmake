# Writes OUT, a C file with the commit of SOURCE and DESCRIPTION; leaves it alone when nothing changed.
find_program(GIT git)
set(COMMIT unknown)
if(GIT)
  execute_process(COMMAND ${GIT} -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude=*
    OUTPUT_VARIABLE described OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed)
    set(COMMIT ${described})
  endif()
elseif(EXISTS ${SOURCE}/.git/HEAD) # a clone on a machine without git
  file(STRINGS ${SOURCE}/.git/HEAD head)
  if(head MATCHES "^ref: (.*)$")
    set(ref ${CMAKE_MATCH_1})
    set(head "")
    if(EXISTS ${SOURCE}/.git/${ref})
      file(STRINGS ${SOURCE}/.git/${ref} head)
    elseif(EXISTS ${SOURCE}/.git/packed-refs)
      file(STRINGS ${SOURCE}/.git/packed-refs head REGEX " ${ref}$")
    endif()
  endif()
  if(head MATCHES "^[0-9a-f]+")
    string(SUBSTRING ${head} 0 12 COMMIT)
  endif()
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT [[#include "app/version.h"

const char vd_build_commit[] = "@COMMIT@";
const char vd_build_description[] = "@DESCRIPTION@";
]] @ONLY)
