# The WebAssembly side of the build: which modules there are, and every flag with its reason.
#
# Two modules, chosen by the page at start: `relaxed` uses relaxed SIMD (browsers of 2023 and
# later), `simd` only the fixed 128-bit SIMD. Both are built with threads and run single-threaded
# where the page is not isolated, with an empty pool.

set(PVL_VARIANTS relaxed simd)
set(PVL_VARIANT_FLAGS_relaxed -msimd128 -mrelaxed-simd)
set(PVL_VARIANT_FLAGS_simd -msimd128)

# Compiling and linking alike.
set(PVL_WASM_COMMON
  -pthread) # shared memory and atomics; every object has to agree

# Compiling. asserts name their file: by its place in the repository, so that the same sources give the same bytes wherever
# they lie (`npm run reproduce`).
set(PVL_WASM_PATHS
  "-ffile-prefix-map=${CMAKE_BINARY_DIR}/=" "-ffile-prefix-map=${CMAKE_SOURCE_DIR}/=")

# Linking, module and tests alike.
set(PVL_WASM_LINK
  -sSTACK_SIZE=1MB                # the caller's stack; kernels keep tiles on it (default: 64 KB)
  -sDEFAULT_PTHREAD_STACK_SIZE=1MB # the same for the pool's threads: any of them runs any kernel
  -sALLOW_MEMORY_GROWTH=1         # a reserve: the page makes the memory in one piece, see IMPORTED_MEMORY
  -sMAXIMUM_MEMORY=4GB            # all that 32 bits address; untouched pages cost nothing
  -sABORTING_MALLOC=0             # out of memory is a status for the caller, not the end of the module
  -sWASM_BIGINT=1                 # 64-bit sizes cross the border as BigInt, not as two halves
  -sSUPPORT_LONGJMP=0             # we have none
  # Growth together with threads makes accesses through Emscripten's own heap views slow; the shim keeps views
  # of its own, made after start.
  -Wno-pthreads-mem-growth)

# Linking the modules of the page.
set(PVL_WASM_MODULE_LINK
  -O3                             # also runs binaryen's optimizer over the linked module
  --no-entry                      # a library: no main
  -sMODULARIZE=1                  # a factory, so that a worker can start it again with less threads
  -sEXPORT_ES6=1                  # imported by a module worker
  -sENVIRONMENT=web,worker,node   # the page, its workers, and `npm run ask` without a browser
  -sIMPORTED_MEMORY=1             # the shim makes the memory: one piece of the right size, since growing is slow in WebKit
  -sINITIAL_MEMORY=32MB           # the least that may be handed over
  "-sPTHREAD_POOL_SIZE=Module['poolSize']" # threads exist before they are needed: creating one later would deadlock a blocked caller
  -sPTHREAD_POOL_SIZE_STRICT=2    # one thread more than the pool is an error, not a deadlock
  -sFILESYSTEM=0                  # weights come by calls, nothing reads files; saves 60 KB
  -sDYNAMIC_EXECUTION=0           # no eval: runs under a content policy without 'unsafe-eval'
  -sASSERTIONS=0                  # errors are statuses; checks of the glue would only add size
  --profiling-funcs)              # function names in a stack trace are worth their few KB

# Linking the C tests.
set(PVL_WASM_TEST_LINK
  -O0                             # links in a second; what was compiled is the same optimized code
  -sPROXY_TO_PTHREAD=1            # main may block: the main thread stays free to start threads
  -sPTHREAD_POOL_SIZE=4           # and most of them are ready before main runs
  -sEXIT_RUNTIME=1                # main's exit code is told
  -sINITIAL_MEMORY=64MB
  -sASSERTIONS=1
  --profiling-funcs)

# All of them are run by Node.js ...
set(PVL_WASM_TEST_NODE_LINK
  -sENVIRONMENT=node,worker
  -sNODERAWFS=1                   # fixtures are read from the repository
  --pre-js "${CMAKE_BINARY_DIR}/exit.js") # exit at once: threads that end meanwhile otherwise make the code 1 now and then

# ... and those that run kernels by Chromium, too: the engine that they are shipped for, with every kernel set. Node.js 20
# has a defect in the relaxed dot.
set(PVL_WASM_TEST_WEB_LINK
  -sENVIRONMENT=web,worker
  -sFORCE_FILESYSTEM=1)           # the test's page puts the fixtures into a file system in memory

# PVL_SANITIZE: the tests under Emscripten's AddressSanitizer, which sees what a native one cannot: 32-bit sizes and the
# code for wasm's own instructions. PVL_SAFE_HEAP: every load and store checked for null, alignment and the end of memory;
# the two do not combine. Slow to run, so the kernels of fixed SIMD alone: Node.js 20 has a defect in the relaxed dot.
if(PVL_SANITIZE OR PVL_SAFE_HEAP)
  set(PVL_VARIANTS simd)
endif()
if(PVL_SANITIZE)
  list(APPEND PVL_WASM_COMMON -fsanitize=address -g1)
  list(APPEND PVL_WASM_TEST_LINK -sINITIAL_MEMORY=768MB) # its shadow takes an eighth of what memory may become
elseif(PVL_SAFE_HEAP)
  list(APPEND PVL_WASM_TEST_LINK -sSAFE_HEAP=1)
endif()

file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/exit.js" CONTENT
  "if (require('worker_threads').isMainThread) Module['onExit'] = (code) => process.exit(code);\n")

# wasm/exports.txt is the only list of exports: one C name per line, `#` starts a comment.
set(exports_file "${CMAKE_SOURCE_DIR}/wasm/exports.txt")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${exports_file}")
set(exports "")
if(EXISTS "${exports_file}")
  file(STRINGS "${exports_file}" lines)
  foreach(line ${lines})
    string(REGEX REPLACE "#.*$" "" line "${line}")
    string(STRIP "${line}" line)
    if(line)
      string(REGEX REPLACE "^_" "" line "${line}")
      list(APPEND exports "_${line}")
    endif()
  endforeach()
endif()
list(JOIN exports "\n" exports)
file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/exports.rsp" CONTENT "${exports}\n")

file(GLOB PVL_WASM_SOURCES CONFIGURE_DEPENDS wasm/*.c)

# The C tests are one program for each module, `tests-relaxed NAME [CASE]...`: every link costs seconds here. Each source's
# main gets a name of its own, and tests/programs.c calls the one that is asked for. They are compiled once: only the core
# differs between the modules.
if(PVL_TESTS)
  enable_testing()
  set(test_names "")
  set(test_list "")
  foreach(source ${PVL_TEST_SOURCES})
    get_filename_component(name ${source} NAME_WE)
    list(APPEND test_names ${name})
    string(APPEND test_list "PROGRAM(${name})\n")
    set_source_files_properties(${source} PROPERTIES COMPILE_DEFINITIONS "TEST_MAIN_NAME=main_of_${name}")
  endforeach()
  file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/include/programs.def" CONTENT "${test_list}")
  add_library(test_objects OBJECT tests/programs.c ${PVL_TEST_SOURCES})
  target_include_directories(test_objects PRIVATE src "${CMAKE_BINARY_DIR}/include")
  target_compile_options(test_objects PRIVATE
    ${PVL_C_FLAGS} ${PVL_WASM_COMMON} ${PVL_WASM_PATHS} ${PVL_VARIANT_FLAGS_simd})
  target_compile_definitions(test_objects PRIVATE ${PVL_DEFINITIONS})
endif()

foreach(variant ${PVL_VARIANTS})
  set(library pocketvl_${variant})
  pvl_library(${library} ${PVL_WASM_COMMON} ${PVL_WASM_PATHS} ${PVL_VARIANT_FLAGS_${variant}})
  target_link_options(${library} PUBLIC ${PVL_WASM_COMMON} ${PVL_WASM_LINK})

  if(PVL_MODULES AND PVL_WASM_SOURCES AND exports)
    set(module pocketvl-${variant})
    pvl_program(${module} SOURCES ${PVL_WASM_SOURCES} LIBRARIES ${library})
    target_link_options(${module} PRIVATE ${PVL_WASM_MODULE_LINK}
      "-sEXPORTED_FUNCTIONS=@${CMAKE_BINARY_DIR}/exports.rsp"
      "-Wl,-Map=${CMAKE_BINARY_DIR}/${module}.map") # what was linked, for the list of licences
    if(EXISTS "${CMAKE_SOURCE_DIR}/wasm/header.js") # the first lines of the glue, for tools that read it
      target_link_options(${module} PRIVATE --extern-pre-js "${CMAKE_SOURCE_DIR}/wasm/header.js")
      set_property(TARGET ${module} APPEND PROPERTY LINK_DEPENDS "${CMAKE_SOURCE_DIR}/wasm/header.js")
    endif()
    # .js, not .mjs: common servers send .mjs with a type that browsers refuse for modules.
    set_target_properties(${module} PROPERTIES SUFFIX .js
      RUNTIME_OUTPUT_DIRECTORY "${PVL_WEB_OUT}")
    set_property(TARGET ${module} APPEND PROPERTY LINK_DEPENDS "${CMAKE_BINARY_DIR}/exports.rsp"
      "${CMAKE_SOURCE_DIR}/wasm/glue.cmake")
    add_custom_command(TARGET ${module} POST_BUILD VERBATIM COMMAND
      "${CMAKE_COMMAND}" "-DGLUE=$<TARGET_FILE:${module}>" -P "${CMAKE_SOURCE_DIR}/wasm/glue.cmake")
    add_dependencies(modules ${module})
  endif()

  if(PVL_TESTS)
    set(tests tests_${variant})
    pvl_program(${tests} SOURCES $<TARGET_OBJECTS:test_objects> LIBRARIES ${library})
    target_link_options(${tests} PRIVATE ${PVL_WASM_TEST_LINK} ${PVL_WASM_TEST_NODE_LINK})
    add_dependencies(c_tests ${tests})
    # .cjs: package.json declares .js files to be ES modules, which this glue is not.
    set_target_properties(${tests} PROPERTIES OUTPUT_NAME tests-${variant} SUFFIX .cjs LINKER_LANGUAGE C
      LINK_DEPENDS "${CMAKE_BINARY_DIR}/exit.js")
    foreach(name ${test_names})
      add_test(NAME ${name}_${variant} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}"
        COMMAND node --experimental-wasm-relaxed-simd "${CMAKE_BINARY_DIR}/tests-${variant}.cjs" ${name})
      set_tests_properties(${name}_${variant} PROPERTIES TIMEOUT 600)
    endforeach()
    if(variant STREQUAL "relaxed") # which has the sets of the other module, too
      pvl_program(tests_web SOURCES $<TARGET_OBJECTS:test_objects> LIBRARIES ${library})
      target_link_options(tests_web PRIVATE ${PVL_WASM_TEST_LINK} ${PVL_WASM_TEST_WEB_LINK})
      add_dependencies(c_tests tests_web)
      set_target_properties(tests_web PROPERTIES OUTPUT_NAME tests-web SUFFIX .js LINKER_LANGUAGE C)
    endif()
  endif()
endforeach()

# The loops behind the ceilings of `npm run bench`: a module of its own, without glue or imports.
if(PVL_BENCH AND EXISTS "${CMAKE_SOURCE_DIR}/tests/bench/ceilings.c")
  pvl_program(ceilings SOURCES tests/bench/ceilings.c)
  target_compile_options(ceilings PRIVATE ${PVL_VARIANT_FLAGS_relaxed})
  target_link_options(ceilings PRIVATE -O3 -sSTANDALONE_WASM --no-entry -sINITIAL_MEMORY=224MB)
  set_target_properties(ceilings PROPERTIES SUFFIX .wasm
    RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bench")
  add_dependencies(programs ceilings)
  # And each kernel alone, for kernels.mjs.
  foreach(variant ${PVL_VARIANTS})
    pvl_program(kernel_loops-${variant} SOURCES tests/bench/kernel_loops.c LIBRARIES pocketvl_${variant})
    target_link_options(kernel_loops-${variant} PRIVATE -O3 -sSTANDALONE_WASM --no-entry -sINITIAL_MEMORY=1000MB)
    set_target_properties(kernel_loops-${variant} PROPERTIES SUFFIX .wasm
      RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bench")
    add_dependencies(programs kernel_loops-${variant})
  endforeach()
endif()
