"""Schemas, kernels and checks of the ops: the only module that registers with PyTorch."""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from ites.errors import ItesError
from ites.ops import backends

try:
    from torch._C import _after_autograd_keyset, _any_requires_grad, _AutoDispatchBelowAutograd
except ImportError:  # a PyTorch that has moved them
    PRIVATE = False
else:
    PRIVATE = True
"""Whether PyTorch's private functions exist; with them an op's gradient takes half the time."""

try:
    from torch._C import _get_tracing_state, _len_torch_dispatch_stack, _len_torch_function_stack
    from torch._C._functorch import peek_interpreter_stack
except ImportError:
    DIRECT = False
else:
    DIRECT = PRIVATE
"""Whether calls of C++ may pass PyTorch's dispatcher by; see `nobody_watches`."""

LARGEST = torch.finfo(torch.float32).max

_library = torch.library.Library("ites", "DEF")
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)


def define(
    family: str,
    schema: str,
    fake: Callable[..., Any],
    check: Callable[..., None] | None = None,
) -> Callable[..., Any]:
    """Define `torch.ops.ites.<name>`, which runs the kernel of the given backend.

    Args:
        family: the op's family, which names its Triton module: `ites.kernels.<family>`.
        schema: `name(arguments) -> returns`, without the last argument `str backend`, which is
            added here. The kernels of all backends take these arguments in this order.
        fake: makes empty outputs from the same arguments, for `torch.compile`.
        check: `check(name, *arguments)` refuses what the GPU backends cannot check themselves.

    Returns:
        A function that calls the op; C++ directly where nothing needs PyTorch's dispatcher.
    """
    name, rest = schema.split("(", 1)
    arguments, returns = rest.rsplit(") ->", 1)
    changes = "!" in arguments
    _library.define(f"{name}({arguments}, str backend) ->{returns}", tags=_TAGS)

    def run(*operands: Any) -> Any:
        backend = operands[-1]
        kernel = _kernel(family, name, backend)
        if backend == "cpp":  # checks all of its arguments itself
            return kernel(*operands[:-1])
        if check is not None:
            check(name, *operands[:-1])
        ready = _ready(name, operands[:-1], backend)
        result = kernel(*ready)
        if changes:  # a copy that was made for its alignment, too
            for given, used in zip(operands, ready, strict=False):
                if isinstance(given, Tensor) and used is not given:
                    given.copy_(used)
        return result

    def fake_run(*operands: Any) -> Any:
        _one_device(name, operands)
        try:
            return fake(*operands[:-1])
        except IndexError:
            raise ValueError(f"{name}: a tensor has too few dimensions") from None

    for device in ("CPU", "CUDA"):
        _library.impl(name, run, device)
    torch.library.register_fake(f"ites::{name}", fake_run, lib=_library)
    op = getattr(torch.ops.ites, name).default

    def call(*operands: Any) -> Any:
        if operands[-1] != "cpp" or not nobody_watches(operands):
            return op(*operands)
        if torch.is_grad_enabled() and _any_requires_grad(*operands):
            gradient = _gradients.get(name)
            if gradient is not None:
                return gradient(*operands)
        return _direct(family, name)(*operands[:-1])

    _families[name] = family
    return call


def defined() -> tuple[str, ...]:
    """The names of all ops, a family's beside each other; without those of gradients."""
    names = sorted(_families, key=lambda name: (_families[name], name))
    return tuple(name for name in names if not name.endswith("_backward"))


_families: dict[str, str] = {}
_gradients: dict[str, Callable[..., Any]] = {}
"""By op: its family, and the autograd function around its C++ kernel."""


@cache
def _direct(family: str, name: str) -> Callable[..., Any]:
    """An op's C++ kernel, without the Python call around it where PyTorch has it so."""
    kernel = _kernel(family, name, "cpp")
    return getattr(kernel, "_op", kernel)


def nobody_watches(operands: Sequence[Any]) -> bool:
    """Whether a call is eager and of plain tensors, so that the kernel can be called directly.

    The way through the dispatcher takes 10 to 20 us, more than a small batch takes to compute. It
    is needed under `torch.compile`, modes, transforms and tracing, and for subclasses of tensors.
    """
    if not DIRECT or torch.compiler.is_compiling() or _len_torch_dispatch_stack():
        return False
    if _len_torch_function_stack() or peek_interpreter_stack() is not None:
        return False
    if _get_tracing_state() is not None:
        return False
    for value in operands:
        kind = type(value)
        if kind is Tensor or kind is Parameter:
            if not value.is_cpu:
                return False
        elif kind not in _PLAIN:
            return False
    return True


_PLAIN = frozenset((type(None), bool, int, float, str))


def _one_device(name: str, inputs: Iterable[Any]) -> list[Tensor]:
    """The tensors among the inputs and in their lists, all on one device.

    Raises:
        ValueError: a tensor is on another device, where a kernel would follow a foreign pointer.
    """
    lists = (value if isinstance(value, (list, tuple)) else (value,) for value in inputs)
    tensors = [value for values in lists for value in values if isinstance(value, Tensor)]
    if not tensors:
        raise ValueError(f"{name}: expected a tensor, got none")
    device = tensors[0].device
    for tensor in tensors:
        if tensor.device != device:
            raise ValueError(
                f"{name}: all tensors must be on one device, got {device} and {tensor.device}"
            )
    return tensors


def _ready(name: str, inputs: Sequence[Any], backend: str) -> Sequence[Any]:
    """The inputs of a GPU's kernel: contiguous, on one device and, for CUDA's wide loads, aligned.

    Raises:
        ValueError: a tensor is on another device, or not contiguous.
        ItesError: Triton cannot run on the device.
    """
    tensors = _one_device(name, inputs)
    for tensor in tensors:
        if not tensor.is_contiguous():
            raise ValueError(f"{name}: all tensors must be contiguous, got {tensor.stride()}")
    if backend == "cuda":
        return [v.clone() if isinstance(v, Tensor) and v.data_ptr() % 16 else v for v in inputs]
    reason = backends.why_not(backend, name, tensors[0].device.type, torch.float32)
    if reason is not None:
        raise ItesError(f"{name}: backend {backend!r} cannot run here: {reason}")
    return inputs


@cache
def _kernel(family: str, name: str, backend: str) -> Callable[..., Any]:
    kernels = [known for known in backends.BACKENDS if known != "reference"]
    if backend not in kernels:
        raise ItesError(f"{name}: backend must be one of {', '.join(kernels)}, got {backend!r}")
    if backend in backends.MISSING:
        raise ItesError(f"{name}: backend {backend!r}: {backends.MISSING[backend]}")
    try:
        if backend == "triton":
            return getattr(importlib.import_module(f"ites.kernels.{family}"), name)
        return getattr(getattr(torch.ops, f"ites_{backend}"), name).default
    except AttributeError:
        raise ItesError(f"{name}: backend {backend!r} has no kernel of this op") from None


def differentiate(
    name: str,
    save: Callable[..., tuple[list[Tensor | None], Any]],
    backward: Callable[..., Any],
    constant: tuple[int, ...] = (),
) -> None:
    """Give `ites::<name>` its gradient, and `ites::<name>_backward` a clear refusal of one.

    Args:
        name: the op.
        save: `save(inputs, outputs) -> (tensors, constants)` to keep for the backward pass.
        backward: `backward(tensors, constants, *grads)` gives a gradient for each input but the
            last, the backend.
        constant: outputs without a gradient, by number; the dispatcher's way may give them one.
    """

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.count = len(inputs)
        tensors, ctx.constants = save(inputs, output)
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)

    def run(ctx: Any, *grads: Tensor | None) -> Any:
        for grad in grads:  # a plain loop, as every step comes here
            if grad is not None:
                return (*backward(ctx.saved_tensors, ctx.constants, *grads), None)
        return (None,) * ctx.count

    def refuse(ctx: Any, *grads: Tensor | None) -> Any:
        raise RuntimeError(
            f"{name}: its kernels have no second derivative; use backend='reference' for one"
        )

    def nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    register = _register_fast if PRIVATE else _register
    register(name, setup, run)
    register(f"{name}_backward", nothing, refuse)

    _gradients[name] = _around(name, setup, run, constant)
    _gradients[f"{name}_backward"] = _around(f"{name}_backward", nothing, refuse)


def _around(
    name: str,
    setup: Callable[..., None],
    run: Callable[..., Any],
    constant: tuple[int, ...] = (),
) -> Callable[..., Any]:
    """A call of an op's C++ kernel that records its gradient."""
    family = _families[name]

    def forward(ctx: Any, *inputs: Any) -> Any:
        output = _direct(family, name)(*inputs[:-1])
        setup(ctx, inputs, output)
        if constant:
            ctx.mark_non_differentiable(*[output[number] for number in constant])
        return output

    gradient: Any = type(
        "Gradient",
        (torch.autograd.Function,),
        {"forward": staticmethod(forward), "backward": staticmethod(run)},
    )
    # What `torch.autograd.Function.apply` does before is for functorch's tensors: none is here.
    apply: Callable[..., Any] = super(torch.autograd.Function, gradient).apply
    return apply


def _register(
    name: str, setup: Callable[..., None], backward: Callable[..., tuple[Tensor | None, ...]]
) -> None:
    """Register a gradient by PyTorch's public function."""
    torch.library.register_autograd(f"ites::{name}", backward, setup_context=setup, lib=_library)


def _register_fast(
    name: str, setup: Callable[..., None], backward: Callable[..., tuple[Tensor | None, ...]]
) -> None:
    """As `_register`, in half the time per call.

    PyTorch's function lists the schema's arguments anew for each of them to fill in defaults, of
    which our ops have none: up to 80 us, more than a small batch takes to compute.
    """
    op = getattr(torch.ops.ites, name).default

    def below(keyset: Any, inputs: tuple[Any, ...]) -> Any:
        with _AutoDispatchBelowAutograd():
            return op.redispatch(keyset & _after_autograd_keyset, *inputs)

    class Gradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, keyset: Any, *inputs: Any) -> Any:
            output = below(keyset, inputs)
            setup(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            return None, *backward(ctx, *grads)

    def differentiable(keyset: Any, *inputs: Any) -> Any:
        if torch.is_grad_enabled() and _any_requires_grad(*inputs):
            return Gradient.apply(keyset, *inputs)
        return below(keyset, inputs)

    _library.impl(name, differentiable, "Autograd", with_keyset=True)


def in_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """`tensor.to(dtype)`, without its microsecond where nothing is to do."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def expect(op: str, argument: str, tensor: Tensor, *shape: int | str) -> None:
    """Check a tensor's shape: numbers must match, names stand for any size.

    Raises:
        ValueError: the shape is another, with what was expected and given.
    """
    given = tensor.shape
    if len(given) == len(shape):
        for want, size in zip(shape, given):  # noqa: B905 - a plain loop, as every call comes here
            if want != size and not isinstance(want, str):
                break
        else:
            return
    wanted = ", ".join(str(size) for size in shape)
    raise ValueError(f"{op}: {argument} must have shape ({wanted}), got {tuple(given)}")


def expect_index(op: str, argument: str, value: int, below: int) -> None:
    """Check that a number is an index below another one.

    Raises:
        ValueError: it is not.
    """
    if not 0 <= value < below:
        raise ValueError(f"{op}: {argument} must be an index from 0 to {below - 1}, got {value}")


def expect_indices(
    op: str, argument: str, table: Tensor, like: Tensor, below: int, pairs: bool = False
) -> None:
    """Check that a table on a tensor's device holds int64 indices below a number.

    The entries of a table are read once. In a table of `pairs`, the entry at each entry leads back.

    Raises:
        ValueError, TypeError: it does not.
    """
    if table.dtype != torch.int64 or table.device != like.device:
        raise TypeError(
            f"{op}: {argument} must be int64 on {like.device}, got {table.dtype} on {table.device}"
        )
    if table.is_meta or torch.compiler.is_compiling():  # tables that are traced have no entries
        return
    known = _indices.get(id(table))
    if known and known[0]() is table and known[1:] == (table._version, below, pairs):
        return
    if table.numel() and not 0 <= int(table.min()) <= int(table.max()) < below:
        raise ValueError(
            f"{op}: {argument} must hold indices from 0 to {below - 1}, got {int(table.min())} to "
            f"{int(table.max())}"
        )
    if pairs and (table.shape != (below,) or table[table].tolist() != [*range(below)]):
        raise ValueError(f"{op}: {argument} must lead from each index back to it by two steps")
    if not table.is_inference():  # which counts no versions
        key = id(table)
        reference = weakref.ref(table, lambda _: _indices.pop(key, None))
        _indices[key] = reference, table._version, below, pairs


_indices: dict[int, tuple[Any, int, int, bool]] = {}
"""By a table's identity: the table, its version, what its entries are below, and its `pairs`."""


def expect_alike(op: str, **tensors: Tensor) -> None:
    """Check that floating tensors share device and dtype.

    Raises:
        TypeError: they do not, or one is not floating.
    """
    (first, lead), *others = tensors.items()
    if not lead.is_floating_point():
        raise TypeError(f"{op}: {first} must be floating, got {lead.dtype}")
    if not others:
        return
    dtype, device = lead.dtype, lead.device
    for name, tensor in others:
        if tensor.dtype != dtype or tensor.device != device:
            raise TypeError(
                f"{op}: {name} must be {dtype} on {device} like {first}, "
                f"got {tensor.dtype} on {tensor.device}"
            )


def expect_floating(op: str, like: Tensor, **tensors: Tensor | None) -> None:
    """Check that tensors that are cast to another dtype are floating, and all of data or none.

    Raises:
        TypeError: one is not floating, or is a meta tensor among others.
    """
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if not tensor.is_floating_point() or tensor.is_meta is not like.is_meta:
            raise TypeError(
                f"{op}: {name} must be floating and on {like.device}, "
                f"got {tensor.dtype} on {tensor.device}"
            )


def expect_finite(
    op: str, argument: str, value: float, least: float = -LARGEST, most: float = LARGEST
) -> None:
    """Check that a number is finite, in float32 as well, and within bounds.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, (int, float)) or not least <= value <= most:
        bounds = "" if least < 0 else f" from {least:g} to {most:g}"
        raise ValueError(f"{op}: {argument} must be a finite number{bounds}, got {value!r}")


def expect_multiple(op: str, argument: str, tensor: Tensor, poses: int) -> None:
    """Check that a tensor has n rows per pose, n at least 1; no rows if there are no poses.

    Raises:
        ValueError: it has another number of rows.
    """
    rows = tensor.shape[0]
    if (rows == 0 or rows % poses) if poses else rows:
        raise ValueError(f"{op}: {argument} must hold a multiple of the {poses} poses, got {rows}")


def full_precision(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in float32 where autocast is on: geometry is never computed in a half type."""
    if not torch.is_autocast_enabled(tensors[0].device.type):
        return tensors
    return tuple(t.float() if t.dtype in (torch.bfloat16, torch.float16) else t for t in tensors)
