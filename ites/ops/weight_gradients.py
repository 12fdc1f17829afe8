"""Gradients of weights from the passes of a step, multiplied all at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ites.ops import backends
from ites.ops._registry import define
from ites.ops.backends import choose

BITS = {"float32": 23, "tf32": 10, "bf16": 7}
"""Bits of mantissa that a product's factors keep, by precision."""


def factor_bits(device: str) -> int:
    """The bits that products keep of their factors now: by autocast, or by PyTorch's TF32 switch.

    A compiled function is guarded by this state.
    """
    if torch.is_autocast_enabled(device):
        return BITS["bf16"]
    return BITS["float32" if torch.get_float32_matmul_precision() == "highest" else "tf32"]


factor_bits._dynamo_marked_constant = True  # type: ignore[attr-defined]  # see backends._has_clusters


def runs_in_clusters(x: Tensor, backend: str | None = None) -> bool:
    """Whether kernels with clusters of blocks can multiply x: CUDA, float32 in memory.

    Under autocast its factors are rounded to bf16; other half types are not taken.
    """
    device = x.device.type
    return (
        choose("batch_norm_relu", device, x.dtype, backend) == "cuda"
        and backends.why_not("cuda", "linear_norm_relu", device, x.dtype) is None
        and (
            not torch.is_autocast_enabled(device)
            or torch.get_autocast_dtype(device) is torch.bfloat16
        )
    )


class WeightFactors:
    """The factors of the weights' gradients in the passes of a step, multiplied all at once.

    A product that is given one adds its factors in its backward and leaves its weight without
    gradient.

    Args:
        weights: all weights whose factors may come; each is known by its number here.
    """

    def __init__(self, weights: Sequence[Tensor] = ()) -> None:
        # A pass uses a view of a weight, which has its address.
        self._numbers = {weight.data_ptr(): number for number, weight in enumerate(weights)}
        self._found: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self._sums: dict[int, Tensor] = {}
        self._bits = BITS["float32"]

    def number(self, weight: Tensor) -> int | None:
        """The number of a weight or of a view of it; None where it is frozen.

        Raises:
            ValueError: it wants a gradient, but is none of the weights.
        """
        number = self._numbers.get(weight.data_ptr())
        if number is None and weight.requires_grad:
            raise ValueError(
                f"WeightFactors: expected a view of one of {len(self._numbers)} weights, got "
                f"another tensor {tuple(weight.shape)}"
            )
        return number

    def add(self, number: int | None, grad: Tensor, x: Tensor, bits: int) -> None:
        """Add the factors of `grad.T @ x`, the gradient of the weight of this number.

        Args:
            number: see `number`; nothing is added for None.
            grad: (N, M).
            x: (N, K).
            bits: see `BITS`.
        """
        if number is not None:
            self._found.setdefault(number, []).append((grad.contiguous(), x.contiguous()))
            self._bits = bits

    def add_now(self, number: int | None, grad: Tensor, x: Tensor, product: Tensor | None) -> None:
        """Multiply the factors at once, as a CPU has no launches to save.

        A later pass's product is added in place, to the same bits as by a tensor of its own.

        Args:
            number, grad, x: see `add`.
            product: `grad.T @ x`; None: PyTorch computes it.
        """
        if number is None:
            return
        total = self._sums.get(number)
        product = grad.T @ x if product is None else product
        if total is None:
            self._sums[number] = product
        else:  # not by addmm, which on some processors rounds otherwise
            total.add_(product)

    def gradients(self) -> dict[int, Tensor]:
        """The weights' gradients by number, added over the passes; forgets the factors."""
        found, self._found = self._found, {}
        result, self._sums = self._sums, {}
        for parts in sorted({len(factors) for factors in found.values()}):
            some = [number for number, factors in found.items() if len(factors) == parts]
            rows = [found[number][part] for part in range(parts) for number in some]
            grads, inputs = (list(kind) for kind in zip(*rows, strict=True))
            result.update(
                zip(some, weight_gradients(grads, inputs, parts, self._bits), strict=True)
            )
        return result


def weight_gradients(
    grads: list[Tensor], inputs: list[Tensor], parts: int, bits: int
) -> list[Tensor]:
    """`grad.T @ input` of every weight in one launch, added over `parts` lists in a row.

    Args:
        grads: (N, M) each, of the first part's weights, then of the second's.
        inputs: (N, K) each.
        parts: 1 or 2.
        bits: see `BITS`.

    Returns:
        (M, K) of each weight.
    """
    return _weight_gradients(grads, inputs, parts, bits, "cuda")


_weight_gradients = define(
    "linear_norm",
    "weight_gradients(Tensor[] grads, Tensor[] inputs, int parts, int bits) -> Tensor[]",
    lambda grads, inputs, parts, bits: [
        grad.new_empty(grad.shape[1], x.shape[1])
        for grad, x, _ in zip(grads, inputs, range(len(grads) // parts), strict=False)
    ],
)
