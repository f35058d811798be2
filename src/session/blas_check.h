// Debian's OpenBLAS 0.3.21 computes wrongly on some newer processors. A few milliseconds tell.
#pragma once

#include <string>

namespace sinkscope::session {

// ggml's BLAS device against plain loops, once for the process. Empty: they agree, or there is no such device;
// else a sentence with the largest relative difference.
const std::string& blas_failure();

}  // namespace sinkscope::session
