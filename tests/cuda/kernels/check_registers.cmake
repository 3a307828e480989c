# A kernel that must spill registers does not compile with the options that ours are compiled with. Run as
# cmake -DNVCC=... -DKERNEL=... -DOPTIONS=... -DOUTPUT=... -P check_registers.cmake.
cmake_minimum_required(VERSION 3.22)

foreach(architecture sm_86 sm_90)
  execute_process(COMMAND ${NVCC} -arch=${architecture} ${OPTIONS} -Werror=all-warnings -cubin -o ${OUTPUT}
      ${KERNEL}
    RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(result EQUAL 0 OR NOT output MATCHES "Registers are spilled")
    message(FATAL_ERROR "${architecture}: spilled registers pass, or something else is wrong:\n${output}")
  endif()
endforeach()
