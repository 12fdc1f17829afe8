"""A user's own keypoints become a store that can be trained on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import walking

from ites.data import PoseStore, PoseStoreWriter
from ites.data.corrections import Corrections
from ites.data.datasets.keypoints import prepare_keypoints
from ites.data.keypoint_reader import read_keypoints
from ites.data.readers import read
from ites.errors import ItesError
from ites.pose.camera import Camera
from ites.pose.layouts import to_human36m
from ites.pose.skeleton import HUMAN36M


@pytest.fixture
def out(tmp_path):
    return tmp_path / "own.h5"


def clip(length=4, joints=17, seed=0):
    return np.random.default_rng(seed).uniform(1, 640, (length, joints, 2)).astype("f4")


def test_arrays_with_their_camera(tmp_path, out):
    np.savez(tmp_path / "a.npz", keypoints=clip(), fps=30, focal_length=900, image_size=(640, 480))
    np.savez(tmp_path / "b.npz", keypoints=clip(5, seed=1))
    summary = prepare_keypoints(
        [tmp_path / "a.npz", tmp_path / "b.npz"], out, image_size=(640, 480)
    )
    assert summary["splits"]["train"] == {
        "poses": 9,
        "incomplete": 0,
        "sequences": 2,
        "subjects": ["a", "b"],
    }
    assert not summary["positions"]
    with PoseStore(out) as store:
        first, second = store.sequences
        assert first.fps == 30 and np.isnan(second.fps)
        assert [store.cameras[s.camera].assumed for s in (first, second)] == [False, True]
        assert store.cameras[first.camera].focal_length == (900, 900)
        assert store.cameras[first.camera].center == (320, 240)
        assumed = 320 / np.tan(np.radians(55 / 2))
        assert store.cameras[second.camera].focal_length == pytest.approx((assumed, assumed))
        np.testing.assert_array_equal(store.keypoints()[second.rows], clip(5, seed=1))
        points, scale = store.points("train", scale=1.0)
        expected = (clip() - clip()[:, :1]) / 900
        np.testing.assert_allclose(points[:4], expected, rtol=1e-5, atol=1e-7)


def test_options_come_before_the_file(tmp_path, out):
    np.savez(tmp_path / "a.npz", keypoints=clip(), fps=30, focal_length=900, image_size=(640, 480))
    prepare_keypoints(
        [tmp_path], out, fps=10, focal_length=500, image_size=(800, 600), split="test"
    )
    with PoseStore(out) as store:
        (sequence,) = store.sequences_of("test")
        camera = store.cameras[sequence.camera]
        assert (sequence.fps, camera.focal_length) == (10, (500, 500))
        assert (camera.width, camera.height) == (800, 600)


def test_little_confidence_is_missing(tmp_path, out):
    scored = np.concatenate([clip(), np.full((4, 17, 1), 0.9, "f4")], axis=-1)
    scored[1, 3, 2] = 0.2
    scored[2, 5] = np.nan
    np.save(tmp_path / "a.npy", scored)
    prepare_keypoints([tmp_path / "a.npy"], out, min_confidence=0.3)
    with PoseStore(out) as store:
        assert store.complete().tolist() == [True, False, False, True]
        assert len(store.points("train", missing="drop")[0]) == 2
        assert len(store.points("train", missing="interpolate")[0]) == 4


def walk(length=4):
    """Somebody who moves slowly: COCO's joints, pixels."""
    still = np.random.default_rng(5).uniform(100, 400, (17, 2))
    return (still + 3 * np.arange(length)[:, None, None]).astype("f4")


def coco(frames):
    """COCO results with a second, smaller person, frames out of order."""
    people = []
    for image, joints in reversed(list(enumerate(frames))):
        for score, own in ((0.4, joints / 2 + 500), (0.9, joints)):
            scored = np.c_[own, np.full(17, 0.8)]
            people.append(
                {
                    "image_id": image,
                    "category_id": 1,
                    "keypoints": scored.ravel().tolist(),
                    "score": score,
                }
            )
    return people


def mmpose(frames):
    return {
        "meta_info": {},
        "instance_info": [
            {
                "frame_id": number,
                "instances": [
                    {
                        "keypoints": own.tolist(),
                        "keypoint_scores": [0.8] * 17,
                        "bbox_score": [score],
                    }
                    for score, own in ((0.4, joints / 2 + 500), (0.9, joints))
                ],
            }
            for number, joints in enumerate(frames, 1)
        ],
    }


@pytest.mark.parametrize("layout", [coco, lambda frames: {"annotations": coco(frames)}, mmpose])
def test_detections(tmp_path, out, layout):
    frames = walk()
    (tmp_path / "walk.json").write_text(json.dumps(layout(frames)))
    prepare_keypoints([tmp_path / "walk.json"], out)
    with PoseStore(out) as store:
        assert [sequence.subject for sequence in store.sequences] == ["walk#1", "walk#2"]
        for sequence, own in zip(store.sequences, (frames, frames / 2 + 500), strict=True):
            expected = to_human36m(own, "coco17")[0]
            np.testing.assert_allclose(store.keypoints([sequence]), expected, rtol=1e-5)
        np.testing.assert_allclose(store.confidence(), 0.8)
    prepare_keypoints([tmp_path / "walk.json"], out, person=2)
    with PoseStore(out) as store:
        assert [sequence.subject for sequence in store.sequences] == ["walk"]
        expected = to_human36m(frames / 2 + 500, "coco17")[0]
        np.testing.assert_allclose(store.keypoints(), expected, rtol=1e-5)


def test_a_frame_without_people_is_missing(tmp_path, out):
    content = mmpose(walk())
    content["instance_info"][2]["instances"] = []
    (tmp_path / "walk.json").write_text(json.dumps(content))
    summary = prepare_keypoints([tmp_path / "walk.json"], out)
    with PoseStore(out) as store:
        assert store.complete().tolist() == 2 * [True, True, False, True]
    assert "nobody is seen in 1 of 4 frames: missing frames" in summary["notes"]


def test_a_late_person_keeps_the_first_frame(tmp_path, out):
    entries = [
        {"image_id": 100 + t, "keypoints": np.c_[joints, np.ones(17)].ravel().tolist(), "idx": k}
        for k, begin, frames in ((1, 0, walk(20)), (2, 12, walk(6) + 300))
        for t, joints in enumerate(frames, begin)
    ]
    (tmp_path / "walk.json").write_text(json.dumps(entries))
    prepare_keypoints([tmp_path / "walk.json"], out)
    for path in (tmp_path / "walk.json", out):
        assert [c.first_frame for c in read_keypoints(path).clips] == [0, 12]
        assert [one.frames[0] % 100 for one in read(path).source] == [0, 12]
    with PoseStore(out) as store:
        assert [s.first for s in store.sequences_of("train")] == [0, 12]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "expected a JSON file"),
        ("[]", "nobody is in it"),
        ("{}", "nobody is in it"),
        ('[{"image_id": 1, "keypoints": [1, 2]}]', "expected 17 joints per frame"),
        ('[{"image_id": 1, "keypoints": [1, 2, 3]}]', "got 1; a layout to convert from"),
    ],
)
def test_a_bad_file_is_named(tmp_path, out, text, message):
    (tmp_path / "walk.json").write_text(text)
    with pytest.raises(ItesError, match=message):
        prepare_keypoints([tmp_path / "walk.json"], out)
    assert not out.exists()


def test_no_files(tmp_path, out):
    with pytest.raises(ItesError, match="expected files of .json, .*got none"):
        prepare_keypoints([tmp_path], out)
    with pytest.raises(ItesError, match="no such file"):
        prepare_keypoints([tmp_path / "walk.json"], out)
    with pytest.raises(ItesError, match="walk.csv: no such file"):
        prepare_keypoints([tmp_path / "walk.csv"], out)
    with pytest.raises(ItesError, match="field_of_view must be in 0..180, got 200"):
        prepare_keypoints([tmp_path], out, field_of_view=200)


def test_impossible_keypoints_are_missing_and_reported(tmp_path, out):
    points = clip(8)
    points[3, 10] = 1e6
    np.savez(tmp_path / "a.npz", keypoints=points, fps=30, focal_length=900, image_size=(640, 480))
    summary = prepare_keypoints([tmp_path / "a.npz"], out)
    (note,) = summary["notes"]
    assert note.startswith("a: 1 impossible keypoints count as missing, the first in frame 3: head")
    with PoseStore(out) as store:
        assert np.argwhere(store.confidence() == 0).tolist() == [[3, 10]]


def test_options_have_their_effect_on_a_store_or_are_refused(tmp_path, out):
    np.savez(tmp_path / "in.npz", keypoints=clip(), fps=30.0, image_size=[640, 480])
    prepare_keypoints([tmp_path / "in.npz"], out)
    again = tmp_path / "again.h5"
    for options, message in (
        ({"layout": "coco17"}, "a pose store keeps its order of joints, human36m; got layout coco"),
        ({"person": 1}, "person chooses among a detector's results"),
        ({"min_confidence": 0.3}, "min_confidence chooses among a detector's results"),
        ({"focal_length": 900.0, "field_of_view": 60.0}, "a focal length or a field of view, not"),
    ):
        with pytest.raises(ItesError, match=message):
            prepare_keypoints([out], again, **options)
        assert not again.exists()
    prepare_keypoints([out], again, fps=12.0, image_size=(800, 600), field_of_view=90.0)
    with PoseStore(again) as store:
        (sequence,) = store.sequences
        camera = store.cameras[sequence.camera]
        assert sequence.fps == 12
        assert (camera.width, camera.height) == (800, 600)
        np.testing.assert_allclose(camera.focal_length, 400)
        assert not camera.assumed


def test_a_field_of_view_overrides_the_files_focal_length(tmp_path, out):
    np.savez(tmp_path / "in.npz", keypoints=clip(), focal_length=900.0, image_size=[640, 480])
    prepare_keypoints([tmp_path / "in.npz"], out, field_of_view=90.0)
    with PoseStore(out) as store:
        (camera,) = store.cameras.values()
        np.testing.assert_allclose(camera.focal_length, 320)


def test_a_threshold_without_confidences_is_refused(tmp_path, out):
    np.savez(tmp_path / "in.npz", keypoints=clip())
    with pytest.raises(ItesError, match="in.npz: min_confidence has no effect: the file holds no"):
        prepare_keypoints([tmp_path / "in.npz"], out, min_confidence=0.3)


def test_a_prior_judges_the_keypoints(tmp_path, out):
    own = walking.walk(60)
    np.savez(tmp_path / "a.npz", keypoints=own.keypoints, fps=25.0, image_size=(1280, 960))
    summary = prepare_keypoints([tmp_path / "a.npz"], out)
    assert not [f for f in summary["findings"] if f["code"] == "density"]
    summary = prepare_keypoints(
        [tmp_path / "a.npz"], out, prior=lambda points: np.full(len(points), -999.0)
    )
    (found,) = [f for f in summary["findings"] if f["code"] == "density"]
    assert found["severity"] == "warning" and "resemble none" in found["message"]


def stored(path, splits=("train", "train", "test", "val"), camera=None, skeleton=HUMAN36M, **more):
    """A pose store with a clip of each split, seen by one camera."""
    camera = camera or Camera("c", (900.0, 950.0), (320.0, 240.0), width=640, height=480)
    with PoseStoreWriter(path, skeleton, acknowledgement="thanks to everybody") as writer:
        for number, split in enumerate(splits):
            writer.add(
                clip(4 + number, seed=number),
                camera=writer.key_of(camera),
                subject=f"s{number}",
                action="a",
                split=split,
                fps=20.0 + number,
                **{name: value[: 4 + number] for name, value in more.items()},
            )
    return path


def test_all_clips_of_a_store_are_read_and_keep_their_split(tmp_path, out):
    assert len(read(stored(tmp_path / "s.h5")).clips) == 4
    summary = prepare_keypoints([tmp_path / "s.h5"], out)
    counts = {split: (of["sequences"], of["poses"]) for split, of in summary["splits"].items()}
    assert counts == {"train": (2, 9), "test": (1, 6), "val": (1, 7)}
    assert "clips of all splits are read: train 2, test 1, val 1" in summary["notes"]
    assert summary["acknowledgement"] == "thanks to everybody"
    with PoseStore(out) as store:
        assert [sequence.fps for sequence in store.sequences] == [20, 21, 22, 23]
    assert prepare_keypoints([tmp_path / "s.h5"], out, split="all")["splits"].keys() == {"all"}


def test_a_stores_camera_is_kept(tmp_path, out):
    camera = Camera(
        "c", (900.0, 950.0), (300.0, 200.0), (0.1, 0.2, 0.3), (0.4, 0.5),
        orientation=(0.6, 0.8, 0.0, 0.0), translation=(1.0, 2.0, 3.0), width=640, height=480,
    )  # fmt: skip
    poses = np.zeros((7, 17, 3)) + [0, 0, 4] + np.linspace(0, 1, 17)[:, None]
    stored(tmp_path / "s.h5", camera=camera, positions=poses, gravity=np.zeros((7, 2)))
    summary = prepare_keypoints([tmp_path / "s.h5"], out)
    assert "left out beside the keypoints: 3D positions, gravity per pose" in summary["notes"]
    with PoseStore(out) as store:
        assert list(store.cameras.values()) == [camera]
    prepare_keypoints([tmp_path / "s.h5"], out, focal_length=800.0)
    with PoseStore(out) as store:
        assert list(store.cameras.values()) == [replace(camera, focal_length=(800.0, 800.0))]
    prepare_keypoints([tmp_path / "s.h5"], out, image_size=(800, 600))  # as `ites lift` takes it
    with PoseStore(out) as store:
        moved = replace(camera, center=(400.0, 300.0), width=800, height=600)
        assert list(store.cameras.values()) == [moved]


def test_a_turned_image_moves_a_stores_principal_point(tmp_path, out):
    camera = Camera("c", (900.0, 950.0), (300.0, 200.0), (0.1, 0, 0), width=640, height=480)
    stored(tmp_path / "s.h5", camera=camera)
    prepare_keypoints([tmp_path / "s.h5"], out, corrections=Corrections(rotate=90))
    with PoseStore(out) as store:
        (turned,) = store.cameras.values()
    assert (turned.focal_length, turned.center) == ((950, 900), (280, 300))
    assert (turned.width, turned.height) == (480, 640)
    assert turned.radial == (0, 0, 0)  # in axes that are no longer the image's


def test_an_assumed_camera_of_a_store_stays_as_it_is(tmp_path, out):
    camera = Camera("c", (700.0, 700.0), (11.0, 12.0), assumed=True)
    stored(tmp_path / "s.h5", camera=camera)
    prepare_keypoints([tmp_path / "s.h5"], out)
    with PoseStore(out) as store:
        assert list(store.cameras.values()) == [camera]


@pytest.mark.parametrize("order", ["known unknown", "unknown known"])
def test_a_camera_of_unknown_size_stays_unknown(tmp_path, out, order):
    """Also where its keypoints reach as far as the image of another camera is large."""
    edge = np.full((4, 17, 2), (640.0, 480.0), "f4")
    for name, points in (("known", clip()), ("unknown", np.minimum(clip(seed=1), edge))):
        points[0, 0] = (640, 480)
        size = {"image_size": (640, 480)} if name == "known" else {}
        np.savez(tmp_path / f"{name}.npz", keypoints=points, fps=30, **size)
    files = [tmp_path / f"{name}.npz" for name in order.split()]
    prepare_keypoints(files, out, focal_length=900.0)
    with PoseStore(out) as store:
        widths = {s.subject: store.cameras[s.camera].width for s in store.sequences}
    assert widths == {"known": 640, "unknown": 0}


def test_a_clip_that_is_given_twice_counts_once(tmp_path, out):
    a, b = tmp_path / "a.npz", tmp_path / "b.npz"
    np.savez(a, keypoints=clip(), fps=30, image_size=(640, 480))
    np.savez(b, keypoints=clip(), fps=25, image_size=(640, 480))
    summary = prepare_keypoints([a, a], out)
    assert summary["splits"]["train"]["sequences"] == 1
    assert f"{a}: clip a is given twice; counted once" in summary["notes"]
    summary = prepare_keypoints([a, b], out)
    assert summary["splits"]["train"]["subjects"] == ["a"]
    words = f"{b}: clip b has the keypoints of {a}; counted once, with the first's camera and"
    assert any(note.startswith(words) for note in summary["notes"])


def test_clips_that_show_little_are_no_copies(tmp_path, out):
    for name in "ab":
        points = np.full((4, 17, 2), np.nan)
        points[:, 0] = clip(seed=ord(name))[:, 0]
        np.savez(tmp_path / f"{name}.npz", keypoints=points)
    summary = prepare_keypoints([tmp_path / "a.npz", tmp_path / "b.npz"], out)
    assert summary["splits"]["train"]["sequences"] == 2


def test_a_store_of_exchanged_sides_is_refused(tmp_path, out):
    """Its parents are Human3.6M's, but its right joints stand where the left ones are."""
    names = [HUMAN36M.joints[joint] for joint in HUMAN36M.mirror]
    other = replace(
        HUMAN36M, name="leftfirst", joints=tuple(names), left=HUMAN36M.right, right=HUMAN36M.left
    )
    assert other.parents == HUMAN36M.parents
    stored(tmp_path / "s.h5", skeleton=other)
    message = "s.h5: expected the joints of human36m, got those of leftfirst: joint 1 is"
    with pytest.raises(ItesError, match=message):
        prepare_keypoints([tmp_path / "s.h5"], out)
