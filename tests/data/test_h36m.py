"""Human3.6M's three sources, on files of their very layouts; and pickles that may do no harm."""

import os
import pickle
import shutil
import zipfile

import h5py
import numpy as np
import pytest

from ites.data import PoseStore
from ites.data.datasets.h36m import JOINTS, prepare_h36m
from ites.data.datasets.npz import load_npz, loads
from ites.data.synthetic.synthetic import Performance, perform
from ites.errors import ItesError, shorten
from ites.pose.camera import human36m_cameras

FRAMES = 5
TAKES = (("S1", "Walking"), ("S1", "WalkDog 1"), ("S9", "Photo"), ("S11", "Directions"))


def world(subject, action):
    """(T, 32, 3) metres about a person's place, different for each take."""
    rng = np.random.default_rng(sum(map(ord, subject + action)))
    return rng.uniform(-0.5, 0.5, (FRAMES, 32, 3)) + [0, 0, 1]


def seen(subject, action, index):
    """What the camera makes of it: (T, 17, 3) metres, (T, 17, 2) pixels."""
    camera = human36m_cameras(subject)[index]
    positions = camera.world_to_camera(world(subject, action)[:, list(JOINTS)])
    return positions, camera.project(positions)


def check(out, takes=TAKES[:3], every=1, keypoints=None):
    """Every take, camera and joint stands in the store where it belongs."""
    with PoseStore(out) as store:
        assert len(store.sequences) == 4 * len(takes)
        for subject, action in takes:
            split = "test" if subject in ("S9", "S11") else "train"
            for index, camera in enumerate(human36m_cameras(subject)):
                name = f"{subject}.{camera.id}"
                sequence = next(
                    s
                    for s in store.sequences_of(split)
                    if s.camera == name and s.action == action.split(" ")[0]
                )
                assert store.cameras[name] == camera
                assert sequence.fps == 50 / every
                positions, points = seen(subject, action, index)
                if keypoints:
                    points = keypoints(subject, action, index)[:FRAMES]
                got = store.keypoints(split)[sequence.rows]
                np.testing.assert_allclose(got, points[::every], rtol=1e-5)
                if store.has_positions:
                    got = store.positions(split)[sequence.rows]
                    np.testing.assert_allclose(got, positions[::every], atol=1e-5)


def write_cdf(path, values):
    cdfwrite = pytest.importorskip("cdflib.cdfwrite")
    path.parent.mkdir(parents=True, exist_ok=True)
    with cdfwrite.CDF(path) as file:
        spec = {
            "Variable": "Pose",
            "Data_Type": 45,  # CDF_DOUBLE
            "Num_Elements": 1,
            "Rec_Vary": True,
            "Dim_Sizes": list(values.shape),
        }
        file.write_var(spec, var_data=values[None])


CDF_NAMES = {"WalkDog 1": "WalkingDog 1", "Photo": "TakingPhoto"}


def flat_files(folder, subject, action):
    for camera in human36m_cameras(subject):
        every_joint = camera.world_to_camera(world(subject, action))
        name = f"{CDF_NAMES.get(action, action)}.{camera.id}.cdf"
        base = folder / subject / "MyPoseFeatures"
        write_cdf(base / "D3_Positions_mono" / name, every_joint.reshape(FRAMES, 96) * 1000)
        pixels = camera.project(every_joint) + 0.25
        write_cdf(base / "D2_Positions" / name, pixels.reshape(FRAMES, 64))


def test_cdf_of_the_cameras(tmp_path):
    for take in TAKES:
        flat_files(tmp_path, *take)
    summary = prepare_h36m(tmp_path, tmp_path / "out.h5")
    assert summary["splits"]["train"] == {
        "poses": 40,
        "incomplete": 0,
        "sequences": 8,
        "subjects": ["S1"],
    }
    check(tmp_path / "out.h5", keypoints=lambda *take: seen(*take)[1] + 0.25)


def test_cdf_of_the_world(tmp_path):
    for subject, action in TAKES:
        name = f"{CDF_NAMES.get(action, action)}.cdf"
        path = tmp_path / subject / "MyPoseFeatures" / "D3_Positions" / name
        write_cdf(path, world(subject, action).reshape(FRAMES, 96) * 1000)
    prepare_h36m(tmp_path, tmp_path / "out.h5", every=2)
    check(tmp_path / "out.h5", every=2)


@pytest.fixture
def archive(tmp_path):
    for subject, action in TAKES:
        path = tmp_path / "h36m" / subject / "MyPoses" / "3D_positions" / f"{action}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            file["3D_positions"] = world(subject, action).reshape(FRAMES, 96).T * 1000
    return tmp_path / "h36m"


def test_hdf5_archive(archive, tmp_path):
    prepare_h36m(archive, tmp_path / "out.h5")
    check(tmp_path / "out.h5")


def test_hdf5_archive_still_zipped(archive, tmp_path):
    with zipfile.ZipFile(tmp_path / "h36m.zip", "w") as zipped:
        for path in archive.rglob("*.h5"):
            zipped.write(path, path.relative_to(tmp_path))
    prepare_h36m(tmp_path / "h36m.zip", tmp_path / "out.h5")
    check(tmp_path / "out.h5")


def nested(value):
    table = {}
    for subject, action in TAKES[:3]:
        table.setdefault(subject, {})[action] = value(subject, action)
    return table


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "data_3d_h36m.npz"
    np.savez_compressed(path, positions_3d=nested(lambda *take: world(*take).astype("f4")))
    return path


def detections(subject, action, index):
    """Two frames more than the 3D has, as in the detections that are passed about."""
    return np.resize(seen(subject, action, index)[1] + 3.5, (FRAMES + 2, 17, 2)).astype("f4")


@pytest.fixture
def flat_npz(tmp_path):
    path = tmp_path / "data_2d_h36m_cpn_ft_h36m_dbb.npz"
    table = nested(lambda *take: [detections(*take, index) for index in range(4)])
    metadata = {"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": [[4, 5], [1, 2]]}
    np.savez_compressed(path, positions_2d=table, metadata=metadata)
    return path


def test_videopose3d(npz, tmp_path):
    summary = prepare_h36m(npz, tmp_path / "out.h5")
    assert summary["positions"] and "Human3.6M" in summary["acknowledgement"]
    check(tmp_path / "out.h5")


def test_videopose3d_with_detections(npz, flat_npz, tmp_path):
    prepare_h36m(npz, tmp_path / "out.h5", keypoints=flat_npz, every=3)
    check(tmp_path / "out.h5", every=3, keypoints=detections)


def test_videopose3d_2d_alone(flat_npz, tmp_path):
    summary = prepare_h36m(flat_npz, tmp_path / "out.h5")
    assert not summary["positions"]
    assert summary["splits"]["train"]["poses"] == 2 * 4 * (FRAMES + 2)


def test_cdf_with_detections_by_the_usual_names(flat_npz, tmp_path):
    for take in TAKES:
        flat_files(tmp_path, *take)
    prepare_h36m(tmp_path, tmp_path / "out.h5", keypoints=flat_npz)
    check(tmp_path / "out.h5", keypoints=detections)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_folder_further_up_with_a_subjects_name_is_no_subject(archive, tmp_path, zipped):
    source = tmp_path / "S9" / "S1"
    source.mkdir(parents=True)
    if zipped:
        with zipfile.ZipFile(source / "h36m.zip", "w") as file:
            for path in archive.rglob("*.h5"):
                file.write(path, f"S9/{path.relative_to(archive)}")
        source /= "h36m.zip"
    else:
        archive.rename(source / "h36m")
    prepare_h36m(source, tmp_path / "out.h5")
    check(tmp_path / "out.h5")


def test_a_folder_further_up_is_no_subject_of_cdf_files(tmp_path):
    for take in TAKES:
        flat_files(tmp_path / "S9" / "h36m", *take)
    prepare_h36m(tmp_path / "S9" / "h36m", tmp_path / "out.h5")
    check(tmp_path / "out.h5", keypoints=lambda *take: seen(*take)[1] + 0.25)


def test_centimetres_are_refused(tmp_path):
    path = tmp_path / "S1" / "3D_positions" / "Walking.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["3D_positions"] = world("S1", "Walking").reshape(FRAMES, 96).T * 100
    with pytest.raises(ItesError, match="Walking: expected a person of 0.3 to 4 m, got one of 0.1"):
        prepare_h36m(tmp_path, tmp_path / "out.h5")


PEOPLE = (("S1", "Walking"), ("S9", "Photo"))
COCO = [9, 9, 9, 10, 10, 11, 14, 12, 15, 13, 16, 4, 1, 5, 2, 6, 3]
"""Joints of Human3.6M's about where COCO's are."""


def somebody(number):
    """(T, 17, 3) metres of somebody who walks."""
    return perform(Performance(number, "Walking", 0), 3, 50.0, 0.8)


def videopose3d(folder, change=lambda cameras: cameras, **metadata):
    """Both of VideoPose3D's files of people; what it writes of the four cameras may change."""
    worlds = {subject: {action: somebody(n)} for n, (subject, action) in enumerate(PEOPLE)}
    np.savez_compressed(folder / "3d.npz", positions_3d=worlds)
    table = {}
    for subject, action in PEOPLE:
        cameras = human36m_cameras(subject)
        points = [c.project(c.world_to_camera(worlds[subject][action])) for c in cameras]
        table[subject] = {action: change(points)}
    about = {"metadata": metadata} if metadata else {}
    np.savez_compressed(folder / "2d.npz", positions_2d=table, **about)
    return folder / "3d.npz", folder / "2d.npz"


@pytest.mark.parametrize("with_3d", [True, False])
def test_detections_in_the_order_of_coco_are_converted(tmp_path, with_3d):
    truth, flat = videopose3d(
        tmp_path, lambda cameras: [c[:, COCO] for c in cameras], layout_name="coco", num_joints=17
    )
    lines, out = [], tmp_path / "out.h5"
    if with_3d:
        prepare_h36m(truth, out, keypoints=flat, say=lines.append)
    else:
        prepare_h36m(flat, out, say=lines.append)
    assert lines == [f"{flat}: joints of coco17, converted to human36m"]
    with PoseStore(out) as store:
        points = store.keypoints("train")
        sequence = store.sequences_of("train")[0]
        camera = store.cameras[sequence.camera]
    expected = camera.project(camera.world_to_camera(somebody(0)))
    limbs = [1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16]
    np.testing.assert_allclose(points[sequence.rows][:, limbs], expected[:, limbs], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "metadata", "message"),
    [
        (lambda cameras: [c[:, COCO] for c in cameras], {}, "order human36m, got a body in .*coco"),
        (lambda cameras: cameras, {"layout_name": "humaneva15"}, "h36m or coco, got humaneva15"),
        (lambda cameras: cameras[::-1], {"layout_name": "h36m"}, "on which the 3D projects.*other"),
        (lambda c: [one[:, SIDES] for one in c], {"layout_name": "h36m"}, "3D projects.*or sides"),
    ],
)
def test_detections_that_do_not_belong_to_the_3d_are_refused(tmp_path, change, metadata, message):
    truth, flat = videopose3d(tmp_path, change, **metadata)
    with pytest.raises(ItesError, match=message) as caught:
        prepare_h36m(truth, tmp_path / "out.h5", keypoints=flat)
    assert str(flat) in str(caught.value)
    assert not (tmp_path / "out.h5").exists()


SIDES = [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13]


def bad(tmp_path, kind):
    """A source that is wrong, and maybe a file of detections."""
    good = nested(lambda *take: world(*take))
    path = tmp_path / "source.npz"
    if kind == "missing":
        return tmp_path / "nothing", None
    if kind == "empty folder":
        return tmp_path, None
    if kind == "not an npz":
        path.write_text("text")
    elif kind == "other names":
        np.savez(path, poses=np.zeros(3))
    elif kind == "other subjects":
        np.savez(path, positions_3d={"S2": {}})
    elif kind == "not a dict":
        np.savez(path, positions_3d=np.zeros(3))
    elif kind == "shape":
        good["S1"]["Walking"] = np.zeros((4, 31, 3))
        np.savez(path, positions_3d=good)
    elif kind == "archive":
        folder = tmp_path / "S1" / "3D_positions"
        folder.mkdir(parents=True)
        with h5py.File(folder / "Walking.h5", "w") as file:
            file["3D_positions"] = np.zeros((95, 4))
        return tmp_path, None
    elif kind == "cdf shape":
        write_cdf(tmp_path / "S1" / "D3_Positions" / "Walking.cdf", np.zeros((4, 95)))
        return tmp_path, None
    elif kind == "cdf camera":
        write_cdf(tmp_path / "S1" / "D3_Positions_mono" / "Walking.1.cdf", np.zeros((4, 96)))
        return tmp_path, None
    else:
        np.savez(path, positions_3d=good)
        flat = tmp_path / "flat.npz"
        cameras = 3 if kind == "three cameras" else 4
        length = FRAMES - 1 if kind == "short" else FRAMES
        table = nested(lambda *take: [np.zeros((length, 17, 2))] * cameras)
        if kind == "no action":
            del table["S9"]["Photo"]
        np.savez(flat, positions_2d=table)
        return path, flat
    return path, None


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file or folder"),
        ("empty folder", "expected CDF files, an HDF5 archive"),
        ("not an npz", "expected an .npz file"),
        ("other names", "expected positions_3d or positions_2d, got poses"),
        ("other subjects", "expected some of S1, .*got S2"),
        ("not a dict", "expected a dict of subjects"),
        ("shape", r"S1, Walking: expected \(T, 17 or 32, 3\), got \(4, 31, 3\)"),
        ("archive", r"expected \(96, T\), got \(95, 4\)"),
        ("cdf shape", r"Pose: expected \(1, T, 96\)"),
        ("cdf camera", "expected <action>.<camera>.cdf"),
        ("three cameras", "seen by 4 cameras, got 3"),
        ("short", "expected at least 5 frames, as the 3D has, got 4"),
        ("no action", "expected S9, Photo; it is missing"),
    ],
)
def test_a_bad_source_is_named(tmp_path, kind, message):
    source, flat = bad(tmp_path, kind)
    with pytest.raises(ItesError, match=message):
        prepare_h36m(source, tmp_path / "out.h5", keypoints=flat)
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize("source", ["npz", "hdf5", "cdf"])
def test_a_file_with_a_frame_that_is_not_finite_is_refused(tmp_path, source):
    values = world("S1", "Walking")
    values[2, JOINTS[4], 1] = np.nan
    if source == "npz":
        path = where = tmp_path / "data_3d_h36m.npz"
        np.savez(path, positions_3d={"S1": {"Walking": values}})
    elif source == "hdf5":
        path = tmp_path / "S1" / "3D_positions" / "Walking.h5"
        path.parent.mkdir(parents=True)
        with h5py.File(path, "w") as file:
            file["3D_positions"] = values.reshape(FRAMES, 96).T * 1000
        path, where = tmp_path, f"{tmp_path}: {path}"
    else:
        where = tmp_path / "S1" / "D3_Positions" / "Walking.cdf"
        write_cdf(where, values.reshape(FRAMES, 96) * 1000)
        path = tmp_path
    with pytest.raises(ItesError) as caught:
        prepare_h36m(path, tmp_path / "out.h5")
    assert str(caught.value) == shorten(
        f"{where}: S1, Walking: expected finite numbers, got others in 1 of 5 frames, first in "
        "frame 2 (the first is 0)"
    )
    assert not (tmp_path / "out.h5").exists()


def test_a_frame_of_detections_that_is_not_finite_is_left_out(npz, tmp_path):
    table = nested(lambda *take: [detections(*take, index) for index in range(4)])
    table["S1"]["Walking"][1][3, 5] = np.inf
    np.savez(tmp_path / "flat.npz", positions_2d=table)
    lines = []
    summary = prepare_h36m(
        npz, tmp_path / "out.h5", keypoints=tmp_path / "flat.npz", say=lines.append
    )
    assert summary["splits"]["train"]["poses"] == 2 * 4 * FRAMES - 1
    assert len(lines) == 1 and "S1, Walking: 1 of 5 frames left out" in lines[0]
    with PoseStore(tmp_path / "out.h5") as store:
        camera = f"S1.{human36m_cameras('S1')[1].id}"
        parts = [s for s in store.sequences if (s.camera, s.action) == (camera, "Walking")]
        assert [(s.first, s.length) for s in parts] == [(0, 3), (4, 1)]  # no frames over the gap


def test_every_must_be_positive(npz, tmp_path):
    with pytest.raises(ItesError, match="every must be at least 1, got 0"):
        prepare_h36m(npz, tmp_path / "out.h5", every=0)


SAMPLE = {
    "arrays": [
        np.arange(6.0, dtype="f4").reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.zeros((0, 17, 2)),
        np.array(["a", "bc"]),
        np.arange(3, dtype=">i4"),
        np.array([True, False]),
    ],
    "objects": np.array([np.ones(2), "text", None], dtype=object),
    "plain": (1, 2.5, None, True, "text", b"bytes", b"", {"a": [1]}),
    "scalar": np.float32(1.5),
}


@pytest.mark.parametrize("numpy_core", ["numpy._core", "numpy.core"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_numpy_1_and_2(protocol, numpy_core):
    data = pickle.dumps(SAMPLE, protocol)
    for module in (b"multiarray", b"numeric"):
        for old in (b"numpy._core.", b"numpy.core."):
            new = numpy_core.encode() + b"."
            data = data.replace(b"c" + old + module, b"c" + new + module)  # text, before protocol 4
            name = bytes([len(old + module)]) + old + module  # with its length, from protocol 4
            data = data.replace(name, bytes([len(new + module)]) + new + module)
    got = loads(unframed(data))
    for array, expected in zip(got["arrays"], SAMPLE["arrays"], strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype
    np.testing.assert_array_equal(got["objects"][0], [1, 1])
    assert got["objects"][1:].tolist() == ["text", None]
    assert got["plain"] == SAMPLE["plain"]
    assert got["scalar"] == np.float32(1.5) and isinstance(got["scalar"], np.float32)


def unframed(data):
    """Drop the frame of protocol 4, whose length the change of names made wrong."""
    return data[:2] + data[11:] if data[2:3] == b"\x95" else data


class Command:
    """What a hostile file holds: unpickled as usual, it runs a command."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_hostile_pickle_does_nothing(tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "data_3d_h36m.npz"
    np.savez(path, positions_3d={"S1": {"Walking": Command(mark)}})
    with pytest.raises(ItesError, match="posix.system is not an array or a plain container"):
        prepare_h36m(path, tmp_path / "out.h5")
    assert not mark.exists()
    np.load(path, allow_pickle=True)["positions_3d"]
    assert mark.exists(), "the file is not hostile after all"


@pytest.mark.parametrize(
    "pickled",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.testing._private.utils\nrunstring\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfrombuffer\n.",
        b"cnumpy\nndarray.__class__\n.",
        b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.tobytes\x93.",
        b"(S'x'\nios\nsystem\n.",
        b"\x80\x02\x82\x01.",
        b"P1\n.",
        pickle.dumps(np.dtype("f4")),
        pickle.dumps(np.zeros(2, [("a", "f4")])),
        pickle.dumps(np.zeros(2, "M8[s]")),
        pickle.dumps(np.random.default_rng()),
    ],
)
def test_nothing_else_is_admitted(pickled):
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        loads(pickled)


def laughs(levels):
    """A list that holds another one twice, which does so too."""
    shared = ["ha"]
    for _ in range(levels):
        shared = [shared, shared]
    return shared


def test_a_list_that_grows_as_it_is_walked_is_refused(tmp_path):
    path = tmp_path / "data_3d_h36m.npz"
    np.savez(path, positions_3d={"S1": {"Walking": laughs(28)}})
    assert path.stat().st_size < 1000
    with pytest.raises(ItesError, match="more than 100,000 entries"):
        prepare_h36m(path, tmp_path / "out.h5")


def test_arrays_that_are_shared_without_measure_are_refused():
    array = np.zeros(1 << 20)
    with pytest.raises(pickle.UnpicklingError, match="shared more than 8 times"):
        loads(pickle.dumps([array] * 100))
    assert len(loads(pickle.dumps([array] * 4))) == 4


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x04K\x01r\xff\xff\xff\x7f0.",  # a memo of 2^31 entries
        b"\x80\x05\x96\x00\x00\x00\x00\x00\x01\x00\x00.",  # 2^40 bytes that are not there
        b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",  # lists within lists
        b"\x80\x04}(" + b")" + b"\x85" * 100_000 + b"K\x01u.",  # a key of tuples within tuples
        b"\x80\x04]\x94h\x00a.",  # a list that holds itself
        b"\x80\x04" + b"N0" * 600_000 + b"N.",  # operations without end
        b"\x80\x04cnumpy\nndarray\n}b.",  # a state for a function
        b"I" + b"9" * 100_000 + b"\n.",
    ],
)
def test_a_small_pickle_takes_little(pickled):
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        loads(pickled)


def test_a_zip_bomb_is_refused(tmp_path):
    path = tmp_path / "data_3d_h36m.npz"
    np.savez_compressed(path, positions_3d=np.zeros(1 << 24))
    with pytest.raises(ItesError, match="expected at most .* in a file of its size, got 134,"):
        prepare_h36m(path, tmp_path / "out.h5")


class Forged:
    """An object array whose entries are addresses that the file chose."""

    def __reduce__(self):
        rebuild, arguments, _ = np.zeros(1, object).__reduce__()
        return rebuild, arguments, (1, (1,), np.dtype("O"), False, b"\x10" * 8)


def test_raw_bytes_cannot_pose_as_objects():
    with pytest.raises(pickle.UnpicklingError, match="an object array of raw bytes"):
        loads(pickle.dumps(Forged(), 3))


def test_load_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, numbers=np.arange(3), table={"a": np.ones(2)}, f=np.asfortranarray(np.eye(3)))
    entries = load_npz(path)
    np.testing.assert_array_equal(entries["numbers"], [0, 1, 2])
    np.testing.assert_array_equal(entries["table"]["a"], [1, 1])
    np.testing.assert_array_equal(entries["f"], np.eye(3))
    with pytest.raises(ItesError, match="no such file"):
        load_npz(tmp_path / "b.npz")


def test_a_member_that_takes_the_memory_that_it_asks_for_is_refused(tmp_path):
    path = tmp_path / "data_3d_h36m.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("positions_3d.npy", b"\x93NUMPY")
    with pytest.raises(ItesError, match="expected data that are stored or deflated, got .*14"):
        prepare_h36m(path, tmp_path / "out.h5")


def test_a_zip_member_larger_than_its_archive_is_refused(archive, tmp_path):
    path = tmp_path / "h36m.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        for file in archive.rglob("*.h5"):
            zipped.write(file, file.relative_to(tmp_path))
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")  # of the directory; its packed size stands at 20
    data[entry + 20 : entry + 24] = b"\xf0\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(ItesError, match="got 4,294,967,280 declared"):
        prepare_h36m(path, tmp_path / "out.h5")


def test_a_take_that_is_there_twice_is_refused(archive, tmp_path):
    shutil.copytree(archive / "S1", archive / "backup" / "S1")
    with pytest.raises(ItesError, match=r"a second file of S1, WalkDog 1; expected one"):
        prepare_h36m(archive, tmp_path / "out.h5")
