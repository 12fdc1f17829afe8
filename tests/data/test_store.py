"""The pose store: what is written is read, and what is wrong is refused in one clear line."""

import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from ites.data.store import PoseStore, PoseStoreWriter
from ites.errors import ItesError
from ites.pose.camera import Camera, human36m_cameras
from ites.pose.skeleton import HUMAN36M

PLAIN = Camera("plain", focal_length=(1000.0, 500.0), center=(500.0, 500.0))


def clip(length, seed=0, last=2):
    values = np.random.default_rng(seed).uniform(0, 1000, (length, 17, last)).astype("f4")
    return values if last == 2 else values / 500


def write(path, clips, **options):
    """Write clips given as (keypoints, split) or dicts of `add`'s arguments."""
    with PoseStoreWriter(path, HUMAN36M, **options) as writer:
        writer.add_camera("plain", PLAIN)
        writer.add_camera("wide", replace(PLAIN, id="wide", focal_length=(250.0, 250.0)))
        for number, item in enumerate(clips):
            given = item if isinstance(item, dict) else {"keypoints": item[0], "split": item[1]}
            usual = {"camera": "plain", "subject": "S1", "action": f"a{number}", "fps": 50}
            writer.add(**{**usual, **given})
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "poses.h5"


def test_round_trip(path):
    camera = human36m_cameras("S9")[2]
    with PoseStoreWriter(path, HUMAN36M, title="two clips", acknowledgement="thanks") as writer:
        writer.add_camera("S9.58860488", camera)
        for number, split in enumerate(("train", "test")):
            writer.add(
                clip(5 + number, number),
                camera="S9.58860488",
                subject="S9",
                action=f"Walking {number}",
                split=split,
                fps=12.5,
                positions=clip(5 + number, 9 + number, last=3),
                confidence=np.full((5 + number, 17), 0.5),
            )
    with PoseStore(path) as store:
        assert (len(store), store.splits, store.has_positions) == (11, ("train", "test"), True)
        assert (store.title, store.acknowledgement) == ("two clips", "thanks")
        assert store.skeleton == HUMAN36M
        assert store.cameras == {"S9.58860488": camera}
        last = store.sequences[1]
        assert (last.subject, last.action, last.split) == ("S9", "Walking 1", "test")
        assert (last.start, last.length, last.fps) == (5, 6, 12.5)
        np.testing.assert_array_equal(store.keypoints()[last.rows], clip(6, 1))
        np.testing.assert_array_equal(store.keypoints("test"), clip(6, 1))
        np.testing.assert_array_equal(store.positions("test"), clip(6, 10, last=3))
        np.testing.assert_array_equal(store.confidence("train"), np.full((5, 17), 0.5))
        assert store.sequences_of("test")[0].start == 0


def test_splits_that_alternate_stay_aligned(path):
    splits = ["train", "test", "test", "train", "train", "test"]
    write(path, [(clip(n + 2, n), split) for n, split in enumerate(splits)])
    with PoseStore(path) as store:
        for split in ("train", "test"):
            keypoints = store.keypoints(split)
            sequences = store.sequences_of(split)
            assert sum(s.length for s in sequences) == len(keypoints)
            for sequence in sequences:
                seed = int(sequence.action[1:])
                np.testing.assert_array_equal(keypoints[sequence.rows], clip(seed + 2, seed))


def test_points_divide_by_each_cameras_focal_length(path):
    keypoints = np.zeros((1, 17, 2), "f4") + 300
    keypoints[0, HUMAN36M.head] = (500, 200)
    clips = [{"keypoints": keypoints, "camera": name} for name in ("plain", "wide")]
    write(path, clips)
    with PoseStore(path) as store:
        points, scale = store.points("train", scale=2.0)
        assert scale == 2.0 and points.dtype == np.float32
        np.testing.assert_allclose(points[:, 10], [[0.4, -0.4], [1.6, -0.8]], rtol=1e-6)
        np.testing.assert_array_equal(points[:, 0], 0)
        points, scale = store.points("train")
        lengths = np.array([np.hypot(0.2, 0.2), np.hypot(0.8, 0.4)])
        assert scale == pytest.approx(0.2 / lengths.mean(), rel=1e-6)
        assert np.linalg.norm(points[:, 10], axis=-1).mean() == pytest.approx(0.2, rel=1e-6)


def test_points_match_the_golden_normalisation(path, shared):
    with np.load(shared / "golden" / "golden_small_seed1_b8.npz", allow_pickle=False) as golden:
        pixels, focal, expected = (golden[f"normalize.{k}"] for k in ("pixels", "focal", "out"))
    with PoseStoreWriter(path, HUMAN36M) as writer:
        writer.add_camera("golden", replace(PLAIN, focal_length=tuple(focal.tolist())))
        writer.add(pixels, camera="golden", subject="S9", action="a", fps=50)
    with PoseStore(path) as store:
        points, _ = store.points("train")
    np.testing.assert_allclose(points, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_the_documented_example_writes_a_store(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    (example,) = re.findall(r"```python\n(import h5py\n.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(example, {"keypoints": clip(5)})
    with PoseStore("own.h5") as store:
        np.testing.assert_array_equal(store.keypoints("train"), clip(5))
        assert store.cameras["phone"].focal_length == (1500.0, 1500.0)


def test_2d_alone_is_a_store(path):
    write(path, [(clip(3), "train")])
    with PoseStore(path) as store:
        assert not store.has_positions
        assert store.positions() is None and store.confidence() is None
        assert store.complete().all()


def missing_joint(path):
    keypoints = clip(5)
    keypoints[:, 3] = np.arange(5)[:, None] * [10.0, 20.0]
    confidence = np.ones((5, 17))
    confidence[[0, 2, 4], 3] = 0
    keypoints[[0, 2, 4], 3] = np.nan
    full = clip(4, 7)
    return write(path, [{"keypoints": keypoints, "confidence": confidence}, (full, "train")])


def test_missing_joints_are_an_error_unless_chosen_otherwise(path):
    with (
        PoseStore(missing_joint(path)) as store,
        pytest.raises(ItesError, match="3 of 9 poses lack a joint.*'drop' or 'interpolate'"),
    ):
        store.points("train")


def test_dropped_poses_are_those_not_complete(path):
    with PoseStore(missing_joint(path)) as store:
        keep = store.complete("train")
        assert keep.tolist() == [False, True, False, True, False, True, True, True, True]
        points, scale = store.points("train", missing="drop")
        kept = store.keypoints("train")[keep]
        expected = (kept - kept[:, :1]) / np.float32([1000, 500]) * scale
        np.testing.assert_allclose(points, expected, rtol=1e-5, atol=1e-7)


def test_interpolation_is_linear_along_the_sequence(path):
    with PoseStore(missing_joint(path)) as store:
        points, _ = store.points("train", scale=1.0, missing="interpolate")
        root = store.keypoints("train")[:5, 0]
        pixels = points[:5, 3] * np.float32([1000, 500]) + root
        expected = [[10, 20], [10, 20], [20, 40], [30, 60], [30, 60]]
        np.testing.assert_allclose(pixels, expected, atol=1e-3)


def test_a_joint_never_seen_cannot_be_interpolated(path):
    confidence = np.ones((3, 17))
    confidence[:, 16] = 0
    write(path, [{"keypoints": clip(3), "confidence": confidence}])
    with PoseStore(path) as store:
        with pytest.raises(ItesError, match="right_wrist is never seen"):
            store.points("train", missing="interpolate")
        with pytest.raises(ItesError, match="no pose of split 'train' has all its joints"):
            store.points("train", missing="drop")
        with pytest.raises(ItesError, match="missing must be one of"):
            store.points("train", missing="guess")


def test_confidence_given_for_some_sequences_is_one_for_the_others(path):
    missing_joint(path)
    with PoseStore(path) as store:
        np.testing.assert_array_equal(store.confidence()[5:], 1)


def test_an_error_leaves_no_file_and_keeps_the_old_one(path):
    write(path, [(clip(3), "train")])
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="power"), PoseStoreWriter(path, HUMAN36M) as writer:
        writer.add_camera("plain", PLAIN)
        writer.add(clip(2), camera="plain", subject="S1", action="a", fps=50)
        raise RuntimeError("power cut")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_nothing_added_is_an_error(path):
    with pytest.raises(ItesError, match="no sequence was added"), PoseStoreWriter(path, HUMAN36M):
        pass
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"keypoints": np.zeros((4, 16, 2))}, r"keypoints must have shape (4, 17, 2), got (4, 16"),
        ({"keypoints": np.zeros(4)}, "keypoints must have shape"),
        ({"confidence": np.zeros((3, 17))}, "confidence must have shape (4, 17), got (3, 17)"),
        ({"positions": np.zeros((4, 17, 2))}, "positions must have shape (4, 17, 3)"),
        ({"keypoints": np.full((4, 17, 2), np.nan)}, "keypoints must be finite"),
        ({"positions": np.full((4, 17, 3), np.inf)}, "positions must be finite"),
        ({"confidence": np.full((4, 17), np.nan)}, "confidence must be finite"),
        ({"camera": "left"}, "unknown camera; there is plain, wide"),
        ({"fps": 0}, "fps > 0"),
        ({"keypoints": np.zeros((0, 17, 2))}, "got 0 poses"),
    ],
)
def test_writer_refuses(path, given, message):
    with pytest.raises(ItesError, match=re.escape(message)):
        write(path, [{"keypoints": clip(4), **given}])
    assert not path.exists()


def test_writer_refuses_positions_for_some_sequences_only(path):
    for first in (True, False):
        clips = [{"keypoints": clip(2)}, {"keypoints": clip(2)}]
        clips[0 if first else 1]["positions"] = clip(2, last=3)
        with pytest.raises(ItesError, match="for all sequences or for none"):
            write(path, clips)


@pytest.mark.parametrize("key", ["", "a/b", "plain"])
def test_writer_refuses_camera_keys(path, key):
    refused = pytest.raises(ItesError, match="the key must be new")
    with refused, PoseStoreWriter(path, HUMAN36M) as writer:
        writer.add_camera("plain", PLAIN)
        writer.add_camera(key, PLAIN)


def test_unknown_split_names_those_present(path):
    write(path, [(clip(3), "train"), (clip(3), "test")])
    with PoseStore(path) as store, pytest.raises(ItesError, match="no split 'val'; .*train, test"):
        store.keypoints("val")


def test_not_a_store(path):
    with pytest.raises(ItesError, match="no such file"):
        PoseStore(path)
    path.write_bytes(b"not HDF5 at all")
    with pytest.raises(ItesError, match="not an HDF5 file"):
        PoseStore(path)


def change(file, what):
    if what == "format":
        del file.attrs["format"]
    elif what == "version":
        file.attrs["version"] = 2
    elif what == "skeleton":
        file["skeleton"].attrs["json"] = "{}"
    elif what == "camera":
        del file["cameras/plain"].attrs["focal_length"]
    elif what in file:
        del file[what]
    elif what == "unequal columns":
        del file["sequences/fps"]
        file["sequences/fps"] = [50.0, 50.0]
    elif what == "shape":
        file["poses/positions"] = np.zeros((3, 16, 3))
    elif what == "start":
        file["sequences/start"][0] = 1
    elif what == "length":
        file["sequences/length"][0] = 2
    elif what == "numbers for names":
        del file["sequences/subject"]
        file["sequences/subject"] = [1]
    elif what == "one focal length":
        file["cameras/plain"].attrs["focal_length"] = 1000.0
    elif what == "overlap":
        file["sequences/start"][1] = 2
    elif what == "length 0":
        file["sequences/length"][0] = 0
    elif what == "huge length":
        file["sequences/length"][0] = 2**62
    elif what == "fps inf":
        file["sequences/fps"][0] = np.inf
    elif what == "first frame below 0":
        file["sequences/first"] = [-1]
    elif what == "fps below 0":
        file["sequences/fps"][0] = -25
    elif what == "focal length nan":
        file["cameras/plain"].attrs["focal_length"] = (1000.0, np.nan)
    elif what == "focal length 0":
        file["cameras/plain"].attrs["focal_length"] = (0.0, 1000.0)
    elif what == "centre inf":
        file["cameras/plain"].attrs["center"] = (np.inf, 500.0)
    elif what == "text for pixels":
        del file["poses/keypoints"]
        file["poses/keypoints"] = np.zeros((6, 17, 2), "S3")
    elif what == "group for pixels":
        del file["poses/keypoints"]
        file.create_group("poses/keypoints")
    elif what == "declared alone":
        del file["poses/keypoints"]
        file.create_dataset("poses/keypoints", (10**12, 17, 2), chunks=(10, 17, 2))
    elif what == "fractions for rows":
        del file["sequences/start"]
        file["sequences/start"] = [0.0, 3.0]
    elif what == "skeleton without end":
        file["skeleton"].attrs["json"] = "[" * 60_000
    elif what == "unknown camera":
        del file["cameras/plain"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("format", "expected an HDF5 file with the attribute format = 'ites-pose-store', got None"),
        ("version", "expected pose store version 1, got "),
        ("skeleton", "expected the JSON of a skeleton"),
        ("camera", "/cameras/plain: .*focal_length"),
        ("cameras", "needs /cameras"),
        ("poses/keypoints", "needs /poses/keypoints"),
        ("sequences/fps", "needs /sequences/fps"),
        ("unequal columns", "columns of unequal length"),
        ("shape", r"/poses/positions: expected \(3, 17, 3\), got \(3, 16, 3\)"),
        ("start", "expected start 0"),
        ("length", "the sequences hold 2 poses, the arrays 3"),
        ("unknown camera", "no camera 'plain'"),
        ("numbers for names", "/sequences: "),
        ("overlap", "expected start 3, where the one before ends, got start 2"),
        ("length 0", "got start 0, length 0"),
        ("huge length", "expected start 4611686018427387904"),
        ("fps inf", "expected fps above 0 or nan, got inf"),
        ("first frame below 0", "expected a first frame from 0 to .*, got -1"),
        ("fps below 0", "expected fps above 0 or nan, got -25"),
        ("focal length nan", "/cameras/plain: expected finite numbers"),
        ("focal length 0", "/cameras/plain: .*focal_length"),
        ("centre inf", "/cameras/plain: .*center"),
        ("text for pixels", "/poses: keypoints: expected numbers, got"),
        ("group for pixels", "expected a dataset keypoints, got a group"),
        ("declared alone", "keypoints: expected at most .* declared"),
        ("fractions for rows", "/sequences: start: expected numbers, got float64"),
        ("skeleton without end", "expected the JSON of a skeleton, got 60,000 characters"),
        ("one focal length", r"focal_length must have shape \(2,\), got \(\)"),
    ],
)
def test_reader_refuses(path, what, message):
    several = what in (
        "overlap",
        "length 0",
        "huge length",
        "text for pixels",
        "fractions for rows",
    )
    write(path, [(clip(3), "train")] * (2 if several else 1))
    with h5py.File(path, "a") as file:
        change(file, what)
    with pytest.raises(ItesError, match=message) as caught:
        PoseStore(path)
    assert str(path) in str(caught.value)
    path.unlink()


def test_reader_refuses_values_that_are_not_finite(path):
    write(path, [(clip(3), "train"), {"keypoints": clip(3), "action": "Sitting"}])
    with h5py.File(path, "a") as file:
        file["poses/keypoints"][4, 2, 1] = np.nan
    message = (
        "keypoints: not finite or huge in 1 poses, first in S1/Sitting/plain, pose 1, .*right_knee"
    )
    with PoseStore(path) as store, pytest.raises(ItesError, match=message):
        store.keypoints("train")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("keypoints", 1e30, "keypoints: not finite or huge in 1 poses"),
        ("confidence", -0.5, "confidence: not finite or below 0 in 1 poses"),
        ("confidence", np.nan, "confidence: not finite or below 0 in 1 poses"),
        ("positions", 1e9, "positions: not finite or huge in 1 poses"),
    ],
)
def test_reader_refuses_values_that_make_no_sense(path, name, value, message):
    given = {"positions": clip(3, last=3), "confidence": np.ones((3, 17))}
    write(path, [{"keypoints": clip(3), **given}])
    with h5py.File(path, "a") as file:
        file[f"poses/{name}"][1, 2] = value
    with PoseStore(path) as store, pytest.raises(ItesError, match=message):
        getattr(store, name)("train")


def test_positions_in_millimetres_are_refused(path):
    write(path, [{"keypoints": clip(3), "positions": clip(3, last=3)}])
    with h5py.File(path, "a") as file:
        file["poses/positions"][:] *= 1000
    message = r"positions: expected metres, got poses of 1\d{3} m from end to end"
    with PoseStore(path) as store, pytest.raises(ItesError, match=message):
        store.positions("train")


def test_a_damaged_heap_of_texts_is_refused(path):
    """HDF5 2.0 looks for a text in it without end."""
    write(path, [(clip(3), "train")])
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL\x01\0\0\0")
    data[heap + 16 : heap + 48] = bytes(32)
    path.write_bytes(data)
    with pytest.raises(ItesError, match="got a damaged heap of texts"):
        PoseStore(path)


@pytest.mark.parametrize("place", [1e6, -2e4, 9e3])
@pytest.mark.parametrize("scored", [False, True])
def test_a_misplaced_keypoint_does_not_change_the_other_poses(path, place, scored):
    confidence = {"confidence": np.full((12, 17), 0.5)} if scored else {}
    sound, others = clip(12), np.arange(12) != 4
    misplaced = sound.copy()
    misplaced[4, 10] = place, 500
    with PoseStore(write(path, [{"keypoints": sound, "split": "train", **confidence}])) as store:
        expected, _ = store.points("train", scale=1.0)
        assert not store.impossible().any()
    with PoseStore(
        write(path, [{"keypoints": misplaced, "split": "train", **confidence}])
    ) as store:
        np.testing.assert_array_equal(np.argwhere(store.impossible("train")), [[4, 10]])
        np.testing.assert_array_equal(store.complete(), others)
        with pytest.raises(ItesError, match="1 of 12 poses lack a joint .*; 1 impossible keypoint"):
            store.points("train")
        dropped, factor = store.points("train", missing="drop")
        filled, _ = store.points("train", missing="interpolate")
    np.testing.assert_allclose(dropped, factor * expected[others], rtol=1e-5)
    heads = np.linalg.norm(dropped[:, HUMAN36M.head], axis=-1)
    np.testing.assert_allclose(heads.mean(), 0.2, rtol=1e-5)
    np.testing.assert_allclose(
        filled[others] / filled[0, 1, 0], expected[others] / expected[0, 1, 0], 1e-4
    )
    assert np.abs(filled[4]).max() < 2 * np.abs(filled[others]).max()


def test_keypoints_beside_3d_may_leave_the_image(path):
    camera = replace(PLAIN, id="small", width=400, height=400)
    poses, positions = clip(6), clip(6, last=3)
    with PoseStoreWriter(path, HUMAN36M) as writer:
        writer.add_camera("small", camera)
        writer.add(
            poses, camera="small", subject="S1", action="a", split="train", fps=50,
            positions=positions,
        )  # fmt: skip
    with PoseStore(path) as store:
        assert not store.impossible().any()
