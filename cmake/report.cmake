# The report's app, apps/report, as one HTML file: report_app names it. npm builds it in a copy in the build folder.
find_program(SINKSCOPE_NPM npm)
set(app ${PROJECT_SOURCE_DIR}/apps/report)
if(SINKSCOPE_NPM)
  set(report_default ON)
else()
  set(report_default OFF)
  message(STATUS "reports are left out: there is no npm; './setup' installs it")
endif()
option(SINKSCOPE_REPORT "build reports in: --report, sinkscope view (needs npm)" ${report_default})
set(report_app)
if(NOT SINKSCOPE_REPORT)
  return()
endif()
if(NOT SINKSCOPE_NPM)
  message(FATAL_ERROR "SINKSCOPE_REPORT is ON, but there is no npm; run './setup', or build with -DSINKSCOPE_REPORT=OFF")
endif()

set(copy ${CMAKE_BINARY_DIR}/report)  # apps/report and docs/schemas lie in it as they do in the source
set(locks package.json package-lock.json .npmrc)
list(TRANSFORM locks PREPEND ${app}/ OUTPUT_VARIABLE lock_files)
set(installed ${copy}/apps/report/node_modules/.package-lock.json)
add_custom_command(OUTPUT ${installed} DEPENDS ${lock_files}
  COMMAND ${CMAKE_COMMAND} -E make_directory ${copy}/apps/report
  COMMAND ${CMAKE_COMMAND} -E copy ${lock_files} ${copy}/apps/report
  COMMAND ${CMAKE_COMMAND} -E chdir ${copy}/apps/report ${SINKSCOPE_NPM} ci --silent
  COMMAND ${CMAKE_COMMAND} -E touch ${installed}
  COMMENT "Installing what the report's app is built from" VERBATIM)

set(folders apps/report/src apps/report/scripts apps/report/tests docs/schemas)
list(TRANSFORM folders PREPEND ${PROJECT_SOURCE_DIR}/ OUTPUT_VARIABLE globs)
list(TRANSFORM globs APPEND /*)
file(GLOB_RECURSE in_folders CONFIGURE_DEPENDS ${globs})
set(files ${app}/index.html ${app}/palette.json ${app}/tsconfig.json ${app}/vite.config.ts)
set(copies)
foreach(folder ${folders})
  list(APPEND copies COMMAND ${CMAKE_COMMAND} -E rm -rf ${copy}/${folder}
                     COMMAND ${CMAKE_COMMAND} -E copy_directory ${PROJECT_SOURCE_DIR}/${folder} ${copy}/${folder})
endforeach()
set(report_app ${copy}/apps/report/dist/index.html)
add_custom_command(OUTPUT ${report_app} DEPENDS ${installed} ${files} ${in_folders}
  ${copies}
  COMMAND ${CMAKE_COMMAND} -E copy ${files} ${copy}/apps/report
  COMMAND ${CMAKE_COMMAND} -E chdir ${copy}/apps/report ${SINKSCOPE_NPM} run --silent build -- --logLevel warn
  COMMENT "Building the report's app" VERBATIM)
add_custom_target(report_app DEPENDS ${report_app})
