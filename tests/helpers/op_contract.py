"""What every op must keep, on every backend: one class, which each op's tests inherit.

A subclass says how to make a sample of its op's arguments and how to call it; it inherits the
comparison with the float64 reference over one set of batches and skeletons, gradcheck, opcheck,
`torch.compile`, the refusal of a second derivative, the poison test and bitwise repeatability.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ites.ops import backends
from ites.pose.skeleton import HUMAN36M, Skeleton

# Largest error over the largest entry of the float64 reference, values and gradients.
# Worst seen on a CPU: float64 2e-15 and 9e-13, float32 2e-6 and 2e-5.
TOLERANCES = {torch.float64: (1e-10, 1e-10), torch.float32: (1e-5, 1e-4)}

BATCHES = (0, 1, 2, 17, 257)
FORK = Skeleton("fork", tuple("abcde"), (-1, 0, 1, 1, 3), left=(2,), right=(3,), head=4)
HAND = Skeleton(
    "hand",
    tuple(f"j{i}" for i in range(21)),
    (-1, *(i - 1 if i % 4 != 1 else 0 for i in range(1, 21))),
    head=12,
)
SKELETONS = (HUMAN36M, FORK, HAND)
KERNELS = ("cpp", "cuda", "triton")

Arguments = dict[str, Any]


def device_of(backend: str) -> torch.device:
    on_gpu = backend in ("cuda", "triton") and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def require(backend: str, op: str, dtype: torch.dtype = torch.float32) -> None:
    """Skip, saying why, where a backend cannot run here."""
    reason = backends.why_not(backend, op, device_of(backend).type, dtype)
    if reason:
        pytest.skip(f"{backend}: {reason}")


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """Largest difference over the reference's largest entry; infinite where shapes differ."""
    if ours.shape != reference.shape:
        return float("inf")
    if not reference.numel():
        return 0.0
    ours, reference = ours.detach().cpu().double(), reference.detach().cpu().double()
    difference = (ours - reference).abs().max().item()
    largest = reference.abs().max().item()
    return difference / largest if largest > 0 else difference


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def cast(arguments: Arguments, dtype: torch.dtype, device: torch.device) -> Arguments:
    """The arguments with floating tensors cast, all tensors moved, gradients wanted as before."""

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            wanted = value.requires_grad
            value = value.detach().to(device, dtype if value.is_floating_point() else None)
            return value.requires_grad_(wanted)
        if hasattr(value, "counter"):
            return type(value)(value.counter.to(device), value.samples, value.axes, value.max_angle)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(move(item) for item in value))
        return value

    return {name: move(value) for name, value in arguments.items()}


class _Recorder(TorchDispatchMode):
    """Remembers the calls of ites' own ops."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "ites":
            self.calls.append((func, tuple(args)))
        return func(*args, **(kwargs or {}))


class OpContract:
    """Inherit, set `op`, `call` and `sample`."""

    op: str
    called: dict[str, str] = {}  # by backend, where it is another op that is called
    kernels = KERNELS  # the backends that have one of their own
    differentiable = True

    @staticmethod
    def call(arguments: Arguments, backend: str) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def sample(self, batch: int, skeleton: Skeleton) -> Arguments:
        """Arguments in float64 on the CPU; tensors that have a gradient require one."""
        raise NotImplementedError

    def require(self, backend: str, dtype: torch.dtype = torch.float32) -> None:
        """Skip, saying why, where a backend has no kernel of this op or cannot run here."""
        if backend in KERNELS and backend not in self.kernels:
            pytest.skip(f"{backend}: {self.op} is PyTorch's own there")
        require(backend, self.op, dtype)

    def run(
        self, arguments: Arguments, backend: str, weights: list[Tensor] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor], list[Tensor]]:
        """Outputs, gradients of their sum weighted by fixed random numbers, and those weights."""
        outputs = [o for o in self.call(arguments, backend) if o is not None]
        if weights is None:
            generator = torch.Generator().manual_seed(7)
            weights = [
                torch.randn(o.shape, generator=generator, dtype=torch.float64) for o in outputs
            ]
        wanted = {n: t for n, t in arguments.items() if isinstance(t, Tensor) and t.requires_grad}
        if not wanted:
            return outputs, {}, weights
        pairs = [(o, w) for o, w in zip(outputs, weights, strict=True) if o.requires_grad]
        total = sum((o * w.to(o.device, o.dtype)).sum() for o, w in pairs)
        assert isinstance(total, Tensor)
        grads = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
        return (
            outputs,
            {
                name: torch.zeros_like(t) if g is None else g
                for (name, t), g in zip(wanted.items(), grads, strict=True)
            },
            weights,
        )

    def compare(
        self, arguments: Arguments, backend: str, dtype: torch.dtype, change: Callable | None = None
    ) -> None:
        """Hold a backend to the reference in float64, on arguments rounded to `dtype`."""
        device = device_of(backend)
        ours = cast(arguments, dtype, device)
        exact = cast(ours, torch.float64, torch.device("cpu"))
        if change is not None:
            ours = change(ours)
        values, grads, weights = self.run(ours, backend)
        reference, reference_grads, _ = self.run(exact, "reference", weights)
        forward, backward = TOLERANCES[dtype]
        for number, (a, b) in enumerate(zip(values, reference, strict=True)):
            assert a.dtype == dtype
            error = relative_error(a, b)
            assert error <= forward, f"output {number} is off by {error:.2g}"
        assert grads.keys() == reference_grads.keys()
        for name, grad in grads.items():
            error = relative_error(grad, reference_grads[name])
            assert error <= backward, f"gradient of {name} is off by {error:.2g}"

    @pytest.mark.parametrize("backend", KERNELS)
    @pytest.mark.parametrize("batch", BATCHES)
    def test_matches_reference(self, backend: str, batch: int) -> None:
        for dtype in (torch.float32, torch.float64) if backend == "cpp" else (torch.float32,):
            self.require(backend, dtype)
            self.compare(self.sample(batch, HUMAN36M), backend, dtype)

    @pytest.mark.parametrize("backend", KERNELS)
    @pytest.mark.parametrize("skeleton", (FORK, HAND), ids=lambda s: s.name)
    def test_other_skeletons(self, backend: str, skeleton: Skeleton) -> None:
        self.require(backend)
        self.compare(self.sample(19, skeleton), backend, torch.float32)

    @pytest.mark.parametrize("backend", KERNELS)
    def test_transposed_and_sliced_inputs(self, backend: str) -> None:
        self.require(backend)

        def scatter(arguments: Arguments) -> Arguments:
            """The same values, each tensor a strided view of a larger one."""
            views = {}
            for name, value in arguments.items():
                if isinstance(value, Tensor) and value.is_floating_point() and value.ndim:
                    wide = value.detach().new_full((*value.shape[:-1], 2 * value.shape[-1]), 9.0)
                    wide[..., ::2] = value.detach()
                    views[name] = wide[..., ::2].requires_grad_(value.requires_grad)
                else:
                    views[name] = value
            return views

        self.compare(self.sample(6, HUMAN36M), backend, torch.float32, scatter)

    @pytest.mark.parametrize("backend", ("reference", "cpp"))
    def test_gradcheck(self, backend: str) -> None:
        self.require(backend, torch.float64)
        arguments = self.sample(2, FORK)
        names = [n for n, t in arguments.items() if isinstance(t, Tensor) and t.requires_grad]
        if not names:
            pytest.skip("the op has no gradient")

        def function(*tensors: Tensor) -> tuple[Tensor, ...]:
            outputs = self.call({**arguments, **dict(zip(names, tensors, strict=True))}, backend)
            return tuple(o for o in outputs if o is not None and o.requires_grad)

        assert torch.autograd.gradcheck(function, [arguments[n] for n in names])

    @pytest.mark.parametrize("backend", KERNELS)
    def test_opcheck(self, backend: str) -> None:
        self.require(backend)
        arguments = cast(self.sample(3, HUMAN36M), torch.float32, device_of(backend))
        with _Recorder() as recorder:
            self.run(arguments, backend)
        called = self.called.get(backend, self.op)
        assert any(called in str(func) for func, _ in recorder.calls)
        for func, args in recorder.calls:
            args = tuple(
                a.detach().clone().requires_grad_(self.differentiable and a.is_floating_point())
                if isinstance(a, Tensor)
                else a
                for a in args
            )
            skipped = () if "_backward" not in str(func) else ("test_aot_dispatch_dynamic",)
            tests = [
                t
                for t in (
                    "test_schema",
                    "test_autograd_registration",
                    "test_faketensor",
                    "test_aot_dispatch_dynamic",
                )
                if t not in skipped
            ]
            results = torch.library.opcheck(func, args, test_utils=tests)
            assert set(results.values()) == {"SUCCESS"}

    @pytest.mark.parametrize("backend", KERNELS)
    def test_compiles_without_graph_breaks(self, backend: str) -> None:
        self.require(backend)
        arguments = cast(self.sample(3, HUMAN36M), torch.float32, device_of(backend))
        torch._dynamo.reset()
        compiled = torch.compile(
            lambda a: self.call(a, backend), fullgraph=True, backend="aot_eager"
        )
        for a, b in zip(compiled(arguments), self.call(arguments, backend), strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=0, atol=0)

    @pytest.mark.parametrize("backend", KERNELS)
    def test_second_derivative_is_refused(self, backend: str) -> None:
        self.require(backend)
        arguments = cast(self.sample(3, HUMAN36M), torch.float32, device_of(backend))
        wanted = [t for t in arguments.values() if isinstance(t, Tensor) and t.requires_grad]
        if not wanted:
            pytest.skip("the op has no gradient")
        outputs = [o for o in self.call(arguments, backend) if o is not None and o.requires_grad]
        total = sum(o.square().sum() for o in outputs)
        grads = torch.autograd.grad(total, wanted, create_graph=True, allow_unused=True)
        with pytest.raises(RuntimeError, match="no second derivative"):
            sum(g.square().sum() for g in grads if g is not None).backward()

    @pytest.mark.parametrize("backend", KERNELS)
    def test_every_element_is_written_and_repeats(self, backend: str) -> None:
        self.require(backend)
        arguments = cast(self.sample(37, HUMAN36M), torch.float32, device_of(backend))
        torch.use_deterministic_algorithms(True)  # fresh memory is filled with NaN
        try:
            first, first_grads, weights = self.run(arguments, backend)
            again, again_grads, _ = self.run(arguments, backend, weights)
        finally:
            torch.use_deterministic_algorithms(False)
        for a, b in zip(
            [*first, *first_grads.values()], [*again, *again_grads.values()], strict=True
        ):
            assert not a.isnan().any()
            assert torch.equal(a, b)
