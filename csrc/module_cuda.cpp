// ites._C_cuda: importing it registers torch.ops.ites_cuda.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>
#include <torch/headeronly/version.h>

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info;
  info["torch"] = TORCH_VERSION;
  info["stable_abi"] =
      py::str("{}.{}").format(TORCH_TARGET_VERSION >> 56, (TORCH_TARGET_VERSION >> 48) & 0xFF);
  info["compiler"] = __VERSION__;
  info["cuda"] = py::str("{}.{}").format(CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  info["architectures"] = ITES_ARCHITECTURES;
  return info;
}

}  // namespace

PYBIND11_MODULE(_C_cuda, m) {
  m.doc() = "The CUDA backend: torch.ops.ites_cuda.";
  m.def("build_info", &build_info,
        "How this was built: torch's headers, the stable ABI's version, compilers, architectures.");
}
