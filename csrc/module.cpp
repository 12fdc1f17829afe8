// ites._C: importing it registers torch.ops.ites_cpp. The Python module tells how it was built. It
// offers the math of csrc/common in float64, the same formulas as in the CUDA kernels.
#include <pybind11/pybind11.h>
#include <torch/headeronly/version.h>

#include <cstdint>
#include <vector>

#include "cpu/dispatch.h"

namespace py = pybind11;

void bind_rotation(py::module_& m);
void bind_dictionary(py::module_& m);
void bind_graph(py::module_& m);
void bind_norm(py::module_& m);

namespace {

#ifdef ITES_SANITIZED
// Faults that the sanitizers of this build must find: proof that they watch.
float read_at(int64_t size, int64_t index) {
  const std::vector<float> values(size);
  return values.data()[index];
}
int32_t increment(int32_t value) { return value + 1; }
#endif

py::dict build_info() {
  py::dict info;
  info["torch"] = TORCH_VERSION;
  info["stable_abi"] =
      py::str("{}.{}").format(TORCH_TARGET_VERSION >> 56, (TORCH_TARGET_VERSION >> 48) & 0xFF);
  info["compiler"] = __VERSION__;
  info["cxx_standard"] = static_cast<long>(__cplusplus);
  info["simd"] = ites::simd_name();
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "The C++ backend: torch.ops.ites_cpp, and its per-pose math in float64.";
  m.def("build_info", &build_info,
        "How this was built: torch's headers, the stable ABI's version, compiler, and the "
        "instruction set in use (ITES_SIMD lowers it).");
#ifdef ITES_SANITIZED
  m.def("read_at", &read_at, "An element of a new array, whose bounds nothing checks.");
  m.def("increment", &increment, "A number plus 1, which overflows beyond 2^31 - 2.");
#endif
  bind_rotation(m);
  bind_dictionary(m);
  bind_graph(m);
  bind_norm(m);
}
