"""The two networks as they are used once trained: every BatchNorm folded into the weights.

In evaluation BatchNorm is an affine map, `y * scale + shift`, so it belongs to the linear map
before it. What remains of a layer is matrix products, the mixing of joints, ReLU and the residual,
the last two done in place.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ites import ops
from ites.models.denoiser import Denoiser
from ites.models.layers import BatchNormReLU, GraphLayer, SemGraphConv, expect_poses
from ites.models.mirror import mean_depth
from ites.models.student import Block as StudentBlock
from ites.models.student import Student
from ites.models.teacher import Block as TeacherBlock
from ites.models.teacher import Teacher
from ites.pose import geometry


class FoldedTeacher(nn.Module):
    """A trained teacher for evaluation alone; `fold_norms` makes it.

    Args:
        teacher: whose weights and running statistics are copied.
        dtype: of the trunk; what leads into it and out of it is at least float32.
    """

    kind = "teacher"
    denoiser: Denoiser | None
    dictionary: Tensor
    mean_pose: Tensor

    def __init__(self, teacher: Teacher, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.skeleton, self.distance = teacher.skeleton, teacher.distance
        self.backend, self.dtype = teacher.backend, dtype
        self.root = teacher.skeleton.root if teacher.upright else None
        wide = torch.promote_types(dtype, torch.float32)
        self.denoiser = copy.deepcopy(teacher.denoiser)
        if self.denoiser is not None:
            self.denoiser.to(wide)
        self.input = _Linear(teacher.input, teacher.input_norm, wide)
        self.blocks = nn.ModuleList(_TeacherBlock(block, dtype) for block in teacher.blocks)
        self.coefficients = _Linear(teacher.coefficients, None, wide)
        self.rotation_vector = _Linear(teacher.rotation_vector, None, wide)
        _keep(self, wide, dictionary=teacher.dictionary, mean_pose=teacher.mean_pose)

    def depth(self, points: Tensor) -> Tensor:
        """Camera-frame depths (B, J, 1) of 2D poses (B, J, 2); see `Teacher.depth`."""
        return self._depth_of(self.clean(points))

    forward = depth

    def pose(self, points: Tensor) -> Tensor:
        """3D poses (B, J, 3), network units; see `Teacher.pose`."""
        points = self.clean(points)
        depth = self._depth_of(points)
        return torch.cat([points * (self.distance + depth), depth], dim=-1)

    def clean(self, points: Tensor) -> Tensor:
        """2D poses (B, J, 2) as they are lifted; see `Teacher.clean`."""
        expect_poses(self, points, self.skeleton)
        root = self.skeleton.root
        centred = points - points[:, root : root + 1]
        return centred if self.denoiser is None else self.denoiser(points)

    def _depth_of(self, points: Tensor) -> Tensor:
        upright = self.root is not None
        return mean_depth(self._depth, points, self.skeleton) if upright else self._depth(points)

    def _depth(self, points: Tensor) -> Tensor:
        x = self.input(points.flatten(1)).relu_().to(self.dtype)
        for block in self.blocks:
            x = block(x)
        x = x.to(points.dtype)
        _, _, camera_pose = ops.dictionary_reprojection(
            self.coefficients(x),
            self.dictionary,
            self.mean_pose,
            self.rotation_vector(x),
            points,
            self.distance,
            self.backend,
        )
        depth = camera_pose[..., 2:]
        return depth if self.root is None else depth - depth[:, self.root : self.root + 1]


class FoldedStudent(nn.Module):
    """A trained student for evaluation alone; `fold_norms` makes it.

    Args:
        student: whose weights and running statistics are copied.
        dtype: of the graph layers; the first and the last layer are at least float32.
    """

    kind = "student"
    denoiser: Denoiser | None

    def __init__(self, student: Student, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.skeleton, self.distance = student.skeleton, student.distance
        self.dtype, self.root = dtype, student.skeleton.root if student.upright else None
        wide = torch.promote_types(dtype, torch.float32)
        self.denoiser = copy.deepcopy(student.denoiser)
        if self.denoiser is not None:
            self.denoiser.to(wide)
        self.input = _GraphConv(student.input, student.input_norm, wide)
        self.blocks = nn.ModuleList(_StudentBlock(block, dtype) for block in student.blocks)
        self.output = _GraphConv(student.output, None, wide)

    def depth(self, points: Tensor) -> Tensor:
        """Depths (B, J, 1) of root-relative 2D poses (B, J, 2); see `Student.depth`."""
        return self._depth_of(self.clean(points))

    forward = depth

    def pose(self, points: Tensor) -> Tensor:
        """3D poses (B, J, 3), network units; see `Student.pose`."""
        points = self.clean(points)
        return geometry.backproject(points, self._depth_of(points), self.distance)

    def clean(self, points: Tensor) -> Tensor:
        """2D poses (B, J, 2) as they are lifted; see `Student.clean`."""
        expect_poses(self, points, self.skeleton)
        return points if self.denoiser is None else self.denoiser(points)

    def _depth_of(self, points: Tensor) -> Tensor:
        upright = self.root is not None
        return mean_depth(self._depth, points, self.skeleton) if upright else self._depth(points)

    def _depth(self, points: Tensor) -> Tensor:
        x = self.input(points).relu_().to(self.dtype)
        for block in self.blocks:
            x = block(x)
        depth = self.output(x.to(points.dtype))
        return depth if self.root is None else depth - depth[:, self.root : self.root + 1]


FoldedModel = FoldedTeacher | FoldedStudent


@torch.no_grad()
def fold_norms(model: Teacher | Student, dtype: torch.dtype = torch.float32) -> FoldedModel:
    """The model in evaluation mode with every BatchNorm folded into the weights before it.

    Its `depth` and `pose` are the model's, exactly but for rounding; it takes points of `dtype`,
    float32 where that is half. Nothing of it is trained, and later changes of `model` do not reach
    it.

    Args:
        model: a teacher or student, on any device.
        dtype: float32; float64; or, with coarser products, bfloat16 or float16.

    Returns:
        A `FoldedTeacher` or `FoldedStudent` on the model's device.
    """
    if isinstance(model, Teacher):
        return FoldedTeacher(model, dtype)
    return FoldedStudent(model, dtype)


class _TeacherBlock(nn.Module):
    """Three products; ReLU after each, after the last with the block's input added."""

    def __init__(self, block: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        assert isinstance(block, TeacherBlock)
        self.narrow = _Linear(block.linear1, block.norm1, dtype)
        self.inner = _Linear(block.linear2, block.norm2, dtype)
        self.widen = _Linear(block.linear3, block.norm3, dtype)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(self.narrow(x).relu_()).relu_()
        return self.widen(y).add_(x).relu_()


class _StudentBlock(nn.Module):
    """Two graph layers and a skip."""

    def __init__(self, block: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        assert isinstance(block, StudentBlock)
        self.first = _GraphLayer(block.layer1, dtype)
        self.second = _GraphLayer(block.layer2, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)).add_(x)


class _Linear(nn.Module):
    """`norm(linear(x))` as one product."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Linear, norm: BatchNormReLU | None, dtype: torch.dtype) -> None:
        super().__init__()
        scale, shift = _affine(norm, layer.bias)
        weight = scale[:, None] * layer.weight.double()
        _keep(self, dtype, weight=weight, bias=scale * layer.bias.double() + shift)

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)


class _OnSkeleton(nn.Module):
    """Holds the tables of a skeleton, so that they move with the weights."""

    row_start: Tensor
    columns: Tensor
    pairs: Tensor

    def __init__(self, conv: SemGraphConv) -> None:
        super().__init__()
        self.backend = conv.backend
        graph = ops.graph_of(conv.skeleton, conv.bias.device)
        _keep(self, torch.int32, **graph._asdict())

    @property
    def graph(self) -> ops.Graph:
        return ops.Graph(self.row_start, self.columns, self.pairs)


class _GraphConv(_OnSkeleton):
    """`norm(SemGraphConv(x))` as one product and one mixing."""

    weight: Tensor
    bias: Tensor
    logits: Tensor

    def __init__(self, conv: SemGraphConv, norm: BatchNormReLU | None, dtype: torch.dtype) -> None:
        super().__init__(conv)
        scale, shift = _affine(norm, conv.bias)
        bias = scale * conv.bias.double() + shift
        _keep(self, dtype, weight=conv.weight.double() * scale, bias=bias, logits=conv.logits)

    def forward(self, x: Tensor) -> Tensor:
        return ops.semantic_graph_conv(
            x, self.weight, self.logits, self.bias, self.graph, self.backend
        )


class _GraphLayer(_OnSkeleton):
    """`GraphLayer` with both its norms folded, without the skip.

    The layer's scale s goes to the columns of the graph convolution, to the residual and to the
    product that closes the non-local branch, which takes that branch's own norm as well.
    """

    projection: Tensor
    close: Tensor
    residual_scale: Tensor
    bias: Tensor
    logits: Tensor
    phi_weight: Tensor

    def __init__(self, layer: GraphLayer, dtype: torch.dtype) -> None:
        super().__init__(layer.conv)
        block, channels = layer.non_local, layer.conv.bias.numel()
        scale, shift = _affine(layer.norm, layer.conv.bias)
        inner_scale, inner_shift = _affine(block.norm, layer.conv.bias)
        weights = layer.fold()
        projection, bias = weights.projection.double().clone(), weights.bias.double().clone()
        projection[:, : 2 * channels] *= scale.repeat(2)
        constant = inner_scale * block.out.bias.double() + inner_shift
        bias[:channels] = scale * (bias[:channels] + constant) + shift
        close = block.out.weight.double() * (inner_scale * scale)[:, None]
        _keep(self, dtype, projection=projection, close=close, residual_scale=scale)
        wide = torch.promote_types(dtype, torch.float32)
        _keep(self, wide, bias=bias, logits=layer.conv.logits, phi_weight=block.affinity[1])

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[-1]
        y, t = ops.graph_project_mix(
            x,
            self.projection,
            self.logits,
            self.bias,
            self.graph,
            channels,
            phi_weight=self.phi_weight,
            backend=self.backend,
        )
        assert t is not None
        y.addcmul_(x, self.residual_scale).add_(ops.linear(t, self.close))
        return y.relu_()


def _affine(norm: BatchNormReLU | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) of a norm in evaluation, float64; of none 1 and 0, as many as `like`."""
    if norm is None:
        one = torch.ones_like(like, dtype=torch.float64)
        return one, torch.zeros_like(one)
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def _keep(module: nn.Module, dtype: torch.dtype, **tensors: Tensor) -> None:
    """Register copies of tensors as constants of a module."""
    for name, tensor in tensors.items():
        module.register_buffer(name, tensor.detach().to(dtype, copy=True).contiguous())
