"""Two passes of one training step through the same weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ites.ops import WeightFactors

Slot = tuple[dict[str, Any], str]
"""Where a module finds a parameter: its table of parameters, and the name there."""


class _Twice(torch.autograd.Function):
    """Every tensor as two views; the gradients of both are added in few launches.

    Autograd would add them one by one. A tensor that neither pass needs gets an explicit zero
    gradient, so that weight decay applies: a bias that batch normalisation cancels. Gradients may
    also come as `factors`, which number the tensors as they are given here.
    """

    @staticmethod
    def forward(ctx: Any, factors: WeightFactors, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.factors = factors
        ctx.shapes, ctx.like = [tensor.shape for tensor in tensors], tensors[0].detach()
        return tuple(tensor.view_as(tensor) for tensor in (*tensors, *tensors))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        count = len(ctx.shapes)
        first, second = grads[:count], grads[count:]
        result = [a if b is None else b for a, b in zip(first, second, strict=True)]
        both = [i for i in range(count) if first[i] is not None and second[i] is not None]
        if both:
            left: list[Any] = [second[i] for i in both]
            right: list[Any] = [first[i] for i in both]
            sums = torch._foreach_add(left, right)
            for i, total in zip(both, sums, strict=True):
                result[i] = total
        for number, product in ctx.factors.gradients().items():
            found = result[number]
            result[number] = product if found is None else found + product
        neither = [i for i in range(count) if result[i] is None]
        if neither:
            sizes = [ctx.shapes[i].numel() for i in neither]
            zeros = ctx.like.new_zeros(sum(sizes)).split(sizes)
            for i, zero in zip(neither, zeros, strict=True):
                result[i] = zero.view(ctx.shapes[i])
        return None, *result


@contextmanager
def _holding(
    slots: Sequence[Slot],
    tensors: Sequence[Tensor],
    collectors: Sequence[Any],
    factors: WeightFactors,
) -> Iterator[None]:
    """Within it the modules use `tensors` as their parameters, and `factors`."""
    kept = [table[name] for table, name in slots]
    try:
        for (table, name), tensor in zip(slots, tensors, strict=True):
            table[name] = tensor
        for module in collectors:
            module.factors = factors
        yield
    finally:
        for (table, name), parameter in zip(slots, kept, strict=True):
            table[name] = parameter
        for module in collectors:
            module.factors = None


def two_passes(
    model: nn.Module, *joined: Tensor, without: Sequence[Tensor] = ()
) -> list[tuple[AbstractContextManager[None], tuple[Tensor, ...]]]:
    """The weights of a model for each of the two passes of a step.

        (first, weights), (second, again) = two_passes(model, *joined)
        with first:
            ...  # the first pass, with `weights` in place of `joined`

    Both passes' gradients of a weight are added by one node of autograd: the same sums, bit for
    bit, in few launches. Every parameter that requires a gradient gets one, if only zero. Within a
    pass, modules with an attribute `factors` find there where to leave the factors of their
    weights' gradients.

    Args:
        model: whose parameters the passes use.
        joined: tensors made of parameters, which both passes use as well.
        without: parameters that the passes do not use themselves.

    Returns:
        For each pass a context, within which it runs, and the tensors for `joined`.
    """
    apart = {id(tensor) for tensor in without}
    slots: list[Slot] = [
        (module._parameters, name)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None and parameter.requires_grad and id(parameter) not in apart
    ]
    collectors = [module for module in model.modules() if hasattr(module, "factors")]
    own = [table[name] for table, name in slots]
    given = (*joined, *own)
    factors = WeightFactors(given)
    views = _Twice.apply(factors, *given) if given else ()
    passes: list[tuple[AbstractContextManager[None], tuple[Tensor, ...]]] = []
    for start in (0, len(joined) + len(own)):
        middle = start + len(joined)
        held = views[middle : middle + len(own)]
        passes.append((_holding(slots, held, collectors, factors), tuple(views[start:middle])))
    return passes
