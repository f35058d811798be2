# cmake --install: the program, the library over include/, the plugin, and the llama.cpp that they were built with.
include(CMakePackageConfigHelpers)

set_target_properties(llama ggml PROPERTIES PUBLIC_HEADER "")  # theirs are not part of our interface
install(TARGETS sinkscope llama ggml ggml-base ggml-cpu ggml-blas ggml-sinkscope LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS sinkscope_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(DIRECTORY include/sinkscope DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/sinkscope)
configure_package_config_file(cmake/sinkscopeConfig.cmake.in ${CMAKE_BINARY_DIR}/sinkscopeConfig.cmake
                              INSTALL_DESTINATION ${package} PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/sinkscopeConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_BINARY_DIR}/sinkscopeConfig.cmake ${CMAKE_BINARY_DIR}/sinkscopeConfigVersion.cmake
        DESTINATION ${package})
