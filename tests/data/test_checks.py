"""What is implausible about 2D keypoints is found, and what is only unusual is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from walking import JOINT, turned, walk

from ites.cli.hints import hint
from ites.data.checks import check
from ites.data.checks.arrays import check_array
from ites.data.checks.orders import ORDERS, misfit
from ites.data.clips import Clip
from ites.data.findings import CODES, ranges, summarise
from ites.pose.layouts import to_human36m
from ites.pose.skeleton import HUMAN36M, Skeleton


def codes(clip: Clip, **how: object) -> dict[str, str]:
    """Code to severity."""
    return {f.code: f.severity for f in check([clip], **how)}  # type: ignore[arg-type]


def moved(clip: Clip, change: Callable[[np.ndarray], np.ndarray]) -> Clip:
    return replace(clip, keypoints=change(clip.keypoints.copy()).astype(np.float32))


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 60])
@pytest.mark.parametrize("turn", [0.0, 0.6, 1.5, 3.0, 4.5])
def test_a_walking_person_is_plausible(frames: int, turn: float) -> None:
    assert codes(walk(frames, turn=turn)) == {}


def test_a_person_who_lies_down_for_a_part_of_the_clip_is_plausible() -> None:
    clip = walk(100)
    angle = np.clip((np.arange(100) - 40) / 20, 0, 1)[:, None, None] * np.pi / 2
    middle = clip.keypoints[:, :1]
    away = clip.keypoints - middle
    x = away[..., :1] * np.cos(angle) - away[..., 1:] * np.sin(angle)
    y = away[..., :1] * np.sin(angle) + away[..., 1:] * np.cos(angle)
    falls = replace(clip, keypoints=(middle + np.concatenate([x, y], -1)).astype(np.float32))
    assert codes(falls) == {}


def test_y_upwards() -> None:
    found = check([moved(walk(), lambda k: k * [1, -1] + [0, 960])])
    assert [(f.code, f.severity, len(f.frames)) for f in found] == [("upside-down", "warning", 60)]


@pytest.mark.parametrize(
    ("quarters", "code", "head"),
    [(1, "sideways", "right"), (3, "sideways", "left"), (2, "upside-down", None)],
)
def test_a_turned_image(quarters: int, code: str, head: str | None) -> None:
    (finding,) = check([turned(walk(), quarters)])
    assert finding.code == code
    assert finding.data.get("head") == head
    if head:  # turning on by this brings the head up
        assert finding.data["rotate"] == (270 if quarters == 1 else 90)


def test_of_a_few_frames_a_lying_person_is_a_note() -> None:
    assert codes(turned(walk(3), 1)) == {"sideways": "note"}


@pytest.mark.parametrize("degrees", [26, 45, 55])
def test_a_rolled_camera_is_reported_with_its_angle(degrees: int) -> None:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    (finding,) = check([moved(walk(), lambda k: (k - [640, 480]) @ turn + [640, 480])])
    assert (finding.code, finding.severity) == ("roll", "note")
    assert finding.data["roll"] == pytest.approx(degrees, abs=3)


def test_normalised_coordinates_cannot_be_right() -> None:
    assert codes(moved(walk(), lambda k: k / [1280, 960])) == {"normalised": "error"}
    assert codes(moved(walk(), lambda k: k / [640, 480] - 1)) == {"units": "error"}


def test_a_few_frames_of_other_units() -> None:
    clip = walk()
    points = clip.keypoints.copy()
    points[40:50] /= [1280, 960]
    found = {f.code: f for f in check([replace(clip, keypoints=points)])}
    assert (found["units"].severity, found["units"].data["kind"]) == ("warning", "mixed")
    assert "10 of 60 frames" in found["units"].message


def test_metres_and_millimetres() -> None:
    def metres(k: np.ndarray) -> np.ndarray:
        return (k - k[:, :1]) / 250

    assert codes(moved(walk(), metres)) == {"units": "error"}
    assert codes(moved(walk(), lambda k: 1000 * metres(k))) == {"units": "warning"}
    assert codes(moved(walk(), lambda k: k / [12.8, 9.6])) == {"units": "warning"}  # percentages


def test_a_person_of_one_point_or_line_is_none() -> None:
    assert codes(moved(walk(), lambda k: np.zeros_like(k) + 5)) == {"degenerate": "error"}
    assert codes(moved(walk(), lambda k: k * [0, 1] + [300, 0])) == {"degenerate": "error"}


def test_a_depth_is_no_confidence() -> None:
    points = walk().keypoints
    depth = np.random.default_rng(0).normal(0, 0.1, points.shape[:2])
    below = np.concatenate([points, depth[..., None]], -1)
    above = np.concatenate([points, depth[..., None] + 3.0], -1)
    for array in (below, above):
        assert [(f.code, f.severity) for f in check_array(array)] == [("depth", "error")]
    sure = np.concatenate([points, np.clip(0.9 + depth, 0, 1.1)[..., None]], -1)
    assert check_array(sure) == []
    absent = sure.copy()
    absent[3, 4] = -1  # as some detectors mark what they did not find
    assert [f.code for f in check_array(absent)] == []


@pytest.mark.parametrize(
    ("order", "frames", "rate"),
    [
        (np.repeat(np.arange(60), 2), 60, 25.0),  # 25 a second, written as 50
        (np.arange(60) - (np.arange(60) % 5 == 4), 12, 40.0),
    ],
)
@pytest.mark.parametrize("encoded", [False, True])
def test_frames_that_repeat_the_one_before(order, frames: int, rate: float, encoded: bool) -> None:
    clip = replace(walk(), fps=50.0)
    points = clip.keypoints[order]
    if encoded:  # again, and so not exactly the same
        points = points + np.random.default_rng(1).normal(0, 0.1, points.shape)
    (finding,) = check([replace(clip, keypoints=points.astype(np.float32))])
    assert (finding.code, finding.severity) == ("repeated", "warning")
    np.testing.assert_array_equal(finding.frames, np.flatnonzero(np.diff(order) == 0) + 1)
    assert finding.data["fps"] == pytest.approx(rate)
    assert hint(finding.code, finding.data) == f"leave them out, with --fps {rate:.3g}"
    assert len(finding.frames) == frames


def test_a_recording_that_stands_still_and_one_frame_twice() -> None:
    clip = walk()
    points = clip.keypoints.copy()
    points[20:40] = points[20]
    (finding,) = [f for f in check([replace(clip, keypoints=points)]) if f.code == "repeated"]
    assert (finding.code, finding.severity) == ("repeated", "warning")
    assert "19 of 60 frames repeat the one before (21-39)" in finding.message
    assert "stood still" in finding.message
    assert hint(finding.code, finding.data) == "leave them out"
    points = walk(100).keypoints.copy()
    points[30] = points[29]
    assert codes(replace(clip, keypoints=points)) == {"repeated": "note"}


@pytest.mark.parametrize("step", [1, 8])
def test_coordinates_that_are_rounded_repeat_nothing(step: int) -> None:
    clip = walk(100, fps=100.0)
    still = moved(clip, lambda k: step * np.round((k[:1] + 0.02 * (k - k[:1])) / step))
    rounded = moved(clip, lambda k: step * np.round(k / step))
    for one in (still, rounded):
        assert "repeated" not in codes(one)


def test_a_joint_that_stays_in_one_place_while_the_body_moves() -> None:
    clip = walk()
    points = clip.keypoints.copy()
    points[15:45, JOINT["left_wrist"]] = points[15, JOINT["left_wrist"]]
    found = [f for f in check([replace(clip, keypoints=points)]) if f.code == "repeated"]
    assert [(f.severity, f.data["joints"]) for f in found] == [("warning", ["left_wrist"])]
    np.testing.assert_array_equal(found[0].frames, np.arange(15, 45))


def solid(frames: int) -> tuple[Clip, np.ndarray]:
    """The walking person, turning, and a depth (T, J), metres."""
    views = [walk(frames, turn=turn) for turn in np.linspace(0, 2 * np.pi, 9)]
    deep = [walk(frames, turn=turn + np.pi / 2) for turn in np.linspace(0, 2 * np.pi, 9)]
    rows = np.array_split(np.arange(frames), len(views))
    points, depth = (
        np.concatenate([one.keypoints[own] for one, own in zip(some, rows, strict=True)])
        for some in (views, deep)
    )
    metres = (depth[..., 0] - depth[:, :1, 0]) / 250
    return replace(views[0], keypoints=points), metres


def test_a_depth_in_0_to_1_is_reported_and_a_confidence_is_not() -> None:
    clip, depth = solid(180)
    scaled = ((depth - depth.min()) / np.ptp(depth)).astype(np.float32)
    for near in (scaled, 1 - scaled):
        own = replace(clip, confidence=0.05 + 0.9 * near)
        found = [f for f in check([own]) if f.code == "confidence"]
        assert [(f.severity, f.data["kind"]) for f in found] == [("warning", "depth")]
        assert hint("confidence", found[0].data) == "leave the third column out"
    rng = np.random.default_rng(0)
    hidden = np.clip(0.85 - 0.3 * np.maximum(depth, 0) + rng.normal(0, 0.08, depth.shape), 0.1, 1)
    for sure in (rng.uniform(0.3, 1, depth.shape), hidden):
        own = replace(clip, confidence=sure.astype(np.float32))
        assert "confidence" not in codes(own)


def test_confidences_that_are_low_throughout() -> None:
    clip = walk()
    rng = np.random.default_rng(0)
    sure = np.clip(rng.normal(0.85, 0.08, clip.keypoints.shape[:2]), 0.1, 0.99)
    (finding,) = check([replace(clip, confidence=(1 - sure).astype(np.float32))])
    assert (finding.code, finding.data["kind"]) == ("confidence", "low")
    assert codes(replace(clip, confidence=(0.5 * sure).astype(np.float32))) == {}


def test_a_body_that_is_unusually_wide_or_narrow_is_a_note() -> None:
    clip = walk(60)
    for factor, word in ((0.5, "narrow"), (1.6, "wide")):
        (finding,) = check([moved(clip, lambda k, f=factor: k * [f, 1])])
        assert (finding.code, finding.severity) == ("stretched", "note")
        assert f"times too {word}" in finding.message


@pytest.mark.parametrize("rounded", [False, True])
def test_joints_that_were_moved_to_the_images_edge(rounded: bool) -> None:
    def cut(k: np.ndarray) -> np.ndarray:
        k[..., 1] = np.minimum(np.round(k[..., 1]) if rounded else k[..., 1], 540)
        return k

    found = [f for f in check([moved(walk(), cut)]) if f.code == "clipped"]
    assert [(f.severity, f.data["edges"]) for f in found] == [("warning", ["y = 540"])]
    assert {"left_knee", "right_ankle"} <= set(found[0].data["joints"])
    feet = moved(walk(), lambda k: np.minimum(k, [2000, 660]))
    assert codes(feet) == {"clipped": "warning"}
    assert codes(moved(feet, np.round)) == {}  # feet on the ground, maybe
    low = moved(walk(), lambda k: np.minimum(np.round(k), [2000, 630]))
    assert "clipped" in codes(low)
    edge = replace(moved(feet, np.round), image_size=(1280, 660))
    assert codes(edge) == {"clipped": "warning"}
    assert codes(moved(walk(), np.round)) == {}


def test_a_video_without_a_joint_raises_no_warning_of_numpys(
    recwarn: pytest.WarningsRecorder,
) -> None:
    clip = walk()
    confidence = np.ones((60, 17), np.float32)
    confidence[:, JOINT["left_wrist"]] = 0
    assert codes(replace(clip, confidence=confidence)) == {} and not recwarn.list


def test_places_in_a_heatmap_are_no_pixels() -> None:
    found = check([moved(walk(), lambda k: (k - [100, 200]) / 16)])
    assert [(f.code, f.data["kind"]) for f in found] == [("units", "percent")]


@pytest.mark.parametrize(
    ("parts", "pairs"),
    [
        ("hip knee ankle", ["hips and shoulders"]),
        ("shoulder elbow wrist", ["hips and shoulders"]),
        ("hip", ["hips and shoulders", "hips and knees"]),
        ("knee", ["hips and knees", "knees and ankles"]),
        ("wrist", ["elbows and wrists"]),
    ],
)
def test_left_and_right_of_some_joints_exchanged_throughout(parts: str, pairs: list[str]) -> None:
    clip = walk(turn=1.5)
    order = np.arange(17)
    for part in parts.split():
        left, right = JOINT[f"left_{part}"], JOINT[f"right_{part}"]
        order[[left, right]] = order[[right, left]]
    found = [f for f in check([moved(clip, lambda k: k[:, order])]) if f.code == "mirrored-limbs"]
    assert [(f.severity, f.data["pairs"]) for f in found] == [("warning", pairs)]
    assert "exchange left and right" in hint(found[0].code, found[0].data)


def test_crossed_limbs_are_a_note() -> None:
    """Somebody who sits cross-legged: each ankle is below the other knee."""
    clip = walk(turn=1.5)

    def cross(k: np.ndarray) -> np.ndarray:
        knees, ankles = (
            [JOINT[f"{side}_{part}"] for side in ("left", "right")] for part in ("knee", "ankle")
        )
        below = 0.25 * (k[:, ankles] - k[:, knees])
        k[:, ankles] = k[:, knees[::-1]] + below
        return k

    found = [f for f in check([moved(clip, cross)]) if f.code == "crossed-limbs"]
    assert [(f.severity, f.data["pairs"]) for f in found] == [("note", ["knees and ankles"])]


def test_zeros_stand_for_joints_not_found() -> None:
    clip = walk()
    points = clip.keypoints.copy()
    points[10:20, JOINT["left_wrist"]] = 0
    points[15:18, JOINT["right_ankle"]] = -1
    (finding,) = check([replace(clip, keypoints=points)])
    assert (finding.code, finding.severity) == ("zeros", "warning")
    assert finding.data["joints"] == 13
    np.testing.assert_array_equal(finding.frames, np.arange(10, 20))
    missing = np.ones(points.shape[:2], np.float32)
    missing[(points <= 0).all(-1)] = 0
    assert codes(replace(clip, keypoints=points, confidence=missing)) == {}


@pytest.mark.parametrize("what", ["legs", "arms"])
def test_sides_that_change_places_in_some_frames(what: str) -> None:
    parts = ("hip", "knee", "ankle") if what == "legs" else ("shoulder", "elbow", "wrist")
    left, right = ([JOINT[f"{s}_{p}"] for p in parts] for s in ("left", "right"))
    frames = np.array([20, 21, 22, 23, 40])

    def swap(k: np.ndarray) -> np.ndarray:
        k[np.ix_(frames, [*left, *right])] = k[np.ix_(frames, [*right, *left])]
        return k

    (finding,) = check([moved(walk(), swap)])
    assert (finding.code, finding.data["what"]) == ("swapped-sides", what)
    np.testing.assert_array_equal(finding.frames, frames)
    assert "20-23, 40" in finding.message


@pytest.mark.parametrize("stated", [float("nan"), 25.0, 60.0])
@pytest.mark.parametrize("fps", [4.0, 5.0])
@pytest.mark.parametrize("turn", np.arange(0, 3.2, 0.4))
def test_an_unknown_or_wrong_rate_exchanges_no_sides(
    fps: float, turn: float, stated: float
) -> None:
    """A few frames per second, of which nothing or too much is said: limbs move far."""
    clip = replace(walk(60, fps=fps, turn=turn), fps=stated, image_size=None)
    assert codes(clip) == {}


def test_swapped_sides_of_an_unknown_rate_are_found() -> None:
    legs = [JOINT[f"{side}_{part}"] for side in ("left", "right") for part in ("knee", "ankle")]

    def swap(k: np.ndarray) -> np.ndarray:
        k[20:24, legs] = k[20:24][:, [*legs[2:], *legs[:2]]]
        return k

    for fps in (12.5, 25.0, 60.0):
        (finding,) = check([replace(moved(walk(60, fps=fps), swap), fps=float("nan"))])
        assert finding.code == "swapped-sides"
        np.testing.assert_array_equal(finding.frames, [20, 21, 22, 23])


def test_a_joint_far_off_is_guessed_or_wrong() -> None:
    clip = walk()
    points, confidence = clip.keypoints.copy(), np.full((60, 17), 0.9, np.float32)
    points[5:15, JOINT["right_wrist"]] += [300, 40]
    confidence[5:15, JOINT["right_wrist"]] = 0.2
    (guess,) = check([replace(clip, keypoints=points, confidence=confidence)])
    assert (guess.code, guess.severity) == ("guessed", "warning")
    assert guess.data["confidence"] == pytest.approx(0.2)
    np.testing.assert_array_equal(guess.frames, np.arange(5, 15))
    assert codes(replace(clip, keypoints=points)) == {"outlier": "warning"}


def test_joints_that_are_shifted_throughout() -> None:
    arms = [JOINT[f"{side}_{joint}"] for side in ("left", "right") for joint in ("elbow", "wrist")]
    clip = walk()
    points = clip.keypoints.copy()
    points[:, arms] += [0, 60]
    found = [f for f in check([replace(clip, keypoints=points)]) if f.code == "outlier"]
    assert [f.data["kind"] for f in found] == ["long"]
    assert found[0].data["joints"] == ["left_elbow", "right_elbow"]
    assert found[0].data["times"] > 1.25
    assert hint("outlier", found[0].data) == "correct or leave out these joints first"


def test_another_person_from_some_frame_on() -> None:
    def jump(k: np.ndarray) -> np.ndarray:
        k[30:] += [350, 0]
        return k

    (finding,) = check([moved(walk(), jump)])
    assert finding.code == "jump"
    np.testing.assert_array_equal(finding.frames, [30])


@pytest.mark.parametrize("rate", [40.0, 20.0, 13.3, 8.0, 5.0, None])
def test_another_person_at_the_same_place(shared: Path, rate: float | None) -> None:
    """Two people of the CMU database, one after the other, both with the root where it was."""
    step = round(40 / (rate or 20.0))
    first, second = (
        to_human36m(np.load(file)["keypoints"], "coco17")[0][::step]
        for file in sorted((shared / "cases/03-two-people-tracked").glob("truth_person*.npz"))
    )
    fps = float("nan") if rate is None else rate
    for points in (first, second):
        assert "jump" not in codes(Clip("one", points, fps=fps))
    cut = len(first) // 2
    follows = second[cut:] - second[cut, 0] + first[cut - 1, 0]
    changed = Clip("two", np.concatenate([first[:cut], follows]).astype(np.float32), fps=fps)
    assert [f.frames.tolist() for f in check([changed]) if f.code == "jump"] == [[cut]]


def test_exchanged_sides_are_no_other_person() -> None:
    def swap(k: np.ndarray) -> np.ndarray:
        k[30:33] = k[30:33][:, list(HUMAN36M.mirror)]
        return k

    assert set(codes(moved(walk(turn=1.5), swap))) == {"swapped-sides"}


@pytest.mark.parametrize("tight", [True, False])
def test_coordinates_relative_to_a_box_that_follows(tight: bool) -> None:
    points = walk().keypoints
    low, high = points.min(1, keepdims=True), points.max(1, keepdims=True)
    corner = low if tight else (low + high) / 2 - [150, 300]
    (finding,) = check([Clip("crop", (points - corner).astype(np.float32), fps=25.0)])
    assert (finding.code, finding.severity) == ("box", "warning")
    assert ("corner" if tight else "middle") in finding.message
    assert codes(Clip("whole", points - low.min(0), fps=25.0)) == {}


def test_a_rate_and_a_focal_length_that_no_camera_has() -> None:
    assert codes(replace(walk(), fps=1 / 25)) == {"rate": "warning"}
    assert codes(replace(walk(), focal_length=(35.0, 35.0))) == {"focal-length": "warning"}
    assert codes(replace(walk(), focal_length=(1200.0, 1200.0))) == {}
    assert codes(replace(walk(), focal_length=(35.0, 35.0), focal_assumed=True)) == {}


def test_two_people_of_two_clips_are_no_jump() -> None:
    first, second = walk(), moved(walk(), lambda k: k + [350, 0])
    assert check([first, second]) == []


def test_keypoints_outside_the_image() -> None:
    (finding,) = check([replace(walk(), image_size=(320, 240))])
    assert finding.code == "image-size"
    assert not finding.data["exchanged"]
    wide = moved(replace(walk(), image_size=(960, 1280)), lambda k: k + [700, 0])
    assert [f.data["exchanged"] for f in check([wide])] == [True]


@pytest.mark.parametrize(
    ("size", "factors", "cause", "option"),
    [
        ((1920, 1080), (1.0, 1080 / 1920), "by width", "--image-size 1920 1920"),
        ((1920, 1080), (1920 / 1080, 1080 / 1920), "exchanged", "--image-size 1080 1920"),
        ((1080, 1920), (1080 / 1920, 1920 / 1080), "exchanged", "--image-size 1920 1080"),
    ],
)
def test_x_and_y_at_different_scales(size, factors, cause: str, option: str) -> None:
    clip = replace(moved(walk(), lambda k: k * factors), image_size=size)
    (finding,) = [f for f in check([clip]) if f.code != "image-size"]
    assert (finding.code, finding.data["cause"]) == ("stretched", cause)
    assert hint(finding.code, finding.data) == option
    square = replace(walk(), image_size=(1000, 1000))
    found = check([moved(square, lambda k: k * [1, 0.3])])
    assert [(f.code, f.severity, f.data["cause"]) for f in found] == [("stretched", "error", "")]
    (thin,) = check([moved(square, lambda k: k / [1000, 1])])  # only x was divided
    assert (thin.code, thin.severity, thin.data["cause"]) == ("stretched", "warning", "")
    wide = replace(moved(walk(), lambda k: k * [8, 1]), image_size=(1920, 1080))
    found = [f for f in check([wide]) if f.code == "stretched"]
    assert [f.data["cause"] for f in found] == [""]  # exchanged sides are too few


def as_order(clip: Clip, order: str) -> np.ndarray:
    """A clip's joints in another order; the face from what is there."""
    columns = []
    for name in ORDERS[order]:
        side = name.split("_")[0]
        same = {"crown": "head", "nose": "neck", "head": "neck"}.get(name, name)
        at = clip.keypoints[:, JOINT[same]] if same in JOINT else None
        if at is None:
            nose, head = clip.keypoints[:, JOINT["neck"]], clip.keypoints[:, JOINT["head"]]
            out = clip.keypoints[:, JOINT[f"{side}_shoulder"]] - clip.keypoints[:, JOINT["thorax"]]
            at = nose + 0.2 * (head - nose) + (0.4 if name.endswith("ear") else 0.15) * out
        columns.append(at)
    return np.stack(columns, 1)


SEVENTEEN = [name for name, joints in ORDERS.items() if len(joints) == 17]


@pytest.mark.parametrize("said", ["human36m", "coco17", "mpi3dhp17"])
@pytest.mark.parametrize("true", SEVENTEEN)
@pytest.mark.parametrize("frames", [1, 60])
def test_the_order_that_makes_a_body_is_named(true: str, said: str, frames: int) -> None:
    raw = as_order(walk(frames), true)
    clip = replace(walk(frames), keypoints=to_human36m(raw, said)[0])
    found = [f for f in check([clip], raw=[raw], layout=said) if f.code == "order"]
    if true == said:
        assert found == []
    else:
        assert [f.data["best"] for f in found] == [true]
        assert f"order {true}, not in the order {said}" in found[0].message


def test_an_order_that_fits_no_body() -> None:
    shuffled = walk().keypoints[:, np.random.default_rng(3).permutation(17)]
    (finding,) = check([replace(walk(), keypoints=shuffled)])
    assert (finding.code, finding.data["best"]) == ("order", None)


def test_misfit_does_not_depend_on_scale_place_and_rotation() -> None:
    points, seen = walk().keypoints, np.ones((60, 17), bool)
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]])
    one = misfit(points, seen, ORDERS["human36m"])
    other = misfit(3 * points @ turn + 100, seen, ORDERS["human36m"])
    np.testing.assert_allclose(one, other, rtol=1e-4)
    assert np.isnan(misfit(points, np.zeros_like(seen), ORDERS["human36m"])).all()


def test_a_wrist_guessed_for_half_of_the_clip_makes_nobody_wide() -> None:
    clip = walk()
    points = clip.keypoints.copy()
    points[20:50, JOINT["left_wrist"]] += [300, -50]
    assert codes(replace(clip, keypoints=points)) == {"outlier": "warning"}


def test_another_person_at_the_same_place_is_a_jump() -> None:
    points = walk().keypoints.copy()
    points[30:] = 2 * points[:30].mean(1, keepdims=True) - points[:30]  # upside down
    points[30:] += points[29].mean(0) - points[30].mean(0) + [0, 40]
    found = [f for f in check([replace(walk(), keypoints=points)]) if f.code == "jump"]
    assert [f.frames.tolist() for f in found] == [[30]]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("fps", [25.0, 6.0, float("nan")])
@pytest.mark.parametrize(
    "change", [lambda away: away * [1, -1], lambda away: away[..., ::-1] * [-1, 1]]
)
def test_a_few_frames_that_are_turned_otherwise_are_jumps(
    count: int, fps: float, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    points = walk(turn=0.6).keypoints.copy()
    firsts = list(range(6, 55, 8))
    rows = [first + k for first in firsts for k in range(count)]
    root = points[rows, :1]
    points[rows] = change(points[rows] - root) + root
    found = check([replace(walk(), keypoints=points, fps=fps)])
    (jumps,) = (f.frames for f in found if f.code == "jump")
    assert set(firsts) <= set(jumps)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_frames_of_somebody_beside_are_jumps(count: int) -> None:
    points = walk().keypoints.copy()
    points[20 : 20 + count] += [120, 0]
    found = check([replace(walk(), keypoints=points)])
    assert [(f.code, f.frames[0]) for f in found] == [("jump", 20)]


def test_another_person_after_a_gap_is_a_jump() -> None:
    points, sure = walk().keypoints.copy(), np.ones((60, 17), np.float32)
    sure[30:35] = 0
    points[30:] += [900, 0]
    found = check([replace(walk(), keypoints=points, confidence=sure, image_size=None)])
    assert [(f.code, f.frames.tolist()) for f in found] == [("jump", [35])]


def test_frames_in_a_random_order_are_reported() -> None:
    clip = walk(120)
    mixed = clip.keypoints[np.random.default_rng(0).permutation(120)]
    assert "jump" in codes(replace(clip, keypoints=mixed))
    still = clip.keypoints[:1] + np.random.default_rng(0).normal(0, 2, (60, 17, 2))
    assert codes(replace(clip, keypoints=still.astype(np.float32))) == {}


def test_a_y_that_is_flipped_again_is_no_longer_below_zero() -> None:
    up = moved(walk(), lambda k: k * [1, -1])
    fixed = moved(up, lambda k: k * [1, -1])
    assert "image-size" in codes(up, raw=[up.keypoints], layout="human36m")
    assert "image-size" not in codes(fixed, raw=[up.keypoints], layout="human36m")


VIEWS = {  # the turn of the walk; the confidences of nose, eyes and ears; where the ears are
    "front": (np.pi / 2, (0.9, 0.92, 0.88, 0.7, 0.7), 0.0),
    "back": (-np.pi / 2, (0.1, 0.05, 0.15, 0.8, 0.3), 0.0),
    "facing right": (0.0, (0.9, 0.6, 0.9, 0.1, 0.85), -20.0),
    "facing left": (np.pi, (0.9, 0.9, 0.6, 0.85, 0.1), 20.0),
}


def detected(view: str, swap: bool, level: bool = False) -> tuple[Clip, np.ndarray]:
    """A walk, and its COCO keypoints with a detector's confidences, or with some that are level."""
    turn, face, ears = VIEWS[view]
    clip = walk(turn=turn)
    raw, rng = as_order(clip, "coco17"), np.random.default_rng(1)
    raw[:, 3:5, 0] += ears
    sure = rng.uniform(0.8, 0.95, raw.shape[:2])
    if not level:
        sure[:, :5] = np.clip(rng.normal(face, 0.02, (60, 5)), 0.01, 1)
    raw = np.concatenate([raw, sure[..., None]], -1)
    if swap:
        raw = raw[:, [0, *(i + 1 if i % 2 else i - 1 for i in range(1, 17))]]
    points, confidence = to_human36m(raw[..., :2], "coco17", raw[..., 2])
    return replace(clip, keypoints=points, confidence=confidence), raw


@pytest.mark.parametrize("view", VIEWS)
def test_left_and_right_exchanged_throughout(view: str) -> None:
    for swap in (False, True):
        clip, raw = detected(view, swap)
        found = codes(clip, raw=[raw], layout="coco17")
        assert found == ({"mirrored": "warning"} if swap else {})


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("swap", [False, True])
def test_confidences_that_do_not_depend_on_the_view_tell_no_side(view: str, swap: bool) -> None:
    clip, raw = detected(view, swap, level=True)
    assert codes(clip, raw=[raw], layout="coco17") == {}


def test_a_prior_says_what_resembles_nothing() -> None:
    seen: list[np.ndarray] = []

    def prior(points: np.ndarray) -> np.ndarray:
        seen.append(points)
        return np.full(len(points), -999.0)

    assert codes(walk(), prior=prior) == {"density": "warning"}
    assert codes(walk(), prior=lambda points: np.full(len(points), 20.0)) == {}
    heads = np.linalg.norm(seen[0][:, HUMAN36M.head], axis=-1)
    assert heads.mean() == pytest.approx(0.2, rel=1e-5)
    np.testing.assert_array_equal(seen[0][:, HUMAN36M.root], 0)


def root_left(clip: Clip) -> np.ndarray:
    """The left wrist's x relative to the root's, (T,)."""
    wrist = HUMAN36M.joints.index("left_wrist")
    return clip.keypoints[:, wrist, 0] - clip.keypoints[:, HUMAN36M.root, 0]


def test_a_joint_misplaced_in_a_frame_does_not_explain_poses_that_resemble_nothing() -> None:
    def prior(poses: np.ndarray) -> np.ndarray:
        return np.full(len(poses), -1000.0)

    def moves(frames: int) -> Callable[[np.ndarray], np.ndarray]:
        def change(k: np.ndarray) -> np.ndarray:
            k[:frames, JOINT["right_wrist"]] += [300, 40]
            return k

        return change

    assert "density" in codes(moved(walk(), moves(2)), prior=prior)
    assert "density" not in codes(moved(walk(), moves(50)), prior=prior)


def test_a_prior_judges_some_poses_of_many() -> None:
    """64 or a few more of a long clip; some of many photographs; each finding names its clip."""
    asked: list[int] = []

    def prior(points: np.ndarray) -> np.ndarray:
        asked.append(len(points))
        return np.where(points[:, HUMAN36M.joints.index("left_wrist"), 0] > 0, -999.0, 20.0)

    long, other = walk(640, fps=60.0), walk(40)
    other = replace(other, name="other", keypoints=other.keypoints * [-1, 1] + [1280, 0])
    found = check([long, other], prior=prior)
    assert sum(asked) == 64 + 40 and len(asked) == 1
    sides = [float(np.median(root_left(clip))) > 0 for clip in (long, other)]
    names = [clip.name for clip, side in zip((long, other), sides, strict=True) if side]
    assert [f.clip for f in found if f.code == "density"] == names and len(names) == 1
    asked.clear()
    check([walk(1)] * 5000, prior=prior)
    assert 1024 < sum(asked) <= 2048 + 1


def test_missing_joints_do_not_count() -> None:
    rng = np.random.default_rng(2)
    clip = walk()
    confidence = (rng.random((60, 17)) > 0.3).astype(np.float32)
    points = np.where(confidence[..., None] > 0, clip.keypoints, np.nan).astype(np.float32)
    assert codes(replace(clip, keypoints=points, confidence=confidence)) == {}
    nobody = replace(clip, keypoints=points, confidence=np.zeros_like(confidence))
    assert codes(nobody) == {}
    legless = confidence.copy()
    legless[:, [JOINT[f"{s}_{p}"] for s in ("left", "right") for p in ("knee", "ankle")]] = 0
    assert codes(replace(clip, keypoints=points, confidence=legless)) == {}


def test_other_skeletons_are_checked_for_units_alone() -> None:
    hand = Skeleton("hand", ("wrist", "a", "b"), (-1, 0, 1), head=2)
    points = np.random.default_rng(0).uniform(100, 200, (10, 3, 2)).astype(np.float32)
    assert check([Clip("hand", points)], hand) == []
    assert [f.code for f in check([Clip("hand", points / 1000)], hand)] == ["normalised"]


def test_findings_of_many_clips_are_reported_once() -> None:
    clips = [replace(turned(walk(), 1), name=f"clip{i}") for i in range(3)]
    (one,) = summarise(check(clips))
    assert one.message.startswith("clip0: the person lies on the side")
    assert one.message.endswith("; also in 2 other clips")


def test_every_code_has_a_meaning_and_ranges_are_short() -> None:
    assert {"order", "upside-down", "sideways", "depth"} < CODES.keys()
    assert ranges(np.array([1, 2, 3, 7, 9, 10])) == "1-3, 7, 9-10"
    assert ranges(np.arange(0, 40, 2), most=2) == "0, 2, ..."
