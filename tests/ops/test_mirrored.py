"""What the network of recipe "general" needs before and after, against its plain operators."""

from __future__ import annotations

import pytest
import torch
from op_contract import FORK, device_of, relative_error, require
from torch import nn

from ites import ops
from ites.models import GeneralTeacher, fold_norms
from ites.models import general as general_module
from ites.models.layers import BatchNormReLU
from ites.pose.skeleton import HUMAN36M, Skeleton


def teacher(skeleton: Skeleton, backend: str) -> GeneralTeacher:
    """A small teacher whose every part has an effect, on the backend's device."""
    torch.manual_seed(2)
    model = GeneralTeacher(skeleton, width=16, blocks=1, atoms=5, backend=backend)
    for module in model.modules():
        if isinstance(module, BatchNormReLU):
            nn.init.uniform_(module.running_var, 0.3, 2.0)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, module.in_features**-0.5)
            nn.init.normal_(module.bias, 0.0, 0.1)
    nn.init.normal_(model.dictionary, 0.0, 0.1)
    nn.init.normal_(model.mean_pose, 0.0, 0.1)
    model.shares.copy_(torch.rand(len(skeleton.bones)))
    return model.eval().to(device_of(backend))


def poses(skeleton: Skeleton, count: int) -> torch.Tensor:
    """2D poses: whole ones, without the root, without some joints, without any."""
    generator = torch.Generator().manual_seed(count)
    points = 0.2 * torch.randn(count, skeleton.num_joints, 2, generator=generator)
    points = 3 * (points - points[:, skeleton.root, None])
    if count > 4:
        points[1, skeleton.root] = torch.nan
        points[2, [1, 3]] = torch.nan
        points[3] = torch.nan
    return points


@pytest.mark.parametrize("skeleton", (HUMAN36M, FORK), ids=lambda skeleton: skeleton.name)
@pytest.mark.parametrize("folded", (False, True), ids=("norms", "folded"))
@pytest.mark.parametrize("recording", (False, True), ids=("launched", "captured"))
@pytest.mark.parametrize("count", (1, 7))
def test_poses_on_cuda_are_the_reference_s(
    skeleton: Skeleton,
    folded: bool,
    recording: bool,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require("cuda", "mirrored_input")
    monkeypatch.setattr(general_module, "_recording", lambda: recording)
    points = poses(skeleton, count)
    exact = teacher(skeleton, "reference").cpu()
    with torch.no_grad():
        expected = exact.double().pose(points.double())
        ours = teacher(skeleton, "cuda")
        ours = fold_norms(ours) if folded else ours
        assert ops.fuses_mirrored(points.to(device_of("cuda")), "cuda")
        found = ours.pose(points.to(device_of("cuda")))
    assert expected.isfinite().all() and relative_error(found.cpu(), expected) < 1e-4
    if count == 1:
        assert relative_error(found.cpu(), expected) < 2e-5


def test_gradients_take_the_plain_operators() -> None:
    points = poses(HUMAN36M, 2)
    assert not ops.fuses_mirrored(points)
    with torch.no_grad():
        assert not ops.fuses_mirrored(points, "reference")


def test_refusals() -> None:
    points, bones = poses(HUMAN36M, 2), torch.zeros(2, 16, dtype=torch.long)
    mirror, shares = torch.arange(17), torch.ones(16)
    with pytest.raises(ValueError, match=r"shares must have shape \(16\), got \(15,\)"):
        ops.mirrored_input(points, shares[:15], bones, mirror, 1.0, 10.0)
    with pytest.raises(ValueError, match=r"camera must have shape \(4, 17, 3\), got \(2, 17, 3\)"):
        ops.mirrored_output(
            points, torch.ones(2), torch.zeros(2, 17, 3), torch.zeros(4, 17), mirror, 0, 5, 0, 0.8
        )
    given = points, torch.ones(2), torch.zeros(4, 17, 3), torch.zeros(4, 17)
    with pytest.raises(ValueError, match="root must be an index from 0 to 16, got 17"):
        ops.mirrored_output(*given, mirror, 17, 5, 0, 0.8)


@pytest.mark.parametrize("wrong", (-1, 17))
def test_tables_that_lead_out_of_the_skeleton_are_refused(wrong: int) -> None:
    """By `torch.ops.ites` too, whose kernel would read beyond the points."""
    require("cuda", "mirrored_input")
    points = poses(HUMAN36M, 2).to(device_of("cuda"))
    table = torch.zeros(2, 16, dtype=torch.long, device=points.device)
    mirror, shares = torch.arange(17, device=points.device), torch.ones(16, device=points.device)
    table[1, 3] = wrong
    with pytest.raises(ValueError, match="bones must hold indices from 0 to 16"):
        torch.ops.ites.mirrored_input(points, shares, table, mirror, 1.0, 10.0, "cuda")
    mirror[2] = wrong
    with pytest.raises(ValueError, match="mirror must hold indices from 0 to 16"):
        ops.mirrored_input(points, shares, table.clamp(0, 16), mirror, 1.0, 10.0)


def test_a_table_that_does_not_lead_back_is_refused() -> None:
    """The kernel takes the mean of an image from its pose, so it must have the same joints."""
    require("cuda", "mirrored_input")
    points = poses(HUMAN36M, 2).to(device_of("cuda"))
    mirror = torch.tensor(HUMAN36M.mirror, device=points.device)
    mirror[4] = 2
    bones = torch.zeros(2, 16, dtype=torch.long, device=points.device)
    given = points, torch.ones(16, device=points.device), bones, mirror, 1.0, 10.0
    with pytest.raises(ValueError, match="mirrored_input: mirror must lead from each index back"):
        ops.mirrored_input(*given)
    with pytest.raises(ValueError, match="mirrored_input: mirror must lead from each index back"):
        torch.ops.ites.mirrored_input(*given, "cuda")
