"""How an op gets its schema and its gradient."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ites import ops
from ites.errors import ItesError
from ites.ops import _registry, backends

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def _schemas() -> dict[str, str]:
    """The schemas of csrc/schemas.h by the op's name."""
    text = (ROOT / "csrc/schemas.h").read_text(encoding="utf-8")
    found = {}
    for literals in re.findall(r'(?:"[^"\n]*"\s*)+', text):
        schema = "".join(re.findall(r'"([^"]*)"', literals))
        found[schema.partition("(")[0]] = schema
    return found


SCHEMAS = _schemas()


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_in_python_and_cpp_are_one(name):
    """csrc/schemas.h has that of `define`, without the backend."""
    above = str(getattr(torch.ops.ites, name).default._schema)
    above = above.removeprefix("ites::").replace(", str backend)", ")")
    assert above == str(torch._C.parse_schema(SCHEMAS[name]))


@pytest.mark.parametrize("backend", ("cpp", "cuda"))
def test_every_op_that_is_built_has_its_schema(backend):
    if backend in backends.MISSING:
        pytest.skip(backends.MISSING[backend])
    defined = [
        name.partition("::")[2]
        for name in torch._C._dispatch_get_all_op_names()
        if name.startswith(f"ites_{backend}::")
    ]
    assert defined
    for name in defined:
        below = str(getattr(getattr(torch.ops, f"ites_{backend}"), name).default._schema)
        assert below.partition("::")[2] == str(torch._C.parse_schema(SCHEMAS[name]))


def test_every_op_in_python_is_in_cpp():
    names = (name for name in torch._C._dispatch_get_all_op_names() if name.startswith("ites::"))
    assert {name.removeprefix("ites::") for name in names} == set(SCHEMAS)


_PUBLIC = """
import sys, torch
names = ("_after_autograd_keyset", "_any_requires_grad", "_AutoDispatchBelowAutograd")
kept = {name: getattr(torch._C, name) for name in names}
for name in names:
    delattr(torch._C, name)
from ites.ops import _registry
for name, value in kept.items():  # PyTorch's own code needs them
    setattr(torch._C, name, value)
assert not _registry.PRIVATE
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def test_gradients_by_pytorchs_public_functions():
    """The ops keep their contract where PyTorch's private functions are gone."""
    pytest.importorskip("ites._C")
    assert _registry.PRIVATE, "this PyTorch has moved the private functions: the fallback is in use"
    chosen = "cpp and 17 or cpp and (gradcheck or second or opcheck or compiles)"
    files = [str(HERE / f"test_{name}.py") for name in ("rotation", "graph", "norm", "linear")]
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", _PUBLIC, "-p", "no:cacheprovider", "-k", chosen, *files],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_a_backend_that_is_not_there_is_reported():
    w = torch.zeros(2, 3)
    with pytest.raises(ItesError, match="so3_exp: backend must be one of cpp, cuda, triton, got"):
        torch.ops.ites.so3_exp(w, "quick")
    if "cuda" in backends.MISSING:
        with pytest.raises(ItesError, match="so3_exp: backend 'cuda': this PyTorch has no CUDA"):
            torch.ops.ites.so3_exp(w, "cuda")


def test_cpp_says_which_argument_is_wrong():
    pytest.importorskip("ites._C")
    with pytest.raises(RuntimeError, match=r"w must be contiguous Float of shape \(any, 3\), got"):
        torch.ops.ites.so3_exp(torch.zeros(2, 4), "cpp")
    with pytest.raises(RuntimeError, match="not contiguous"):
        torch.ops.ites.so3_exp(torch.zeros(3, 2).mT, "cpp")
    freed = torch.zeros(2, 3)
    freed.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="its storage too small"):
        torch.ops.ites.so3_exp(freed, "cpp")


def test_a_fake_of_two_devices_is_refused():
    with pytest.raises(ValueError, match="all tensors must be on one device, got"):
        torch.ops.ites.so3_exp_backward(
            torch.zeros(2, 3, 3, device="meta"), torch.zeros(2, 3), "cpp"
        )


def _norm_arguments() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x, skip = (torch.randn(7, 5, generator=generator).requires_grad_() for _ in range(2))
    weight, bias = (torch.rand(5, generator=generator).requires_grad_() for _ in range(2))
    return [x, weight, bias, skip]


def _differentiated() -> list[torch.Tensor]:
    arguments = _norm_arguments()
    y, mean, var = ops.batch_norm_relu(*arguments, backend="cpp")
    assert not mean.requires_grad and not var.requires_grad
    return [y, mean, var, *torch.autograd.grad(y.square().sum(), arguments)]


@pytest.mark.skipif("cpp" in backends.MISSING, reason="not built")
class TestDirectCalls:
    """Calls that pass the dispatcher by."""

    def test_they_give_the_dispatchers_bits(self, monkeypatch):
        assert _registry.DIRECT
        direct = _differentiated()
        monkeypatch.setattr(_registry, "DIRECT", False)
        for ours, theirs in zip(direct, _differentiated(), strict=True):
            assert torch.equal(ours, theirs)

    def test_they_have_no_second_derivative(self):
        x, weight, bias, _ = _norm_arguments()
        y = ops.batch_norm_relu(x, weight, bias, backend="cpp")[0]
        (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="kernels have no second derivative"):
            grad.sum().backward()

    def test_what_watches_sees_the_op(self):
        class Watch(TorchDispatchMode):
            def __init__(self):
                super().__init__()
                self.seen = set()

            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                self.seen.add(func.name())
                return func(*args, **(kwargs or {}))

        with Watch() as watch:
            _differentiated()
        assert {"ites::batch_norm_relu", "ites::batch_norm_relu_backward"} <= watch.seen

    def test_only_plain_tensors_of_the_cpu_go(self):
        x = torch.zeros(2)
        assert _registry.nobody_watches([x, torch.nn.Parameter(x), None, 1, 0.5, True, "cpp"])
        assert not _registry.nobody_watches([x.to("meta")])
        assert not _registry.nobody_watches([[x]])
        with FakeTensorMode() as mode:
            assert not _registry.nobody_watches([mode.from_tensor(x)])
        found = []
        torch.func.vmap(lambda row: found.append(_registry.nobody_watches([row])) or row)(x[None])
        assert found == [False]
