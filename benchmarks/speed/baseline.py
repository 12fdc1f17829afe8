"""The method in the released program's order of operations, in eager PyTorch: what we race against.

1x1 convolutions where linear layers would do. Each graph convolution has a dense masked softmax of
the skeleton and two products. Theta and phi are expanded over all pairs of joints and concatenated
before a convolution. Joints are reordered by indexing. Every step makes new tensors. Written from
the method's description; parameters carry the released program's names, so that numbers made by it
can be loaded and compared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ites.pose.skeleton import HUMAN36M, Skeleton

SAMPLES = 4
DISTANCE = 5.0
LOSS_WEIGHT = 5.0


def so3_exp(rotation_vector: Tensor) -> Tensor:
    """Rotation matrices (N, 3, 3) of rotation vectors (N, 3): docs/method.md, 2.1."""
    angle = (rotation_vector * rotation_vector).sum(1).sqrt()
    factor = 1.0 / (angle + 1e-4)
    x, y, z = rotation_vector.unbind(1)
    cross = rotation_vector.new_zeros(len(rotation_vector), 3, 3)
    cross[:, 0, 1], cross[:, 0, 2] = -z, y
    cross[:, 1, 0], cross[:, 1, 2] = z, -x
    cross[:, 2, 0], cross[:, 2, 1] = -y, x
    sine = (factor * angle.sin())[:, None, None]
    versine = (factor * factor * (1.0 - angle.cos()))[:, None, None]
    eye = torch.eye(3, dtype=cross.dtype, device=cross.device)
    return eye[None] + sine * cross + versine * torch.bmm(cross, cross)


def random_rotation(
    count: int, axes: tuple[float, float, float], max_angle: float, like: Tensor
) -> Tensor:
    """Rotation matrices (count, 3, 3) about normalised Gaussian axes, angles uniform."""
    axis = torch.randn(count, 3, dtype=like.dtype, device=like.device) * like.new_tensor(axes)
    axis = axis / axis.norm(dim=1, keepdim=True)
    angle = torch.rand(count, 1, dtype=like.dtype, device=like.device) * max_angle
    return so3_exp(axis * angle)


def project(joints: Tensor) -> Tensor:
    """(B, J, 3) to (B, J, 2) by the networks' camera."""
    return joints[..., :2] / torch.clamp(DISTANCE + joints[..., 2:3], min=1)


class Residual(nn.Module):
    """W -> W/4 -> W/4 -> W by 1x1 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 4
        self.conv1, self.bn1 = nn.Conv2d(width, inner, 1), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 1), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, width, 1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, W, 1, 1) to the same."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + x)


class InputLayer(nn.Module):
    """The trunk's first layer."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2 J, 1, 1) to (B, W, 1, 1)."""
        return torch.relu(self.bn1(self.conv1(x)))


class Teacher(nn.Module):
    """The teacher; `losses` runs its two passes."""

    axes, max_angle = (1.0, 1.0, 1.0), torch.pi

    def __init__(self, joints: int = 17, width: int = 1024, blocks: int = 6, atoms: int = 12):
        super().__init__()
        self.joints = joints
        self.fe_net = nn.ModuleList(
            [InputLayer(2 * joints, width), *(Residual(width) for _ in range(blocks))]
        )
        self.alpha_layer = nn.Conv2d(width, atoms, 1)
        self.shape_layer = nn.Conv2d(atoms, 3 * joints, 1)
        self.rot_layer = nn.Conv2d(width, 3, 1)
        self.trans_layer = nn.Conv2d(width, 1, 1)  # in the checkpoint, used by nothing
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight)

    def forward(self, points: Tensor) -> dict[str, Tensor]:
        """Lift (B, J, 2); nothing is centred here."""
        x = points.reshape(len(points), -1, 1, 1)
        for layer in self.fe_net:
            x = layer(x)
        coefficients = self.alpha_layer(x)
        canonical = self.shape_layer(coefficients).reshape(-1, self.joints, 3)
        camera = so3_exp(self.rot_layer(x).flatten(1))
        return {
            "camera": camera,
            "shape_coeff": coefficients.flatten(1),
            "shape_invariant": canonical,
            "shape_camera_coord": torch.bmm(canonical, camera),
        }

    def losses(
        self, points: Tensor, rotations: Tensor | None = None, centre: bool = True
    ) -> dict[str, Tensor]:
        """The losses of a step on (B, J, 2), `total_loss` to minimise; None draws rotations."""
        points = points - points[:, :1]
        output = self(points)
        offset = project(output["shape_camera_coord"]) - points
        reprojection = torch.norm(offset, dim=-1).mean()
        start = output["shape_invariant"]
        if centre:
            start = start - start[:, :1]
        if rotations is None:
            rotations = random_rotation(SAMPLES * len(start), self.axes, self.max_angle, start)
        repeated = start.repeat(len(rotations) // len(start), 1, 1)
        again = self(project(torch.bmm(repeated, rotations)))["shape_invariant"]
        cycle = torch.norm(again - repeated, dim=-1).mean()
        return {
            "reprojection_loss": reprojection,
            "cycle_loss": cycle,
            "total_loss": LOSS_WEIGHT * reprojection + cycle,
        }


class SemGraphConv(nn.Module):
    """Graph convolution by a dense adjacency."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, skeleton: Skeleton) -> None:
        super().__init__()
        mask = torch.zeros(skeleton.num_joints, skeleton.num_joints, dtype=torch.bool)
        for row, column in skeleton.edges:
            mask[row, column] = True
        self.register_buffer("mask", mask, persistent=False)
        self.W = nn.Parameter(torch.empty(2, inputs, outputs))
        self.e = nn.Parameter(torch.ones(1, len(skeleton.edges)))
        self.bias = nn.Parameter(torch.empty(outputs))
        nn.init.xavier_uniform_(self.W, gain=1.414)
        nn.init.uniform_(self.bias, -(outputs**-0.5), outputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, J, inputs) to (B, J, outputs)."""
        to_self, to_neighbours = torch.matmul(x, self.W[0]), torch.matmul(x, self.W[1])
        absent = torch.full_like(self.mask, -9e15, dtype=x.dtype)
        adjacency = torch.softmax(absent.masked_scatter(self.mask, self.e), dim=1)
        eye = torch.eye(len(adjacency), dtype=x.dtype, device=x.device)
        mixed = torch.matmul(adjacency * eye, to_self)
        mixed = mixed + torch.matmul(adjacency * (1 - eye), to_neighbours)
        return mixed + self.bias.view(1, 1, -1)


class ConcatenatedNonLocal(nn.Module):
    """Non-local block over positions in the order of pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.g = nn.Sequential(nn.Conv1d(channels, inner, 1), nn.MaxPool1d(2))
        self.theta = nn.Conv1d(channels, inner, 1)
        self.phi = nn.Sequential(nn.Conv1d(channels, inner, 1), nn.MaxPool1d(2))
        self.concat_project = nn.Sequential(nn.Conv2d(2 * inner, 1, 1, bias=False), nn.ReLU())
        norm = nn.BatchNorm1d(channels)
        nn.init.zeros_(norm.weight)
        self.W = nn.Sequential(nn.Conv1d(inner, channels, 1), norm)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, J) to the same."""
        g = self.g(x).permute(0, 2, 1)  # [B, P, M]
        theta = self.theta(x).unsqueeze(3)  # [B, M, J, 1]
        phi = self.phi(x).unsqueeze(2)  # [B, M, 1, P]
        positions, pooled = theta.shape[2], phi.shape[3]
        pairs = torch.cat(
            [theta.expand(-1, -1, -1, pooled), phi.expand(-1, -1, positions, -1)], dim=1
        )
        affinity = self.concat_project(pairs).squeeze(1) / pooled  # [B, J, P]
        y = torch.matmul(affinity, g).permute(0, 2, 1).contiguous()
        return self.W(y) + x


class NonLocal(nn.Module):
    """Reorders the joints, attends, and puts them back."""

    order: Tensor
    restore: Tensor

    def __init__(self, channels: int, skeleton: Skeleton) -> None:
        super().__init__()
        paired = [joint for pair in skeleton.pooling for joint in pair]
        alone = [joint for joint in range(skeleton.num_joints) if joint not in paired]
        order = torch.tensor(paired + alone)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("restore", order.argsort(), persistent=False)
        self.non_local = ConcatenatedNonLocal(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, J, C) to the same."""
        y = self.non_local(x[:, self.order].transpose(1, 2).contiguous())
        return y.transpose(1, 2).contiguous()[:, self.restore]


class GraphLayer(nn.Module):
    """SemGraphConv, beside it the non-local block, BatchNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int, skeleton: Skeleton, attends: bool) -> None:
        super().__init__()
        self.gconv = SemGraphConv(inputs, outputs, skeleton)
        self.bn = nn.BatchNorm1d(outputs)
        self.non_local = NonLocal(outputs, skeleton) if attends else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, J, inputs) to (B, J, outputs)."""
        y = self.gconv(x)
        if self.non_local is not None:
            y = y + self.non_local(x)
        y = self.bn(y.transpose(1, 2).contiguous()).transpose(1, 2).contiguous()
        return torch.relu(y)


class GraphBlock(nn.Module):
    """Two layers and a skip."""

    def __init__(self, width: int, skeleton: Skeleton) -> None:
        super().__init__()
        self.gconv1 = GraphLayer(width, width, skeleton, attends=True)
        self.gconv2 = GraphLayer(width, width, skeleton, attends=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, J, C) to the same."""
        return x + self.gconv2(self.gconv1(x))


class Student(nn.Module):
    """The student; `losses` runs its two passes."""

    axes, max_angle = (0.0, 1.0, 0.0), 2 * torch.pi

    def __init__(self, width: int = 128, blocks: int = 4, skeleton: Skeleton = HUMAN36M) -> None:
        super().__init__()
        self.gconv_input = nn.Sequential(GraphLayer(2, width, skeleton, attends=False))
        self.gconv_layers = nn.Sequential(*(GraphBlock(width, skeleton) for _ in range(blocks)))
        self.gconv_output = SemGraphConv(width, 1, skeleton)

    def forward(self, points: Tensor) -> dict[str, Tensor]:
        """Lift (B, J, 2)."""
        depth = self.gconv_output(self.gconv_layers(self.gconv_input(points)))
        pose = torch.cat([points * torch.clamp(DISTANCE + depth, min=1), depth], dim=-1)
        return {"depth": depth, "shape_3d": pose}

    def losses(
        self, points: Tensor, teacher_depth: Tensor, rotations: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The losses of a step on (B, J, 2), `total_loss` to minimise; None draws rotations."""
        output = self(points)
        distillation = torch.norm(output["depth"] - teacher_depth, dim=-1).mean()
        pose = output["shape_3d"]
        if rotations is None:
            rotations = random_rotation(SAMPLES * len(pose), self.axes, self.max_angle, pose)
        rotated = torch.bmm(pose.repeat(len(rotations) // len(pose), 1, 1), rotations)
        again = self(project(rotated))["shape_3d"]
        equivariance = torch.norm(again - rotated, dim=-1).mean()
        return {
            "distillation_loss": distillation,
            "equivariance_loss": equivariance,
            "total_loss": LOSS_WEIGHT * distillation + equivariance,
        }


def optimiser_of(model: nn.Module) -> torch.optim.SGD:
    """SGD as the paper trains."""
    return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
