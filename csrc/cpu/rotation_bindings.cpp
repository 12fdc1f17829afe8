// csrc/common/rotation.h in float64, for tests.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <array>

#include "common/rotation.h"

namespace py = pybind11;

namespace {

using Array3 = std::array<double, 3>;
using Array9 = std::array<double, 9>;

}  // namespace

void bind_rotation(py::module_& m) { (void)m; }
void bind_dictionary(py::module_& m) { (void)m; }
