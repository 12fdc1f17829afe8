"""MPI-INF-3DHP on files of its very layout, and on the arrays that other programs make."""

import struct
import zlib

import numpy as np
import pytest
import scipy.io
from mpi_inf_3dhp_files import (
    CENTRE,
    FOCAL,
    FRAMES,
    body,
    calibration,
    cells,
    project,
    write_npz,
    write_test,
    write_train,
)
from walking import walk

from ites.data import PoseStore
from ites.data.datasets.mpi_inf_3dhp import ACTIVITIES, CAMERAS, prepare_3dhp
from ites.errors import ItesError
from ites.evaluation.evaluate import counted_joints
from ites.pose.layouts import LAYOUT_JOINTS
from ites.pose.metrics import PCK_JOINTS
from ites.pose.skeleton import HUMAN36M

NAMES = {
    "head": "head_top", "neck": "middle_head", "thorax": "thorax", "spine": "spine",
    "pelvis": "pelvis", "left_wrist": "left_wrist", "right_ankle": "right_ankle",
    "left_hip": "left_hip", "right_elbow": "right_elbow",
}  # fmt: skip
"""Joints of Human3.6M, and what MPI-INF-3DHP calls them."""


def same(store, sequence, measured, rows, layout, scale=0.9):
    """The store holds these rows of `measured`, joint by joint by its name."""
    names = LAYOUT_JOINTS[layout]
    positions, points = store.positions()[sequence.rows], store.keypoints()[sequence.rows]
    assert len(positions) == len(rows)
    for ours, theirs in NAMES.items():
        joint, source = HUMAN36M.joints.index(ours), names.index(theirs)
        expected = scale * measured[rows, source] / 1000
        np.testing.assert_allclose(positions[:, joint], expected, atol=1e-5)
        np.testing.assert_allclose(points[:, joint], project(measured[rows, source]), atol=1e-2)


def test_training_set(tmp_path):
    write_train(tmp_path / "data")
    write_train(tmp_path / "data", "S10", "Seq2")
    write_train(tmp_path / "data", "S3", "Seq1")
    summary = prepare_3dhp(tmp_path / "data", tmp_path / "out.h5", say=pytest.fail)
    assert summary["splits"]["train"]["poses"] == 3 * len(CAMERAS) * FRAMES
    assert summary["splits"]["train"]["subjects"] == ["S1", "S3", "S10"]
    assert "Mehta" in summary["acknowledgement"]
    with PoseStore(tmp_path / "out.h5") as store:
        for index, sequence in enumerate(store.sequences[: len(CAMERAS)]):
            camera = store.cameras[sequence.camera]
            assert sequence.camera == f"S1.Seq1.{CAMERAS[index]}"
            assert (camera.focal_length, camera.center) == (FOCAL, CENTRE)
            assert (camera.width, camera.height) == (2048, 2048)
            assert (sequence.action, sequence.fps, sequence.split) == ("Seq1", 25, "train")
            same(store, sequence, body(CAMERAS[index], 28), np.arange(FRAMES), "mpi3dhp28")
        assert {s.fps for s in store.sequences if s.subject == "S3"} == {50}


def test_measured_heights_other_cameras_and_every_second_frame(tmp_path):
    write_train(tmp_path / "data")
    prepare_3dhp(
        tmp_path / "data", tmp_path / "out.h5", annotation="annot3", cameras=[13, 3], every=2
    )
    with PoseStore(tmp_path / "out.h5") as store:
        assert [s.camera for s in store.sequences] == ["S1.Seq1.13", "S1.Seq1.3"]
        assert store.sequences[0].fps == 12.5
        same(store, store.sequences[0], body(13, 28), np.arange(0, FRAMES, 2), "mpi3dhp28", 1.0)


def test_test_set(tmp_path):
    write_test(tmp_path / "data")
    write_test(tmp_path / "data", "TS5", seed=51)
    summary = prepare_3dhp(tmp_path / "data", tmp_path / "out.h5", say=pytest.fail)
    assert summary["splits"]["test"]["subjects"] == ["TS1", "TS5"]
    assert summary["splits"]["test"]["poses"] == 2 * 5  # one of six frames is not valid
    with PoseStore(tmp_path / "out.h5") as store:
        # A sequence ends where frames are not valid, and where the activity changes.
        first, second, third = store.sequences[:3]
        same(store, first, body(50, 17), np.array([0, 1]), "mpi3dhp17")
        same(store, second, body(50, 17), np.array([3]), "mpi3dhp17")
        same(store, third, body(50, 17), np.array([4, 5]), "mpi3dhp17")
        assert [s.action for s in (first, second, third)] == [
            ACTIVITIES[0], ACTIVITIES[0], ACTIVITIES[2]
        ]  # fmt: skip
        assert np.isnan(first.fps)
        camera = store.cameras["TS1"]
        np.testing.assert_allclose(camera.focal_length, FOCAL, rtol=1e-9)
        np.testing.assert_allclose(camera.center, CENTRE, rtol=1e-9)
        assert (store.cameras["TS1"].width, store.cameras["TS5"].height) == (2048, 1080)


def test_the_arrays_of_other_programs(tmp_path):
    write_npz(tmp_path)
    summary = prepare_3dhp(tmp_path, tmp_path / "out.h5", say=pytest.fail)
    assert {k: v["poses"] for k, v in summary["splits"].items()} == {"train": 12, "test": 5}
    with PoseStore(tmp_path / "out.h5") as store:
        by_name = {sequence.camera: sequence for sequence in store.sequences}
        same(store, by_name["S1.Seq2.4"], body(4, 17), np.arange(FRAMES), "mpi3dhp17", 1.0)
        assert (by_name["S1.Seq2.4"].action, by_name["S1.Seq2.4"].fps) == ("Seq2", 50)
        np.testing.assert_allclose(store.cameras["S1.Seq2.4"].focal_length, FOCAL, rtol=1e-9)
    alone = prepare_3dhp(tmp_path / "data_test_3dhp.npz", tmp_path / "test.h5")
    assert list(alone["splits"]) == ["test"]


def test_a_frame_that_is_not_finite_is_reported_and_left_out(tmp_path):
    def spoil(values):
        values = values.copy()
        values[4, 0, 3, 1] = np.nan
        return values

    write_test(tmp_path / "data", annot3=spoil, univ_annot3=spoil)
    lines = []
    summary = prepare_3dhp(tmp_path / "data", tmp_path / "out.h5", say=lines.append)
    assert summary["splits"]["test"]["poses"] == 4
    (line,) = lines
    assert line.startswith(str(tmp_path / "data" / "TS1" / "annot_data.mat"))
    assert "1 of 5 frames left out, not finite: frame 3 " in line


def test_fourteen_joints_are_evaluated():
    assert counted_joints(HUMAN36M) == PCK_JOINTS
    assert len(PCK_JOINTS) == 14


def drop(_):
    return None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annot3": drop}, "expected the variables annot2, annot3, univ_annot3, not annot3"),
        ({"annot2": lambda c: c[:4]}, "camera 4: annot2: expected a cell per camera"),
        ({"annot2": lambda c: np.zeros((3, 56))}, "annot2: expected a cell per camera"),
        (
            {"annot3": lambda c: cells([np.zeros((FRAMES, 51))] * 14)},
            r"annot3: expected numbers of shape \(T, 84\), got float64 of shape \(6, 51\)",
        ),
        (
            {"annot2": lambda c: cells([c[i, 0][:5] for i in range(14)])},
            "camera 0: expected as many frames in 2D as in 3D, got 5 in annot2, 6 in annot3",
        ),
        (
            {"annot2": lambda c: cells([c[i, 0] + 300 for i in range(14)])},
            "camera 0: expected 3D in millimetres .* a median distance of 424 px",
        ),
        ({"univ_annot3": lambda c: cells([c[i, 0] * 1000 for i in range(14)])}, "a person of 0.1"),
    ],
)
def test_a_training_file_that_does_not_fit_is_named(tmp_path, changes, message):
    path = write_train(tmp_path / "data", **changes) / "annot.mat"
    with pytest.raises(ItesError, match=message) as caught:
        prepare_3dhp(tmp_path / "data", tmp_path / "out.h5")
    assert str(path) in str(caught.value)
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace("intrinsic", "intrinsics"), "KeyError: 'intrinsic'"),
        (lambda text: text.replace("1497.693", "nan"), "focal lengths nan"),
        (lambda text: text.replace("2048 2048", "2048"), "expected a camera calibration file"),
        (lambda text: "", "no camera"),
        (lambda text: calibration(range(2)), "expected camera 2, got 0, 1"),
        (None, "no such file"),
    ],
)
def test_a_calibration_that_does_not_fit_is_named(tmp_path, edit, message):
    path = write_train(tmp_path / "data") / "camera.calibration"
    path.unlink() if edit is None else path.write_text(edit(calibration()))
    with pytest.raises(ItesError, match=message) as caught:
        prepare_3dhp(tmp_path / "data", tmp_path / "out.h5")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid_frame": drop}, "expected a dataset valid_frame, got none"),
        ({"annot3": lambda v: v[:, 0]}, r"annot3: expected shape \('T', 1, 17, 3\)"),
        ({"annot2": lambda v: v[:5]}, "annot3: expected shape"),
        ({"annot2": lambda v: v + 300 * (v > 1000)}, "a median distance of"),
        ({"annot3": lambda v: v - v[:, :, 14:15]}, "expected 3D .*projects onto the 2D"),
        ({"annot3": lambda v: v - [0, 0, 9000]}, "expected 3D in front of the camera"),
        ({"annot2": lambda v: v.astype("S8")}, "annot2: expected numbers"),
    ],
)
def test_a_test_file_that_does_not_fit_is_named(tmp_path, changes, message):
    path = write_test(tmp_path / "data", **changes) / "annot_data.mat"
    with pytest.raises(ItesError, match=message) as caught:
        prepare_3dhp(tmp_path / "data", tmp_path / "out.h5")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": lambda t: {"Seq": t["S1 Seq2"]}}, "expected keys such as S1 Seq1 or TS1"),
        ({"train": lambda t: [1, 2]}, "expected data, a dict of sequences"),
        ({"train": lambda t: {"S1 Seq2": 5}}, "arrays of S1 Seq2"),
        ({"train": lambda t: {"S1 Seq2": [{"0": {"data_2d": np.zeros(3)}}]}}, "data_2d: expected"),
        (
            {"test": lambda t: {"TS1": t["TS1"] | {"valid": np.ones(5)}}},
            "TS1: expected as many frames in 2D as in 3D, got 6 in data_2d, .* 5 in valid",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, changes, message):
    write_npz(tmp_path, **changes)
    with pytest.raises(ItesError, match=message) as caught:
        prepare_3dhp(tmp_path, tmp_path / "out.h5")
    assert "_3dhp.npz" in str(caught.value)


OF_HUMAN36M = [10, 8, 14, 15, 16, 11, 12, 13, 1, 2, 3, 4, 5, 6, 0, 7, 9]
"""Where the data set's 17 joints stand in Human3.6M's order."""


def walker(order, divided=False):
    """The arrays of somebody who walks 4 m ahead, joints in an order of Human3.6M's."""
    flat = (walk().keypoints[:, order] - [640, 480]) / 250 * 1000  # millimetres
    solid = np.concatenate([flat, 4000 + 0.3 * flat[..., :1]], -1)
    points = project(solid)
    return {"data_2d": points / 1024 - 1 if divided else points, "data_3d": solid}


def test_the_joints_of_a_body_are_in_the_data_sets_order(tmp_path):
    def train(table):
        return {"S1 Seq2": [{"0": walker(OF_HUMAN36M)}]}

    write_npz(tmp_path, train=train)
    prepare_3dhp(tmp_path / "data_train_3dhp.npz", tmp_path / "out.h5", say=pytest.fail)
    with PoseStore(tmp_path / "out.h5") as store:
        expected = walker(list(range(17)))
        np.testing.assert_allclose(store.keypoints(), expected["data_2d"], rtol=1e-5)
        np.testing.assert_allclose(store.positions(), expected["data_3d"] / 1000, rtol=1e-5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            walker(list(range(17))),
            "joints in the order mpi3dhp17, got a body in the order human36m",
        ),
        (walker(OF_HUMAN36M, divided=True), "expected 2D in pixels, .* got focal length 1.46"),
    ],
)
def test_other_orders_and_units_of_the_arrays_are_refused(tmp_path, arrays, message):
    write_npz(tmp_path, train=lambda table: {"S1 Seq2": [{"0": arrays}]})
    with pytest.raises(ItesError, match=message) as caught:
        prepare_3dhp(tmp_path / "data_train_3dhp.npz", tmp_path / "out.h5")
    assert "_3dhp.npz: S1.Seq2.0: " in str(caught.value)
    assert not (tmp_path / "out.h5").exists()


def test_arguments(tmp_path):
    with pytest.raises(ItesError, match="no such file or folder"):
        prepare_3dhp(tmp_path / "none", tmp_path / "out.h5")
    with pytest.raises(ItesError, match="got none of them"):
        prepare_3dhp(tmp_path, tmp_path / "out.h5")
    with pytest.raises(ItesError, match="annotation must be univ_annot3 or annot3, got 'x'"):
        prepare_3dhp(tmp_path, tmp_path / "out.h5", annotation="x")
    with pytest.raises(ItesError, match="cameras in 0..13"):
        prepare_3dhp(tmp_path, tmp_path / "out.h5", cameras=[14])


def element(kind, body):
    return struct.pack("<II", kind, len(body)) + body + b"\0" * (-len(body) % 8)


def cell_array(shape, body=b""):
    """A MATLAB matrix element of class cell, of this shape."""
    flags, name = element(6, struct.pack("<II", 1, 0)), element(1, b"annot2")
    return element(14, flags + element(5, struct.pack("<2i", *shape)) + name + body)


# SciPy reads memory that is not its own to find what type 19465 is.
NUMBER_OF_NO_TYPE = element(
    14,
    element(6, struct.pack("<II", 6, 0))
    + element(5, struct.pack("<2i", 1, 1))
    + element(1, b"")
    + element(19465, bytes(8)),
)
BOMB = zlib.compress(bytes(1 << 27))
HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEADER + cell_array((2**30, 1)), r"a matrix of shape \(1073741824, 1\) in"),
        (HEADER + cell_array((-1, 1)), r"a matrix of shape \(-1, 1\)"),
        (HEADER + struct.pack("<II", 14, 2**31), "an element of 2,147,483,648 bytes, where 0 are"),
        (
            HEADER + struct.pack("<II", 15, len(BOMB)) + BOMB,
            "bytes of compressed data",
        ),
        (HEADER + cell_array((2, 1), element(14, b"")), r"1 cells in an array of shape \(2, 1\)"),
        (HEADER + cell_array((1, 1), NUMBER_OF_NO_TYPE), "a matrix of class 6, expected real num"),
        (HEADER[:124] + b"\x00\x02IM", "got another format"),
        (b"", "got another format"),
        (HEADER + cell_array((1, 1), element(9, bytes(8))), "expected a MATLAB 5 file"),
    ],
)
def test_a_matlab_file_cannot_declare_more_than_it_holds(tmp_path, data, message):
    path = write_train(tmp_path / "data") / "annot.mat"
    path.write_bytes(data)
    with pytest.raises(ItesError, match=message) as caught:
        prepare_3dhp(tmp_path / "data", tmp_path / "out.h5")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_matlab_file_may_be_compressed(tmp_path, compressed):
    path = write_train(tmp_path / "data") / "annot.mat"
    content = scipy.io.loadmat(path)
    named = {name: content[name] for name in ("annot2", "annot3", "univ_annot3")}
    scipy.io.savemat(path, named, do_compression=compressed)
    summary = prepare_3dhp(tmp_path / "data", tmp_path / "out.h5")
    assert summary["splits"]["train"]["poses"] == len(CAMERAS) * FRAMES


@pytest.mark.parametrize("options", [{"annotation": "annot3"}, {"cameras": [0]}])
def test_a_choice_that_arrays_do_not_have_is_refused(tmp_path, options):
    path = tmp_path / "data_test_3dhp.npz"
    np.savez(path, data=np.zeros(3))
    (name,) = options
    with pytest.raises(ItesError, match=f"data_test_3dhp.npz: {name} has no effect"):
        prepare_3dhp(path, tmp_path / "out.h5", **options)


def test_a_sequence_that_is_there_twice_is_refused(tmp_path):
    write_train(tmp_path / "data")
    write_train(tmp_path / "data" / "backup")
    with pytest.raises(ItesError, match="expected each sequence once, got it in .* too"):
        prepare_3dhp(tmp_path / "data", tmp_path / "out.h5")
