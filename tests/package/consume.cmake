# cmake -D WAY=find_package|add_subdirectory -D GENERATOR=.. -D COMPILER=.. -D SOURCE=.. -D BINARY=..
#       -D FOLDER=.. -P consume.cmake
function(run)
  execute_process(COMMAND ${ARGV} COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
endfunction()

file(REMOVE_RECURSE ${FOLDER})
if(WAY STREQUAL "find_package")
  run(${CMAKE_COMMAND} --install ${BINARY} --prefix ${FOLDER}/prefix)
  set(where -D CMAKE_PREFIX_PATH=${FOLDER}/prefix)
else()
  set(where -D MEMFORMER_SOURCE=${SOURCE})
endif()
# Unoptimised: quick to compile, and that is what is tested.
run(${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR}/consumer -B ${FOLDER}/build -G ${GENERATOR}
  -D CMAKE_CXX_COMPILER=${COMPILER} -D CMAKE_BUILD_TYPE=Debug ${where})
run(${CMAKE_COMMAND} --build ${FOLDER}/build --parallel 2)
run(${FOLDER}/build/consumer)
