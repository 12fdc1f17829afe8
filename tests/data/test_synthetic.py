"""Synthetic motion: its store is exact and repeatable, its people move like people."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from ites.data.store import PoseStore
from ites.data.synthetic.actions import ACTIONS
from ites.data.synthetic.motion import draw_body
from ites.data.synthetic.synthetic import (
    Performance,
    perform,
    prepare_synthetic,
    ring_cameras,
    schedule,
)
from ites.errors import ItesError
from ites.pose.skeleton import HUMAN36M

FPS, SECONDS = 25.0, 12.0
LEG, ARM = {"left": (4, 5, 6), "right": (1, 2, 3)}, {"left": (11, 12, 13), "right": (14, 15, 16)}


@pytest.fixture(scope="module")
def clips() -> dict[str, list[np.ndarray]]:
    """Eight people doing everything once: joints (T, 17, 3), metres, world axes."""
    return {
        action: [perform(Performance(person, action, 0), 7, FPS, SECONDS) for person in range(8)]
        for action in ACTIONS
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PoseStore:
    path = tmp_path_factory.mktemp("synthetic") / "store.h5"
    prepare_synthetic(path, poses=10_001, subjects=4, test_subjects=2, fps=10)
    return PoseStore(path)


def facing(joints: np.ndarray) -> np.ndarray:
    """Pelvis-relative joints in the body's axes: x forward, y left, z up."""
    left = (joints[:, 4] - joints[:, 1]) * [1, 1, 0]
    left /= np.linalg.norm(left, axis=-1, keepdims=True)
    forward = np.stack([left[:, 1], -left[:, 0], 0 * left[:, 0]], -1)
    axes = np.stack([forward, left, np.broadcast_to([0.0, 0, 1], left.shape)], -1)
    return (joints - joints[:, :1]) @ axes


def bones(joints: np.ndarray) -> np.ndarray:
    parents, children = zip(*HUMAN36M.bones, strict=True)
    return np.linalg.norm(joints[:, children] - joints[:, parents], axis=-1)


def flexion(joints: np.ndarray, chain: tuple[int, int, int]) -> np.ndarray:
    """Angle between the two segments of a limb, degrees; 0 is straight."""
    first = joints[:, chain[1]] - joints[:, chain[0]]
    second = joints[:, chain[2]] - joints[:, chain[1]]
    cosine = (first * second).sum(-1)
    cosine /= np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def bulge(joints: np.ndarray, chain: tuple[int, int, int]) -> np.ndarray:
    """How far a limb's middle joint lies ahead of the line between its ends, metres."""
    start, middle, end = (facing(joints)[:, joint] for joint in chain)
    line = end - start
    along = ((middle - start) * line).sum(-1, keepdims=True) / (line**2).sum(-1, keepdims=True)
    return (middle - start - along * line)[:, 0]


def speed(joints: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.diff(joints, axis=0), axis=-1) * FPS


def test_store_has_what_was_asked_for(store: PoseStore) -> None:
    assert len(store) == 10_000  # whole frames of four cameras
    train, test = store.sequences_of("train"), store.sequences_of("test")
    assert sum(s.length for s in test) == 4 * (2500 * 2 // 6)
    assert {s.action for s in train} == {s.action for s in test} == set(ACTIONS)
    assert {s.subject for s in train} == {"P01", "P02", "P03", "P04"}
    assert {s.subject for s in test} == {"P05", "P06"}
    assert {s.camera[:2] for s in train} == {"S1", "S5", "S6", "S7"}
    assert {s.camera.split(".")[0] for s in test} == {"S9", "S11"}
    assert {s.fps for s in store.sequences} == {10.0}
    assert store.confidence() is None


def test_keypoints_are_projections_of_positions(store: PoseStore) -> None:
    keypoints, positions = store.keypoints(), store.positions()
    assert positions is not None
    for sequence in store.sequences[::29]:
        expected = store.cameras[sequence.camera].project(positions[sequence.rows])
        np.testing.assert_array_equal(keypoints[sequence.rows], expected)
    assert np.mean((keypoints > 0) & (keypoints < 1000)) > 0.99
    assert positions[..., 2].min() > 1


def test_the_same_arguments_give_the_same_bits(tmp_path: Path) -> None:
    options = {"poses": 2000, "subjects": 2, "test_subjects": 1, "fps": 5, "noise_px": 3.0}
    digests = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare_synthetic(tmp_path / name, seed=seed, drop=0.1, **options)
        with h5py.File(tmp_path / name) as file:
            digests.append(
                file["poses/keypoints"][:].tobytes() + file["poses/positions"][:].tobytes()
            )
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("action", ACTIONS)
def test_a_take_depends_on_neither_rate_nor_length_of_the_store(action: str) -> None:
    take = Performance(3, action, 1)
    fast, slow = perform(take, 5, 40, 6), perform(take, 5, 8, 6)
    assert fast.shape == (240, 17, 3) and fast.dtype == np.float32
    np.testing.assert_allclose(fast[::5], slow, atol=1e-5)


def test_schedule_gives_everyone_everything_and_fills_exactly() -> None:
    plan = schedule(10, 4, 4 * len(ACTIONS) * 60 + 7, fps=10, seconds=6)
    assert sum(length for _, length in plan) == 4 * len(ACTIONS) * 60 + 7
    assert len({take for take, _ in plan}) == len(plan) == 4 * len(ACTIONS) + 1
    assert {(t.person, t.action) for t, _ in plan} == {
        (person, action) for person in range(10, 14) for action in ACTIONS
    }
    assert plan == sorted(plan, key=lambda entry: entry[0].key)
    assert schedule(0, 4, 0, 10, 6) == []


def test_noise_and_missing_joints(tmp_path: Path) -> None:
    options = {"poses": 20_000, "subjects": 3, "test_subjects": 0, "fps": 10}
    prepare_synthetic(tmp_path / "clean", **options)
    prepare_synthetic(tmp_path / "noisy", noise_px=5.0, drop=0.1, **options)
    with PoseStore(tmp_path / "clean") as clean, PoseStore(tmp_path / "noisy") as noisy:
        assert clean.splits == noisy.splits == ("train",)
        seen, error = noisy.confidence(), noisy.keypoints() - clean.keypoints()
        np.testing.assert_array_equal(noisy.positions(), clean.positions())
    assert set(np.unique(seen)) == {0, 1}
    assert np.mean(seen == 0) == pytest.approx(0.1, abs=0.002)
    np.testing.assert_array_equal(np.isnan(error).all(-1), seen == 0)
    assert np.nanstd(error) == pytest.approx(5, rel=0.01)
    assert abs(np.nanmean(error)) < 0.05


def test_ring_cameras_look_at_the_scene(tmp_path: Path) -> None:
    rig = ring_cameras(3, elevation=30, azimuth=20, radius=4, target=1.0)
    for camera in rig:
        local = camera.world_to_camera(np.array([[0, 0, 1.0], [0, 0, 2.0]]))
        np.testing.assert_allclose(local[0], [0, 0, 4], atol=1e-9)
        np.testing.assert_allclose(camera.project(local[:1])[0], [500, 500], atol=1e-6)
        np.testing.assert_allclose(local[1] - local[0], [0, -np.sqrt(3) / 2, -0.5], atol=1e-9)
        np.testing.assert_allclose(camera.translation[2], 1 + 4 * 0.5)
    azimuths = [np.degrees(np.arctan2(c.translation[1], c.translation[0])) for c in rig]
    np.testing.assert_allclose(azimuths, [20, 140, -100], atol=1e-9)
    prepare_synthetic(tmp_path / "ring", poses=600, fps=5, rig="ring", cameras=3, elevation=30)
    with PoseStore(tmp_path / "ring") as store:
        assert list(store.cameras) == [
            f"ring-{s}.{i}" for s in ("test", "train") for i in (1, 2, 3)
        ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"poses": 3}, "poses must be at least 4"),
        ({"drop": 1.0}, r"drop must be in \[0, 1\)"),
        ({"rig": "dome"}, "rig must be one of human36m, ring, got 'dome'"),
        ({"subjects": 0}, "subjects must be at least 1"),
        ({"fps": 0}, "fps must be in"),
        ({"noise_px": float("nan")}, "noise_px must be 0 or more"),
        ({"cameras": 3}, "cameras is of the rig ring, got rig 'human36m'"),
        ({"elevation": 20.0}, "elevation is of the rig ring, got rig 'human36m'"),
    ],
)
def test_bad_arguments_leave_no_file(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(ItesError, match=message):
        prepare_synthetic(tmp_path / "store.h5", **options)
    assert not list(tmp_path.iterdir())


def test_bodies_vary_together() -> None:
    bodies = [draw_body(np.random.default_rng(seed)) for seed in range(500)]
    table = {name: np.array([getattr(b, name) for b in bodies]) for name in vars(bodies[0])}
    leg = table["thigh"] + table["shin"]
    assert 0.80 < leg.mean() < 0.90 and 0.05 < leg.std() / leg.mean() < 0.09
    assert leg.min() > 0.62 and leg.max() < 1.08
    assert np.corrcoef(table["thigh"], table["shin"])[0, 1] > 0.9
    assert np.corrcoef(leg, table["upper_arm"] + table["forearm"])[0, 1] > 0.8
    assert np.corrcoef(leg, table["lumbar"])[0, 1] > 0.2


@pytest.mark.parametrize("action", ACTIONS)
def test_limbs_keep_their_lengths_and_limits(
    clips: dict[str, list[np.ndarray]], action: str
) -> None:
    for joints in clips[action]:
        assert np.isfinite(joints).all()
        lengths = bones(joints)
        assert np.ptp(lengths, axis=0).max() < 2e-3
        names = [child for _, child in HUMAN36M.bones]
        mirrored = [names.index(HUMAN36M.mirror[child]) for child in names]
        np.testing.assert_allclose(lengths.mean(0), lengths.mean(0)[mirrored], atol=1e-3)
        for side in ("left", "right"):
            assert flexion(joints, ARM[side]).min() > 3.5
            assert flexion(joints, ARM[side]).max() < 151
            assert flexion(joints, LEG[side]).max() < 156
        assert joints[..., 2].min() > -0.05
        assert speed(joints).max() < 10


@pytest.mark.parametrize("action", ["Walking", "Running", "Squatting", "Picking", "Sitting"])
def test_knees_bend_forward_of_the_leg(clips: dict[str, list[np.ndarray]], action: str) -> None:
    forward = np.concatenate([bulge(c, LEG[side]) for c in clips[action] for side in LEG])
    assert np.percentile(forward, 1) > -0.02
    assert np.percentile(forward, 95) > 0.1


@pytest.mark.parametrize("action", ["Walking", "Running"])
def test_elbows_bend_forward(clips: dict[str, list[np.ndarray]], action: str) -> None:
    ahead = np.concatenate([bulge(c, ARM[side]) for c in clips[action] for side in ARM])
    assert np.percentile(ahead, 95) < 0.02  # behind the line from shoulder to wrist


def test_walkers_keep_a_foot_on_the_ground(clips: dict[str, list[np.ndarray]]) -> None:
    for joints in clips["Walking"] + clips["Carrying"]:
        ankles = joints[:, [3, 6]]
        lowest = ankles[..., 2].min(1)
        assert lowest.min() > 0.05 and lowest.max() < 0.12
        still = speed(joints)[:, [3, 6]].min(1)
        assert np.median(still) < 0.01  # the standing foot does not slide
        pace = speed(joints * [1, 1, 0])[:, 0].mean()
        assert 0.4 < pace < 1.8


def test_runners_fly_and_swing_arms_against_legs(clips: dict[str, list[np.ndarray]]) -> None:
    for joints in clips["Running"]:
        clearance = joints[:, [3, 6], 2].min(1) - joints[:, [3, 6], 2].min()
        assert 0.1 < np.mean(clearance > 0.02) < 0.8
        assert 1.4 < speed(joints * [1, 1, 0])[:, 0].mean() < 3
        body = facing(joints)
        assert np.corrcoef(body[:, 13, 0], body[:, 6, 0])[0, 1] < -0.3
        assert np.corrcoef(body[:, 6, 0], body[:, 3, 0])[0, 1] < -0.3


def test_sitters_sit_and_standers_stand(clips: dict[str, list[np.ndarray]]) -> None:
    for joints in clips["Sitting"]:
        assert 0.45 < np.median(joints[:, 0, 2]) < 0.65
    for joints in clips["Waiting"]:
        leg = bones(joints)[0, [1, 2]].sum()
        assert np.all(np.abs(joints[:, 0, 2] - 1.07 * leg) < 0.12)
        assert np.all(joints[:, 10, 2] > joints[:, 0, 2] + 0.5)


def test_left_and_right_are_alike_on_average(clips: dict[str, list[np.ndarray]]) -> None:
    mean = facing(np.concatenate([c for some in clips.values() for c in some])).mean(0)
    assert np.abs(mean[list(HUMAN36M.mirror)] * [1, -1, 1] - mean).max() < 0.04


def test_statistics_are_in_the_region_of_real_capture(
    clips: dict[str, list[np.ndarray]], shared: Path
) -> None:
    with h5py.File(shared / "data" / "cmu_h36m17.h5") as file:
        real = [clip["positions"][::4] for subject in file.values() for clip in subject.values()]
    ours = [c[::4] for some in clips.values() for c in some]
    figures = []
    for sample in (real, ours):
        joints = np.concatenate(sample).astype(float)
        body = facing(joints)[:, 1:].reshape(len(joints), -1)
        spread = np.linalg.svd(body - body.mean(0), compute_uv=False) ** 2 / len(body) / 16
        knees = np.percentile(flexion(joints, LEG["left"]), [25, 50, 75, 95])
        elbows = np.percentile(flexion(joints, ARM["left"]), [25, 50, 75, 95])
        figures.append((np.sqrt(spread.sum()), np.sqrt(spread[12:].sum()), knees, elbows))
    (total, rest, knees, elbows), (our_total, our_rest, our_knees, our_elbows) = figures
    assert our_total == pytest.approx(total, rel=0.2)  # about 0.20 m a joint
    assert our_rest == pytest.approx(rest, rel=0.3)  # what twelve components leave over
    np.testing.assert_allclose(our_knees, knees, atol=30)
    np.testing.assert_allclose(our_elbows, elbows, atol=30)
