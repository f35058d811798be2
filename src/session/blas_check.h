// Debian's OpenBLAS 0.3.21 computes wrongly on some newer processors. A few milliseconds tell.
#pragma once

#include <string>

namespace sinkscope::session {

// OpenBLAS against plain loops, once for the process. Empty: they agree; else a sentence with the largest relative
// difference.
const std::string& blas_failure();

}  // namespace sinkscope::session
