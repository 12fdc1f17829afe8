"""The lifted file's reader: arrays that fit together and values that a pose can have."""

import json
import re

import h5py
import numpy as np
import pytest

from ites.data.clips import Clip, Clips
from ites.data.lifted import read_clips, read_settings, write_clips
from ites.errors import ItesError
from ites.pose.skeleton import HUMAN36M

LENGTHS = (6, 4, 9)


def some_clips():
    """Three clips of different lengths; the second lacks the truth and the judgement."""
    clips, rng = [], np.random.default_rng(0)
    for number, length in enumerate(LENGTHS):
        pixels = rng.uniform(0, 1000, (length, 17, 2)).astype("f4")
        positions = rng.uniform(-1, 1, (length, 17, 3)).astype("f4")
        known = {} if number == 1 else {"truth": positions * 2}
        for name, value in (("elevation", 0.1), ("log_density", -9), ("sign_confidence", 0.9)):
            if number != 1:
                known[name] = (value * rng.uniform(0.5, 1, length)).astype("f4")
        size = np.full(length, 0.5, "f4")
        clips.append(
            Clip(f"clip {number}", pixels, 25.0, None, positions, metres_per_unit=size, **known)
        )
    return Clips(HUMAN36M, clips, "title", "thanks", {"model": "student"})


@pytest.fixture(params=[".npz", ".h5"])
def path(request, tmp_path):
    path = tmp_path / f"lifted{request.param}"
    write_clips(path, some_clips())
    return path


def change(path, name, edit):
    """Replace an array or a text by what `edit` makes of it; None drops it."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            arrays = dict(file)
        value = edit(arrays.pop(name))
        np.savez(path, **arrays, **({} if value is None else {name: value}))
        return
    with h5py.File(path, "a") as file:
        if name in file.attrs:
            file.attrs[name] = edit(file.attrs[name])
            return
        text = h5py.check_string_dtype(file[name].dtype)
        value = edit(file[name].asstr()[:].astype("U") if text else file[name][()])
        del file[name]
        if value is not None:
            file[name] = value.astype("S") if value.dtype.kind == "U" else value


def test_each_clip_comes_back_as_it_was(path):
    read, written = read_clips(path), some_clips()
    assert (read.title, read.acknowledgement, read.settings) == (
        "title",
        "thanks",
        {"model": "student"},
    )
    for got, clip in zip(read.clips, written.clips, strict=True):
        assert got.name == clip.name and len(got) == len(clip)
        for name in ("positions", "truth", "metres_per_unit", "elevation", "sign_confidence"):
            np.testing.assert_array_equal(getattr(got, name), getattr(clip, name))


def set_row(row, value):
    def edit(array):
        array = np.array(array)
        array[row] = value
        return array

    return edit


PER_FRAME = "keypoints positions truth metres_per_unit elevation log_density sign_confidence"


@pytest.mark.parametrize("name", PER_FRAME.split())
@pytest.mark.parametrize("rows", [np.s_[:-1], np.s_[:0], np.s_[[*range(19), 0]]])
def test_an_array_of_another_length_is_refused(path, name, rows):
    change(path, name, lambda array: array[rows])
    with pytest.raises(ItesError, match=f"{name}: expected numbers of shape \\(19") as caught:
        read_clips(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("positions", lambda a: a[:, :16], "positions: expected numbers of shape (19, 17, 3)"),
        ("positions", lambda a: a.astype("S8"), "positions: expected numbers"),
        ("positions", lambda a: np.float64(1), "positions: expected numbers of shape (19"),
        ("positions", set_row((7, 3, 0), np.nan), "clip 1: positions: expected finite numbers"),
        ("positions", set_row((7, 3, 1), np.inf), "got inf in frame 1, right_ankle"),
        ("positions", set_row((7, 3, 1), 1e30), "positions: expected finite numbers"),
        ("keypoints", set_row((0, 0, 0), 1e30), "clip 0: keypoints: expected finite numbers"),
        ("sign_confidence", set_row(12, 1.5), "clip 2: sign_confidence"),
        ("sign_confidence", set_row(12, -0.1), "clip 2: sign_confidence"),
        ("metres_per_unit", set_row(12, -1), "clip 2: metres_per_unit"),
        ("elevation", set_row(12, 90.0), "clip 2: elevation"),
        ("log_density", set_row(12, -np.inf), "clip 2: log_density"),
        ("sequence_length", set_row(1, 5), "clip 2: expected start 11"),
        ("sequence_length", set_row(1, 0), "at least 1 frame, got start 6, length 0"),
        ("sequence_length", set_row(2, 10), "keypoints: expected numbers of shape (20, 17, 2)"),
        ("sequence_length", set_row(2, 2**62), "keypoints: expected numbers of shape (46"),
        ("sequence_length", lambda a: a.astype("f8"), "sequence_length: expected whole numbers"),
        ("sequence_start", set_row(1, 5), "clip 1: expected start 6"),
        ("sequence_start", lambda a: a[:2], "sequence_start: expected whole numbers of shape (3,)"),
        ("sequence_fps", set_row(1, -25), "sequence_fps: expected numbers above 0, or nan"),
        ("sequence_fps", set_row(1, np.inf), "sequence_fps: expected numbers above 0, or nan"),
        ("focal_length", set_row((1, 0), 0), "focal_length: expected numbers above 0, or nan"),
        ("focal_length", set_row((1, 0), 500), "focal_length: expected both or none"),
        ("image_size", set_row((1, 0), -3), "image_size: expected whole pixels"),
        ("image_size", lambda a: a[:, :1], "image_size: expected whole numbers of shape (3, 2)"),
        ("keypoints", lambda a: None, "a lifted file needs 'keypoints', which is not there"),
        ("image_size", lambda a: None, "a lifted file needs 'image_size', which is not there"),
        ("version", lambda a: np.array("3"), "expected version 1 or 2, got 3"),
        ("frame", lambda a: np.array("left-handed"), "expected a frame in camera or gravity axes"),
        ("unit", lambda a: np.array("inch"), "expected positions in metres, got unit 'inch'"),
        ("format", lambda a: np.array("other"), "expected a file that `ites lift` wrote"),
        ("skeleton", lambda a: np.array("{}"), "expected the JSON of a skeleton"),
        ("skeleton", lambda a: np.array("[" * 40_000), "expected the JSON of a skeleton"),
        ("settings", lambda a: np.array("[" * 40_000), "nested too deeply"),
        ("settings", lambda a: np.array("[1]"), "expected settings by name, got list"),
        ("settings", lambda a: np.array("{"), "JSONDecodeError"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(path, name, edit, message):
    text = name in ("version", "format", "frame", "unit", "skeleton", "settings")
    change(path, name, (lambda a: str(edit(a))) if text and path.suffix == ".h5" else edit)
    with pytest.raises(ItesError, match=re.escape(message)) as caught:
        read_clips(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 300


def test_the_skeleton_must_be_that_of_the_arrays(path):
    fields = json.loads(HUMAN36M.to_json())
    fields |= {"joints": fields["joints"][:16], "parents": fields["parents"][:16]}
    fields |= {"left": [4, 5, 6], "right": [1, 2, 3], "pooling": []}
    edited = json.dumps(fields)
    change(path, "skeleton", lambda a: edited if path.suffix == ".h5" else np.array(edited))
    with pytest.raises(ItesError, match=r"keypoints: expected numbers of shape \(19, 16, 2\)"):
        read_clips(path)


def test_a_joint_that_is_missing_may_be_unknown(path):
    """Unknown throughout a clip, or in a frame without anybody: no position, and no error."""

    def edit(positions):
        positions = np.array(positions)
        positions[6:10, 16] = np.nan
        positions[12] = np.nan
        return positions

    change(path, "positions", edit)
    clips = read_clips(path).clips
    assert (
        np.isnan(clips[1].positions[:, 16]).all() and np.isfinite(clips[1].positions[:, :16]).all()
    )
    assert np.isnan(clips[2].positions[2]).all() and np.isfinite(clips[2].positions[3]).all()


def test_settings_of_a_damaged_file_are_none(path):
    assert read_settings(path) == {"model": "student"}
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert read_settings(path) == {}
    with pytest.raises(ItesError, match=re.escape(str(path))):
        read_clips(path)
    path.write_text("neither")
    assert read_settings(path) == {}
