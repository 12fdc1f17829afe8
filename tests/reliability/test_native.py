"""The C++ ops on tensors of more than 2^31 elements, none of which takes that memory."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from op_contract import OpContract, _Recorder, cast
from torch import Tensor

from ites.pose.skeleton import HUMAN36M

pytest.importorskip("ites._C")

MANY = 2**31 + 3
FAMILIES = ("dictionary", "graph", "linear", "norm", "rotation")


def contracts() -> list[type[OpContract]]:
    modules = [importlib.import_module(f"tests.ops.test_{family}") for family in FAMILIES]
    found = [value for module in modules for value in vars(module).values()]
    return [
        c for c in found if isinstance(c, type) and issubclass(c, OpContract) and "op" in vars(c)
    ]


def calls() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """A right call of each op and of each gradient, by its name."""
    found = {}
    for contract in contracts():
        one = contract()
        arguments = cast(one.sample(3, HUMAN36M), torch.float32, torch.device("cpu"))
        with _Recorder() as recorder:
            one.run(arguments, "cpp")
        for func, args in recorder.calls:
            plain = tuple(a.detach() if isinstance(a, Tensor) else a for a in args)
            found.setdefault(str(func), (func, plain))
    return found


CALLS = calls()


def by_strides(tensor: Tensor) -> Tensor:
    """The first row, repeated without memory."""
    return tensor[:1].expand(MANY, *tensor.shape[1:])


def without_memory(tensor: Tensor) -> Tensor:
    """Contiguous, with more than 2^31 elements, and a storage that was freed untouched."""
    rest = math.prod(tensor.shape[1:])
    huge = torch.empty(MANY // max(rest, 1) + 1, *tensor.shape[1:], dtype=tensor.dtype)
    huge.untyped_storage().resize_(0)
    return huge


def replaced(args: tuple[Any, ...], make: Any) -> Iterator[tuple[Any, ...]]:
    """The arguments with each tensor in turn made huge, then all of them."""
    which = [i for i, arg in enumerate(args) if isinstance(arg, Tensor) and arg.dim()]
    for chosen in [*([i] for i in which), which]:
        yield tuple(make(arg) if i in chosen else arg for i, arg in enumerate(args))


@pytest.mark.parametrize("make", (by_strides, without_memory), ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", CALLS)
def test_cpp_refuses_more_than_there_is(name: str, make: Any) -> None:
    func, args = CALLS[name]
    for changed in replaced(args, make):
        try:
            answer = func(*changed)
        except (RuntimeError, ValueError, TypeError) as error:
            assert str(error).splitlines()[0].count("must be") == 1
        else:  # it asked that tensor for its dtype alone
            assert "draw_rotations" in name and torch.equal(answer, func(*args))


def test_cpp_has_a_call_of_each_op() -> None:
    assert len(CALLS) >= 17


def zeros(rows: int, columns: int) -> Tensor:
    """Zeros in pages that the system shares until they are written."""
    try:
        return torch.from_numpy(np.zeros((rows, columns), np.float32))
    except MemoryError:
        pytest.skip("the system promises no such memory")


def test_cpp_computes_a_product_beyond_2_31_elements() -> None:
    """8.6 GB by address, a few pages by memory."""
    if "asan" in Path("/proc/self/maps").read_text():
        pytest.skip("a sanitizer writes to all of it")
    rows, columns = 2**15 + 1, 2**16
    x, weight = zeros(rows, columns), zeros(1, columns)
    assert x.numel() > 2**31
    x[-1, -1], x[-1, 7], x[0, 0], weight[0, -1], weight[0, 7] = 3.0, 1.0, 9.0, 2.0, 0.5
    y = torch.ops.ites_cpp.linear(x, weight, None)
    assert y.shape == (rows, 1) and y[-1, 0] == 6.5 and y.count_nonzero() == 1
