"""Rotations: the draw, and the ops that use it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from op_contract import (
    KERNELS,
    Arguments,
    OpContract,
    cast,
    device_of,
    relative_error,
    require,
)
from scipy import stats
from scipy.spatial.transform import Rotation

from ites import ops
from ites.ops import RotationDraw, TurnDraw
from ites.pose import geometry
from ites.pose.skeleton import HUMAN36M

DRAW = RotationDraw(torch.tensor([2**40 + 5, 7, 3]), 4, "xyz", torch.pi)


def poses(batch, joints=17, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, joints, 3, generator=generator, dtype=torch.float64)


def turn(batch):
    """The arguments of a `TurnDraw`: some cameras look up, one stands on its head."""
    elevation = 0.2 + 0.5 * poses(batch, 1, 9)[:, 0, 0]
    if batch > 4:
        elevation[:3] = torch.tensor([0.0, torch.pi / 2, -3.0])
    return {
        "counter": DRAW.counter,
        "elevation": elevation.requires_grad_(),
        "spread": torch.tensor([-0.15, 0.3], dtype=torch.float64),
    }


def drawn(arguments: Arguments) -> Arguments:
    """The arguments with rotations: those of a `TurnDraw`, if any, made one."""
    if "rotations" in arguments:
        return arguments
    rest = dict(arguments)
    parts = [rest.pop(name) for name in ("counter", "elevation", "spread")]
    samples = rest.pop("samples", 4)
    return {**rest, "rotations": TurnDraw(*parts, samples)}


class TestSo3Exp(OpContract):
    op = "so3_exp"

    @staticmethod
    def call(arguments: Arguments, backend: str):
        return (ops.so3_exp(arguments["w"], backend),)

    def sample(self, batch, skeleton):
        w = poses(batch, skeleton.num_joints)[:, 0]
        if batch > 4:  # none, tiny, at the formula's own scale, half a turn, several turns
            for row, angle in enumerate((0.0, 1e-8, 1e-4, torch.pi, 20.0)):
                w[row] = torch.nn.functional.normalize(w[row], dim=0) * angle
        return {"w": w.requires_grad_()}

    @pytest.mark.parametrize("backend", ("reference", *KERNELS))
    def test_gradient_is_finite_at_no_rotation(self, backend):
        require(backend, self.op)
        w = torch.zeros(3, 3, device=device_of(backend), requires_grad=True)
        rotation = ops.so3_exp(w, backend)
        assert torch.equal(rotation.cpu(), torch.eye(3).expand(3, 3, 3))
        rotation.square().sum().backward()
        assert torch.equal(w.grad, torch.zeros_like(w))


class TestRotateProject(OpContract):
    op = "rotate_project"

    @staticmethod
    def call(arguments: Arguments, backend: str):
        joints, rotations = arguments["joints"], arguments["rotations"]
        return ops.rotate_project(joints, rotations, 5.0, with_rotated=True, backend=backend)

    def sample(self, batch, skeleton):
        joints = poses(batch, skeleton.num_joints)
        if batch > 4:
            joints[0] = 0  # coincident joints
            joints[1, :, 2] -= 9  # behind the clamp for some rotations
        return {"joints": joints.requires_grad_(), "rotations": DRAW}

    @pytest.mark.parametrize("backend", KERNELS)
    def test_given_matrices(self, backend, batch=13):
        require(backend, self.op)
        matrices = torch.linalg.qr(poses(3 * batch, 3, 5))[0]
        sample = self.sample(batch, HUMAN36M)
        self.compare({**sample, "rotations": matrices}, backend, torch.float32)

    @pytest.mark.parametrize("backend", KERNELS)
    def test_clamp_edge(self, backend):
        """At distance + z = 1 exactly the gradient passes, as torch.clamp passes it; below not."""
        require(backend, self.op)
        joints = torch.tensor([[[1.0, 2.0, -4.0], [1.0, 2.0, -4.5]]], dtype=torch.float64)
        arguments = {
            "joints": joints.requires_grad_(),
            "rotations": torch.eye(3, dtype=torch.float64)[None],
        }
        self.compare(arguments, backend, torch.float32)

    @pytest.mark.parametrize("backend", ("reference", *KERNELS))
    def test_points_alone(self, backend):
        require(backend, self.op)
        joints = poses(5).float().to(device_of(backend))
        draw = RotationDraw(DRAW.counter.to(joints.device))
        points, rotated = ops.rotate_project(joints, draw, backend=backend)
        assert rotated is None
        both, rotated = ops.rotate_project(joints, draw, with_rotated=True, backend=backend)
        assert torch.equal(points, both)
        torch.testing.assert_close(points, geometry.project(rotated), rtol=1e-5, atol=1e-6)

    def test_agrees_with_its_own_matrices(self):
        joints = poses(6)
        matrices = ops.draw_rotations(DRAW, 6, joints, "reference")
        drawn, _ = ops.rotate_project(joints, DRAW, backend="reference")
        for sample in range(4):
            for pose in range(6):
                row = sample * 6 + pose
                expected = geometry.project(joints[pose] @ matrices[row])
                torch.testing.assert_close(drawn[row], expected)

    @pytest.mark.parametrize("backend", ("reference", *KERNELS))
    def test_a_strided_counter_draws_the_same(self, backend):
        require(backend, self.op)
        joints = poses(5).float().to(device_of(backend))
        counter = DRAW.counter.to(joints.device)
        strided = torch.stack([counter, counter + 99], dim=1)[:, 0]
        assert not strided.is_contiguous()
        ours, theirs = (
            ops.rotate_project(joints, RotationDraw(c), backend=backend)[0]
            for c in (strided, counter)
        )
        assert torch.equal(ours, theirs)

    @pytest.mark.parametrize("backend", ("reference", *KERNELS))
    @pytest.mark.parametrize("distance", (float("nan"), float("inf"), -1e300))
    def test_a_distance_that_is_not_finite_is_refused(self, backend, distance):
        require(backend, self.op)
        joints = poses(2).float().to(device_of(backend))
        draw = RotationDraw(DRAW.counter.to(joints.device))
        points, depth = joints.new_zeros(8, 17, 2), joints.new_zeros(8, 17, 1)
        with pytest.raises(ValueError, match="distance must be a finite number, got"):
            ops.rotate_project(joints, draw, distance, backend=backend)
        with pytest.raises(ValueError, match="distance must be a finite number, got"):
            ops.equivariance_distance(joints, points, depth, draw, distance, backend)

    def test_a_draw_in_a_half_type(self):
        """24 random bits overflow float16: they are drawn in float32 and rounded."""
        like = torch.zeros(1, dtype=torch.float16)
        ours = ops.draw_rotations(DRAW, 9, like, "reference")
        exact = ops.draw_rotations(DRAW, 9, like.double(), "reference")
        assert ours.dtype == torch.float16
        assert (ours.double() - exact).abs().max() < 1e-3

    @pytest.mark.parametrize("backend", ("reference", "cpp"))
    def test_huge_counts_are_refused(self, backend):
        require(backend, self.op)
        for samples in (2**24, 2**31, 2**62):
            draw = RotationDraw(DRAW.counter, samples)
            with pytest.raises(ValueError, match="too many: they fill more than"):
                ops.rotate_project(poses(3), draw, backend=backend)
            with pytest.raises(ValueError, match="too many: they fill more than"):
                ops.draw_rotations(draw, 3, poses(3), backend)
            with pytest.raises((ValueError, RuntimeError), match="too many: they fill more than"):
                ops.philox(DRAW.counter, 3, samples, backend)
        with pytest.raises((ValueError, RuntimeError), match="poses must .*, got -1"):
            ops.philox(DRAW.counter, -1, 1, backend)

    def test_refusals(self):
        joints = poses(4)
        with pytest.raises(ValueError, match="at least one joint, got"):
            ops.rotate_project(joints[:, :0], DRAW)
        with pytest.raises(TypeError, match="samples must be an int, got float"):
            RotationDraw(DRAW.counter, 2.0)
        with pytest.raises(ValueError, match="max_angle must be a finite number from 0 to 8192"):
            RotationDraw(DRAW.counter, max_angle=float("nan"))
        with pytest.raises(ValueError, match="must be on one device, got|counter must be on"):
            ops.rotate_project(joints, RotationDraw(DRAW.counter.to("meta")))
        with pytest.raises(TypeError, match="like must be floating, got torch.int64"):
            ops.draw_rotations(DRAW, 4, torch.zeros(1, dtype=torch.int64))
        with pytest.raises(
            ValueError, match=r"joints must have shape \(B, J, 3\), got \(4, 17, 2\)"
        ):
            ops.rotate_project(joints[..., :2], DRAW)
        with pytest.raises(ValueError, match="a multiple of the 4 poses, got 7"):
            ops.rotate_project(joints, torch.eye(3, dtype=torch.float64).expand(7, 3, 3))
        with pytest.raises(TypeError, match="rotations must be torch.float64"):
            ops.rotate_project(joints, torch.eye(3).expand(4, 3, 3))
        with pytest.raises(ValueError, match="take no gradient"):
            ops.rotate_project(joints, poses(4, 3).requires_grad_())
        with pytest.raises(ValueError, match="subset of 'xyz', got 'xw'"):
            RotationDraw(DRAW.counter, axes="xw")
        with pytest.raises(TypeError, match="int64 of shape"):
            RotationDraw(torch.zeros(3))


class TestEquivarianceDistance(OpContract):
    op = "equivariance_distance"

    @staticmethod
    def call(arguments: Arguments, backend: str):
        return (ops.equivariance_distance(**arguments, distance=5.0, backend=backend),)

    def sample(self, batch, skeleton):
        joints = poses(batch, skeleton.num_joints)
        draw = RotationDraw(DRAW.counter, 4, "y", 2 * torch.pi)
        points, rotated = ops.rotate_project(joints, draw, with_rotated=True, backend="reference")
        # Off by 0.1 and more: where a lift all but agrees the gradient's direction is rounding.
        offset = poses(4 * batch, skeleton.num_joints, 3)[..., :1]
        depth = rotated[..., 2:] + offset + 0.1 * offset.sign()
        if batch > 4:
            depth[0] -= 9  # behind the clamp
        return {
            "joints": joints.requires_grad_(),
            "points": points.detach().requires_grad_(),
            "depth": depth.requires_grad_(),
            "rotations": draw,
        }

    @pytest.mark.parametrize("backend", KERNELS)
    def test_gradient_is_finite_where_lifts_agree(self, backend):
        require(backend, self.op)
        joints = poses(3, 5).float().to(device_of(backend)) * 0
        zeros = torch.zeros(3, 5, 3, device=joints.device)
        points, depth = zeros[..., :2].clone(), zeros[..., 2:].clone()
        tensors = [t.requires_grad_() for t in (joints, points, depth)]
        eye = torch.eye(3, device=joints.device).repeat(3, 1, 1)
        distance = ops.equivariance_distance(*tensors, eye, backend=backend)
        distance.sum().backward()
        assert torch.equal(distance, torch.zeros_like(distance))
        assert all(torch.equal(t.grad, torch.zeros_like(t)) for t in tensors)


class TestRotateProjectTurn(OpContract):
    op = "rotate_project"

    @staticmethod
    def call(arguments: Arguments, backend: str):
        return ops.rotate_project(**drawn(arguments), with_rotated=True, backend=backend)

    def sample(self, batch, skeleton):
        joints = TestRotateProject().sample(batch, skeleton)["joints"]
        return {"joints": joints, **turn(batch)}

    @pytest.mark.parametrize("backend", KERNELS)
    def test_more_joints_and_samples_than_a_tile(self, backend):
        require(backend, self.op)
        arguments = {"joints": poses(11, 70).requires_grad_(), **turn(11), "samples": 9}
        self.compare(arguments, backend, torch.float32)

    @pytest.mark.parametrize("backend", ("reference", *KERNELS))
    def test_agrees_with_its_own_matrices(self, backend):
        require(backend, self.op)
        arguments = cast(self.sample(6, HUMAN36M), torch.float32, device_of(backend))
        joints, draw = arguments["joints"], drawn(arguments)["rotations"]
        matrices = ops.draw_rotations(draw, 6, joints, backend)
        assert not matrices.requires_grad
        ours, _ = ops.rotate_project(joints, draw, backend=backend)
        given, _ = ops.rotate_project(joints, matrices, backend=backend)
        assert relative_error(ours, given) < 1e-5

    def test_refusals(self):
        arguments = self.sample(4, HUMAN36M)
        joints, elevation, spread = (arguments[n] for n in ("joints", "elevation", "spread"))
        counter = DRAW.counter
        with pytest.raises(ValueError, match=r"elevation must have shape \(4\), got \(3,\)"):
            ops.rotate_project(joints, TurnDraw(counter, elevation[:3], spread))
        with pytest.raises(TypeError, match="spread must be torch.float64"):
            ops.rotate_project(joints, TurnDraw(counter, elevation, spread.float()))
        with pytest.raises(ValueError, match="spread is a constant"):
            TurnDraw(counter, elevation, spread.clone().requires_grad_())
        with pytest.raises(ValueError, match=r"elevation must be \(B,\) and spread \(2,\)"):
            TurnDraw(counter, elevation[:, None], spread)
        with pytest.raises(TypeError, match="TurnDraw: counter must be int64"):
            TurnDraw(counter.float(), elevation, spread)


class TestEquivarianceDistanceTurn(OpContract):
    op = "equivariance_distance"

    @staticmethod
    def call(arguments: Arguments, backend: str):
        return (ops.equivariance_distance(**drawn(arguments), backend=backend),)

    def sample(self, batch, skeleton):
        joints, turns = poses(batch, skeleton.num_joints), turn(batch)
        draw = drawn(turns)["rotations"]
        points, rotated = ops.rotate_project(joints, draw, with_rotated=True, backend="reference")
        offset = poses(4 * batch, skeleton.num_joints, 3)[..., :1]
        depth = rotated[..., 2:] + offset + 0.1 * offset.sign()
        return {
            "joints": joints.requires_grad_(),
            "points": points.detach().requires_grad_(),
            "depth": depth.detach().requires_grad_(),
            **turns,
        }


class TestDrawRotations(OpContract):
    op = "draw_rotations"
    differentiable = False

    @staticmethod
    def call(arguments: Arguments, backend: str):
        return (
            ops.draw_rotations(arguments["draw"], arguments["poses"], arguments["like"], backend),
        )

    def sample(self, batch, skeleton):
        return {"draw": DRAW, "poses": batch, "like": torch.zeros(1, dtype=torch.float64)}

    @pytest.mark.parametrize("backend", ("reference", *KERNELS))
    @pytest.mark.parametrize("axes", ("x", "y", "z", "xy", "xz", "yz", "xyz"))
    def test_axes(self, backend, axes):
        """Each axis mask, absolutely: a draw is the same on every backend to 1e-6."""
        require(backend, self.op)
        draw = RotationDraw(DRAW.counter, 3, axes, 2 * torch.pi)
        like = torch.zeros(1, device=device_of(backend))
        moved = RotationDraw(draw.counter.to(like.device), 3, axes, 2 * torch.pi)
        ours = ops.draw_rotations(moved, 999, like, backend).cpu().double()
        reference = ops.draw_rotations(draw, 999, like.cpu().double(), "reference")
        assert (ours - reference).abs().max() < 1e-6

    @pytest.mark.parametrize("backend", ("reference", *KERNELS))
    def test_turns(self, backend):
        """Absolutely, and orthonormal: the turn's rotations are exact."""
        require(backend, self.op)
        arguments = cast(turn(999), torch.float32, device_of(backend))
        exact = drawn(cast(arguments, torch.float64, torch.device("cpu")))["rotations"]
        reference = ops.draw_rotations(exact, 999, exact.spread, "reference")
        ours = ops.draw_rotations(
            drawn(arguments)["rotations"], 999, arguments["spread"], backend
        ).cpu()
        assert (ours - reference).abs().max() < 1e-6
        eye = torch.eye(3, dtype=torch.float64)
        assert (reference @ reference.mT - eye).abs().max() < 1e-14
        assert (torch.linalg.det(reference) - 1).abs().max() < 1e-14


class TestPhilox:
    @pytest.mark.parametrize("backend", ("reference", *KERNELS))
    def test_known_answer(self, backend):
        """Counter and key of zeros: the first known answer of the Random123 distribution."""
        require(backend, "philox")
        zeros = torch.zeros(3, dtype=torch.int64, device=device_of(backend))
        words = ops.philox(zeros, 1, 1, backend)
        assert words[0].tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]

    @pytest.mark.parametrize("backend", KERNELS)
    def test_integers_are_identical(self, backend):
        require(backend, "philox")
        for seed, offset, first in ((0, 0, 0), (2**62 + 9, 2**33 + 1, 2**32 - 3), (-5, 12345, 77)):
            counter = torch.tensor([seed, offset, first])
            ours = ops.philox(counter.to(device_of(backend)), 301, 5, backend).cpu()
            assert torch.equal(ours, ops.philox(counter, 301, 5, "reference"))

    def test_counters_do_not_share_draws(self):
        """Seeds, steps, poses and samples that differ give words that differ."""
        seen = [
            ops.philox(torch.tensor([seed, offset, first]), 500, 4, "reference")
            for seed in (0, 1, 2**32)
            for offset in (0, 1, 2**32)
            for first in (0, 500)
        ]
        words = torch.cat(seen)
        assert len(torch.unique(words, dim=0)) == len(words)

    def test_turns_do_not_share_draws(self):
        """Counters that differ turn by other azimuths, and see from other elevations."""
        spread = torch.tensor([0.1, 0.2], dtype=torch.float64)
        level = torch.zeros(500, dtype=torch.float64)
        seen = [
            ops.draw_rotations(TurnDraw(torch.tensor(counter), level, spread), 500, level)
            for counter in ([0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 500])
        ]
        matrices = torch.cat(seen).flatten(1)
        assert len(torch.unique(matrices, dim=0)) == len(matrices)

    def test_a_share_of_the_batch_draws_its_part_of_the_whole(self):
        whole = ops.philox(torch.tensor([3, 4, 0]), 10, 2, "reference").view(2, 10, 4)
        part = ops.philox(torch.tensor([3, 4, 6]), 4, 2, "reference").view(2, 4, 4)
        assert torch.equal(whole[:, 6:], part)


class TestDistribution:
    """The draw against docs/method.md, 2.2: uniform axes of `axes`, angle ~ U(0, max_angle)."""

    count = 10**6

    def vectors(self, axes, max_angle):
        draw = RotationDraw(torch.tensor([11, 0, 0]), 1, axes, max_angle)
        matrices = ops.draw_rotations(draw, self.count, torch.zeros(1, dtype=torch.float64))
        # Orthonormal but for the formula's 1e-4, which SciPy's nearest rotation forgives.
        return Rotation.from_matrix(matrices.numpy()).as_rotvec()

    def test_sphere(self):
        vectors = self.vectors("xyz", np.pi)
        angles = np.linalg.norm(vectors, axis=1)
        assert stats.kstest(angles, stats.uniform(0, np.pi).cdf).pvalue > 1e-3
        axes = vectors[angles > 0.1] / angles[angles > 0.1, None]
        for column in range(3):  # Archimedes: each coordinate is uniform on [-1, 1]
            assert stats.kstest(axes[:, column], stats.uniform(-1, 2).cdf).pvalue > 1e-3
        turn = np.arctan2(axes[:, 1], axes[:, 0])
        assert stats.kstest(turn, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3

    def test_circle(self):
        vectors = self.vectors("xz", np.pi)
        assert np.abs(vectors[:, 1]).max() < 1e-3
        turn = np.arctan2(vectors[:, 2], vectors[:, 0])
        assert stats.kstest(turn, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3

    def test_vertical(self):
        """Axis +y or -y and an angle up to 2 pi: the turn about +y is uniform over the circle."""
        vectors = self.vectors("y", 2 * np.pi)
        assert np.abs(vectors[:, [0, 2]]).max() < 1e-3
        turn = vectors[:, 1]
        assert stats.kstest(turn, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3

    def test_turn(self):
        """Azimuth uniform on the circle, new elevation normal, the two independent."""
        level = torch.zeros(self.count, dtype=torch.float64)
        spread = torch.tensor([-0.2, 0.25], dtype=torch.float64)
        draw = TurnDraw(torch.tensor([11, 0, 0]), level, spread, 1)
        R = ops.draw_rotations(draw, self.count, level).numpy()
        # Row 1 of Rx(0) Ry(a) Rx(-f) is (0, cos f, sin f), column 0 (cos a, 0, -sin a).
        azimuth, elevation = np.arctan2(-R[:, 2, 0], R[:, 0, 0]), np.arctan2(R[:, 1, 2], R[:, 1, 1])
        assert stats.kstest(azimuth, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3
        assert stats.kstest(elevation, stats.norm(-0.2, 0.25).cdf).pvalue > 1e-3
        both = np.stack([azimuth, np.abs(azimuth), elevation, np.abs(elevation + 0.2)])
        correlation = np.corrcoef(both)[:2, 2:]
        assert np.abs(correlation).max() < 5 / np.sqrt(self.count)


def test_a_camera_that_looks_down():
    """Of positive elevation: R turns what it sees about the vertical, for a camera of another."""

    def seen(person, elevation):
        """World axes x, y down, z -> those of a camera 5 from the origin that looks down to it."""
        forward = np.array([0.0, np.sin(elevation), np.cos(elevation)])
        right = np.array([1.0, 0.0, 0.0])
        axes = np.stack([right, np.cross(forward, right), forward], axis=1)
        return (person + 5 * forward) @ axes - [0, 0, 5]

    height = np.linspace(0, 1.7, 5)
    person = np.stack([0.3 * height**2, -height, 0.1 * height], axis=1)  # upright: up is -y
    camera = seen(person, 0.4)
    assert camera[-1, 2] < camera[0, 2]  # the head is nearer than the feet

    def turned(mean):
        elevation = torch.tensor([0.4], dtype=torch.float64)
        spread = torch.tensor([mean, 0.0], dtype=torch.float64)
        draw = TurnDraw(torch.tensor([3, 1, 0]), elevation, spread, 1)
        return camera @ ops.draw_rotations(draw, 1, spread).numpy()[0]

    level = turned(0.0)
    np.testing.assert_allclose(level[:, 1], person[:, 1], atol=1e-12)
    radius = np.hypot(person[:, 0], person[:, 2])
    np.testing.assert_allclose(np.hypot(level[:, 0], level[:, 2]), radius, atol=1e-12)
    assert np.abs(level - person).max() > 0.1  # it did turn
    np.testing.assert_allclose(turned(0.25), seen(level, 0.25), atol=1e-12)


def test_one_pose_by_hand():
    """rotate_project against the formula written out for one pose, in numpy."""
    joints = poses(1).numpy()[0]
    w = np.array([0.3, -1.1, 0.4])
    a = np.linalg.norm(w)
    f = 1 / (a + 1e-4)
    hat = np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])
    rotation = np.eye(3) + f * np.sin(a) * hat + f**2 * (1 - np.cos(a)) * hat @ hat
    rotated = joints @ rotation
    expected = rotated[:, :2] / np.maximum(5 + rotated[:, 2:], 1)
    ours, _ = ops.rotate_project(torch.from_numpy(joints)[None], torch.from_numpy(rotation)[None])
    assert relative_error(ours[0], torch.from_numpy(expected)) < 1e-12


def test_gradient_by_the_exact_exponential():
    """rotate_project's gradient with rotations by PyTorch3D's formula for so3_exp_map.

    R = I + sin(a) / a [w]x + (1 - cos a) / a^2 [w]x^2, which the paper's meets to 1e-4.
    """
    joints = poses(6).requires_grad_()
    w = poses(6, 1, seed=2)[:, 0]
    angle = w.norm(dim=-1)[:, None, None]
    hat = torch.zeros(6, 3, 3, dtype=torch.float64)
    hat[:, 0, 1], hat[:, 0, 2], hat[:, 1, 2] = -w[:, 2], w[:, 1], -w[:, 0]
    hat = hat - hat.mT
    turn = angle.sin() / angle * hat + (1 - angle.cos()) / angle**2 * hat @ hat
    exact = torch.eye(3, dtype=torch.float64) + turn
    assert (ops.so3_exp(w, "reference") - exact).abs().max() < 3e-4
    rotated = joints @ exact
    expected = rotated[..., :2] / (rotated[..., 2:] + 5).clamp(min=1)
    grad = poses(6, seed=3)[..., :2]
    (wanted,) = torch.autograd.grad(expected, joints, grad)
    for backend in ("reference", "cpp"):
        require(backend, "rotate_project", torch.float64)
        ours, _ = ops.rotate_project(joints, exact, backend=backend)
        torch.testing.assert_close(ours, expected)
        torch.testing.assert_close(torch.autograd.grad(ours, joints, grad)[0], wanted)
