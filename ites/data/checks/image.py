"""Keypoints against the image and the camera: size, shape, a box that follows the person."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ites.data.checks.arrays import Floats
from ites.data.checks.group import (
    ENOUGH,
    FEW,
    HIPS,
    LONG,
    SHOULDERS,
    Body,
    Group,
    measured_bones,
    medians,
)
from ites.data.clips import Clip
from ites.data.findings import Finding
from ites.pose.missing import norms

ASPECT = 0.9
"""A body's usual reach along x over that along y, each in usual lengths of its bones."""
NARROW, WIDE, WIDEST, NARROWEST = 0.36, 1.35, 2.2, 0.1
"""The reach along x over that along y below or above which it is unlikely, and above or below which
no view of a body has it. In clips of the CMU database it is 0.58 to 1.15. A camera that looks down
by 60 degrees doubles it, and somebody who stands still in profile has little."""
EXPLAINED = 0.5
"""Largest logarithm of a body's remaining stretch for a correction that explains it."""
USUAL = 0.58, 1.17
"""The least and the greatest that is usual. Of 4,624 windows of 30 frames of the CMU database, 12.5
a second, 42 are beyond, and 5 of its 888 clips."""
STILL, MOVES = 0.25, 0.03
"""Standard deviation of the box around all joints over that of the joints, up to which the box
stays in place: in clips of the CMU database it is at least 0.4. And the joints' least one, in sizes
of the box."""
RATES, VIEWS = (0.5, 1000.0), (1.0, 150.0)
"""Frames per second, and degrees of the field of view, that a camera may have."""


def rate_and_view(clip: Clip, points: Floats) -> Iterator[Finding]:
    """A frame rate or a focal length that no camera has."""
    if clip.fps > 0 and not RATES[0] <= clip.fps <= RATES[1]:
        yield Finding(
            "rate",
            "warning",
            f"{clip.fps:.4g} frames per second: a time per frame, or another unit",
            {"fps": clip.fps},
            clip.name,
        )
    if clip.focal_length is not None and not clip.focal_assumed:
        width = clip.image_size[0] if clip.image_size else float(points[..., 0].max(initial=1))
        degrees = math.degrees(2 * math.atan(width / (2 * clip.focal_length[0])))
        if not VIEWS[0] <= degrees <= VIEWS[1]:
            yield Finding(
                "focal-length",
                "warning",
                f"a focal length of {clip.focal_length[0]:.4g} sees {degrees:.3g} degrees of "
                f"{width:.0f} px: pixels are expected, not millimetres",
                {"degrees": degrees},
                clip.name,
            )


def image_size(group: Group, _: Body) -> Iterator[tuple[int, Finding]]:
    for number, (clip, rows) in enumerate(zip(group.clips, group.rows, strict=True)):
        if clip.image_size is None:
            continue
        points, seen = group.points[rows], group.seen[rows]
        size = np.array(clip.image_size, np.float32)
        margin = 0.05 * size
        outside = seen & ((points > size + margin) | (points < -margin)).any(-1)
        share = outside.sum() / max(1, seen.sum())
        if share <= 0.2:
            continue
        turned = seen & ((points > size[::-1] + margin) | (points < -margin)).any(-1)
        exchanged = turned.sum() < 0.1 * outside.sum()
        words = "; with width and height exchanged they lie inside" if exchanged else ""
        frames = np.flatnonzero(outside.any(1))
        yield group.found(
            number,
            "image-size",
            "warning",
            f"{share:.0%} of the joints lie outside the image of {clip.image_size[0]} x "
            f"{clip.image_size[1]} px{words}",
            {"share": float(share), "exchanged": bool(exchanged)},
            frames,
        )


def aspect(group: Group, body: Body) -> Iterator[tuple[int, Finding]]:
    """Bodies that are far too wide or too narrow: x and y at different scales."""
    bones = measured_bones(body)
    bones += [(*body.hips, HIPS), (*body.shoulders, SHOULDERS)]
    a, b, lengths = (np.array(column) for column in zip(*bones, strict=True))
    both = group.seen[:, a] & group.seen[:, b]
    reach = np.abs(group.points[:, a] - group.points[:, b]) / lengths[:, None]
    long = norms(reach)
    for number, (clip, rows) in enumerate(zip(group.clips, group.rows, strict=True)):
        usual = medians(long[rows], both[rows])
        wild = long[rows] > LONG * np.fmax(usual, group.typical[number])  # misplaced joints
        own = reach[rows][both[rows] & ~wild]
        if len(clip) < FEW or len(own) < 0.5 * len(clip) * len(bones):
            continue
        along = np.quantile(own, 0.98, axis=0)
        if not along.min() > 0:
            continue
        ratio = float(along[0] / along[1])
        times = max(ratio / ASPECT, ASPECT / ratio)
        width, height = clip.image_size or (1, 1)
        left = {
            "": abs(np.log(ratio / ASPECT)),
            "exchanged": abs(np.log(ratio / ASPECT * (height / width) ** 2)),
            "by width": abs(np.log(ratio / ASPECT * height / width)),
        }
        best = min(left, key=lambda name: left[name])
        best = best if left[best] < EXPLAINED else ""
        likely = NARROW if best == "exchanged" else NARROWEST
        if likely <= ratio <= WIDE:
            if len(clip) >= ENOUGH and not USUAL[0] <= ratio <= USUAL[1]:
                wide = ratio > 1
                view = "a camera that looks down" if wide else "a person seen from the side"
                yield group.found(
                    number,
                    "stretched",
                    "note",
                    f"the person is about {times:.1f} times too "
                    f"{'wide' if wide else 'narrow'}: {view}, or x and y at different "
                    "scales, as of an image that was resized to another shape",
                    {"ratio": ratio},
                )
            continue
        words = {
            "": "x and y are at different scales",
            "exchanged": f"width and height of {width} x {height} px may be exchanged",
            "by width": "x and y may both have been divided by the width",
        }[best]
        yield group.found(
            number,
            "stretched",
            "error" if ratio > WIDEST else "warning",
            f"the person is about {times:.1f} times too {'wide' if ratio > 1 else 'narrow'}: "
            f"{words}",
            {"ratio": ratio, "cause": best, "size": [width, height]},
        )


def moving_box(group: Group, _: Body) -> Iterator[tuple[int, Finding]]:
    """Clips in which the box around the joints stays in place although they move."""
    for number, rows in enumerate(group.rows):
        whole = np.flatnonzero(group.seen[rows].mean(1) > 0.8)
        if len(whole) < ENOUGH:
            continue
        points, seen = group.points[rows][whole], group.seen[rows][whole]
        shown = seen[..., None]
        low = np.where(shown, points, np.inf).min(1)
        high = np.where(shown, points, -np.inf).max(1)
        size = float(np.median(norms(high - low)))
        there = seen.any(0)
        joints = np.nanvar(np.where(shown, points, np.nan)[:, there], axis=0).sum(-1) ** 0.5
        moves = float(np.median(joints))
        if not moves > MOVES * size:
            continue
        for name, corner in (("corner", low), ("corner", high), ("middle", (low + high) / 2)):
            still = float(corner.var(0).sum() ** 0.5)
            if still < STILL * moves:
                yield group.found(
                    number,
                    "box",
                    "warning",
                    f"the {name} of the box around the joints stays in place while they move "
                    f"({still:.1f} px beside {moves:.1f}): coordinates relative to a box that "
                    "follows the person",
                    {"still": still, "moves": moves},
                )
                break
