"""What detectors write becomes clips: every frame in its place, nobody mixed up."""

import bz2
import gzip
import json
import lzma
import zipfile

import numpy as np
import pytest
from people import flat, same, scored, walk

from ites.data.readers import read
from ites.data.readers.read import UNPACKED
from ites.errors import ItesError
from ites.pose.layouts import LAYOUT_JOINTS, to_human36m
from ites.pose.skeleton import HUMAN36M

OURS = {name: index for index, name in enumerate(HUMAN36M.joints)}


def written(tmp_path, content, name="walk.json"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def results(videos):
    """COCO results of {image id: [(points, more fields)]}, in the order given."""
    return [
        {"image_id": key, "category_id": 1, "keypoints": flat(points), "score": 1.0, **more}
        for key, people in videos
        for points, more in people
    ]


# Order of time, missing frames


@pytest.mark.parametrize("name", ["{}.jpg", "frame_{:06d}.png", "{}", "a/b{}.jpg", int])
def test_frames_come_in_the_order_of_time(tmp_path, name):
    points = walk(frames=120)
    ids = [name(t) if name is int else name.format(t) for t in range(120)]
    order = np.random.default_rng(0).permutation(120)
    path = written(tmp_path, results((ids[t], [(points[t], {})]) for t in order))
    (clip,) = read(path).clips
    same(clip, points)
    assert clip.name == "walk" and (clip.confidence > 0).all()


def test_frames_that_the_ids_skip_are_missing(tmp_path):
    points = walk(frames=12)
    kept = [t for t in range(12) if t not in (3, 7, 8)]
    recording = read(written(tmp_path, results((f"{t}.jpg", [(points[t], {})]) for t in kept)))
    (clip,) = recording.clips
    assert np.flatnonzero(~(clip.confidence > 0).any(1)).tolist() == [3, 7, 8]
    same(clip, points, rows=kept)
    assert "nobody is seen in 3 of 12 frames: missing frames" in recording.notes
    assert recording.source[0].frames.tolist() == list(range(12))


def test_somebody_seen_in_few_frames_is_still_in_a_video(tmp_path):
    points = walk(frames=100)
    kept = sorted(np.random.default_rng(2).choice(100, 30, replace=False).tolist())
    recording = read(written(tmp_path, results((t, [(points[t], {})]) for t in kept)))
    (clip,) = recording.clips
    rows = np.array(kept) - kept[0]
    assert np.flatnonzero((clip.confidence > 0).any(1)).tolist() == rows.tolist()
    expected, _ = to_human36m(points[kept], "coco17")
    np.testing.assert_allclose(clip.keypoints[rows], expected, atol=0.01)


def test_sparse_ids_of_results_are_photographs(tmp_path):
    content = results((n, [(walk()[0], {})]) for n in (139, 285, 632, 724, 776, 785))
    assert [len(clip) for clip in read(written(tmp_path, content)).clips] == [1] * 6


def test_every_eighth_frame_is_no_gap(tmp_path):
    points = walk(frames=10)
    path = written(tmp_path, results((8 * t, [(points[t], {})]) for t in range(10)))
    (clip,) = read(path).clips
    same(clip, points)


@pytest.mark.parametrize("text", [False, True])
def test_times_in_seconds_are_frames(tmp_path, text):
    points = walk(frames=40)
    kept = [t for t in range(40) if t not in (7, 8)]
    ids = {t: f"{t / 30:.4f}" if text else round(t / 30, 4) for t in kept}
    order = np.random.default_rng(0).permutation(kept)
    (clip,) = read(written(tmp_path, results((ids[t], [(points[t], {})]) for t in order))).clips
    same(clip, points, rows=kept)
    assert np.flatnonzero(~(clip.confidence > 0).any(1)).tolist() == [7, 8]


def test_milliseconds_are_frames(tmp_path):
    points = walk(frames=40)
    kept = [t for t in range(40) if t not in (7, 8)]
    content = results((round(1000 * t / 30), [(points[t], {})]) for t in kept)
    (clip,) = read(written(tmp_path, content)).clips
    same(clip, points, rows=kept)


def test_rounded_milliseconds_of_a_long_video_leave_no_gap(tmp_path):
    points = walk(frames=300)
    content = results((round(1000 * t / 30), [(points[t], {})]) for t in range(300))
    (clip,) = read(written(tmp_path, content)).clips
    assert len(clip) == 300
    same(clip, points)


@pytest.mark.parametrize(
    "name", ["{h:02d}:00:{s:02d}.{ms:03d}", "2024-05-01T{h:02d}:00:{s:02d}.{ms:03d}Z"]
)
def test_times_of_day_are_frames_of_one_video(tmp_path, name):
    points = walk(frames=60)
    ids = [name.format(h=10, s=t // 25, ms=t % 25 * 40) for t in range(60)]
    (clip,) = read(written(tmp_path, results((ids[t], [(points[t], {})]) for t in range(60)))).clips
    same(clip, points)


def test_numbers_below_0_are_frames_before_an_event(tmp_path):
    points = walk(frames=40)
    (clip,) = read(written(tmp_path, results((t - 15, [(points[t], {})]) for t in range(40)))).clips
    same(clip, points)


def test_one_id_for_all_frames_is_refused(tmp_path):
    path = written(tmp_path, results((1, [(p, {})]) for p in walk(frames=40)))
    with pytest.raises(ItesError, match=r"expected ids that tell frames apart, got 40 detections"):
        read(path)


def test_a_clock_beside_the_frame_number_cuts_no_video(tmp_path):
    points, other = walk(frames=90), walk(frames=30, start=(300.0, 500.0))
    names = [f"v_12-00-{t // 30:02d}_{t:06d}.jpg" for t in range(90)]
    pairs = list(zip(names, points, strict=True))
    (clip,) = read(written(tmp_path, results((n, [(p, {})]) for n, p in pairs))).clips
    same(clip, points)
    pairs[30:60] = zip(names[30:60], other, strict=True)  # somebody else: takes of their own
    clips = read(written(tmp_path, results((n, [(p, {})]) for n, p in pairs))).clips
    assert [len(clip) for clip in clips] == [30, 30, 30]


def test_ids_of_billions_of_frames_are_refused(tmp_path):
    points = walk(frames=6)
    ids = [0, 1, 2, 3, 4, 4_000_000_000]
    content = results((key, [(p, {})]) for key, p in zip(ids, points, strict=True))
    with pytest.raises(ItesError, match=r"walk.json: expected frame numbers of a video"):
        read(written(tmp_path, content))


# Several people, videos, photographs


@pytest.mark.parametrize("key", ["idx", "track_id"])
def test_tracked_people_are_a_clip_each(tmp_path, key):
    first, second = walk(frames=20), walk(frames=20, start=(760.0, 480.0), step=(-4.0, 0.0))
    frames = [
        (f"{t}.jpg", [(first[t], {key: 7}), (second[t], {key: 12})][:: 1 if t % 3 else -1])
        for t in range(20)
    ]
    path = written(tmp_path, results(frames))
    recording = read(path)
    assert [clip.name for clip in recording.clips] == ["walk#7", "walk#12"]
    same(recording.clips[0], first)
    same(recording.clips[1], second)
    (only,) = read(path, person=12).clips
    same(only, second)
    with pytest.raises(ItesError, match=r"person must be one of 7, 12, got '3'"):
        read(path, person=3)


def test_a_bystander_changes_nothing(tmp_path):
    """Without track ids: somebody else is first in the list in every third frame."""
    person = walk(frames=40)
    other = walk(frames=40, height=180.0, start=(300.0, 420.0), step=(0.5, 0.0))
    frames = []
    for t in range(40):
        here = [(person[t], {})] if t != 22 else []
        frames.append((t, [(other[t], {}), *here] if t % 3 == 0 else here))
    recording = read(written(tmp_path, results(frames)))
    (main,) = recording.clips
    seen = (main.confidence > 0).all(1)
    assert np.flatnonzero(~seen).tolist() == [22]
    same(main, person, rows=seen)
    assert any("between their first and their last: 1 person" in n for n in recording.notes)


def test_people_who_cross_keep_their_clips(tmp_path):
    first = walk(frames=60, start=(300.0, 500.0), step=(10.0, 0.0))
    second = walk(frames=60, height=360.0, start=(900.0, 510.0), step=(-10.0, 0.0))
    order = np.random.default_rng(1)
    frames = []
    for t in range(60):
        people = [(first[t], {}), (second[t], {})]
        frames.append((t, people if order.random() < 0.5 else people[::-1]))
    clips = read(written(tmp_path, results(frames))).clips
    assert len(clips) == 2
    same(clips[0], first)
    same(clips[1], second)


def test_a_tracker_that_exchanges_two_people_is_reported_and_undone(tmp_path):
    first, second = walk(frames=30), walk(frames=30, start=(700.0, 480.0), step=(-4.0, 0.0))
    frames = [
        (t, [(first[t], {"idx": 1 + swap}), (second[t], {"idx": 2 - swap})])
        for t, swap in ((t, 10 <= t < 22) for t in range(30))
    ]
    recording = read(written(tmp_path, results(frames)))
    for clip, points in zip(recording.clips, (first, second), strict=True):
        same(clip, points)
    for frame in (10, 22):
        note = f"track ids 1 and 2 change places in frame {frame}: each clip keeps its person"
        assert note in recording.notes


def test_ids_that_change_places_all_the_time_are_one_note(tmp_path):
    first, second = walk(frames=30), walk(frames=30, start=(1000.0, 480.0))
    frames = [
        (t, [(first[t], {"idx": 1 + t % 2}), (second[t], {"idx": 2 - t % 2})]) for t in range(30)
    ]
    recording = read(written(tmp_path, results(frames)))
    for clip, points in zip(recording.clips, (first, second), strict=True):
        same(clip, points)
    (note,) = [line for line in recording.notes if "change places" in line]
    assert note.startswith("track ids 1 and 2 change places 29 times, in frames 1 to 29")


def test_somebody_found_twice_in_each_frame_is_one_clip(tmp_path):
    points = walk(frames=20)
    frames = [(t, [(p + 2, {"score": 0.4}), (p, {"score": 0.9})]) for t, p in enumerate(points)]
    recording = read(written(tmp_path, results(frames)))
    (clip,) = recording.clips
    same(clip, points)
    assert "left out: 20 detections of somebody found twice in a frame" in recording.notes


@pytest.mark.parametrize("every", [1, 2])
def test_ids_that_change_from_frame_to_frame_follow_nobody(tmp_path, every):
    first, second = walk(frames=40), walk(frames=40, start=(760.0, 480.0), step=(-4.0, 0.0))
    ids = [(1000 + t // every, 2000 + t // every) for t in range(40)]
    content = results(
        (t, [(first[t], {"track_id": ids[t][0]}), (second[t], {"track_id": ids[t][1]})])
        for t in range(40)
    )
    recording = read(written(tmp_path, content))
    one, other = recording.clips
    same(one, second)
    same(other, first)
    expected = f"{80 // every} track ids, most of them in fewer than 3 frames"
    assert any(note.startswith(expected) for note in recording.notes)


def test_ids_that_repeat_in_a_frame_are_no_track_ids(tmp_path):
    first, second = walk(frames=8), walk(frames=8, start=(200.0, 500.0), height=250.0)
    content = results((t, [(second[t], {"idx": 0}), (first[t], {"idx": 0})]) for t in range(8))
    clips = read(written(tmp_path, content)).clips
    same(clips[0], first)
    same(clips[1], second)


@pytest.mark.parametrize("name", ["cam{}/{:06d}.jpg", "cam{}_{:04d}.jpg", "{}/{}.png"])
def test_two_videos_are_two_clips(tmp_path, name):
    videos = walk(frames=15), walk(frames=15, start=(710.0, 500.0), step=(-3.0, 0.0))
    content = results(
        (name.format(camera, t), [(points[t], {})])
        for camera, points in enumerate(videos, 1)
        for t in range(15)
    )
    recording = read(written(tmp_path, content))
    assert len(recording.clips) == 2
    for clip, points in zip(recording.clips, videos, strict=True):
        same(clip, points)


def annotations(points, names, sizes):
    images = [
        {"id": 500 + i, "file_name": name, "width": size[0], "height": size[1]}
        for i, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]
    people = [
        {"id": i, "image_id": 500 + i, "category_id": 1, "iscrowd": 0, "num_keypoints": 17,
         "keypoints": [2.0 if k % 3 == 2 else v for k, v in enumerate(flat(p))]}
        for i, p in enumerate(points)
    ]  # fmt: skip
    return {"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]}


def test_photographs_are_clips_of_one_frame(tmp_path):
    rng = np.random.default_rng(3)
    points = [
        walk(frames=1, height=rng.uniform(100, 400), start=tuple(rng.uniform(100, 500, 2)))[0]
        for _ in range(6)
    ]
    names = [f"{n:012d}.jpg" for n in (139, 285, 632, 724, 776, 785)]
    sizes = [(640, 480), (640, 426), (500, 375), (640, 480), (427, 640), (640, 480)]
    recording = read(written(tmp_path, annotations(points, names, sizes)))
    assert [len(clip) for clip in recording.clips] == [1] * 6
    assert [clip.image_size for clip in recording.clips] == sizes
    for clip, one in zip(recording.clips, points, strict=True):
        same(clip, one[None])
    assert recording.format == "COCO annotations"


def test_a_category_must_name_the_keypoints_of_its_annotations(tmp_path):
    rng = np.random.default_rng(3)
    content = annotations(walk(frames=4), [f"{n}.jpg" for n in range(4)], [(640, 480)] * 4)
    hand = {"id": 2, "name": "hand", "keypoints": [f"k{n}" for n in range(21)]}
    content["categories"] = [hand]
    with pytest.raises(
        ItesError, match="names the 17 keypoints of an annotation, got hand with 21"
    ):
        read(written(tmp_path, content))
    names = list(rng.permutation(HUMAN36M.joints))
    content["categories"] = [hand, {"id": 1, "name": "person", "keypoints": names}]
    assert len(read(written(tmp_path, content)).clips[0]) == 4
    content["categories"][1]["keypoints"] = names[:16]
    with pytest.raises(ItesError, match="got person with 16"):
        read(written(tmp_path, content))


def test_photographs_numbered_in_a_row_are_no_video(tmp_path):
    """Names alone would make a video; the people are somewhere else in each."""
    rng = np.random.default_rng(4)
    points = [
        walk(frames=1, height=rng.uniform(80, 300), start=tuple(rng.uniform(100, 1500, 2)))[0]
        for _ in range(10)
    ]
    names = [f"photo_{n:02d}.jpg" for n in range(10)]
    recording = read(written(tmp_path, annotations(points, names, [(1600, 1600)] * 10)))
    assert [len(clip) for clip in recording.clips] == [1] * 10


def test_annotated_frames_of_a_video_are_one_clip(tmp_path):
    points = walk(frames=9)
    names = [f"frame_{n:06d}.PNG" for n in range(9)]
    (clip,) = read(written(tmp_path, annotations(points, names, [(1920, 1080)] * 9))).clips
    same(clip, points)
    assert clip.image_size == (1920, 1080)


def test_people_without_a_joint_are_left_out(tmp_path):
    points = walk(frames=5)
    content = results((t, [(points[t], {}), (0 * points[t], {})]) for t in range(5))
    for entry in content[1::2]:
        entry["keypoints"] = [0] * 51
    recording = read(written(tmp_path, content))
    (clip,) = recording.clips
    same(clip, points)
    assert "left out: 5 detections with fewer than 3 joints seen" in recording.notes


# Formats


def openpose(people):
    return {
        "version": 1.3,
        "people": [
            {"person_id": [-1], "pose_keypoints_2d": flat(p), "face_keypoints_2d": []}
            for p in people
        ],
    }


@pytest.mark.parametrize("layout", ["body25", "coco18", "body25b", "halpe26", "wholebody133"])
def test_an_openpose_folder_is_one_recording(tmp_path, layout):
    points = walk(layout, frames=12)
    for t in range(12):
        people = [points[t]] if t != 4 else []
        written(tmp_path, openpose(people), f"json/walk_{t:012d}_keypoints.json")
    recording = read(tmp_path / "json")
    (clip,) = recording.clips
    assert recording.layout == layout and recording.format == "OpenPose"
    assert np.flatnonzero(~(clip.confidence > 0).any(1)).tolist() == [4]
    same(clip, points, layout, rows=[t for t in range(12) if t != 4])


@pytest.mark.parametrize("other", ["body25", "halpe26", "wholebody133", "mpii16"])
def test_frames_of_two_detectors_are_one_clip(tmp_path, other):
    points, others = walk(frames=12), walk(other, frames=12)
    for t in range(12):
        people = [points[t] if t % 3 else others[t]]
        written(tmp_path, openpose(people), f"json/walk_{t:012d}_keypoints.json")
    recording = read(tmp_path / "json")
    (clip,) = recording.clips
    layouts = sorted([(17, "coco17"), (len(others[0]), other)])
    both = " and ".join(f"{count} ({name})" for count, name in layouts)
    assert f"people of {both} joints are converted to human36m" in recording.notes
    same(clip, points, rows=[t for t in range(12) if t % 3])
    same(clip, others, other, rows=[0, 3, 6, 9])


def test_two_detectors_of_one_person_are_one_clip(tmp_path):
    points, others = walk(frames=12), walk("wholebody133", frames=12)
    ids = [(t, [(points[t], {}), (others[t], {})]) for t in range(12)]
    recording = read(written(tmp_path, results(ids)))
    (clip,) = recording.clips
    same(clip, points)
    assert "left out: 12 detections of somebody found twice in a frame" in recording.notes


def test_a_layout_leaves_people_of_an_unknown_number_of_joints_out(tmp_path):
    points = walk(frames=12)
    boxes = [(t, [(points[t], {}), (points[t, :5] + 100, {})]) for t in range(12)]
    path = written(tmp_path, results(boxes))
    with pytest.raises(ItesError, match="got 5, 17; a layout reads") as caught:
        read(path)
    assert caught.value.code == "mixed"
    recording = read(path, layout="coco17")
    (clip,) = recording.clips
    same(clip, points)
    assert "left out: 12 people of 5 joints, whose order is unknown" in recording.notes
    with pytest.raises(ItesError, match="got 5, 17"):
        read(path, layout="body25")


def test_openpose_without_padding_and_two_videos(tmp_path):
    first, second = walk("body25", frames=12), walk("body25", frames=12, start=(200.0, 400.0))
    for t in range(12):
        written(tmp_path, openpose([first[t]]), f"a_{t}_keypoints.json")
        written(tmp_path, openpose([second[t]]), f"b_{t}_keypoints.json")
    recording = read(tmp_path)
    assert [len(clip) for clip in recording.clips] == [12, 12]
    same(recording.clips[0], first, "body25")
    same(recording.clips[1], second, "body25")


@pytest.mark.parametrize("halves", [False, True])
def test_openpose_normalised(tmp_path, halves):
    points, size = walk("body25", frames=5), np.array([1920, 1080], np.float32)
    unit = 2 * points / size - 1 if halves else points / size
    for t in range(5):
        values = np.round(scored(unit[t]).astype(float), 6).ravel().tolist()
        content = {"people": [{"pose_keypoints_2d": values}]}
        written(tmp_path, content, f"w_{t:012d}_keypoints.json")
    (clip,) = read(tmp_path, image_size=(1920, 1080)).clips
    same(clip, points, "body25")
    with pytest.raises(ItesError, match="keypoints are normalised .* image size"):
        read(tmp_path)


def test_alphapose_by_image_name(tmp_path):
    points = walk("coco18", frames=12)
    names = [f"{t}.jpg" for t in range(12)]
    forms = {
        "cmu": {n: {"version": "1", "bodies": [{"joints": flat(p)}]}
                for n, p in zip(names, points, strict=True)},
        "open": {n: {"version": 0.1, "people": [{"pose_keypoints_2d": flat(p)}]}
                 for n, p in zip(names, points, strict=True)},
    }  # fmt: skip
    for name, content in forms.items():
        recording = read(written(tmp_path, content, f"{name}.json"))
        (clip,) = recording.clips
        assert recording.layout == "coco18" and recording.format == "AlphaPose"
        same(clip, points, "coco18")


@pytest.mark.parametrize("layout", ["coco17", "halpe26", "wholebody133", "halpe136"])
def test_alphapose_of_any_number_of_joints(tmp_path, layout):
    points = walk(layout, frames=12)
    content = results((f"{t}.jpg", [(points[t], {"box": [0, 0, 9, 9]})]) for t in range(12))
    recording = read(written(tmp_path, content))
    (clip,) = recording.clips
    assert (recording.format, recording.layout) == ("AlphaPose", layout)
    same(clip, points, layout)
    assert recording.source[0].joints == LAYOUT_JOINTS[layout]


def instances(people, **more):
    return [
        {"keypoints": np.round(p.astype(float), 3).tolist(), "keypoint_scores": [0.9] * len(p),
         "bbox": [[0, 0, 9, 9]], "bbox_score": 0.9, **more}
        for p in people
    ]  # fmt: skip


def test_mmpose(tmp_path):
    points = walk(frames=12)
    frames = [{"frame_id": t + 1, "instances": instances([points[t]])} for t in range(12)]
    frames[5]["instances"] = []
    for content in (frames, {"meta_info": {"dataset_name": "coco"}, "instance_info": frames}):
        recording = read(written(tmp_path, content))
        (clip,) = recording.clips
        assert recording.format == "MMPose"
        same(clip, points, rows=[t for t in range(12) if t != 5])
        assert not clip.confidence[5].any()
    (clip,) = read(written(tmp_path, instances([points[0]]))).clips
    same(clip, points[:1])


def test_sapiens_writes_a_file_per_image(tmp_path):
    points = walk("wholebody133", frames=12)
    for t in range(12):
        found = [] if t == 5 else instances([points[t]])
        written(tmp_path, {"meta_info": {}, "instance_info": found}, f"json/{t:06d}.json")
    (clip,) = read(tmp_path / "json").clips
    same(clip, points, "wholebody133", rows=[t for t in range(12) if t != 5])
    assert np.flatnonzero(~(clip.confidence > 0).any(1)).tolist() == [5]


def test_mmpose_names_its_joints(tmp_path):
    names = list(LAYOUT_JOINTS["coco17"])
    shuffled = names[::-1]
    points = walk(frames=4)
    frames = [{"frame_id": t, "instances": instances([points[t, ::-1]])} for t in range(4)]
    meta = {"keypoint_id2name": {str(i): name for i, name in enumerate(shuffled)}}
    (clip,) = read(written(tmp_path, {"meta_info": meta, "instance_info": frames})).clips
    same(clip, points)


def test_rtmlib(tmp_path):
    first, second = walk(frames=7), walk(frames=7, start=(200.0, 400.0), height=250.0)
    people = np.round(np.stack([first, second], axis=1).astype(float), 3)
    frames = [{"keypoints": p.tolist(), "scores": np.full((2, 17), 0.8).tolist()} for p in people]
    frames[4] = {"keypoints": [], "scores": []}
    whole = {"keypoints": people.tolist(), "scores": np.full((7, 2, 17), 0.8).tolist()}
    for content in (frames, {str(t): frame for t, frame in enumerate(frames)}, whole):
        clips = read(written(tmp_path, content)).clips
        assert len(clips) == 2
        rows = [0, 1, 2, 3, 5, 6]
        same(clips[0], first, rows=rows)
        same(clips[1], second, rows=rows)


def test_plain_lists_are_arrays(tmp_path):
    points = np.round(walk(frames=5).astype(float), 3)
    for content in ({"keypoints": points.tolist(), "fps": 30}, points.tolist()):
        recording = read(written(tmp_path, content), layout="coco17")
        same(recording.clips[0], points)
    assert read(written(tmp_path, {"keypoints": points.tolist(), "fps": 30})).fps == 30


def test_ultralytics_json(tmp_path):
    points = walk(frames=6)
    points[2, 9] = 0  # unsure of the left wrist
    frames = [
        [{"name": "person", "class": 0, "confidence": 0.9, "box": {}, "track_id": 3,
          "keypoints": {"x": p[:, 0].tolist(), "y": p[:, 1].tolist(), "visible": [0.8] * 17}}]
        for p in points
    ]  # fmt: skip
    recording = read(written(tmp_path, frames))
    (clip,) = recording.clips
    assert recording.format == "Ultralytics"
    assert np.argwhere(clip.confidence == 0).tolist() == [[2, OURS["left_wrist"]]]
    for t, frame in enumerate(frames):
        written(tmp_path, frame, f"each/video_{t}.json")
    (clip,) = read(tmp_path / "each").clips
    assert len(clip) == 6


@pytest.mark.parametrize("tracked", [False, True])
def test_ultralytics_label_files(tmp_path, tracked):
    points, size = walk(frames=12), np.array([1920, 1080])
    (tmp_path / "README.txt").write_text("labels of a video")
    for t in range(12):
        if t != 4:
            joints = scored(points[t] / size, 0.8)
            joints[9] *= t != 6  # unsure of the left wrist
            cells = [0, 0.5, 0.5, 0.2, 0.4, *joints.ravel().tolist(), *([7] if tracked else [])]
            (tmp_path / f"video_{t}.txt").write_text(" ".join(f"{c:.6g}" for c in cells) + "\n")
    recording = read(tmp_path, image_size=(1920, 1080))
    (clip,) = recording.clips
    assert recording.format == "Ultralytics"
    assert np.flatnonzero(~(clip.confidence > 0).any(1)).tolist() == [4]
    assert clip.confidence[6, OURS["left_wrist"]] == 0
    rows = [t for t in range(12) if t not in (4, 6)]
    same(clip, points, rows=rows)


def test_a_folder_names_the_broken_file(tmp_path):
    np.savez(tmp_path / "a.npz", keypoints=walk(frames=4))
    written(tmp_path, [], "b.json")
    with pytest.raises(ItesError, match="b.json: expected keypoints, but nobody is in it"):
        read(tmp_path, layout="coco17")


def test_a_folder_of_clips_is_several_clips(tmp_path):
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", keypoints=walk(frames=4))
    written(tmp_path, results((t, [(walk()[t], {})]) for t in range(4)), "c.json")
    recording = read(tmp_path, layout="coco17")
    assert [clip.name for clip in recording.clips] == ["a", "b", "c"]


def test_folders_in_a_folder_are_recordings(tmp_path):
    for camera, step in (("cam1", 3.0), ("cam2", -3.0)):
        for t, p in enumerate(walk(frames=4, step=(step, 0.0))):
            frame = {"people": [{"pose_keypoints_2d": flat(p)}]}
            written(tmp_path, frame, f"all/{camera}/json/walk_{t:012d}_keypoints.json")
    (tmp_path / "all" / "pictures").mkdir()
    (tmp_path / "all" / "pictures" / "a.png").write_bytes(b"png")
    recording = read(tmp_path / "all")
    assert [clip.name for clip in recording.clips] == ["cam1/json", "cam2/json"]
    same(recording.clips[1], walk(frames=4, step=(-3.0, 0.0)))
    with pytest.raises(ItesError, match="pictures: expected files of"):
        read(tmp_path / "all" / "pictures")
    np.savez(tmp_path / "all" / "a.npz", keypoints=walk(frames=4))
    recording = read(tmp_path / "all", layout="coco17")
    assert [clip.name for clip in recording.clips] == ["a"]
    left = "left out: the folders beside its files (cam1, cam2); name them to read them"
    assert f"{tmp_path / 'all'}: {left}" in recording.notes


def test_hidden_files_of_a_folder_are_not_read(tmp_path):
    written(tmp_path, results((t, [(walk()[t], {})]) for t in range(4)), "c.json")
    (tmp_path / "._c.json").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    assert [clip.name for clip in read(tmp_path).clips] == ["c"]


@pytest.mark.parametrize("name", ["walk.json.gz", "walk.json"])
def test_gzip_is_unpacked(tmp_path, name):
    points = walk(frames=4)
    text = json.dumps(results((t, [(p, {})]) for t, p in enumerate(points))).encode()
    (tmp_path / name).write_bytes(gzip.compress(text))
    (clip,) = read(tmp_path / name).clips
    same(clip, points)
    assert clip.name == "walk"
    for bad in (
        gzip.compress(b"hello"),
        gzip.compress(text)[:60],
        gzip.compress(gzip.compress(text)),
    ):
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(ItesError, match=f"{name}: expected"):
            read(tmp_path / name)
    bomb = gzip.compress(b" " * (UNPACKED + 1))
    (tmp_path / name).write_bytes(bomb)
    with pytest.raises(ItesError, match="expected up to .* bytes in it, got more"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("packer", "kind"), [(lzma, "an xz file"), (bz2, "a bzip2 file"), (None, "a zip archive")]
)
def test_other_packed_files_are_named(tmp_path, packer, kind):
    text = json.dumps(results([(0, [(walk(frames=1)[0], {})])])).encode()
    path = tmp_path / "walk.json.packed"
    if packer is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("walk.json", text)
    else:
        path.write_bytes(packer.compress(text))
    with pytest.raises(ItesError, match=f"{path.name}: .*got {kind}.*unpack it first"):
        read(path)


def test_scores_above_1_are_told(tmp_path):
    points = walk(frames=6)
    content = [{"image_id": t, "keypoints": flat(points[t], 4.5)} for t in range(6)]
    recording = read(written(tmp_path, content))
    same(recording.clips[0], points)
    assert "confidences above 1, up to 4.5, count as 1" in recording.notes


@pytest.mark.parametrize("missing", [None, float("nan"), "NaN"])
def test_json_says_missing_in_several_ways(tmp_path, missing):
    points = walk(frames=4)
    content = results((t, [(p, {})]) for t, p in enumerate(points))
    content[2]["keypoints"][27:29] = [missing, missing]
    (clip,) = read(written(tmp_path, content)).clips
    assert np.argwhere(clip.confidence == 0).tolist() == [[2, OURS["left_wrist"]]]


def test_entries_of_boxes_alone_are_left_out(tmp_path):
    points = walk(frames=4)
    content = results((t, [(p, {})]) for t, p in enumerate(points))
    content[1:1] = [{"image_id": 0, "category_id": 3, "bbox": [1, 2, 3, 4]}]
    content += [{"image_id": 3, "category_id": 1, "keypoints": [], "score": 0.2}]
    recording = read(written(tmp_path, content))
    same(recording.clips[0], points)
    assert "left out: 2 entries without keypoints" in recording.notes


def test_numbers_may_be_text(tmp_path):
    points = walk(frames=4)
    content = results((t, [(p, {})]) for t, p in enumerate(points))
    for entry in content:
        entry.update(keypoints=[str(v) for v in entry["keypoints"]], score="0.9")
    (clip,) = read(written(tmp_path, content)).clips
    same(clip, points)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"image_id": 1}], "entry 0: expected image_id and keypoints"),
        ([{"image_id": 1, "keypoints": "abc"}], "entry 0: expected numbers, got 'abc'"),
        ([{"image_id": 1, "keypoints": [1e20] * 51}], r"entry 0: expected pixels, got 1e\+20"),
        ([{"image_id": [], "keypoints": [1.0] * 51}], "expected a number or a name as image id"),
        ([{"image_id": 1, "keypoints": [1.0, float("nan"), 1.0] * 17}],
         r"null or NaN for a missing joint, got \[1.0, nan, 1.0\]"),
        ([{"image_id": 1, "keypoints": [1.0, 1.0, float("nan")] * 17}], "got .1.0, 1.0, nan"),
        ([{"image_id": 1, "keypoints": [float("nan")] * 51}], "all joints are missing"),
        ({"annotations": 3}, "expected lists of annotations and images"),
        ({"annotations": [{"id": 1}]}, "annotations, entry 0: expected image_id"),
        ({"instance_info": 5}, "expected a list of frames, got 5"),
        ({"instance_info": [{"frame_id": 0}]}, "frame 0: expected instances"),
        ({"instance_info": [{"instances": [{"keypoints": [[1, 2]], "keypoint_scores": [1, 1]}]}]},
         "expected 1 keypoint scores, one per keypoint, got 2"),
        ({"people": [{"pose_keypoints_2d": 5}]}, "person 0: expected pose_keypoints_2d"),
        ({"a.jpg": {"bodies": [{}]}}, "person 0: expected joints"),
        ({"hello": 1}, "got JSON of hello"),
        ("text", "expected keypoints"),
        ([{"image_id": t, "keypoints": [5.0] * 3 * (17 + 2 * t)} for t in range(2)],
         "expected one number of joints per person, or those of known detectors, got 17, 19"),
        ([{"image_id": t, "keypoints": flat(p, 0.02)} for t, p in enumerate(walk(frames=3))],
         "no confidence reaches 0.1, got 0.02"),
        ([{"image_id": t, "keypoints": flat(p, 0)} for t, p in enumerate(walk(frames=3))],
         "no confidence is above 0"),
        ([{"image_id": 0, "keypoints": [0.0] * 51}], "all joints are missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_reported_in_one_line(tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(ItesError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) <= 300


# Confidence


@pytest.mark.parametrize("filler", [(1, 1), (-2, -2), (960, 540), (0, 1080)])
def test_a_point_that_holds_joints_of_many_kinds_is_no_place(tmp_path, filler):
    points = walk(frames=40).round()
    gone = np.random.default_rng(0).random((40, 17)) < 0.15
    filled = np.where(gone[..., None], np.float32(filler), points)
    recording = read(written(tmp_path, results((t, [(p, {})]) for t, p in enumerate(filled))))
    np.testing.assert_array_equal(recording.source[0].confidence == 0, gone)
    assert any("joints of many kinds at exactly" in note for note in recording.notes)
    assert not read(written(tmp_path, results((t, [(p, {})]) for t, p in enumerate(points)))).notes


def test_poses_of_one_point_are_missing(tmp_path):
    points = walk(frames=40)
    points[[3, 20]] = [[[5, 5]], [[7, 7]]]
    recording = read(written(tmp_path, results((t, [(p, {})]) for t, p in enumerate(points))))
    (clip,) = recording.clips
    assert np.flatnonzero(~(clip.confidence > 0).any(1)).tolist() == [3, 20]
    assert "left out: 2 poses whose joints are all at one point" in recording.notes


def test_missing_joints_and_low_confidence(tmp_path):
    points = walk(frames=8)
    content = results((t, [(points[t], {})]) for t in range(8))
    content[1]["keypoints"][29] = 0.04  # the left wrist's confidence
    content[2]["keypoints"][27:30] = [0.0, 0.0, 0.7]
    content[3]["keypoints"][27:30] = [None, None, None]
    content[4]["keypoints"][27] = 1e6
    content[5]["keypoints"][29] = 1.04
    path = written(tmp_path, content)
    recording = read(path)
    wrist = recording.clips[0].confidence[:, OURS["left_wrist"]]
    np.testing.assert_allclose(wrist, [0.9, 0, 0, 0, 0, 1, 0.9, 0.9], rtol=1e-6)
    assert not recording.clips[0].keypoints[1:5, OURS["left_wrist"]].any()
    notes = "; ".join(recording.notes)
    assert "1 of 135 joints have a confidence below 0.1" in notes
    assert "1 joints at exactly (0, 0)" in notes
    assert (
        "walk: 1 impossible keypoints count as missing, the first in frame 4: left_wrist" in notes
    )
    assert (read(path, min_confidence=0.0).clips[0].confidence[1] > 0).all()
    with pytest.raises(ItesError, match="all joints are missing"):
        read(path, min_confidence=0.95)


def test_joints_never_seen_come_from_others_or_are_missing(tmp_path):
    points = walk(frames=6)
    content = results((t, [(points[t], {})]) for t in range(6))
    for entry in content:
        for joint in (1, 13, 15):  # left eye, left knee, left ankle
            entry["keypoints"][3 * joint : 3 * joint + 3] = [0.0, 0.0, 0.0]
    recording = read(written(tmp_path, content))
    (clip,) = recording.clips
    never = [HUMAN36M.joints[j] for j in np.flatnonzero(~(clip.confidence > 0).any(0))]
    assert never == ["left_knee", "left_ankle"]
    crown = clip.keypoints[:, OURS["head"]]
    nose, eye = points[:, 0], points[:, 2]
    ears, shoulders = points[:, 3:5].mean(1), points[:, 5:7].mean(1)
    expected = ears + 1.35 * eye - 0.9 * nose - 0.45 * shoulders
    np.testing.assert_allclose(crown, expected, atol=0.01)
    assert "in no frame: left_knee, left_ankle" in recording.notes
    assert any(note.startswith("head from left_ear, right_ear") for note in recording.notes)
