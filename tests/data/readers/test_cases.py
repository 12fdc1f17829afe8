"""Files that users bring, each with the keypoints that are right."""

import numpy as np
import pytest

from ites.data.readers import read
from ites.errors import ItesError
from ites.pose.layouts import to_human36m
from ites.pose.skeleton import HUMAN36M

FILES = {
    "01-alphapose-frame-order/alphapose-results.json": {},
    "11-openpose-folder/openpose_json": {"person": 1},
    "12-mmpose-inferencer/mmpose-inferencer-video.json": {},
    "12-mmpose-inferencer/mmpose-inferencer-image.json": {},
    "13-halpe26-alphapose/alphapose-results.json": {},
    "14-videopose3d-custom-npz/data_2d_custom_myvideos.npz": {},
    "18-mediapipe-33/mediapipe33.npz": {},
    "18-mediapipe-33/mediapipe_2dData_numCams_numFrames_numTrackedPoints_pixelXY.npy": {},
    "18-mediapipe-33/pose_landmarks.csv": {"image_size": (1920, 1080)},
    "19-deeplabcut/walkDLC_resnet50_humanAug1shuffle1_200000.csv": {},
    "19-deeplabcut/walkDLC_resnet50_humanAug1shuffle1_200000.h5": {},
    "05-yolo-zeros/yolo-data.npz": {"layout": "coco17"},
    "05-yolo-zeros/yolo-xy.npz": {"layout": "coco17"},
    "06-normalised-coordinates/normalised.npz": {"layout": "coco17", "image_size": (1920, 1080)},
    "23-nan-with-likelihood-1/nan-likelihood-1.npz": {"layout": "coco17"},
    "24-guessed-joint-low-confidence/low-confidence.npz": {"layout": "coco17"},
}


def of_frame(shared, name, truth="truth.npz"):
    with np.load(shared / "cases" / name.split("/")[0] / truth) as arrays:
        return to_human36m(arrays["keypoints"], "coco17")[0]


@pytest.mark.parametrize("name", FILES)
def test_what_is_seen_is_right(shared, name):
    (clip,) = read(shared / "cases" / name, **FILES[name]).clips
    truth = of_frame(shared, name)[: len(clip)]
    seen = np.ones(clip.keypoints.shape[:2], bool)
    if clip.confidence is not None:
        seen = clip.confidence > 0
    assert seen.any(1).sum() >= min(len(clip), 110)
    if "halpe" in name:  # whose crown is the detector's own
        seen[:, HUMAN36M.head] = False
    far = np.linalg.norm(clip.keypoints - truth, axis=-1)[seen]
    assert far.max() < 0.02


def test_which_frames_and_joints_are_missing(shared):
    missing = {
        "11-openpose-folder/openpose_json": [40],
        "23-nan-with-likelihood-1/nan-likelihood-1.npz": list(range(60, 70)),
    }
    for name, frames in missing.items():
        (clip,) = read(shared / "cases" / name, **FILES[name]).clips
        assert np.flatnonzero(~(clip.confidence > 0).any(1)).tolist() == frames
    for kind in ("data", "xy"):
        name = f"05-yolo-zeros/yolo-{kind}.npz"
        (clip,) = read(shared / "cases" / name, layout="coco17").clips
        assert (clip.confidence == 0).sum() == 85
    wrist = HUMAN36M.joints.index("left_wrist"), HUMAN36M.joints.index("right_wrist")
    name = "24-guessed-joint-low-confidence/low-confidence.npz"
    (clip,) = read(shared / "cases" / name, layout="coco17").clips
    rows, joints = np.nonzero(clip.confidence == 0)
    assert sorted(set(rows.tolist())) == list(range(30, 60)) and set(joints.tolist()) < set(wrist)


@pytest.mark.parametrize("name", ["two-people-tracked", "mmpose-two-tracked"])
def test_two_people_are_two_clips(shared, name):
    folder = "03-two-people-tracked"
    clips = read(shared / "cases" / folder / f"{name}.json").clips
    assert [clip.name for clip in clips] == [f"{name}#1", f"{name}#2"]
    for clip, number in zip(clips, (1, 2), strict=True):
        truth = of_frame(shared, folder, f"truth_person{number}.npz")
        np.testing.assert_allclose(clip.keypoints, truth, atol=0.02)


def test_two_videos_are_two_clips(shared):
    clips = read(shared / "cases/04-two-videos-in-one-file/two-videos.json").clips
    assert [(clip.name, len(clip)) for clip in clips] == [
        ("two-videos/cam1", 60), ("two-videos/cam2", 60)
    ]  # fmt: skip


@pytest.mark.parametrize("camera", [3, 4])
def test_somebody_from_behind_has_a_head(shared, camera):
    name = f"15-back-view-eyes-never-seen/balance_cam{camera}_coco.npz"
    (clip,) = read(shared / "cases" / name, layout="coco17").clips
    head = HUMAN36M.head
    assert (clip.confidence[:, head] > 0).all() and (clip.confidence > 0).any(0).all()
    with np.load(shared / f"real/balance_cam{camera}_h36m.npz") as arrays:
        own = arrays["keypoints"][:, head, :2]  # the detector's own crown
    torso = np.linalg.norm(clip.keypoints[:, 0] - clip.keypoints[:, 8], axis=-1).mean()
    assert np.linalg.norm(clip.keypoints[:, head] - own, axis=-1).mean() < 0.15 * torso


def test_a_webcam_sees_no_legs(shared):
    path = shared / "cases/16-upper-body-only/upper-body.npz"
    (clip,) = read(path, layout="coco17").clips
    never = [HUMAN36M.joints[j] for j in np.flatnonzero(~(clip.confidence > 0).any(0))]
    assert never == ["right_knee", "right_ankle", "left_knee", "left_ankle"]


@pytest.mark.parametrize("camera", [1, 2, 3, 4])
def test_real_detections_with_a_bystander(shared, camera):
    recording = read(shared / f"real/balance_cam0{camera}.json")
    with np.load(shared / f"real/balance_cam{camera}_coco.npz") as arrays:
        own = arrays["keypoints"]
    main = recording.source[0]
    seen = (main.confidence > 0) & (own[..., 2] > 0)
    assert seen.sum() > 0.95 * (own[..., 2] >= 0.1).sum()
    np.testing.assert_allclose(main.keypoints[seen], own[..., :2][seen], atol=0.01)
    assert (main.confidence > 0).any(1).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("06-normalised-coordinates/normalised.npz", "keypoints are normalised"),
        ("07-third-column-is-depth/xyz.npz", "a third column that is a depth"),
        ("18-mediapipe-33/pose_landmarks.csv", "keypoints are normalised"),
        ("22-broken-json/empty.json", "nobody is in it"),
        ("22-broken-json/truncated.json", "expected a JSON file"),
        ("22-broken-json/zero-bytes.json", "got an empty file"),
        ("22-broken-json", "truncated.json"),
    ],
)
def test_refusals_name_the_file(shared, name, message):
    with pytest.raises(ItesError, match=message) as caught:
        read(shared / "cases" / name)
    assert name.split("/")[-1] in str(caught.value) and len(str(caught.value)) <= 300
    assert "pickle" not in str(caught.value)


def test_hostile_files_are_refused_in_one_line(shared):
    kinds = ("npz_", "npy_", "coco_", "mmpose_", "h36m_billion")
    files = [p for p in (shared / "hostile").iterdir() if p.name.startswith(kinds)]
    assert len(files) > 20
    for path in files:
        with pytest.raises(ItesError) as caught:
            read(path)
        assert str(path) in str(caught.value) and len(str(caught.value)) <= 300
