"""Folding: every BatchNorm of a trained network is merged into the preceding weights.

In evaluation BatchNorm is an affine map, `y * scale + shift`, so the preceding linear map can
absorb it. A folded network keeps its class; only its layers are replaced.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ites import ops
from ites.models.layers import BatchNormReLU, GraphLayer, Linear, SemGraphConv
from ites.models.student import Student
from ites.models.teacher import Teacher
from ites.ops import GraphWeights

Network = TypeVar("Network", bound=Teacher | Student)


@torch.no_grad()
def fold_norms(model: Network, dtype: torch.dtype = torch.float32) -> Network:
    """A copy of a network for evaluation alone, with every BatchNorm folded into the weights.

    Its `depth` and `pose` equal the model's up to rounding. It takes points of `dtype`, or float32
    if `dtype` is a half type. It has no parameters and is independent of later changes to `model`.

    Args:
        model: a teacher or student, on any device.
        dtype: of the residual blocks: float32, float64, or, with less precise products, bfloat16
            or float16. The layers before and after the blocks are at least float32.

    Returns:
        A network of the model's class, on its device.
    """
    wide = torch.promote_types(dtype, torch.float32)
    folded: Any = copy.deepcopy(model, {id(model.skeleton): model.skeleton}).double().eval()
    if isinstance(folded, Teacher):
        _fold_teacher(folded, dtype, wide)
    else:
        _fold_student(folded, dtype, wide)
    folded.norms = []
    for path, module in folded.named_modules():
        kept = dtype if path.startswith("blocks.") else wide
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach().to(kept, copy=True))
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.dtype == torch.float64:
                setattr(module, name, buffer.to(kept))
    return folded


def _fold_teacher(model: Any, dtype: torch.dtype, wide: torch.dtype) -> None:
    inner = dtype if len(model.blocks) else wide
    model.input_norm = _fold_linear(model.input, model.input_norm, inner)
    for number, block in enumerate(model.blocks, 1):
        out = wide if number == len(model.blocks) else dtype
        block.norm1 = _fold_linear(block.linear1, block.norm1, dtype)
        block.norm2 = _fold_linear(block.linear2, block.norm2, dtype)
        block.norm3 = _fold_linear(block.linear3, block.norm3, out)


def _fold_student(model: Any, dtype: torch.dtype, wide: torch.dtype) -> None:
    inner = dtype if len(model.blocks) else wide
    model.input = _GraphConv(model.input, model.input_norm)
    model.input_norm = _Activation(inner)
    for number, block in enumerate(model.blocks, 1):
        out = wide if number == len(model.blocks) else dtype
        block.layer1 = _GraphLayer(block.layer1, wide, dtype)
        block.layer2 = _GraphLayer(block.layer2, wide, out)
    model.output = _GraphConv(model.output, None)


def _fold_linear(layer: Linear, norm: BatchNormReLU, dtype: torch.dtype) -> _Activation:
    """Apply the scale and shift of the following norm to a layer; return the rest of the norm."""
    scale, shift = _affine(norm)
    layer.weight.mul_(scale[:, None])
    layer.bias.mul_(scale).add_(shift)
    return _Activation(dtype)


def _affine(norm: BatchNormReLU) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of a norm in evaluation, float64."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


class _Activation(nn.Module):
    """The rest of a folded `BatchNormReLU`: the residual and ReLU, both in place.

    Args:
        dtype: of the result.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def after(self, layer: Linear, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if self.dtype == x.dtype and ops.fuses_linear_relu(x, layer.backend):
            return ops.linear_relu(x, layer.weight, layer.bias, skip, backend=layer.backend)
        y = layer(x)
        return self(y if skip is None else y.add_(skip))

    def after_keeping(self, layer: Linear, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.after(layer, x), x

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu_()
        return x if x.dtype == self.dtype else x.to(self.dtype)


class _OnSkeleton(nn.Module):
    """Holds the tables of a skeleton, which move with the weights."""

    row_start: Tensor
    columns: Tensor
    pairs: Tensor

    def __init__(self, conv: SemGraphConv) -> None:
        super().__init__()
        self.backend = conv.backend
        for name, table in ops.graph_of(conv.skeleton, conv.bias.device)._asdict().items():
            self.register_buffer(name, table.clone())

    @property
    def graph(self) -> ops.Graph:
        return ops.Graph(self.row_start, self.columns, self.pairs)


class _GraphConv(_OnSkeleton):
    """`norm(SemGraphConv(x))` as one product and one mixing."""

    def __init__(self, conv: SemGraphConv, norm: BatchNormReLU | None) -> None:
        super().__init__(conv)
        self.weight, self.bias, self.logits = conv.weight, conv.bias, conv.logits
        if norm is not None:
            scale, shift = _affine(norm)
            self.weight.mul_(scale)
            self.bias.mul_(scale).add_(shift)

    def forward(self, x: Tensor) -> Tensor:
        return ops.semantic_graph_conv(
            x, self.weight, self.logits, self.bias, self.graph, self.backend
        )


class _GraphLayer(_OnSkeleton):
    """`GraphLayer` with both its norms folded.

    The layer's scale s is applied to the columns of the graph convolution, to the residual and to
    the last product of the non-local branch. That product also absorbs the branch's own norm.

    Args:
        layer: in float64.
        wide: dtype of the mixing's weights, at least float32.
        dtype: of the result.
    """

    projection: Tensor
    close: Tensor
    residual_scale: Tensor
    bias: Tensor
    phi_weight: Tensor
    logits: Tensor

    def __init__(self, layer: GraphLayer, wide: torch.dtype, dtype: torch.dtype) -> None:
        super().__init__(layer.conv)
        self.dtype = dtype
        block, channels = layer.non_local, layer.conv.bias.numel()
        scale, shift = _affine(layer.norm)
        inner_scale, inner_shift = _affine(block.norm)
        projection, bias, phi_weight = (tensor.clone() for tensor in layer.join())
        projection[:, : 2 * channels] *= scale.repeat(2)
        constant = inner_scale * block.out.bias + inner_shift
        bias[:channels] = scale * (bias[:channels] + constant) + shift
        self.register_buffer("projection", projection)
        self.register_buffer("close", block.out.weight * (inner_scale * scale)[:, None])
        self.register_buffer("residual_scale", scale)
        mixing = {"bias": bias, "phi_weight": phi_weight, "logits": layer.conv.logits}
        for name, tensor in mixing.items():
            self.register_buffer(name, tensor.to(wide, copy=True))

    def join(self) -> GraphWeights:
        return GraphWeights(self.projection, self.bias, self.phi_weight)

    def forward(
        self, x: Tensor, skip: Tensor | None = None, weights: GraphWeights | None = None
    ) -> Tensor:
        projection, bias, phi_weight = weights or self.join()
        y, t = ops.graph_project_mix(
            x,
            projection,
            self.logits,
            bias,
            self.graph,
            x.shape[-1],
            phi_weight=phi_weight,
            backend=self.backend,
        )
        assert t is not None
        if self.dtype == t.dtype == self.close.dtype and ops.fuses_linear_relu(t, self.backend):
            return ops.linear_relu(
                t,
                self.close,
                skip=y,
                scaled=x,
                scale=self.residual_scale,
                after=skip,
                backend=self.backend,
            )
        y.addcmul_(x, self.residual_scale).add_(ops.linear(t, self.close))
        y.relu_()
        y = y if skip is None else y.add_(skip)
        return y if y.dtype == self.dtype else y.to(self.dtype)
