// The device as ggml's registry knows it.
#pragma once

#include <ggml-backend.h>

namespace sinkscope::backend {

ggml_backend_reg_t registry();

}  // namespace sinkscope::backend
