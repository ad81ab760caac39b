# Makes the glue independent of its own file name: its threads start from the address it was loaded by. Bundlers
# publish files under other names, and Emscripten writes the name down.
get_filename_component(name "${GLUE}" NAME)
file(READ "${GLUE}" text)
string(REGEX REPLACE "[.]" "[.]" pattern "${name}")
string(REGEX MATCHALL "new URL\\([\"']${pattern}[\"'], ?import[.]meta[.]url\\)" found "${text}")
list(LENGTH found count)
if(NOT count EQUAL 1)
  message(FATAL_ERROR "${name} names itself ${count} times instead of once: this Emscripten writes its glue differently, and wasm/glue.cmake has to follow.")
endif()
string(REPLACE "${found}" "new URL(import.meta.url)" text "${text}")
# No `await` at the top: webpack's minimizer takes a .js file that it copies for a script, where there is none.
string(REPLACE "isPthread = (await import('worker_threads')).workerData === 'em-pthread';"
  "import('worker_threads').then((threads) => threads.workerData === 'em-pthread' && Module());" text "${text}")
file(WRITE "${GLUE}" "${text}")
