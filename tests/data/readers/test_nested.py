"""People per frame in JSON of many forms, JSON Lines, SLEAP's files, and HDF5 of arrays."""

import json
import sys

import h5py
import numpy as np
import pytest
from people import flat, same, scored, walk

from ites.data.keypoint_reader import KeypointReader
from ites.data.readers import read
from ites.errors import ItesError
from ites.pose.layouts import LAYOUT_JOINTS, to_human36m
from ites.system import isolated

T = 8
NAMES = LAYOUT_JOINTS["coco17"]
FIRST = walk(frames=T)
SECOND = walk(frames=T, start=(200.0, 400.0), height=250.0)
PEOPLE = (FIRST, SECOND)
DEPTHS = np.linspace(-300, 300, 17)


def rounded(values):
    return np.round(np.asarray(values, float), 3).tolist()


def triples(points, score=0.9):
    return rounded(scored(points, score))


def two(recording, rows=slice(None)):
    clips = recording.clips
    assert len(clips) == 2
    if abs(clips[0].keypoints[0, 0, 0] - FIRST[0, 11, 0]) > 50:
        clips = clips[::-1]
    for clip, points in zip(clips, PEOPLE, strict=True):
        same(clip, points, rows=rows)


def camel(name):
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def named(points):
    return [
        {"x": x, "y": y, "score": 0.9, "name": n} for (x, y), n in zip(points, NAMES, strict=True)
    ]


def body25(frame):
    return {"people": [{"pose_keypoints_2d": flat(walk("body25", T)[frame])}]}


FORMS = {
    "openpose frames in a list": (lambda: [body25(t) for t in range(T)], "OpenPose"),
    "openpose frames by number": (
        lambda: {"frames": [{"frame_id": t, **body25(t)} for t in range(T)]},
        "OpenPose",
    ),
    "mmpose inferencer": (
        lambda: [
            {
                "visualization": [],
                "predictions": [
                    [{"keypoints": rounded(p), "keypoint_scores": [0.9] * 17, "bbox": [[0]]}]
                ],
            }
            for p in FIRST
        ],
        "MMPose",
    ),
    "mmpose 0.x": (
        lambda: [[{"track_id": 0, "bbox": [0] * 5, "keypoints": triples(p)}] for p in FIRST],
        "MMPose",
    ),
    "transformers": (
        lambda: [[{"keypoints": rounded(p), "scores": [0.9] * 17}] for p in FIRST],
        "JSON of people",
    ),
    "torchvision": (
        lambda: [
            {
                "boxes": [[0] * 4],
                "scores": [0.99],
                "keypoints": [triples(p, 1)],
                "keypoints_scores": [[7.0] * 17],
            }
            for p in FIRST
        ],
        "JSON of people",
    ),
    "detectron2": (
        lambda: [{"pred_keypoints": [triples(p)], "scores": [0.99]} for p in FIRST],
        "JSON of people",
    ),
    "tensorflow.js": (
        lambda: [[{"score": 0.9, "keypoints": named(p.tolist())}] for p in FIRST],
        "JSON of people",
    ),
    "posenet": (
        lambda: [
            {
                "score": 0.9,
                "keypoints": [
                    {"part": camel(n), "position": {"x": x, "y": y}, "score": 0.9}
                    for n, (x, y) in zip(NAMES, p, strict=True)
                ],
            }
            for p in FIRST.tolist()
        ],
        "JSON of people",
    ),
    "names": (
        lambda: [
            {"frame": t, "keypoints": dict(zip(NAMES, triples(p), strict=True))}
            for t, p in enumerate(FIRST)
        ],
        "JSON of people",
    ),
    "bare names": (
        lambda: [
            {n: {"x": x, "y": y} for n, (x, y) in zip(NAMES, p, strict=True)}
            for p in FIRST.tolist()
        ],
        "JSON of people",
    ),
    "easy_ViTPose": (
        lambda: {
            "keypoints": [{"0": triples(p[:, ::-1])} for p in FIRST],
            "skeleton": {str(i): name for i, name in enumerate(NAMES)},
        },
        "easy_ViTPose",
    ),
    "texts": (
        lambda: [
            json.dumps(
                [
                    {
                        "name": "person",
                        "class": 0,
                        "box": {},
                        "keypoints": {"x": rounded(p[:, 0]), "y": rounded(p[:, 1])},
                    }
                ]
            )
            for p in FIRST
        ],
        "Ultralytics",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_people_in_many_forms(tmp_path, form):
    make, name = FORMS[form]
    (tmp_path / "k.json").write_text(json.dumps(make()))
    recording = read(tmp_path / "k.json")
    (clip,) = recording.clips
    assert recording.format == name and len(clip) == T
    if name == "OpenPose":
        same(clip, walk("body25", T), layout="body25")
    else:
        same(clip, FIRST)


@pytest.mark.parametrize("key", ["xy", "xyn"])
def test_ultralytics_keypoints_as_an_object(tmp_path, key):
    """What `results[0].keypoints` holds, for two people; the size from orig_shape."""
    scale = 1 if key == "xy" else np.float32([1920, 1080])
    frames = [
        {
            "orig_shape": [1080, 1920],
            "keypoints": {
                key: [np.round(p[t] / scale, 7).tolist() for p in PEOPLE],
                "conf": [[0.9] * 17] * 2,
            },
        }
        for t in range(T)
    ]
    (tmp_path / "k.json").write_text(json.dumps(frames, default=float))
    recording = read(tmp_path / "k.json")
    two(recording)
    assert recording.image_size == (1920, 1080)


@pytest.mark.parametrize("key", ["timestamp", "time_ms"])
def test_frames_by_their_times(tmp_path, key):
    for marks in (walk("mediapipe33", T), FIRST):
        frames = [{key: 40 * t, "landmarks": rounded(marks[t])} for t in reversed(range(T))]
        (tmp_path / "k.json").write_text(json.dumps(frames))
        (clip,) = read(tmp_path / "k.json").clips
        same(clip, marks, "mediapipe33" if len(marks[0]) == 33 else "coco17")


def test_json_of_other_objects_is_named(tmp_path):
    (tmp_path / "k.json").write_text('[{"id": 1, "result": 3}]')
    with pytest.raises(ItesError, match="expected keypoints: .*got JSON of a list of id, result"):
        read(tmp_path / "k.json")


def test_two_people_and_an_empty_frame(tmp_path):
    people = [
        [{"id": k, "keypoints": triples(p[t])} for k, p in enumerate(PEOPLE)] for t in range(T)
    ]
    frames = [{"frame_id": t, "people": found} for t, found in enumerate(people)]
    frames[3]["people"] = []
    content = {"metadata": {"fps": 30, "width": 1920, "height": 1080}, "frames": frames}
    (tmp_path / "k.json").write_text(json.dumps(content))
    recording = read(tmp_path / "k.json")
    assert recording.fps == 30 and recording.image_size == (1920, 1080)
    assert [clip.name for clip in recording.clips] == ["k#0", "k#1"]
    rows = [t for t in range(T) if t != 3]
    two(recording, rows)
    assert not recording.clips[0].confidence[3].any()


def test_normalised_openpose_takes_the_size_of_its_canvas(tmp_path):
    size = {"canvas_width": 1600, "canvas_height": 900}
    points = walk("coco18", T) / np.float32([1600, 900])
    frames = [{"people": [{"pose_keypoints_2d": flat(p)}], **size} for p in points]
    text = json.dumps(frames)
    (tmp_path / "k.json").write_text(text)
    recording = read(tmp_path / "k.json")
    assert recording.image_size == (1600, 900)
    np.testing.assert_allclose(
        recording.source[0].keypoints, walk("coco18", T), atol=1.0
    )  # rounded to 0.001 of the width


LINES = {
    "results": lambda t: {"image_id": t, "category_id": 1, "keypoints": flat(FIRST[t]), "score": 1},
    "people": lambda t: {"frame": t, "people": [{"keypoints": triples(FIRST[t])}]},
    "mmpose": lambda t: {
        "frame_id": t,
        "instances": [{"keypoints": rounded(FIRST[t]), "keypoint_scores": [0.9] * 17}],
    },
}


@pytest.mark.parametrize("form", LINES)
@pytest.mark.parametrize("name", ["k.jsonl", "k.json"])
def test_json_lines(tmp_path, form, name):
    text = "\n".join(json.dumps(LINES[form](t)) for t in range(T))
    (tmp_path / name).write_text(text + "\n\n")
    (clip,) = read(tmp_path / name).clips
    same(clip, FIRST)


def test_a_broken_line_is_named(tmp_path):
    lines = [json.dumps(LINES["people"](t)) for t in range(T)]
    lines[4] = lines[4][:40]
    (tmp_path / "k.jsonl").write_text("\n".join(lines))
    with pytest.raises(ItesError, match=r"k.jsonl: line 5: expected one JSON value per line, got "):
        read(tmp_path / "k.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"people": [{"keypoints": triples(p)}]} for p in (FIRST[0], FIRST[0, :9])],
         "expected one number of joints per person, or those of known detectors, got 9, 17"),
        ([{"image_id": t, "keypoints": rounded(np.column_stack([p, DEPTHS]).ravel())}
          for t, p in enumerate(FIRST)], "confidence must lie in 0..1, got -300 to 300"),
        ([{"image_id": t, "keypoints": flat(p, 88)} for t, p in enumerate(FIRST)], "a percentage"),
        ([{"people": [{"keypoints": {"x": [1] * 9, "y": [1] * 8}}]}], "x as y, got 9 and 8"),
        ([{"persons": []}, {"persons": []}], "expected"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_reported(tmp_path, content, message):
    (tmp_path / "k.json").write_text(json.dumps(content))
    with pytest.raises(ItesError, match=message) as error:
        read(tmp_path / "k.json")
    assert "k.json" in str(error.value) and len(str(error.value)) <= 300


def write_project(path, people=2, tracked=True, corrected=False, version=1.2):
    """A .slp file as its documentation describes it, its nodes in another order than its points."""
    order = np.arange(17)[::-1]
    kinds = [("x", "f8"), ("y", "f8"), ("visible", "?"), ("complete", "?")]
    frames, instances, predicted, own = [], [], [], []
    for t in range(T):
        start = len(instances)
        for k in range(people):
            p = [(x, y, True, True, 0.9) for x, y in PEOPLE[k][t]]
            instances.append((len(instances), 1, t, 0, k if tracked else -1, -1, 0.8,
                              len(predicted), len(predicted) + 17, 0))  # fmt: skip
            predicted += p
        if corrected and t == 2:
            wrong = instances[start]
            instances.append((len(instances), 0, t, 0, 0, wrong[0], 0, len(own), len(own) + 17, 0))
            own += [(x + 5, y, True, True) for x, y in PEOPLE[0][t]]
        frames.append((t, 0, t, start, len(instances)))
    names = ("frame_id", "video", "frame_idx", "instance_id_start", "instance_id_end")
    inner = ("instance_id", "instance_type", "frame_id", "skeleton", "track", "from_predicted",
             "score", "point_id_start", "point_id_end", "tracking_score")  # fmt: skip
    nodes = [{"name": NAMES[k]} for k in order]
    skeleton = {"nodes": [{"id": int(np.argwhere(order == k)[0, 0])} for k in range(17)]}
    video = {"filename": "a.mp4", "backend": {"shape": [T, 1080, 1920, 3], "fps": 30.0}}
    with h5py.File(path, "w") as file:
        file["frames"] = np.array(frames, [(name, "u8") for name in names])
        file["instances"] = np.array(
            instances, [(name, "f4" if "score" in name else "i8") for name in inner]
        )
        file["pred_points"] = np.array(predicted, [*kinds, ("score", "f8")])
        file["points"] = np.array(own, kinds)
        file.create_group("metadata").attrs.update(
            format_id=version, json=np.bytes_(json.dumps({"nodes": nodes, "skeletons": [skeleton]}))
        )
        file["videos_json"] = [json.dumps(video)]
        file["tracks_json"] = [json.dumps([0, name]) for name in ("anna", "ben")]


def test_sleap_project(tmp_path):
    write_project(tmp_path / "s.slp", corrected=True)
    recording = read(tmp_path / "s.slp")
    assert recording.format == "SLEAP" and recording.fps == 30
    assert recording.image_size == (1920, 1080)
    assert [clip.name for clip in recording.clips] == ["s#anna", "s#ben"]
    rows = [t for t in range(T) if t != 2]
    two(recording, rows)
    off = recording.clips[0].keypoints[2] - to_human36m(FIRST[2:3], "coco17")[0][0]
    np.testing.assert_allclose(off, np.tile([5, 0], (17, 1)), atol=0.01)
    write_project(tmp_path / "s.slp", tracked=False)
    two(read(tmp_path / "s.slp"))
    write_project(tmp_path / "s.slp", people=1, version=1.0)
    (clip,) = read(tmp_path / "s.slp").clips
    same(clip, FIRST - 0.5)
    with KeypointReader(tmp_path / "s.slp") as reader:
        assert reader.lengths == [T]


@pytest.mark.parametrize("order", ["matlab", "standard", "by shape"])
def test_sleap_analysis(tmp_path, order):
    points = np.stack(PEOPLE, 1).astype(float)  # frame, track, node, xy
    points[2, 0, 9] = np.nan
    scores = np.full(points.shape[:3], 0.9)
    scores[5] = np.nan  # labelled by hand
    axes, dims = ((0, 1, 2, 3), ["frame", "track", "node", "xy"])
    if order != "standard":
        axes, dims = ((1, 3, 2, 0), ["track", "xy", "node", "frame"])
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["tracks"] = points.transpose(axes)
        file["point_scores"] = scores.transpose([a for a in axes if a != 3])
        file["node_names"], file["track_names"] = list(NAMES), ["anna", "ben"]
        if order != "by shape":
            file["tracks"].attrs["dims"] = json.dumps(dims)
    recording = read(tmp_path / "s.h5")
    assert [clip.name for clip in recording.clips] == ["s#anna", "s#ben"]
    two(recording, [t for t in range(T) if t != 2])
    assert (recording.clips[0].confidence[2] == 0).sum() == 1
    np.testing.assert_allclose(recording.clips[0].confidence[5], 1)


def test_sleap_refusals(tmp_path):
    write_project(tmp_path / "s.slp")
    with h5py.File(tmp_path / "s.slp", "a") as file:
        instances = file["instances"][()]
        instances["point_id_end"][3] = 10_000
        file["instances"][...] = instances
    with pytest.raises(ItesError, match=r"s.slp: expected rows up to 272, got 51 to 10000"):
        read(tmp_path / "s.slp")


def test_arrays_in_hdf5(tmp_path):
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["keypoints"], file["fps"] = scored(FIRST), 30.0
    recording = read(tmp_path / "k.h5", layout="coco17")
    assert recording.fps == 30
    same(recording.clips[0], FIRST)


def test_blosc_is_read_or_its_package_is_named(tmp_path, monkeypatch):
    plugin = pytest.importorskip("hdf5plugin", reason="pip install 'ites[data]'")
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file.create_dataset("keypoints", data=FIRST, chunks=FIRST.shape, **plugin.Blosc())
    same(read(tmp_path / "k.h5", layout="coco17").clips[0], FIRST)
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    monkeypatch.setattr(isolated, "_inside", True)
    with pytest.raises(ItesError, match=r"k.h5: keypoints: compressed by blosc, .*ites\[data\]"):
        read(tmp_path / "k.h5")


def written_csv(path, header, rows):
    lines = [",".join(map(str, row)) for row in (*header, *rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


TABLES = {
    "x_nose": lambda n: [f"x_{n}", f"y_{n}", f"confidence_{n}"],
    "nose (x)": lambda n: [f"{n} (x)", f"{n} (y)", f"{n} (score)"],
    "nose_x_px": lambda n: [f"{n}_x_px", f"{n}_y_px", f"{n}_prob"],
    "noseX": lambda n: [f"{camel(n)}X", f"{camel(n)}Y", f"{camel(n)}_c"],
}


@pytest.mark.parametrize("form", TABLES)
def test_columns_by_many_names(tmp_path, form):
    header = ["frame", *(cell for name in NAMES for cell in TABLES[form](name))]
    rows = [[t, *np.ravel(triples(p, 0.7))] for t, p in enumerate(FIRST)]
    recording = read(written_csv(tmp_path / "k.csv", [header], rows))
    same(recording.clips[0], FIRST)
    np.testing.assert_allclose(recording.source[0].confidence, 0.7, atol=1e-6)


def test_two_header_rows_blanks_and_decimal_commas(tmp_path):
    rows = [[t, *np.ravel(rounded(p))] for t, p in enumerate(FIRST)]
    names = ["", *(cell for name in NAMES for cell in (name, ""))]
    path = written_csv(tmp_path / "k.csv", [names, ["frame", *["x", "y"] * 17]], rows)
    same(read(path).clips[0], FIRST)
    (tmp_path / "k.txt").write_text("\n".join(" ".join(map(str, row[1:])) for row in rows))
    same(read(tmp_path / "k.txt", layout="coco17").clips[0], FIRST)
    text = path.read_text().replace(",", ";").replace(".", ",")
    path.write_text(text)
    same(read(path).clips[0], FIRST)


def test_arrays_by_many_names_and_shapes(tmp_path):
    path = tmp_path / "k.npz"
    for name in ("kpts", "pose2d", "joints_2d", "pred_keypoints"):
        np.savez(path, **{name: FIRST, "frame_ids": np.arange(T)})
        same(read(path, layout="coco17").clips[0], FIRST)
    np.savez(path, keypoints=FIRST[:, ::-1], joint_names=np.array(NAMES[::-1]))
    same(read(path).clips[0], FIRST)
    np.savez(path, keypoints=FIRST / np.float32([1600, 900]), width=1600, height=900)
    same(read(path, layout="coco17").clips[0], FIRST)
    np.save(tmp_path / "k.npy", scored(FIRST).reshape(T, 51))
    same(read(tmp_path / "k.npy", layout="coco17").clips[0], FIRST)
    people = np.empty(T, object)
    people[:] = [
        np.stack([a, b]) if t != 4 else a[None]
        for t, (a, b) in enumerate(zip(*PEOPLE, strict=True))
    ]
    np.savez(
        path, keypoints=people, scores=np.array([np.full(len(p), 1.5) for p in people], object)[:0]
    )
    with pytest.raises(ItesError, match="expected an entry per frame"):
        read(path)
    np.savez(path, keypoints=people)
    clips = read(path, layout="coco17").clips
    same(clips[0], FIRST)
    assert not clips[1].confidence[4].any()


def test_scores_above_1_count_as_1(tmp_path):
    np.savez(tmp_path / "k.npz", keypoints=FIRST, scores=np.full((T, 17), 1.4))
    recording = read(tmp_path / "k.npz", layout="coco17")
    np.testing.assert_array_equal(recording.clips[0].confidence, 1)
    assert "confidences above 1, up to 1.4, count as 1" in recording.notes


def test_triangulated_landmarks_are_no_keypoints(tmp_path):
    body = walk("mediapipe33", T)
    whole = np.full((2, T, 553, 3), 0.9, np.float32)
    whole[:, :, :33, :2] = body
    np.save(tmp_path / "k.npy", whole)
    recording = read(tmp_path / "k.npy")
    assert len(recording.clips) == 2 and recording.layout == "mediapipe33"
    np.testing.assert_allclose(recording.source[0].keypoints, body, atol=0.01)
    np.save(tmp_path / "k.npy", np.random.default_rng(0).normal(0, 400, (T, 553, 3)))
    with pytest.raises(ItesError, match="expected places in the image, got 3D"):
        read(tmp_path / "k.npy")


def test_a_file_per_image_of_results_is_one_recording(tmp_path):
    for t in range(T):
        entry = {"image_id": f"{t}.jpg", "keypoints": flat(FIRST[t]), "score": 2.0, "idx": [0.0]}
        (tmp_path / f"{t}.json").write_text(json.dumps([entry]))
    (clip,) = read(tmp_path).clips
    same(clip, FIRST)


def test_label_files_alone_and_in_a_folder_of_a_folder(tmp_path):
    folder = tmp_path / "predict" / "labels"
    folder.mkdir(parents=True)
    for t, points in enumerate(FIRST):
        row = [0, 0.5, 0.5, 0.2, 0.6, *np.ravel(scored(points / np.float32([1600, 900])))]
        (folder / f"v_{t + 1}.txt").write_text(" ".join(f"{v:.6g}" for v in row) + "\n")
    (clip,) = read(tmp_path / "predict", image_size=(1600, 900)).clips
    expected, _ = to_human36m(FIRST, "coco17")
    np.testing.assert_allclose(clip.keypoints, expected, atol=0.05)
    (one,) = read(folder / "v_3.txt", image_size=(1600, 900)).clips
    np.testing.assert_allclose(one.keypoints, expected[2:3], atol=0.05)


@pytest.mark.parametrize("name", ["k.pkl", f"{'long' * 15}/{'folder' * 10}/k.pkl"])
def test_a_pickle_is_reported(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"\x80\x04N.")
    with pytest.raises(ItesError, match="got a pickle, which could run programs"):
        read(file)


def test_a_late_person_tells_the_first_frame(tmp_path):
    entries = [
        {"image_id": t, "keypoints": flat(PEOPLE[k][t % T]), "score": 1, "track_id": k}
        for k, frames in ((0, range(40)), (1, range(30, 38)))
        for t in frames
    ]
    (tmp_path / "k.json").write_text(json.dumps(entries))
    first, late = read(tmp_path / "k.json").clips
    assert (first.first_frame, len(first)) == (0, 40)
    assert (late.first_frame, len(late)) == (30, 8)
