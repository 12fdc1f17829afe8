"""Coarser matrix products on a machine that has none: factors rounded as a GPU rounds them.

Tensor cores multiply TF32 or bf16 factors exactly and add the products up in float32. On a CPU,
rounding the factors first gives the same numbers, except for the order of the sums. With bf16
autocast a product is rounded, too. What else autocast keeps in bf16, the norms' results, is the
next product's factor, which is rounded here; the residual between them alone stays float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import ites.ops  # noqa: F401 - defines the operators named below

aten, own = torch.ops.aten, torch.ops.ites


def tf32(x: Tensor) -> Tensor:
    """float32 rounded to a mantissa of 10 bits, halves away from zero."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def bf16(x: Tensor) -> Tensor:
    """float32 rounded to bfloat16 and back."""
    return x.bfloat16().float()


ROUNDINGS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "tf32": (tf32, False),
    "bf16": (bf16, True),
}
"""What rounds the factors, and whether it rounds the product too."""


FACTORS = {
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.addmm.default: (1, 2),
    own.linear.default: (0, 1),
    own.linear_backward.default: (0, 1, 2),
}
"""Of each operator that multiplies matrices, which arguments are factors."""


class RoundedProducts(TorchDispatchMode):
    """Within it every float32 matrix product, also of a backward pass, is a rounded one.

    Args:
        precision: "tf32" or "bf16".
    """

    def __init__(self, precision: str) -> None:
        super().__init__()
        self.round, self.after = ROUNDINGS[precision]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        factors = FACTORS.get(func, ())
        if not factors or args[factors[0]].dtype != torch.float32:
            return func(*args, **(kwargs or {}))
        rounded = (self.round(a) if i in factors else a for i, a in enumerate(args))
        product = func(*rounded, **(kwargs or {}))
        if not self.after:
            return product
        several = isinstance(product, tuple)
        return tuple(map(self.round, product)) if several else self.round(product)
