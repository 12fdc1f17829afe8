"""What a stream's frame needs before and after the network."""

from __future__ import annotations

import pytest
import torch
from op_contract import device_of, relative_error, require

from ites import ops
from ites.ops.frame import robust_window_mean
from ites.pose.missing import robust_mean
from ites.pose.skeleton import HUMAN36M

ROOT, HEAD = HUMAN36M.root, HUMAN36M.head
BACKENDS = ("cpp", "cuda", "triton")
WINDOW = 64


def frames(count: int, keypoints: int = 17, seed: int = 0) -> torch.Tensor:
    """Frames in pixels: whole ones, one with a misplaced joint, one without two, one empty."""
    generator = torch.Generator().manual_seed(seed)
    points = 400 + 60 * torch.randn(count, keypoints, 2, generator=generator)
    if count > 3:
        points[1, 5] = 1e6
        points[2, [3, HEAD]] = torch.nan
        points[3] = torch.nan
    return points


def filled(values: int, seed: int = 3) -> torch.Tensor:
    """A window with as many values, some of them far off."""
    window = torch.full((WINDOW,), torch.nan)
    if values:
        generator = torch.Generator().manual_seed(seed)
        window[-values:] = 150 + 10 * torch.randn(values, generator=generator)
        window[-values::7] *= 9
    return window


def close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(ours.cpu(), expected, rtol=2e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("values", (0, 1, 2, 41, 64))
def test_the_window_s_mean_is_the_robust_mean(values: int) -> None:
    window = filled(values)
    fresh = torch.tensor([130.0, torch.nan, torch.inf, 170.0])
    held = torch.cat([window, fresh[[0, 3]]])[-WINDOW:]
    found = robust_window_mean(window, fresh)
    torch.testing.assert_close(window, held, equal_nan=True, rtol=0, atol=0)
    assert found.item() == pytest.approx(float(robust_mean(held.numpy())), rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", (1, 5, 70))
@pytest.mark.parametrize("mode", ("pixels", "factor", "empty", "few", "full"))
def test_points_match_the_reference(backend: str, count: int, mode: str) -> None:
    require(backend, "frame_points")
    device = device_of(backend)
    given = {"pixels": {}, "factor": {"factor": torch.tensor([0.01, 0.02])}}.get(mode)
    if given is None:
        given = {"sizes": filled({"empty": 0, "few": 21, "full": WINDOW}[mode]), "length": 0.2}
    theirs = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in given.items()}
    ours = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in given.items()}
    for seed in range(2):  # the second call goes on with the window
        points = frames(count, seed=seed)
        expected = ops.frame_points(points, ROOT, HEAD, backend="reference", **theirs)
        close(ops.frame_points(points.to(device), ROOT, HEAD, backend=backend, **ours), expected)
    if "sizes" in ours:
        close(ours["sizes"], theirs["sizes"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("keypoints", (17, 133))
def test_a_layout_takes_the_first_choice_that_is_there(backend: str, keypoints: int) -> None:
    require(backend, "frame_points")
    generator = torch.Generator().manual_seed(1)
    layout = torch.zeros(3, 17, keypoints)
    for choice in range(3):
        for joint in range(17):
            chosen = torch.randperm(keypoints, generator=generator)[:2]
            layout[choice, joint, chosen] = torch.tensor([0.25, 0.75])
    layout[1, 4], layout[:, 9] = 0, 0  # a joint without a second choice, one without any
    points = frames(6, keypoints)
    points[4, ::3] = torch.nan
    expected = ops.frame_points(points, ROOT, HEAD, layout=layout, backend="reference")
    assert expected[:, 9].isnan().all() and expected[4].isfinite().any()
    device = device_of(backend)
    ours = ops.frame_points(
        points.to(device), ROOT, HEAD, layout=layout.to(device), backend=backend
    )
    torch.testing.assert_close(ours.cpu(), expected, rtol=1e-5, atol=1e-2, equal_nan=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", (1, 5, 70))
@pytest.mark.parametrize("by", ("bones", "head"))
def test_metres_match_the_reference(backend: str, count: int, by: str) -> None:
    require(backend, "frame_metres")
    device = device_of(backend)
    parents, joints = zip(*HUMAN36M.bones, strict=True)
    bones = torch.tensor([joints, parents])
    weights = None
    if by == "bones":
        weights = torch.zeros(len(joints))
        weights[[2, 5]] = 0.5
    theirs = filled(21) / 1000
    ours = theirs.to(device, copy=True)
    for seed in range(2):
        pose = torch.randn(count, 17, 3, generator=torch.Generator().manual_seed(seed))
        if count > 1:
            pose[1, 6] = torch.nan
        expected = ops.frame_metres(
            pose, bones, weights, theirs, ROOT, HEAD, metres=0.72, backend="reference"
        )
        found = ops.frame_metres(
            pose.to(device),
            bones.to(device),
            None if weights is None else weights.to(device),
            ours,
            ROOT,
            HEAD,
            metres=0.72,
            backend=backend,
        )
        close(found, expected)
        assert relative_error(found[0].cpu(), expected[0]) < 1e-5
    close(ours, theirs)


def test_a_window_that_is_not_aligned_is_moved() -> None:
    """The registry copies it for the kernel, and the copy's new sizes come back."""
    require("cuda", "frame_points")
    aligned = filled(21).to(device_of("cuda"))
    shifted = torch.cat([aligned[:1], aligned])[1:]
    assert shifted.data_ptr() % 16
    points = frames(2).to(aligned)
    for sizes in (aligned, shifted):
        given = points, None, None, sizes, ROOT, HEAD, 0.2, 10.0, 6.0, 0.5
        torch.ops.ites.frame_points(*given, "cuda")
    length = float((points[1, HEAD] - points[1, ROOT]).norm())
    assert float(aligned[-1]) == pytest.approx(length, rel=1e-5)
    torch.testing.assert_close(shifted, aligned, equal_nan=True, rtol=0, atol=0)


def test_refusals() -> None:
    points = frames(2)
    with pytest.raises(ValueError, match=r"frame_points: keypoints must have shape \(B, K, 2\)"):
        ops.frame_points(points[0], ROOT, HEAD)
    with pytest.raises(ValueError, match="factor and sizes exclude each other"):
        ops.frame_points(points, ROOT, HEAD, factor=points[0, 0], sizes=filled(0))
    with pytest.raises(TypeError, match="sizes must be torch.float32"):
        ops.frame_points(points, ROOT, HEAD, sizes=filled(0).double())
    with pytest.raises(ValueError, match=r"weights must have shape \(16\), got \(15,\)"):
        ops.frame_metres(
            torch.zeros(1, 17, 3), torch.zeros(2, 16, dtype=torch.long), torch.zeros(15),
            filled(0), ROOT, HEAD, metres=1,
        )  # fmt: skip
    with pytest.raises(ValueError, match="frame_points: head must be an index from 0 to 16, got"):
        ops.frame_points(points, ROOT, 17)
    bones, pose = torch.tensor([[1, 2], [0, 1]]), torch.zeros(1, 17, 3)

    def metres(bones: torch.Tensor, root: int = ROOT) -> torch.Tensor:
        return ops.frame_metres(pose, bones, None, filled(3), root, HEAD, metres=1)

    assert metres(bones).shape == pose.shape
    with pytest.raises(ValueError, match="root must be an index from 0 to 16, got -1"):
        metres(bones, -1)
    with pytest.raises(TypeError, match="bones must be int64 on cpu, got torch.int32 on cpu"):
        metres(bones.int())
    bones[1, 0] = 17  # a table is looked at again when it has changed
    with pytest.raises(ValueError, match="bones must hold indices from 0 to 16, got 1 to 17"):
        metres(bones)
