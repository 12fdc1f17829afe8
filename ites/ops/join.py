"""The weights of graph layers, joined for one matrix product per layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ites.ops._registry import define, expect, expect_alike
from ites.ops.backends import choose

NAMES = (
    "conv_weight", "conv_bias", "g_weight", "g_bias", "theta_weight", "theta_bias", "phi_weight",
    "phi_bias", "affinity",
)  # fmt: skip


class GraphWeights(NamedTuple):
    """The weights of a `GraphLayer`, joined for a single matrix product.

    projection (C, S): [W0 | W1 | g | phi | theta' u | 0], S rounded up to a multiple of 8;
    bias (C + M + 1,): [b | b_g | u . b_theta + v . b_phi]; phi_weight (M,): v.
    """

    projection: Tensor
    bias: Tensor
    phi_weight: Tensor


def join_graph_layers(
    layers: Sequence[Sequence[Tensor]], backend: str | None = None
) -> list[GraphWeights]:
    """Join the weights of layers of one size; in CUDA all layers in one launch.

    Args:
        layers: of each layer the convolution's weight (2, C, C) and bias (C,); weight (M, C) and
            bias (M,) of g, theta and phi; affinity (2, M), u and v.
        backend: see `ites.ops.backends`.

    Returns:
        The joined weights of each layer.

    Raises:
        ValueError, TypeError: a shape or dtype does not fit.

    Source: docs/method.md, 4.3; theta enters only as u . theta.
    """
    if not layers:
        return []
    for layer in layers:
        if len(layer) != len(NAMES):
            names = ", ".join(NAMES)
            raise ValueError(f"join_graph_layers: expected {names} of a layer, got {len(layer)}")
    first = layers[0][0]
    expect("join_graph_layers", NAMES[0], first, 2, "C", "C")
    expect("join_graph_layers", NAMES[-1], layers[0][-1], 2, "M")
    channels, inner = first.shape[-1], layers[0][-1].shape[-1]
    shapes = ((2, channels, channels), (channels,), *((inner, channels), (inner,)) * 3, (2, inner))
    for layer in layers:
        for name, tensor, shape in zip(NAMES, layer, shapes, strict=True):
            expect("join_graph_layers", name, tensor, *shape)
    for layer in layers:
        others = dict(zip(NAMES[1:], layer[1:], strict=True))
        expect_alike("join_graph_layers", conv_weight=first, **others)
    columns = 2 * (channels + inner) + 1
    columns += -columns % 8
    if choose("join_graph_layers", first.device.type, first.dtype, backend) != "cuda":
        return [_join(layer, columns) for layer in layers]
    flat = _Joined.apply(columns, *(tensor.contiguous() for layer in layers for tensor in layer))
    return [GraphWeights(*flat[i : i + 3]) for i in range(0, len(flat), 3)]


def _join(layer: Sequence[Tensor], columns: int) -> GraphWeights:
    weight, bias, g_weight, g_bias, theta_weight, theta_bias, phi_weight, phi_bias, affinity = layer
    u, v = affinity.unbind()
    parts = [weight.transpose(0, 1).flatten(1), g_weight.T, phi_weight.T]
    parts += [(u @ theta_weight)[:, None]]
    used = sum(part.shape[1] for part in parts)
    parts += [weight.new_zeros(weight.shape[1], columns - used)]
    constant = (affinity * torch.stack([theta_bias, phi_bias])).sum()
    return GraphWeights(torch.cat(parts, dim=1), torch.cat([bias, g_bias, constant[None]]), v)


_join_graph_layers = define(
    "graph",
    "join_graph_layers(Tensor[] parameters, int columns) -> Tensor[]",
    lambda parameters, columns: [
        parameters[0].new_empty(shape)
        for i in range(0, len(parameters), len(NAMES))
        for shape in _joined_shapes(*parameters[i : i + len(NAMES)], columns=columns)
    ],
)
_join_graph_layers_backward = define(
    "graph",
    "join_graph_layers_backward(Tensor[] grads, Tensor[] parameters) -> Tensor[]",
    lambda grads, parameters: [tensor.new_empty(tensor.shape) for tensor in parameters],
)


def _joined_shapes(weight: Tensor, *others: Tensor, columns: int) -> tuple[tuple[int, ...], ...]:
    channels, inner = weight.shape[-1], others[-1].shape[-1]
    return (channels, columns), (channels + inner + 1,), (inner,)


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, columns: int, *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*parameters)
        return tuple(_join_graph_layers(list(parameters), columns, "cuda"))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ready = [grad.contiguous() for grad in grads]
        back = _join_graph_layers_backward(ready, list(ctx.saved_tensors), "cuda")
        return None, *back
