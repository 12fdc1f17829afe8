"""Arrays and tables of keypoints: plain ones, and those of programs that write them."""

import csv
import gzip
import json
import pickle

import h5py
import numpy as np
import pytest
from people import same, scored, walk

from ites.data import PoseStore
from ites.data.datasets.keypoints import prepare_keypoints
from ites.data.readers import read
from ites.errors import ItesError
from ites.pose.layouts import LAYOUT_JOINTS, to_human36m
from ites.pose.skeleton import HUMAN36M

OURS = {name: index for index, name in enumerate(HUMAN36M.joints)}
SIZE = np.array([1920, 1080], np.float32)


# npz and npy


def test_an_array_without_a_layout_is_taken_as_it_is(tmp_path):
    points = walk("human36m", frames=5)
    np.save(tmp_path / "a.npy", points)
    recording = read(tmp_path / "a.npy")
    assert (recording.format, recording.layout) == ("arrays", "human36m")
    assert recording.clips[0].confidence is None and not recording.notes
    np.testing.assert_array_equal(recording.clips[0].keypoints, points)


@pytest.mark.parametrize("name", ["keypoints", "xy", "data", "anything"])
def test_ultralytics_zeros_are_missing(tmp_path, name):
    points = walk(frames=6)
    points[2, 9] = points[3, 13] = 0
    array = scored(points, 0.7) if name in ("keypoints", "data") else points
    np.savez(tmp_path / "y.npz", **{name: array})
    recording = read(tmp_path / "y.npz", layout="coco17")
    missing = np.argwhere(recording.clips[0].confidence == 0).tolist()
    assert missing == [[2, OURS["left_wrist"]], [3, OURS["left_knee"]]]


def test_ultralytics_normalised_arrays_bring_their_size(tmp_path):
    points = walk(frames=6)
    np.savez(tmp_path / "n.npz", xyn=points / SIZE, orig_shape=np.array([1080, 1920]))
    recording = read(tmp_path / "n.npz")
    assert recording.format == "Ultralytics" and recording.image_size == (1920, 1080)
    same(recording.clips[0], points)


def test_normalised_coordinates_need_the_image_size(tmp_path):
    points = walk(frames=6)
    np.save(tmp_path / "n.npy", points / SIZE)
    with pytest.raises(ItesError, match=r"n.npy: keypoints are normalised .*image size"):
        read(tmp_path / "n.npy", layout="coco17")
    recording = read(tmp_path / "n.npy", layout="coco17", image_size=(1920, 1080))
    same(recording.clips[0], points)
    assert "normalised coordinates, times the image size 1920 x 1080" in recording.notes
    np.save(tmp_path / "m.npy", (points - 500) / 300)
    with pytest.raises(ItesError, match="expected keypoints in pixels"):
        read(tmp_path / "m.npy", layout="coco17", image_size=(1920, 1080))


def test_a_third_column_that_is_a_depth_is_refused(tmp_path):
    z = np.linspace(-0.2, 0.2, 6 * 17).reshape(6, 17, 1).astype(np.float32)
    np.save(tmp_path / "z.npy", np.concatenate([walk(frames=6), z], -1))
    with pytest.raises(ItesError, match=r"confidence must lie in 0..1, got -0.2 to 0.2"):
        read(tmp_path / "z.npy", layout="coco17")
    np.save(tmp_path / "d.npy", np.concatenate([walk(frames=6), 3 + z], -1))
    with pytest.raises(ItesError, match="a third column that is a depth must be left out"):
        read(tmp_path / "d.npy", layout="coco17")


def test_nan_with_a_confidence_of_1_is_missing(tmp_path):
    points = scored(walk(frames=6), 1.0)
    points[2:4, 9, :2] = np.nan
    points[5, :, :2] = np.nan
    np.save(tmp_path / "a.npy", points)
    recording = read(tmp_path / "a.npy", layout="coco17")
    confidence = recording.clips[0].confidence
    assert np.flatnonzero(confidence[:, OURS["left_wrist"]] == 0).tolist() == [2, 3, 5]
    assert not confidence[5].any() and np.isfinite(recording.clips[0].keypoints).all()


def test_coordinates_about_the_root_keep_it(tmp_path):
    points = walk("human36m", frames=5)
    points -= points[:, :1]
    np.save(tmp_path / "a.npy", points)
    (clip,) = read(tmp_path / "a.npy").clips
    np.testing.assert_array_equal(clip.keypoints, points)
    assert clip.confidence is None


def test_mediapipe_arrays_of_one_camera_and_of_several(tmp_path):
    points = walk("mediapipe33", frames=7)
    z = np.linspace(-0.2, 0.3, 7 * 33).reshape(7, 33, 1).astype(np.float32)
    deep = np.concatenate([points, z], -1)
    deep[3] = np.nan
    np.savez(tmp_path / "m.npz", keypoints=deep)
    (clip,) = read(tmp_path / "m.npz").clips
    assert np.flatnonzero(~(clip.confidence > 0).any(1)).tolist() == [3]
    expected, _ = to_human36m(points, "mediapipe33")
    rows = [0, 1, 2, 4, 5, 6]
    np.testing.assert_allclose(clip.keypoints[rows], expected[rows], atol=0.01)
    assert set(np.unique(clip.confidence)) == {0, 1}
    cameras = np.stack([deep, deep + np.float32([50, 0, 0])])
    np.save(tmp_path / "free.npy", cameras)
    recording = read(tmp_path / "free.npy")
    assert [clip.name for clip in recording.clips] == ["free/camera0", "free/camera1"]
    np.testing.assert_allclose(
        recording.clips[1].keypoints[rows], expected[rows] + [50, 0], atol=0.01
    )
    np.save(tmp_path / "v.npy", np.concatenate([deep, np.full_like(z, 0.04)], -1)[:3])
    with pytest.raises(ItesError, match="all joints are missing"):
        read(tmp_path / "v.npy")


def test_frames_of_one_person_are_no_cameras(tmp_path):
    points = walk("mediapipe33", frames=40)
    np.save(tmp_path / "m.npy", points[:, None])
    (clip,) = read(tmp_path / "m.npy").clips
    same(clip, points, "mediapipe33")


def test_people_per_frame_are_reported_apart(tmp_path):
    first, second = walk(frames=9), walk(frames=9, start=(200.0, 400.0), height=250.0)
    array = np.stack([first, second], axis=1)
    array[::2] = array[::2, ::-1]
    np.save(tmp_path / "p.npy", array)
    clips = read(tmp_path / "p.npy", layout="coco17").clips
    same(clips[0], first)
    same(clips[1], second)


def test_a_confidence_of_minus_1_marks_a_missing_joint(tmp_path):
    points = scored(walk(frames=9))
    points[2:5, 9] = [300, 300, -1]
    np.savez(tmp_path / "m.npz", keypoints=points)
    (clip,) = read(tmp_path / "m.npz", layout="coco17").clips
    wrist = HUMAN36M.joints.index("left_wrist")
    assert np.flatnonzero(clip.confidence[:, wrist] == 0).tolist() == [2, 3, 4]
    same(clip, points[..., :2], rows=[0, 1, 5, 6, 7, 8])


def test_a_rate_and_a_size_of_0_are_unknown(tmp_path):
    points = walk(frames=4)
    np.savez(tmp_path / "z.npz", keypoints=points, fps=0.0, image_size=[0, 0], focal_length=np.nan)
    recording = read(tmp_path / "z.npz", layout="coco17")
    (clip,) = recording.clips
    assert np.isnan(clip.fps) and clip.image_size is None and clip.focal_length is None
    assert "fps of 0 counts as unknown" in recording.notes
    assert read(tmp_path / "z.npz", layout="coco17", fps=30.0).clips[0].fps == 30


def test_movenet_writes_y_before_x(tmp_path):
    points, size = walk(frames=5), np.array([1920, 1080], np.float32)
    stacked = scored(points / size)[:, None, None][..., [1, 0, 2]]
    np.save(tmp_path / "movenet.npy", stacked)
    recording = read(tmp_path / "movenet.npy", image_size=(1920, 1080))
    same(recording.clips[0], points)
    assert recording.format == "MoveNet" and recording.layout == "coco17"


def test_objects_of_numbers_and_none_are_numbers(tmp_path):
    points = scored(walk(frames=5)).astype(object)
    points[2, 9] = None
    np.savez(tmp_path / "o.npz", keypoints=points)
    (clip,) = read(tmp_path / "o.npz", layout="coco17").clips
    wrist = HUMAN36M.joints.index("left_wrist")
    assert np.flatnonzero(clip.confidence[:, wrist] == 0).tolist() == [2]
    same(clip, walk(frames=5), rows=[0, 1, 3, 4])
    np.save(tmp_path / "o.npy", points, allow_pickle=True)
    with pytest.raises(ItesError, match=r"save them as numbers, by array.astype\(float\)"):
        read(tmp_path / "o.npy", layout="coco17")


def test_leeds_sports_pose_is_a_layout(tmp_path):
    points = walk("lsp14", frames=5)
    np.save(tmp_path / "lsp.npy", points)
    with pytest.raises(ItesError, match="got 14; a layout to convert from is one of lsp14"):
        read(tmp_path / "lsp.npy")
    (clip,) = read(tmp_path / "lsp.npy", layout="lsp14").clips
    same(clip, points, "lsp14")
    assert np.isfinite(clip.keypoints).all() and clip.confidence is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"keypoints": walk(frames=3) / [1920, 1080] - [0.37, 0.46]}, "numbers from -0.* to 0.*"),
        ({"keypoints": np.zeros((2, 17, 3)), "confidence": np.ones((2, 17))}, "beside a confid"),
        ({"keypoints": np.ones((2, 17, 2)) * 1e12}, r"keypoints must be pixels, got 1e\+12"),
        ({"keypoints": np.ones((2, 12, 2)) * 50}, "expected 17 joints per frame"),
        ({"keypoints": np.ones((2, 17, 2)) * 50, "fps": np.inf}, "fps must be positive and finite"),
        ({"a": np.ones((2, 17, 2)), "b": np.ones(2)}, "expected an array 'keypoints', got a, b"),
        ({"keypoints": np.zeros((2, 17, 2))}, "all joints are missing"),
    ],
)
def test_refusals(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ItesError, match=message) as caught:
        read(tmp_path / "a.npz", image_size=(1920, 1080))
    assert "a.npz" in str(caught.value)


@pytest.mark.parametrize("absent", ["N/A", "null", "None", "-", "nan", ""])
def test_words_for_no_number_in_a_table(tmp_path, absent):
    points = walk(frames=6)
    rows = [
        [t, *(absent if t == 3 else f"{v:.3f}" for v in scored(points[t]).ravel())]
        for t in range(6)
    ]
    head = ["frame", *(f"{n}_{a}" for n in LAYOUT_JOINTS["coco17"] for a in ("x", "y", "score"))]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    (clip,) = read(tmp_path / "t.csv").clips
    assert np.flatnonzero(~(clip.confidence > 0).any(1)).tolist() == [3]
    same(clip, points, rows=[0, 1, 2, 4, 5])


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\x00\x00\x00\x20ftypisom", "a video"),
        (b"\xff\xd8\xff\xe0", "a JPEG picture"),
        (b"MATLAB 5.0 MAT-file" + b"\0" * 9, "a MATLAB 5 file"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, start, kind):
    (tmp_path / "a.json").write_bytes(start + bytes(300))
    with pytest.raises(ItesError, match=f"a.json: expected .* got {kind}$"):
        read(tmp_path / "a.json")


# VideoPose3D and Detectron2


def test_videopose3d_custom(tmp_path):
    first, second = walk(frames=6), walk(frames=8, start=(300.0, 400.0))
    np.savez_compressed(
        tmp_path / "data_2d_custom_my.npz",
        positions_2d={"a.mp4": {"custom": [first]}, "b.mp4": {"custom": [second]}},
        metadata={
            "layout_name": "coco",
            "num_joints": 17,
            "video_metadata": {"a.mp4": {"w": 1920, "h": 1080}, "b.mp4": {"w": 640, "h": 480}},
        },
    )
    recording = read(tmp_path / "data_2d_custom_my.npz")
    assert [len(clip) for clip in recording.clips] == [6, 8]
    assert [clip.image_size for clip in recording.clips] == [(1920, 1080), (640, 480)]
    assert recording.clips[0].name.endswith("/a.mp4") and recording.layout == "coco17"
    same(recording.clips[0], first)
    same(recording.clips[1], second)


def test_videopose3d_cameras_are_clips(tmp_path):
    points = walk("human36m", frames=6)
    np.savez_compressed(
        tmp_path / "data_2d_h36m_gt.npz",
        positions_2d={"S9": {"Walking 1": [points, points + 5]}},
        metadata={"layout_name": "h36m", "num_joints": 17},
    )
    recording = read(tmp_path / "data_2d_h36m_gt.npz")
    assert [clip.name.split("/", 1)[1] for clip in recording.clips] == [
        "S9/Walking 1/camera0", "S9/Walking 1/camera1"
    ]  # fmt: skip
    np.testing.assert_array_equal(recording.clips[1].keypoints, points + 5)


def test_detectron_for_videopose3d(tmp_path):
    points = walk(frames=6)
    keypoints, boxes = np.empty((6, 2), object), np.empty((6, 2), object)
    for t in range(6):
        people = np.concatenate([points[t].T, np.ones((2, 17))])[None].astype(np.float32)
        keypoints[t] = [[], people if t != 2 else np.zeros((0, 4, 17), np.float32)]
        boxes[t] = [[], np.ones((len(keypoints[t][1]), 5), np.float32)]
    np.savez_compressed(
        tmp_path / "v.npz", boxes=boxes, segments=None, keypoints=keypoints,
        metadata={"w": 1920, "h": 1080},
    )  # fmt: skip
    recording = read(tmp_path / "v.npz")
    (clip,) = recording.clips
    assert recording.format == "Detectron2 for VideoPose3D" and clip.image_size == (1920, 1080)
    assert np.flatnonzero(~(clip.confidence > 0).any(1)).tolist() == [2]


def test_pickles_are_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    np.savez(tmp_path / "e.npz", positions_2d=np.array({"a": Evil()}, object))
    with pytest.raises(ItesError, match="e.npz: expected an .npz file of arrays and dicts"):
        read(tmp_path / "e.npz")


# DeepLabCut


def deeplabcut(points, names, individuals=("",)):
    """Header columns and rows of DeepLabCut's table."""
    coords = ("x", "y", "likelihood")
    columns = [("net", i, n, c) for i in individuals for n in names for c in coords]
    values = np.concatenate([scored(p, 0.97).reshape(len(p), -1) for p in points], axis=1)
    return columns, values.astype(float)


def write_csv(path, columns, values, several):
    levels = ["scorer", "individuals", "bodyparts", "coords"]
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        for level, name in enumerate(levels):
            if level != 1 or several:
                out.writerow([name, *(column[level] for column in columns)])
        for index, row in enumerate(values):
            out.writerow([index, *("" if np.isnan(v) else repr(float(v)) for v in row)])


NAMES = ("Nose", "LEye", "right eye", "left_ear", "RightEar", "shoulder2", "shoulder1", "elbow_l",
         "elbow_r", "wrist_left", "wrist.R", "hip2", "hip1", "L_Knee", "RKnee", "leftAnkle",
         "ankle_right")  # fmt: skip


def test_deeplabcut_by_names(tmp_path):
    points = walk(frames=6)
    points[2, 9] = np.nan
    order = np.random.default_rng(0).permutation(17)
    columns, values = deeplabcut([points[:, order]], [NAMES[k] for k in order])
    write_csv(tmp_path / "w.csv", columns, values, several=False)
    recording = read(tmp_path / "w.csv")
    (clip,) = recording.clips
    assert recording.format == "DeepLabCut" and recording.layout == "named"
    assert np.argwhere(clip.confidence == 0).tolist() == [[2, OURS["left_wrist"]]]
    rows = [0, 1, 3, 4, 5]
    same(clip, points, rows=rows)


def test_deeplabcut_of_several_individuals(tmp_path):
    first, second = walk(frames=6), walk(frames=6, start=(200.0, 300.0))
    columns, values = deeplabcut([first, second], LAYOUT_JOINTS["coco17"], ("anna", "ben"))
    write_csv(tmp_path / "w.csv", columns, values, several=True)
    recording = read(tmp_path / "w.csv")
    assert [clip.name for clip in recording.clips] == ["w#anna", "w#ben"]
    same(recording.clips[0], first)
    same(recording.clips[1], second)
    (clip,) = read(tmp_path / "w.csv", person="ben").clips
    same(clip, second)


def write_pandas(path, columns, values, form):
    """What pandas writes of a DataFrame with a MultiIndex of columns, to_hdf(format=form)."""
    with h5py.File(path, "w") as file:
        group = file.create_group("df_with_missing")
        group.attrs["pandas_type"] = np.bytes_(b"frame" if form == "fixed" else b"frame_table")
        if form == "table":
            dtype = [("index", "<i8"), ("values_block_0", "<f8", (len(columns),))]
            rows = np.zeros(len(values), dtype)
            rows["index"], rows["values_block_0"] = np.arange(len(values)), values
            table = group.create_dataset("table", data=rows)
            group.attrs["non_index_axes"] = np.bytes_(pickle.dumps([(1, columns)], 0))
            table.attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(columns, 0))
            return
        for axis in ("axis0", "block0_items"):
            group.attrs[f"{axis}_nlevels"] = len(columns[0])
            for level in range(len(columns[0])):
                names = sorted({column[level] for column in columns})
                labels = [names.index(column[level]) for column in columns]
                group[f"{axis}_level{level}"] = np.array(names, "S")
                group[f"{axis}_label{level}"] = np.array(labels, np.int8)
        group["block0_values"] = values


@pytest.mark.parametrize("form", ["fixed", "table"])
@pytest.mark.parametrize("several", [False, True])
def test_deeplabcut_hdf5(tmp_path, form, several):
    people = [walk(frames=6), walk(frames=6, start=(200.0, 300.0))][: 1 + several]
    columns, values = deeplabcut(people, LAYOUT_JOINTS["coco17"], ("anna", "ben")[: 1 + several])
    if not several:
        columns = [(scorer, part, coord) for scorer, _, part, coord in columns]
    write_pandas(tmp_path / "w.h5", columns, values, form)
    recording = read(tmp_path / "w.h5")
    assert recording.format == "DeepLabCut" and len(recording.clips) == 1 + several
    for clip, points in zip(recording.clips, people, strict=True):
        same(clip, points)


def test_animals_are_no_people(tmp_path):
    names = ["snout", "tailbase", "leftpaw", "rightpaw"]
    columns, values = deeplabcut([walk(frames=6)[:, :4]], names)
    write_csv(tmp_path / "w.csv", columns, values, several=False)
    with pytest.raises(ItesError, match="joints snout, tailbase, leftpaw, rightpaw make no joint"):
        read(tmp_path / "w.csv")


# CSV tables


def test_mediapipe_csv_long(tmp_path):
    points = walk("mediapipe33", frames=5)
    lines = ["frame,landmark,x,y,z,visibility"]
    for t in (0, 1, 3, 4):
        lines += [
            f"{t},{k},{x / 1920:.7f},{y / 1080:.7f},-0.1,0.99" for k, (x, y) in enumerate(points[t])
        ]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    recording = read(tmp_path / "m.csv", image_size=(1920, 1080))
    (clip,) = recording.clips
    assert recording.layout == "mediapipe33" and len(clip) == 5
    assert np.flatnonzero(~(clip.confidence > 0).any(1)).tolist() == [2]
    same(clip, points, "mediapipe33", rows=[0, 1, 3, 4])
    with pytest.raises(ItesError, match="m.csv: keypoints are normalised"):
        read(tmp_path / "m.csv")


@pytest.mark.parametrize("style", ["{name}_{axis}", "{axis}{k}", "{name} {axis}"])
def test_csv_wide(tmp_path, style):
    points = walk(frames=5)
    names = LAYOUT_JOINTS["coco17"]
    header = ["frame"] + [
        style.format(name=n, axis=a, k=k)
        for k, n in enumerate(names)
        for a in ("x", "y", "score" if "{name}" in style else "v")
    ]
    rows = [[t, *scored(points[t]).ravel().tolist()] for t in range(5)]
    text = "\n".join(";".join(map(str, row)) for row in [header, *rows])
    (tmp_path / "w.csv").write_text(text)
    layout = None if "{name}" in style else "coco17"
    recording = read(tmp_path / "w.csv", layout=layout)
    same(recording.clips[0], points)
    np.testing.assert_allclose(recording.clips[0].confidence, 0.9, rtol=1e-6)


def test_csv_of_several_people(tmp_path):
    people = [walk(frames=5), walk(frames=5, start=(200.0, 300.0))]
    names = LAYOUT_JOINTS["coco17"]
    lines = ["frame,person,joint,x,y,confidence"]
    for t in range(5):
        for label, points in enumerate(people, 1):
            lines += [
                f"{t},{label},{n},{x},{y},0.8" for n, (x, y) in zip(names, points[t], strict=True)
            ]
    (tmp_path / "w.csv").write_text("\n".join(lines))
    clips = read(tmp_path / "w.csv").clips
    assert [clip.name for clip in clips] == ["w#1", "w#2"]
    same(clips[0], people[0])
    same(clips[1], people[1])


TABLES = {  # the change of a plain table, and the rows that are missing then
    "times": (
        lambda rows: ["time," + rows[0]] + [f"{t / 30:.4f},{r}" for t, r in enumerate(rows[1:])],
        [],
    ),
    "milliseconds": (
        lambda rows: (
            ["timestamp," + rows[0]]
            + [f"{round(1000 * t / 30)},{r}" for t, r in enumerate(rows[1:]) if t not in (3, 4)]
        ),
        [3, 4],
    ),
    "pandas": (
        lambda rows: (
            ["," + rows[0]] + [f"{t},{r}" for t, r in enumerate(rows[1:]) if t not in (5, 6, 7)]
        ),
        [5, 6, 7],
    ),
    "spreadsheet": (lambda rows: ["sep=;", *(row.replace(",", ";") for row in rows)], []),
    "comments": (lambda rows: ["# by a tool", "# fps: 30", *rows], []),
    "numpy": (lambda rows: ["# " + rows[0], *rows[1:]], []),
    "blank rows": (lambda rows: [*rows[:5], "," * 50, "," * 50, *rows[7:], "," * 50, ""], [4, 5]),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_other_programs(tmp_path, kind):
    points = walk(frames=40)
    head = ",".join(
        f"{name}_{axis}" for name in LAYOUT_JOINTS["coco17"] for axis in ("x", "y", "score")
    )
    rows = [head, *(",".join(f"{v:.3f}" for v in row) for row in scored(points).reshape(40, -1))]
    change, missing = TABLES[kind]
    (tmp_path / "w.csv").write_text("\r\n".join(change(rows)))
    (clip,) = read(tmp_path / "w.csv").clips
    seen = (clip.confidence > 0).any(1)
    assert len(clip) == 40 and np.flatnonzero(~seen).tolist() == missing
    same(clip, points, rows=seen)


def test_a_long_table_of_two_people_without_a_column_of_people(tmp_path):
    people = [walk(frames=5), walk(frames=5, start=(200.0, 300.0))]
    lines = ["frame,joint,x,y"]
    for t in range(5):
        for points in people:
            pairs = zip(LAYOUT_JOINTS["coco17"], points[t], strict=True)
            lines += [f"{t},{n},{x},{y}" for n, (x, y) in pairs]
    (tmp_path / "w.csv").write_text("\n".join(lines))
    clips = sorted(read(tmp_path / "w.csv").clips, key=lambda clip: -clip.keypoints[0, 0, 0])
    assert len(clips) == 2
    same(clips[0], people[0])
    same(clips[1], people[1])


def test_a_table_of_people_without_a_column_of_frames(tmp_path):
    people = [walk(frames=5), walk(frames=5, start=(200.0, 300.0))]
    head = ["person_id", *(f"{n}_{a}" for n in LAYOUT_JOINTS["coco17"] for a in "xy")]
    rows = [[k, *points[t].ravel()] for t in range(5) for k, points in enumerate(people, 1)]
    (tmp_path / "w.csv").write_text("\n".join(",".join(map(str, row)) for row in [head, *rows]))
    recording = read(tmp_path / "w.csv")
    same(recording.clips[0], people[0])
    same(recording.clips[1], people[1])
    assert "no column of frames" in recording.notes[0]


def test_columns_of_numbered_joints_are_in_the_order_of_their_numbers(tmp_path):
    points = walk(frames=5)
    order = sorted(range(17), key=str)
    head = [f"kp{k}_{axis}" for k in order for axis in "xy"]
    rows = points[:, order].reshape(5, -1).tolist()
    (tmp_path / "w.csv").write_text("\n".join(",".join(map(str, row)) for row in [head, *rows]))
    same(read(tmp_path / "w.csv", layout="coco17").clips[0], points)


@pytest.mark.parametrize("kind", ["utf-16", "old line ends", "units in brackets"])
def test_tables_of_spreadsheets(tmp_path, kind):
    points = walk(frames=5)
    unit = " [px]" if kind == "units in brackets" else ""
    head = [f"{n}_{axis}{unit}" for n in LAYOUT_JOINTS["coco17"] for axis in "xy"]
    rows = [head, *points.reshape(5, -1).tolist()]
    text = ("\r" if kind == "old line ends" else "\n").join("\t".join(map(str, r)) for r in rows)
    (tmp_path / "w.csv").write_bytes(text.encode("utf-16" if kind == "utf-16" else "utf-8"))
    same(read(tmp_path / "w.csv").clips[0], points)


def test_confidences_that_are_no_numbers_are_told(tmp_path):
    array = scored(walk(frames=6))
    array[2, 4:7, 2] = np.nan
    np.save(tmp_path / "a.npy", array)
    notes = read(tmp_path / "a.npy", layout="coco17").notes
    assert notes == ["3 joints have a confidence that is no number and count as missing"]
    np.save(tmp_path / "a.npy", array * [1, 1, np.nan])
    with pytest.raises(ItesError, match="no confidence is a number; leave out the confidences"):
        read(tmp_path / "a.npy", layout="coco17")


def test_a_folder_of_arrays_of_one_pose_is_one_video(tmp_path):
    points = walk(frames=12)
    for t, pose in enumerate(points):
        np.save(tmp_path / f"{t}.npy", pose)
    (clip,) = read(tmp_path, layout="coco17").clips
    same(clip, points)


def test_csv_without_a_header(tmp_path):
    points = walk(frames=5)
    np.savetxt(tmp_path / "w.csv", scored(points).reshape(5, -1), delimiter=",")
    (clip,) = read(tmp_path / "w.csv", layout="coco17").clips
    same(clip, points)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,c\n1,2,3\n", "expected columns of keypoints"),
        ("frame,landmark,x,y\n0,0,a,1\n", "expected numbers, got"),
        ("frame,landmark,x,y\n0,0,1\n", "row 2: expected 4 cells, got 3"),
        ("frame,landmark,x,y\n", "expected rows of keypoints under the header"),
        ("1,2,3\n4,5,6\n", "got 3 numbers and no header"),
        ("hello", "expected .*keypoints"),
        ("", "got an empty file"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    (tmp_path / "w.csv").write_text(text)
    with pytest.raises(ItesError, match=message):
        read(tmp_path / "w.csv")


# MediaPipe JSON


def test_mediapipe_json(tmp_path):
    points = walk("mediapipe33", frames=6)

    def marks(p):
        return [
            {"x": float(x), "y": float(y), "z": -0.1, "visibility": 0.9}
            for x, y in (p / SIZE).tolist()
        ]

    people = [marks(p) for p in points]
    people[2] = None
    forms = {
        "frames": people,
        "named": {"frames": [{"frame": t, "pose_landmarks": p} for t, p in enumerate(people)]},
        "numbered": {str(t): {"landmarks": p} for t, p in enumerate(people)},
        "tasks": [{"pose_landmarks": [p] if p else [], "pose_world_landmarks": [marks(points[0])]}
                  for p in people],
        "legacy": {"pose_landmarks": [{"landmark": p} if p else None for p in people]},
        "lists": [[[m["x"], m["y"], m["z"], m["visibility"]] for m in p] if p else None
                  for p in people],
    }  # fmt: skip
    for name, content in forms.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        recording = read(path, image_size=(1920, 1080))
        assert (recording.format, len(recording.clips)) == ("MediaPipe", 1), name
        (clip,) = recording.clips
        assert np.flatnonzero(~(clip.confidence > 0).any(1)).tolist() == [2], name
        same(clip, points, "mediapipe33", rows=[0, 1, 3, 4, 5])


# A pose store, and other files


def test_a_pose_store(tmp_path):
    points = walk(frames=5)
    np.savez(tmp_path / "a.npz", keypoints=points, fps=30)
    prepare_keypoints([tmp_path / "a.npz"], tmp_path / "s.h5", layout="coco17")
    recording = read(tmp_path / "s.h5")
    assert (recording.format, recording.layout) == ("pose store", "human36m")
    same(recording.clips[0], points)


def test_equal_names_of_several_files_stay_apart(tmp_path):
    for number, camera in enumerate(("cam1", "cam2")):
        (tmp_path / camera).mkdir()
        np.savez(tmp_path / camera / "clip.npz", keypoints=walk(frames=5) + number)
    files = [tmp_path / camera / "clip.npz" for camera in ("cam1", "cam2")]
    prepare_keypoints(files, tmp_path / "s.h5", layout="coco17")
    with PoseStore(tmp_path / "s.h5") as store:
        assert [s.subject for s in store.sequences] == ["clip", "cam2/clip"]


def test_what_is_no_keypoints_is_reported(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\x00\x01\x02")
    with pytest.raises(ItesError, match="a.json: expected keypoints: .*; got other bytes"):
        read(tmp_path / "a.json")
    with pytest.raises(ItesError, match="b.json: no such file"):
        read(tmp_path / "b.json")
    with pytest.raises(ItesError, match="layout must be one of human36m, .*coco17"):
        np.save(tmp_path / "c.npy", walk(frames=2))
        read(tmp_path / "c.npy", layout="coco")


def test_packed_arrays_in_a_folder_are_unpacked(tmp_path):
    """Under a name that does not tell it, too."""
    points = walk(frames=20)
    np.save(tmp_path / "plain.npy", points)
    packed = gzip.compress((tmp_path / "plain.npy").read_bytes())
    (tmp_path / "two").mkdir()
    for name in ("a.npy", "b.npy"):
        (tmp_path / "two" / name).write_bytes(packed)
    recording = read(tmp_path / "two")
    assert [len(clip) for clip in recording.clips] == [20, 20]
